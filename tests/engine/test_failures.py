"""A step's attempts, pauses and limits are what its decorator says, and its failure is recorded in words that everybody can read."""

import asyncio
from typing import Any

import pytest

from engine import StepFailed, TerminalError, WorkflowFailed, step, step_info, workflow
from tests.engine.workshop import Trace, Workshop


async def test_a_step_is_tried_as_often_as_it_says(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=3, backoff_s=0.001)
    async def flaky() -> int:
        if trace(step_info().attempt) < 3:
            raise OSError("line dropped")
        return 5

    @workflow(name="w")
    async def once() -> int:
        return await flaky()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 5
    assert trace.calls == [1, 2, 3]
    assert len(await shop.journal("w")) == 1  # attempts are not history


async def test_pauses_between_attempts_grow_up_to_their_bound(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    @step(max_attempts=5, backoff_s=0.5, backoff_factor=3, max_backoff_s=4)
    async def broken() -> int:
        raise OSError("down")

    @workflow(name="w")
    async def once() -> int:
        monkeypatch.setattr("engine.functions.asyncio.sleep", noted)
        try:
            return await broken()
        finally:
            monkeypatch.undo()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.ended("w")
    assert [p for p in pauses if p >= 0.5] == [0.5, 1.5, 4, 4]


async def test_attempts_may_be_many(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=1200, backoff_s=0.0)
    async def stubborn() -> int:
        if trace("try") < 1100:
            raise OSError("not yet")
        return 1

    @workflow(name="w")
    async def once() -> int:
        return await stubborn()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 1


async def test_a_terminal_error_is_not_tried_again_and_keeps_its_name_and_data(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=5, backoff_s=0.001)
    async def refuse() -> int:
        trace("refuse")
        raise TerminalError("card is stolen", name="CARD_STOLEN", data={"card": 4})

    @workflow(name="w")
    async def pay() -> Any:
        try:
            return await refuse()
        except StepFailed as failed:
            return [failed.name, failed.message, failed.data]

    await shop.worker(pay)
    await shop.engine.enqueue(pay, id="w")
    assert await shop.result("w") == ["CARD_STOLEN", "card is stolen", {"card": 4}]
    assert trace.calls == ["refuse"]


async def test_only_errors_that_are_worth_it_are_tried_again(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=4, backoff_s=0.001, retry_if=lambda error: isinstance(error, OSError))
    async def picky() -> int:
        if trace("try") == 1:
            raise OSError("worth another")
        raise KeyError("not worth another")

    @workflow(name="w")
    async def once() -> int:
        return await picky()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    with pytest.raises(WorkflowFailed, match="not worth another"):
        await shop.result("w")
    assert len(trace.calls) == 2


async def test_each_attempt_has_the_whole_time_limit(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=2, backoff_s=0.001, timeout_s=0.05)
    async def slow() -> int:
        trace("try")
        await asyncio.Event().wait()
        return 1

    @workflow(name="w")
    async def once() -> Any:
        try:
            return await slow()
        except StepFailed as failed:
            return [failed.name, failed.message]

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == ["StepTimeout", f"an attempt of {slow.name} took longer than 0.05 s"]
    assert len(trace.calls) == 2


async def test_a_failure_reads_the_same_when_it_happens_and_when_it_is_replayed(shop: Workshop, trace: Trace) -> None:
    seen: list[tuple[str, str, Any, str]] = []

    @step
    async def broken() -> int:
        trace("broken")
        raise ValueError("two plus two")

    @step
    async def after() -> None:
        pass

    @workflow(name="w")
    async def once() -> None:
        try:
            await broken()
        except StepFailed as failed:
            seen.append((failed.name, failed.message, failed.data, str(failed)))
        await after()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 2)
    await handle.result(10)
    assert seen == [("ValueError", "two plus two", None, "ValueError: two plus two")] * 2
    assert trace.calls == ["broken"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (AttributeError("no colour", name="colour", obj=None), "AttributeError"),
        (NameError("unknown", name="x"), "NameError"),
        (ModuleNotFoundError("missing", name="torch"), "ModuleNotFoundError"),
        (KeyError("k"), "KeyError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_failure_is_named_by_its_type(shop: Workshop, error: Exception, name: str) -> None:
    @step
    async def broken() -> int:
        raise error

    @workflow(name="w")
    async def once() -> int:
        return await broken()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.ended("w")
    (record,) = await shop.engine.steps("w")
    assert record.error is not None
    assert record.error["name"] == name


@pytest.mark.parametrize(
    "error",
    [ValueError("not text: \udcff"), TerminalError("no JSON", data={"what": object()}), TerminalError("huge", data=1 << 70)],
    ids=["surrogate", "object", "huge number"],
)
async def test_a_failure_that_json_cannot_hold_is_still_recorded(shop: Workshop, trace: Trace, error: Exception) -> None:
    @step
    async def broken() -> int:
        trace("broken")
        raise error

    @workflow(name="w")
    async def once() -> str:
        try:
            await broken()
        except StepFailed as failed:
            return failed.name
        return "no failure"

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    assert await handle.result(10) == type(error).__name__
    assert len(await shop.journal("w")) == 1


async def test_a_cancellation_inside_a_step_fails_the_step_and_not_the_run(shop: Workshop) -> None:
    @step
    async def awaits_a_cancelled_task() -> int:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task
        return 1

    @workflow(name="w")
    async def once() -> str:
        try:
            await awaits_a_cancelled_task()
        except StepFailed as failed:
            return failed.name
        return "no failure"

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == "CancelledError"
