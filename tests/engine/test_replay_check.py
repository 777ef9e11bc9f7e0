"""Replay is checked: code that no longer makes the recorded calls is stopped, told what differs, and touches nobody else.

Each test runs the old code until it parks or ends, and then a worker that knows the workflow by the same name with new code.
"""

from typing import Any

import pytest

from engine import (
    gather,
    get_event,
    now,
    recv,
    sleep,
    step,
    uuid4,
    workflow,
)
from tests.engine.old_code import a, a_then_waits, b, c, failure, parked_under
from tests.engine.workshop import NOON_MS, Trace, Workshop


@workflow(name="echo")
async def echo(value: int) -> int:
    return value


async def test_a_mismatch_names_both_calls_and_touches_no_other_run(shop: Workshop, trace: Trace) -> None:
    @step(name="renamed")
    async def renamed() -> str:
        trace("renamed")
        return "x"

    @workflow(name="w")
    async def new() -> Any:
        return [await renamed(), await recv("go")]

    await parked_under(shop, a_then_waits, "w")
    await shop.worker(new, echo)
    await shop.engine.enqueue(echo, 1, id="other")
    await shop.engine.send("w", 1, "go")
    failed = await failure(shop, "w")
    assert failed.name == "ReplayMismatch"
    assert failed.message.startswith("the journal of w holds 'a' at call 1, but the code now calls 'renamed' there; ")
    assert (trace.calls, await shop.result("other"), await shop.names("w")) == ([], 1, ["a"])


@pytest.mark.parametrize("swallow", ["except", "return_exceptions"])
async def test_a_mismatch_cannot_be_swallowed(shop: Workshop, trace: Trace, swallow: str) -> None:
    @step(name="fallback")
    async def fallback() -> str:
        trace("fallback")
        return "x"

    @workflow(name="w")
    async def old() -> Any:
        return [await gather(a(), b()), await recv("go")]

    @workflow(name="w")
    async def new() -> Any:
        if swallow == "return_exceptions":
            await gather(c(), b(), return_exceptions=True)
        else:
            try:
                await gather(c(), b())
            except Exception:
                await fallback()
        return await recv("go")

    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert (await failure(shop, "w")).name == "ReplayMismatch"
    assert (trace.calls, sorted(await shop.names("w"))) == ([], ["a", "b"])


async def test_a_workflow_that_does_something_else_in_place_of_a_call_is_stopped(shop: Workshop) -> None:
    @workflow(name="w")
    async def new() -> Any:
        await sleep(0)
        return await recv("go")

    await parked_under(shop, a_then_waits, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert "holds 'a' at call 1, but the code now calls 'DBOS.sleep'" in (await failure(shop, "w")).message


async def test_code_that_makes_fewer_calls_is_refused(shop: Workshop) -> None:
    @workflow(name="w")
    async def old() -> Any:
        return [await a(), await b(), await recv("go")]

    @workflow(name="w")
    async def new() -> Any:
        return await a()

    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    failed = await failure(shop, "w")
    assert failed.name == "ReplayMismatch"
    assert failed.message.startswith("the journal of w holds 'b' at call 2, which the code no longer makes")


async def test_more_calls_at_the_end_are_fine(shop: Workshop) -> None:
    @workflow(name="w")
    async def new() -> Any:
        return [await a(), await recv("go"), await b()]

    await parked_under(shop, a_then_waits, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == ["a", 1, "b"]


async def test_branches_in_another_order_are_refused(shop: Workshop) -> None:
    @workflow(name="w")
    async def old() -> Any:
        return [await gather(a(), b()), await recv("go")]

    @workflow(name="w")
    async def new() -> Any:
        return [await gather(b(), a()), await recv("go")]

    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert (await failure(shop, "w")).name == "ReplayMismatch"


async def test_a_stopped_run_goes_on_when_its_code_is_back(shop: Workshop) -> None:
    @workflow(name="w")
    async def wrong() -> Any:
        return [await b(), await recv("go")]

    await parked_under(shop, a_then_waits, "w")
    worker = await shop.worker(wrong)
    await shop.engine.send("w", 1, "go")
    await failure(shop, "w")
    await shop.stop(worker)
    await shop.engine.rewind("w", 2)
    await shop.worker(a_then_waits)
    assert await shop.result("w") == ["a", 1]


# Time and chance ---------------------------------------------------------------------------------------------------------


async def test_time_and_chance_are_the_same_on_every_replay(shop: Workshop) -> None:
    seen: list[Any] = []

    @workflow(name="w")
    async def once() -> Any:
        seen.append((await now(), await uuid4(), await uuid4()))
        await recv("go")
        return (await now()).isoformat()

    await shop.set_clock()
    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.parked("w")
    await shop.pass_time(60)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == "2026-01-01T12:01:00+00:00"
    assert len(seen) == 2
    assert seen[0] == seen[1]
    moment, first, second = seen[0]
    assert (moment.timestamp() * 1000, first != second) == (NOON_MS, True)


async def test_what_was_not_there_in_time_is_not_there_on_replay(shop: Workshop) -> None:
    seen: list[Any] = []

    @workflow(name="w")
    async def once() -> None:
        seen.append([await recv("go", timeout_s=10), await get_event("nobody", "e", timeout_s=10)])
        await recv("end")

    await shop.set_clock()
    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    for _ in range(2):
        await shop.parked("w")
        await shop.pass_time(10)
        await shop.until(
            lambda: shop.value("select wake_at_ms is null or wake_at_ms > engine.now_ms() from dbos.workflow_status"), "it woke"
        )
    await shop.until(lambda: shop.value("select waits = '{t:end}' from dbos.workflow_status"), "it waits for the end")
    await shop.engine.send("w", "late", "go")
    await shop.engine.send("w", 1, "end")
    await shop.result("w")
    assert len(seen) == 2
    assert seen == [[None, None]] * 2


async def test_an_unhandled_failure_ends_the_workflow_with_the_steps_own_name(shop: Workshop) -> None:
    @step
    async def broken() -> None:
        raise ValueError("two plus two")

    @workflow(name="w")
    async def once() -> None:
        await broken()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    failed = await failure(shop, "w")
    assert failed.name == "ValueError"
    assert "two plus two" in failed.message
