"""What workflow code can do besides calling steps: wait, talk, start children, run branches, and ask for time and chance.

Every call takes the next path of its branch, returns what is recorded there, or acts and records. The names recorded are DBOS's.
"""

import asyncio
import typing
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, TypeVarTuple, overload

from engine import codec
from engine.children import ChildHandle, start_child
from engine.entries import Chunk, Event, Mail, event_token
from engine.errors import MisplacedCall, NoSuchWorkflow
from engine.functions import Workflow
from engine.lookups import look_up
from engine.names import checked_name
from engine.read import EVENT
from engine.records import NO_TOPIC, StepInfo, WorkflowInfo
from engine.run import RECHECK_MS, Branch, StepScope, calling_branch, current_scope, run_branches

R = TypeVar("R")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
Ts = TypeVarTuple("Ts")

STREAM_CLOSED = "__DBOS_STREAM_CLOSED__"


async def sleep(seconds: float) -> None:
    """Wait at least this long by the database's clock. The run holds nothing meanwhile and survives restarts."""
    branch = calling_branch("sleep")
    wake_at_ms = await _moment(branch, "DBOS.sleep", seconds)
    while branch.run.seen_ms < wake_at_ms:
        await branch.block(None, wake_at_ms)


async def _moment(branch: Branch, name: str, delay_s: float) -> int:
    """A recorded moment, `delay_s` after its first asking, in epoch milliseconds."""
    return await _moment_at(branch, branch.next_path(), name, delay_s)


async def _moment_at(branch: Branch, path: str, name: str, delay_s: float) -> int:
    found = branch.replayed(path, name)
    if found is not None:
        return round(float(codec.decode(found.output, found.serialization)) * 1000)
    return await branch.timer(path, name, round(delay_s * 1000))


async def now() -> datetime:
    """The database's time, recorded: the same on every replay."""
    return datetime.fromtimestamp(await _moment(calling_branch("now"), "DBOS.now", 0) / 1000, UTC)


async def uuid4() -> str:
    """A random UUID, recorded: the same on every replay."""
    branch = calling_branch("uuid4")
    path = branch.next_path()
    found = branch.replayed(path, "DBOS.uuid")
    if found is not None:
        return str(codec.decode(found.output, found.serialization))
    value = str(uuid.uuid4())
    await branch.record(path, "DBOS.uuid", codec.encode(value))
    return value


async def recv(topic: str | None = None, *, timeout_s: float | None = None) -> Any:
    """Take the oldest message of a topic from this workflow's mailbox, waiting for one if need be.

    Returns its JSON value, or None after timeout_s (counted from the first wait, by the database's clock). Each message is taken once.
    The run holds nothing while it waits.
    """
    branch = calling_branch("recv")
    topic = NO_TOPIC if topic is None else checked_name(topic, "topic")
    path = branch.next_path()
    deadline = _Deadline(branch, timeout_s)
    found = branch.replayed(path, "DBOS.recv")
    if found is not None:
        deadline.forget()
        return codec.decode(found.output, found.serialization)
    while True:
        message = await branch.receive(path, topic)
        if message is not None:
            deadline.forget()
            return codec.decode(*message)
        if await deadline.over():
            await branch.record(path, "DBOS.recv", "null")
            return None
        await branch.block(f"t:{topic}", deadline.at_ms)


class _Deadline:
    """When a waiting call gives up: a recorded moment of its own, taken only when the call has to wait. No timeout, no record."""

    __slots__ = ("_branch", "_path", "_timeout_s", "at_ms")

    def __init__(self, branch: Branch, timeout_s: float | None) -> None:
        self._branch = branch
        self._timeout_s = timeout_s
        self._path = None if timeout_s is None else branch.next_path()
        self.at_ms: int | None = None

    async def over(self) -> bool:
        """Whether the time is up; the first asking starts it."""
        if self._path is None or self._timeout_s is None:
            return False
        if self.at_ms is None:
            self.at_ms = await _moment_at(self._branch, self._path, "DBOS.sleep", self._timeout_s)
        return self._branch.run.seen_ms >= self.at_ms

    def forget(self) -> None:
        """The call is answered; on replay its moment is not looked at."""
        if self._path is not None:
            self._branch.run.history.pop(self._path, None)


async def send(workflow_id: str, message: Any, topic: str | None = None, *, key: str | None = None) -> None:
    """Put a message into another workflow's mailbox, exactly once. Raises NoSuchWorkflow when there is no such workflow.

    key: makes sends with the same key and destination one message, whoever sends them.
    """
    branch = calling_branch("send")
    path = branch.next_path()
    found = branch.replayed(path, "DBOS.send")
    if found is not None:
        if found.error is not None:
            raise NoSuchWorkflow(workflow_id)
        return
    topic = NO_TOPIC if topic is None else checked_name(topic, "topic")
    identity = f"{key or f'{branch.run.id}:{path}'}::{workflow_id}"
    mail = Mail(checked_name(workflow_id, "workflow id"), topic, codec.encode(message), checked_name(identity, "key"))
    try:
        await branch.record(path, "DBOS.send", "null", effect=mail)
    except NoSuchWorkflow as error:
        await branch.record(path, "DBOS.send", None, codec.encode_error(error))
        raise


async def set_event(key: str, value: Any) -> None:
    """Publish a value under a key of this workflow; readers see the latest, and its history is kept."""
    branch = calling_branch("set_event")
    path = branch.next_path()
    if branch.replayed(path, "DBOS.setEvent") is None:
        event = Event(checked_name(key, "event key"), codec.encode(value))
        await branch.record(path, "DBOS.setEvent", "null", effect=event)


