"""One claimed run in this worker's memory: its recorded history, its branches, and its way out.

A workflow's code is one root branch; `gather` makes more. Each branch numbers its own calls, so a call's path ('3.1.2': second call
of the first branch of the third call) depends on the code alone, never on which branch was quicker. A call whose path is in the
history returns what was recorded; any other is made and recorded. That is all of replay.

A branch that waits for a message, a timer or a child counts itself out. When none is left that could go on, the run is parked: the
journal gives it back to the database, unless what it waits for has happened meanwhile. Once parked, `Suspended` is thrown into every
waiting branch, the tasks end, and nothing of the run stays here.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any

from psycopg_pool import AsyncConnectionPool

from engine import codec, entries
from engine.entries import Effect, Owner, RiderRow
from engine.errors import MisplacedCall, ReplayMismatch, RunLost, Suspended
from engine.journal import Journal
from engine.observer import UNWATCHED, Observer
from engine.records import Rider, StepInfo, WorkflowInfo

#: How long a waiter for somebody else's event or end may miss it, if the one who caused it crashes right after its commit.
RECHECK_MS = 60_000


class Recorded:
    """One journal row, as replay needs it."""

    __slots__ = ("child_id", "error", "function_id", "name", "output", "serialization")

    def __init__(
        self,
        name: str,
        output: str | None,
        error: str | None,
        child_id: str | None,
        serialization: str | None,
        function_id: int,
    ) -> None:
        self.name = name
        self.output = output
        self.error = error
        self.child_id = child_id
        self.serialization = serialization
        self.function_id = function_id


class Claimed:
    """What the claim returned of a workflow."""

    __slots__ = (
        "attempts",
        "attributes",
        "claims",
        "class_name",
        "deadline_ms",
        "forked_from",
        "held",
        "id",
        "inputs",
        "name",
        "now_ms",
        "parent_id",
        "partition",
        "priority",
        "queue",
        "serialization",
        "token",
        "version",
    )

    def __init__(self, row: Sequence[Any], token: str) -> None:
        (
            self.id,
            self.name,
            self.class_name,
            self.inputs,
            self.serialization,
            self.attempts,
            self.claims,
            self.forked_from,
            self.parent_id,
            self.queue,
            self.partition,
            self.priority,
            self.version,
            self.deadline_ms,
            self.attributes,
            self.held,
            self.now_ms,
        ) = row
        self.token: str = token

    @property
    def has_history(self) -> bool:
        return self.claims > 1 or self.forked_from is not None

    @property
    def info(self) -> WorkflowInfo:
        return WorkflowInfo(
            self.id,
            self.name,
            self.queue,
            self.partition,
            self.priority,
            self.claims,
            self.deadline_ms,
            self.parent_id,
            self.attributes,
        )


class Services:
    """What runs of one worker share."""

    __slots__ = ("journal", "leased", "now_ms", "observer", "pool")

    def __init__(
        self,
        journal: Journal,
        pool: AsyncConnectionPool[Any],
        now_ms: Callable[[], int],
        leased: Callable[[], bool],
        observer: Observer | None = None,
    ) -> None:
        self.journal = journal
        self.observer = observer
        self.pool = pool
        self.leased = leased  # False: the lease may have run out, others may have the runs
        self.now_ms = now_ms  # an estimate of the database's clock, for columns that only people read


class Blocked:
    """A branch that cannot go on before something happens."""

    __slots__ = ("ready", "shared", "token", "wake_at_ms")

    def __init__(self, token: str | None, shared: bool, wake_at_ms: int | None) -> None:
        self.token = token
        self.shared = shared
        self.wake_at_ms = wake_at_ms
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Branch:
    """One line of calls of a workflow, numbered 1, 2, 3 … under its prefix."""

    __slots__ = ("calls", "prefix", "riders", "run", "task")

    def __init__(self, run: "Run", prefix: str, task: "asyncio.Task[Any] | None") -> None:
        self.run = run
        self.prefix = prefix
        self.task = task
        self.calls = 0
        self.riders: list[RiderRow] | None = None  # rows of the workflow's code, for the next record

    def next_path(self) -> str:
        self.calls += 1
        return f"{self.prefix}{self.calls}"

    def has_been_further(self) -> bool:
        """Whether the journal holds calls of this branch at its next place or beyond, branches of such calls included."""
        start = len(self.prefix)
        return any(
            path.startswith(self.prefix) and int(path[start:].split(".", 1)[0]) > self.calls
            for path in self.run.history
            if path[start : start + 1].isdigit()
        )

    def replayed(self, path: str, name: str) -> Recorded | None:
        """What is recorded at this path, after checking that it is this call."""
        found = self.run.history.pop(path, None)
        if found is None:
            return None
        if found.name != name:
            self.run.mismatch = ReplayMismatch(
                f"the journal of {self.run.id} holds {found.name!r} at call {path}, but the code now calls {name!r} there; "
                "guard the change with patched(), or run this workflow with the code it was started with"
            )
            raise self.run.mismatch
        self.riders = None  # they were committed with that record
        return found

    def take_riders(self, more: list[RiderRow] | None = None) -> list[RiderRow] | None:
        if self.riders is None:
            return more
        taken, self.riders = self.riders, None
        return taken + more if more else taken

    def record(
        self,
        path: str,
        name: str,
        output: str | None,
        error: str | None = None,
        *,
        started_ms: int | None = None,
        child_id: str | None = None,
        effect: Effect | None = None,
        riders: list[RiderRow] | None = None,
    ) -> Awaitable[None]:
        """Journal a finished call; to be awaited, until COMMIT. Raises RunLost, or what made the database refuse it."""
        run = self.run
        if run.gone is not None:
            raise run.gone
        if started_ms is None:
            started_ms = run.services.now_ms()
        if self.riders is not None:
            riders = self.take_riders(riders)
        return run.journal.add(entries.Step(run, path, name, output, error, started_ms, child_id, effect, riders))

    async def timer(self, path: str, name: str, delay_ms: int) -> int:
        """Journal the moment `delay_ms` from now by the database's clock; returns it in epoch milliseconds."""
        if self.run.gone is not None:
            raise self.run.gone
        return await self.run.journal.add(entries.Timer(self.run, path, name, delay_ms, self.take_riders()))

    async def say(self, chunk: entries.Chunk) -> None:
        """Append to a stream from the body of a step, without a record."""
        if self.run.gone is not None:
            raise self.run.gone
        await self.run.journal.add(entries.Said(self.run, chunk))

    async def receive(self, path: str, topic: str) -> tuple[str, str | None] | None:
        """Take the oldest message of the topic, journaled; None when there is none."""
        if self.run.gone is not None:
            raise self.run.gone
        return await self.run.journal.add(entries.Receive(self.run, path, topic, self.take_riders()))

    async def block(self, token: str | None, wake_at_ms: int | None, *, shared: bool = False) -> None:
        """Count this branch out until its token may have happened or its time has come; then look again."""
        run = self.run
        if run.gone is not None:
            raise run.gone
        waiting = Blocked(token, shared, wake_at_ms)
        run.blocked.append(waiting)
        run.count_out()
        await waiting.ready


