"""The operators' routes: what workflows there are, what became of each, and cancel, resume and fork.

Every action names who does it and why. Its rules are in steps.ops.
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api.answers import SleepStarted
from api.http import Door, json_response, query_with_numbers, read_json
from steps import ops, queues, workflows
from steps.contracts.base import Wire, parse
from steps.contracts.ops import (
    CancelWorkflowRequest,
    ForkWorkflowRequest,
    ListWorkflowsQuery,
    QueueDepthQuery,
    ResumeWorkflowRequest,
    SleepWorkflowRequest,
)
from steps.policy import CONTROL_QUEUE
from steps.timers import time_workflow

ACCEPTED = 202


async def list_workflows(door: Door, request: Request) -> Response:
    query = parse(ListWorkflowsQuery, query_with_numbers(request, "limit"))
    async with door.reading() as conn:
        return documents(await workflows.list_workflows(conn, status=query.status, name=query.name, limit=query.limit))


async def get_workflow(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        found = await workflows.get_workflow(conn, request.path_params["wid"])
    return json_response(found.document())


async def list_steps(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return documents(await workflows.list_steps(conn, request.path_params["wid"]))


async def cancel(door: Door, request: Request) -> Response:
    asked = parse(CancelWorkflowRequest, await read_json(door, request))
    done = await ops.cancel(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def resume(door: Door, request: Request) -> Response:
    asked = parse(ResumeWorkflowRequest, await read_json(door, request))
    done = await ops.resume(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def fork(door: Door, request: Request) -> Response:
    asked = parse(ForkWorkflowRequest, await read_json(door, request))
    done = await ops.fork(door.engine, request.path_params["wid"], asked)
    return json_response(done.document(), ACCEPTED)


async def queue_depth(door: Door, request: Request) -> Response:
    query = parse(QueueDepthQuery, query_with_numbers(request, "limit"))
    async with door.reading() as conn:
        return documents(await workflows.queue_depth(conn, queue=query.queueName, status=query.status, limit=query.limit))


async def list_queues(door: Door, request: Request) -> Response:
    return documents(await queues.list_queues(door.engine))


async def sleep(door: Door, request: Request) -> Response:
    """The same id again is the same sleep."""
    asked = parse(SleepWorkflowRequest, query_with_numbers(request, "sleep"))
    version = door.config.app_version
    await door.engine.enqueue(time_workflow, asked.sleep / 1000, id=asked.wf, queue=CONTROL_QUEUE, version=version)
    return json_response(SleepStarted(accepted=True, workflowID=asked.wf).document(), ACCEPTED)


def documents(rows: Sequence[Wire]) -> Response:
    return json_response([row.document() for row in rows])
