"""An observer hears of every claim, every attempt that is really made, every commit and every lost lease."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from engine import (
    Connection,
    Observer,
    StepFailed,
    StepInfo,
    WorkflowInfo,
    gather,
    recv,
    step,
    transaction,
    workflow,
    workflow_info,
)
from tests.engine.workshop import Trace, Workshop

bound: ContextVar[str] = ContextVar("bound", default="nothing")


class Witness(Observer):
    """Writes down what it is told, and binds the run's id in its context."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int, str]] = []
        self.attempts: list[tuple[str, str, int, str]] = []
        self.records = 0
        self.losses = 0

    def run_started(self, run: WorkflowInfo) -> None:
        bound.set(run.id)
        self.runs.append((run.id, run.attempt, "started"))

    def run_ended(self, run: WorkflowInfo, how: str) -> None:
        assert bound.get() == run.id
        self.runs.append((run.id, run.attempt, how))

    @contextlib.contextmanager
    def attempt(self, name: str, step: StepInfo) -> Iterator[None]:
        how = "raised nothing"
        try:
            yield
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.attempts.append((name, step.path, step.attempt, how))

    def committed(self, records: int) -> None:
        self.records += records

    def lease_lost(self) -> None:
        self.losses += 1


@pytest.fixture
def witness() -> Witness:
    return Witness()


@step(name="look")
async def look() -> str:
    return bound.get()


@transaction(name="ask")
async def ask(conn: Connection) -> str:
    return bound.get()


async def test_runs_and_attempts_are_told_and_what_is_bound_reaches_all_of_a_runs_code(shop: Workshop, witness: Witness) -> None:
    @workflow(name="w")
    async def once() -> list[str]:
        return [await look(), *await gather(look(), ask()), bound.get()]

    await shop.worker(once, observer=witness)
    await shop.engine.enqueue(once, id="w")
    await shop.engine.enqueue(once, id="x")
    assert await shop.result("w") == ["w"] * 4
    assert await shop.result("x") == ["x"] * 4
    await shop.stop_all()
    assert sorted(witness.runs) == [(id, 1, how) for id in "wx" for how in ("SUCCESS", "started")]
    assert sorted(witness.attempts) == sorted(
        [("look", "1", 1, "raised nothing"), ("look", "2.1.1", 1, "raised nothing"), ("ask", "2.2.1", 1, "raised nothing")] * 2
    )
    assert witness.records >= 6


async def test_each_attempt_is_told_with_its_error_and_a_replayed_step_is_none(
    shop: Workshop, witness: Witness, trace: Trace
) -> None:
    @step(name="shaky", max_attempts=2, backoff_s=0, timeout_s=10)
    async def shaky() -> None:
        if trace("shaky") == 1:
            raise KeyError("no")

    @step(name="broken")
    async def broken() -> None:
        raise LookupError("no")

    @workflow(name="w")
    async def once() -> Any:
        await shaky()
        with contextlib.suppress(StepFailed):
            await broken()
        return await recv("go")

    await shop.worker(once, observer=witness)
    await shop.engine.enqueue(once, id="w")
    await shop.parked("w")
    await shop.engine.send("w", "gone", "go")
    assert await shop.result("w") == "gone"
    await shop.stop_all()
    assert witness.attempts == [
        ("shaky", "1", 1, "KeyError"),
        ("shaky", "1", 2, "raised nothing"),
        ("broken", "2", 1, "LookupError"),
    ]
    assert witness.runs == [("w", 1, "started"), ("w", 1, "parked"), ("w", 2, "started"), ("w", 2, "SUCCESS")]


async def test_a_lost_lease_and_the_runs_lost_with_it_are_told(shop: Workshop, witness: Witness, trace: Trace) -> None:
    @step(name="long")
    async def long() -> int:
        trace("long")
        await shop.until(lambda: shop.value("select false"), "nothing") if len(trace.calls) == 1 else None
        return len(trace.calls)

    @workflow(name="w")
    async def once() -> int:
        return await long()

    worker = await shop.worker(once, observer=witness, lease_s=0.4)
    await shop.engine.enqueue(once, id="w")
    await shop.until(lambda: shop.value("select true") if trace.calls else shop.value("select false"), "it runs")
    await shop.rescue(worker.id)
    assert await shop.result("w") == 2
    await shop.stop_all()
    assert witness.losses == 1
    assert ("w", 1, "lost") in witness.runs
    assert witness.runs[-1] == ("w", 2, "SUCCESS")
    assert witness.attempts[0] == ("long", "1", 1, "CancelledError")


async def test_children_have_their_parents_attributes_and_know_it(shop: Workshop) -> None:
    @workflow(name="grandchild")
    async def grandchild() -> tuple[str | None, Any]:
        return workflow_info().parent_id, workflow_info().attributes

    @workflow(name="child")
    async def child() -> list[Any]:
        return [workflow_info().parent_id, workflow_info().attributes, await grandchild()]

    @workflow(name="w")
    async def once() -> list[Any]:
        return [workflow_info().parent_id, workflow_info().attributes, await child()]

    await shop.worker(once, child, grandchild)
    await shop.engine.enqueue(once, id="w", attributes={"n": 1})
    await shop.engine.enqueue(once, id="bare")
    assert await shop.result("w") == [None, {"n": 1}, ["w", {"n": 1}, ["w-1", {"n": 1}]]]
    assert await shop.result("bare") == [None, None, ["bare", None, ["bare-1", None]]]