class Run(Owner):
    """A run this worker owns, from claim to its end, its parking, or its loss."""

    __slots__ = (
        "active",
        "blocked",
        "claimed",
        "gone",
        "history",
        "journal",
        "mismatch",
        "services",
        "tasks",
    )

    def __init__(self, claimed: Claimed, services: Services) -> None:
        place = (claimed.queue or "", claimed.partition or "") if claimed.held else None
        super().__init__(claimed.id, claimed.token, claimed.now_ms, claimed.parent_id, place=place)
        self.claimed = claimed
        self.services = services
        self.journal = services.journal
        self.history: dict[str, Recorded] = {}
        self.active = 1
        self.blocked: list[Blocked] = []
        self.tasks: set[asyncio.Task[Any]] = set()  # asyncio keeps weak references only
        self.gone: BaseException | None = None
        self.mismatch: ReplayMismatch | None = None  # once found, no call is answered any more, whatever the code catches

    def load(self, rows: Sequence[tuple[str | None, Recorded]]) -> None:
        """Take in the recorded history."""
        for path, recorded in rows:
            self.recorded = max(self.recorded, recorded.function_id)
            self.history[path if path is not None else f"#{recorded.function_id}"] = recorded

    def count_out(self) -> None:
        """One branch less that can go on; the last one parks the run."""
        self.active -= 1
        if self.active == 0 and self.blocked and self.gone is None:
            tokens = [b.token for b in self.blocked if b.token is not None]
            shared = [b.token for b in self.blocked if b.token is not None and b.shared]
            times = [b.wake_at_ms for b in self.blocked if b.wake_at_ms is not None]
            entry = entries.Park(self, tokens, shared, min(times, default=None))
            self.journal.add(entry).add_done_callback(self._parked)

    def _parked(self, verdict: asyncio.Future[Any]) -> None:
        """Throw Suspended into every branch if the run is parked, else let them look again."""
        waiting, self.blocked = self.blocked, []
        error = verdict.exception() if not verdict.cancelled() else asyncio.CancelledError()
        if error is None and verdict.result():
            error = Suspended(f"run {self.id} waits")
        if error is not None:
            self.gone = error if isinstance(error, (Suspended, RunLost)) else RunLost(str(error))
        self.active += len(waiting)
        for blocked in waiting:
            if blocked.ready.done():
                continue
            if self.gone is None:
                blocked.ready.set_result(None)
            else:
                blocked.ready.set_exception(self.gone)

    def abandon(self, reason: str) -> None:
        """The run is not ours any more: stop its code, write nothing."""
        if self.gone is None:
            self.gone = RunLost(reason)
        for task in self.tasks:
            task.cancel()

    def let_go(self) -> None:
        """Cut the circles through tasks and tracebacks, so that the run's memory is free at once and not at some collection."""
        self.tasks.clear()
        self.blocked.clear()
        if self.gone is not None:
            self.gone.__traceback__ = None


