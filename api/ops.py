"""The operators' routes: what workflows there are, what became of each, and cancel, resume and fork.

Every action names who does it and why. Its rules are in steps.ops.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from api.answers import SleepStarted
from api.http import Door, json_response, query_with_numbers, read_signed
from api.paging import paged, place_of
from engine import Engine
from steps import audit, ops, queues, workflows
from steps.contracts.base import Wire, parse
from steps.contracts.ops import (
    AuditQuery,
    CancelWorkflowRequest,
    ForkWorkflowRequest,
    ListWorkflowsQuery,
    QueueDepthQuery,
    ResumeWorkflowRequest,
    SleepWorkflowRequest,
    WorkflowFilter,
)
from steps.contracts.queues import (
    PartitionsQuery,
    PartitionView,
    PauseRequest,
    PauseWorkerRequest,
    QueueAction,
    QueueOp,
    QueueView,
)
from steps.policy import CONTROL_QUEUE
from steps.timers import time_workflow

ACCEPTED = 202

ChangeQueue: TypeAlias = Callable[[Engine, str, str | None], Awaitable[QueueView | PartitionView]]


async def list_workflows(door: Door, request: Request) -> Response:
    """While there is more, `x-cursor` says where it goes on."""
    query = parse(ListWorkflowsQuery, query_with_numbers(request, "limit", "after", "before"))
    async with door.reading() as conn:
        found = await workflows.list_workflows(
            conn, filter_of(query), status=query.status, behind=place_of(query.cursor), limit=query.limit
        )
    last = found[-1] if len(found) == query.limit else None
    return paged(documents(found), (last.createdAt, last.workflowID) if last else None)


async def count_workflows(door: Door, request: Request) -> Response:
    query = parse(WorkflowFilter, query_with_numbers(request, "after", "before"))
    async with door.reading() as conn:
        return documents(await workflows.count_workflows(conn, filter_of(query)))


async def get_workflow(door: Door, request: Request) -> Response:
    wid = request.path_params["wid"]
    async with door.reading() as conn:
        found = await workflows.get_workflow(conn, wid)
        actions = await ops.possible_actions(conn, wid, found.status)
    return json_response(found.model_copy(update={"actions": actions}).document())


async def list_actions(door: Door, request: Request) -> Response:
    query = parse(AuditQuery, query_with_numbers(request, "limit"))
    async with door.reading() as conn:
        found, more = await audit.list_actions(conn, behind=place_of(query.cursor), limit=query.limit)
    return paged(documents(found), more)


def filter_of(query: WorkflowFilter) -> workflows.Filter:
    return workflows.Filter(query.name, query.queueName, query.id, query.after, query.before)


async def list_steps(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return documents(await workflows.list_steps(conn, request.path_params["wid"]))


async def cancel(door: Door, request: Request) -> Response:
    asked = parse(CancelWorkflowRequest, await read_signed(door, request))
    done = await ops.cancel(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def resume(door: Door, request: Request) -> Response:
    asked = parse(ResumeWorkflowRequest, await read_signed(door, request))
    done = await ops.resume(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def fork(door: Door, request: Request) -> Response:
    asked = parse(ForkWorkflowRequest, await read_signed(door, request))
    done = await ops.fork(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def queue_depth(door: Door, request: Request) -> Response:
    query = parse(QueueDepthQuery, query_with_numbers(request, "limit"))
    async with door.reading() as conn:
        return documents(await workflows.queue_depth(conn, queue=query.queueName, status=query.status, limit=query.limit))


async def list_queues(door: Door, request: Request) -> Response:
    return documents(await queues.list_queues(door.engine))


async def list_partitions(door: Door, request: Request) -> Response:
    query = parse(PartitionsQuery, query_with_numbers(request, "limit"))
    queue = request.path_params["queue"]
    return documents(await queues.list_partitions(door.engine, queue, after=query.after, limit=query.limit))


async def pause_queue(door: Door, request: Request) -> Response:
    return await change_queue(door, request, "pause", queues.pause)


async def resume_queue(door: Door, request: Request) -> Response:
    return await change_queue(door, request, "resume", queues.resume)


async def change_queue(door: Door, request: Request, op: QueueOp, act: ChangeQueue) -> Response:
    queue = request.path_params["queue"]
    asked = parse(PauseRequest, await read_signed(door, request))
    action = parse(QueueAction, asked.document() | {"queueName": queue})
    async with door.engine.transaction() as conn:
        await audit.write_down(conn, op, action)
        changed = await act(door.engine, queue, asked.partitionKey)
    return json_response(changed.document())


async def list_workers(door: Door, request: Request) -> Response:
    return documents(await queues.list_workers(door.engine))


async def pause_worker(door: Door, request: Request) -> Response:
    return await change_worker(door, request, "pause-worker", paused=True)


async def resume_worker(door: Door, request: Request) -> Response:
    return await change_worker(door, request, "resume-worker", paused=False)


async def change_worker(door: Door, request: Request, op: QueueOp, *, paused: bool) -> Response:
    worker = request.path_params["worker"]
    asked = parse(PauseWorkerRequest, await read_signed(door, request))
    action = parse(QueueAction, asked.document() | {"workerID": worker})
    async with door.engine.transaction() as conn:
        await audit.write_down(conn, op, action)
        changed = await queues.pause_worker(door.engine, worker, paused=paused)
    return json_response(changed.document())


async def sleep(door: Door, request: Request) -> Response:
    """The same id again is the same sleep."""
    asked = parse(SleepWorkflowRequest, query_with_numbers(request, "sleep"))
    version = door.config.app_version
    await door.engine.enqueue(time_workflow, asked.sleep / 1000, id=asked.wf, queue=CONTROL_QUEUE, version=version)
    return json_response(SleepStarted(accepted=True, workflowID=asked.wf).document(), ACCEPTED)


def documents(rows: Sequence[Wire]) -> Response:
    return json_response([row.document() for row in rows])