async def get_event(workflow_id: str, key: str, *, timeout_s: float | None = None) -> Any:
    """The value of another workflow's event, waiting for it if need be; None after timeout_s."""
    branch = calling_branch("get_event")
    path = branch.next_path()
    deadline = _Deadline(branch, timeout_s)
    found = branch.replayed(path, "DBOS.getEvent")
    if found is not None:
        deadline.forget()
        return codec.decode(found.output, found.serialization)
    while True:
        row = await look_up(branch, EVENT, (workflow_id, key))
        if row is not None:
            deadline.forget()
            value = codec.decode(*row)
            await branch.record(path, "DBOS.getEvent", row[0])
            return value
        if await deadline.over():
            await branch.record(path, "DBOS.getEvent", "null")
            return None
        again_ms = branch.run.seen_ms + RECHECK_MS
        await branch.block(
            event_token(checked_name(workflow_id, "workflow id"), checked_name(key, "event key")),
            min(deadline.at_ms or again_ms, again_ms),
            shared=True,
        )


async def write_stream(key: str, value: Any) -> None:
    """Append a value to a stream of this workflow.

    In the workflow's code once; in a step's body at once, before the step has ended, and again each time the body runs again.
    """
    scope = current_scope()
    if isinstance(scope, StepScope):
        await scope.branch.say(Chunk(checked_name(key, "stream key"), codec.encode(value)))
    else:
        await _append(key, codec.encode(value), "DBOS.writeStream")


async def close_stream(key: str) -> None:
    """Tell readers of a stream that it is complete."""
    await _append(key, codec.encode(STREAM_CLOSED), "DBOS.closeStream")


async def _append(key: str, text: str, name: str) -> None:
    branch = calling_branch(name)
    path = branch.next_path()
    if branch.replayed(path, name) is None:
        await branch.record(path, name, "null", effect=Chunk(checked_name(key, "stream key"), text))


async def patched(marker: str) -> bool:
    """Whether this run takes the new way at this place: True for runs that reach it first under the new code, and on their replays.

    `if await patched("rounding"): new() else: old()` lets runs that already went the old way finish it.
    """
    branch = calling_branch("patched")
    name = checked_name(f"DBOS.patch-{marker}", "patch marker")
    found = branch.run.history.get(f"{branch.prefix}{branch.calls + 1}")
    if (found is None or found.name != name) and branch.has_been_further():
        return False
    path = branch.next_path()
    if branch.replayed(path, name) is None:
        await branch.record(path, name, "true")
    return True


async def deprecate_patch(marker: str) -> None:
    """Stand where patched(marker) stood, once no run on the old way is left; runs that recorded the marker still replay."""
    branch = calling_branch("deprecate_patch")
    found = branch.run.history.get(f"{branch.prefix}{branch.calls + 1}")
    if found is not None and found.name == f"DBOS.patch-{marker}":
        branch.replayed(branch.next_path(), found.name)


async def start(
    workflow: Callable[[typing.Unpack[Ts]], Awaitable[R]],
    *args: *Ts,
    id: str | None = None,
    queue: str | None = None,
    partition: str | None = None,
    priority: int | None = None,
    delay_s: float | None = None,
    timeout_s: float | None = None,
) -> ChildHandle[R]:
    """Start a child workflow through a queue, exactly once; returns at once with its handle.

    id: default '<this workflow>-<call path>'; an id that exists is attached to. queue, partition, priority: default this workflow's
    own. The child's deadline is never later than this workflow's.
    """
    if not isinstance(workflow, Workflow):
        raise MisplacedCall("start takes a function decorated with @workflow")
    target = typing.cast(Workflow[..., Any], workflow)
    return await start_child(
        target, args, {}, id=id, queue=queue, partition=partition, priority=priority, delay_s=delay_s, timeout_s=timeout_s
    )


@overload
async def gather(a: Awaitable[T1], /) -> tuple[T1]: ...
@overload
async def gather(a: Awaitable[T1], b: Awaitable[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def gather(a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(*calls: Awaitable[T1]) -> tuple[T1, ...]: ...
@overload
async def gather(*calls: Awaitable[T1], return_exceptions: bool) -> tuple[T1 | BaseException, ...]: ...
async def gather(*calls: Awaitable[Any], return_exceptions: bool = False) -> tuple[Any, ...]:
    """Make calls at the same time, each as a branch of its own; their results in order.

    Waits for all of them, then raises the error of the first in order (not in time), so that replays raise the same. With
    return_exceptions errors are returned in place. Outside of a workflow it is asyncio.gather.
    """
    scope = current_scope()
    if scope is None or type(scope) is StepScope:
        return tuple(await asyncio.gather(*calls, return_exceptions=return_exceptions))
    try:
        branch = calling_branch("gather")
    except BaseException:
        for call in calls:
            if asyncio.iscoroutine(call):
                call.close()
        raise
    outcomes = await run_branches(calls, branch)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not (return_exceptions and isinstance(outcome, Exception)):
            raise outcome
    return tuple(outcomes)


def workflow_info() -> WorkflowInfo:
    """Which workflow this code runs in; also inside its steps. Raises MisplacedCall elsewhere."""
    scope = current_scope()
    if scope is None:
        raise MisplacedCall("workflow_info works only inside a workflow")
    return (scope.branch if isinstance(scope, StepScope) else scope).run.claimed.info


def step_info() -> StepInfo:
    """Which step this code runs in. Raises MisplacedCall outside of a step."""
    scope = current_scope()
    if not isinstance(scope, StepScope):
        raise MisplacedCall("step_info works only inside a step")
    return scope.info