class StepScope:
    """The calling code is the body of a step."""

    __slots__ = ("attempt", "branch", "kept", "path", "riders")

    def __init__(self, branch: Branch, path: str, attempt: int) -> None:
        self.branch = branch
        self.path = path
        self.attempt = attempt
        self.riders: list[RiderRow] | None = None  # rows of this attempt
        self.kept: list[RiderRow] | None = None  # rows of any attempt

    def ridden(self) -> list[RiderRow] | None:
        if self.kept is None:
            return self.riders
        return self.kept + (self.riders or [])

    @property
    def info(self) -> StepInfo:
        workflow_id = self.branch.run.id
        return StepInfo(workflow_id, self.path, f"{workflow_id}:{self.path}", self.attempt)

    def watched(self, name: str) -> AbstractContextManager[object]:
        """To be entered around an attempt of the step."""
        observer = self.branch.run.services.observer
        return UNWATCHED if observer is None else observer.attempt(name, self.info)


_scope: contextvars.ContextVar[Branch | StepScope | None] = contextvars.ContextVar("holdfast_scope", default=None)


def current_scope() -> Branch | StepScope | None:
    return _scope.get()


def enter(scope: Branch | StepScope) -> contextvars.Token[Branch | StepScope | None]:
    return _scope.set(scope)


def leave(token: contextvars.Token[Branch | StepScope | None]) -> None:
    _scope.reset(token)


def calling_branch(call: str) -> Branch:
    """The branch that makes this call. Raises MisplacedCall where it could not be journaled."""
    scope = _scope.get()
    if scope is None:
        raise MisplacedCall(f"{call} works only inside a workflow; outside, use the methods of Engine")
    if type(scope) is StepScope:
        raise MisplacedCall(f"{call} is not allowed inside a step; call it from the workflow")
    assert isinstance(scope, Branch)
    check_task(scope, call)
    return scope


def check_task(branch: Branch, call: str) -> None:
    if asyncio.current_task(branch.run.loop) is not branch.task:
        raise MisplacedCall(
            f"{call} was called from a task that gather did not make, so its place in the journal would be left to chance; "
            "use engine.gather for calls at the same time"
        )
    if branch.run.gone is not None:
        raise branch.run.gone
    if branch.run.mismatch is not None:
        raise branch.run.mismatch


def is_ours(error: BaseException, run: Run) -> bool:
    """Whether this error is the run's way out of this worker, not a failure of its code.

    A cancellation that nobody of us asked for (the code awaited a task that was cancelled) is a failure like any other.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task(run.loop)
        return run.gone is not None or (task is not None and task.cancelling() > 0)
    return isinstance(error, (Suspended, RunLost, KeyboardInterrupt))


def ride(rider: Rider, row: dict[str, Any], *, keep: bool = False) -> None:
    """Write a row of yours in the commit of the next journal record.

    In a step: with that step's record. In workflow code: with the next record of that branch, or the workflow's end; on replay, rows
    whose record exists are not written again. Rows just before a wait without timeout are written once more each time the workflow
    wakes, so their statement should not mind. keep: in a step with retries, write the row even if this attempt fails.
    Raises MisplacedCall outside of a workflow, TypeError for a row that JSON cannot hold.
    """
    text = codec.encode(row)
    scope = _scope.get()
    if scope is None:
        raise MisplacedCall("ride works only inside a workflow or its steps")
    if isinstance(scope, StepScope):
        if keep:
            scope.kept = [*(scope.kept or []), (rider, text)]
        else:
            scope.riders = [*(scope.riders or []), (rider, text)]
    else:
        scope.riders = [*(scope.riders or []), (rider, text)]


async def run_branches(calls: Sequence[Awaitable[Any]], branch: Branch) -> list[Any]:
    """Run the calls as branches of this one; their outcomes, results or exceptions, in order."""
    run = branch.run
    number = branch.next_path()
    if not calls:
        return []
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(calls)
    run.active += left - 1  # this branch only waits for them

    branches = [type(branch)(run, f"{number}.{index}.", None) for index in range(1, left + 1)]

    async def one(call: Awaitable[Any], own: Branch) -> Any:
        nonlocal left
        own.task = asyncio.current_task()
        enter(own)
        try:
            return await call
        finally:
            own.task = None
            left -= 1
            if left:
                run.count_out()
            elif not finished.done():
                finished.set_result(None)  # the last one hands its place on to the branch that gathered

    tasks = [spawn(run, one(call, own)) for call, own in zip(calls, branches, strict=True)]
    try:
        await finished
    finally:
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    if run.gone is not None:
        raise run.gone
    for own in branches:  # what they rode after their last call goes with the next record here
        branch.riders = branch.take_riders(own.riders)
    return outcomes


def spawn(run: Run, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(work)
    run.tasks.add(task)
    task.add_done_callback(run.tasks.discard)
    return task
