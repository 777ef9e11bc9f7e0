"""Branches run at the same time and replay the same way, whichever was quicker; only gather makes branches."""

import asyncio
from typing import Any

import pytest

from engine import MisplacedCall, StepFailed, WorkflowFailed, gather, recv, sleep, step, workflow
from tests.engine.workshop import Trace, Workshop


@step
async def echo(value: Any) -> Any:
    return value


@workflow(name="child")
async def child(n: int) -> int:
    return n * 10


async def test_branches_run_at_the_same_time(shop: Workshop) -> None:
    meeting = asyncio.Barrier(3)

    @step
    async def meet(n: int) -> int:
        await meeting.wait()
        return n

    @workflow(name="w")
    async def once() -> Any:
        return await gather(meet(1), meet(2), meet(3))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [1, 2, 3]
    assert sorted((r[1], r[3]) for r in await shop.journal("w")) == [("1.1.1", 1), ("1.2.1", 2), ("1.3.1", 3)]


async def test_records_are_numbered_as_they_come_and_found_by_their_path(shop: Workshop, trace: Trace) -> None:
    first_is_done = asyncio.Event()

    @step
    async def slow() -> str:
        trace("slow")
        await first_is_done.wait()
        return "slow"

    @step
    async def quick() -> str:
        trace("quick")
        return "quick"

    @step
    async def last() -> str:
        trace("last")
        first_is_done.set()
        return "last"

    async def second() -> list[str]:
        return [await quick(), await last()]

    @workflow(name="w")
    async def once() -> Any:
        return [await gather(slow(), second()), await echo("after")]

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    expected = [["slow", ["quick", "last"]], "after"]
    assert await handle.result(10) == expected
    paths = [(r[0], r[1]) for r in await shop.journal("w")]
    assert paths == [(1, "1.2.1"), (2, "1.2.2"), (3, "1.1.1"), (4, "2")]
    await shop.engine.rewind("w", 4)
    assert await handle.result(10) == expected
    assert trace.calls == ["slow", "quick", "last"]


async def test_what_one_branch_recorded_is_kept_when_the_run_is_parked_and_replayed(shop: Workshop, trace: Trace) -> None:
    @step
    async def note(n: int) -> int:
        trace(n)
        return n

    async def branch(n: int) -> list[Any]:
        before = await note(n)
        heard = await recv(f"topic {n}")
        return [before, heard, await note(n + 10)]

    @workflow(name="w")
    async def once() -> Any:
        return await gather(branch(1), branch(2), branch(3))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    for n in (3, 1, 2):
        await shop.parked("w")
        await shop.engine.send("w", f"hello {n}", f"topic {n}")
        await shop.until(
            lambda n=n: shop.value("select count(*) > 0 from dbos.operation_outputs where output = %s", str(n + 10)),
            f"{n} went on",
        )
    assert await shop.result("w") == [[n, f"hello {n}", n + 10] for n in (1, 2, 3)]
    assert sorted(trace.calls) == [1, 2, 3, 11, 12, 13]


async def test_a_branch_that_waits_does_not_stop_the_others(shop: Workshop) -> None:
    async def waits() -> Any:
        return await recv("go", timeout_s=100)

    async def sleeps() -> str:
        await sleep(10)
        return "slept"

    @workflow(name="w")
    async def once() -> Any:
        return await gather(waits(), sleeps(), echo("worked"), child(1))

    await shop.set_clock()
    await shop.worker(once, child)
    await shop.engine.enqueue(once, id="w")
    await shop.until(
        lambda: shop.value("select waits = '{t:go}' from dbos.workflow_status where workflow_uuid = 'w'"), "only two wait"
    )
    await shop.pass_time(10)
    await shop.until(
        lambda: shop.value("select wake_at_ms > engine.now_ms() + 80000 from dbos.workflow_status where workflow_uuid = 'w'"),
        "one waits",
    )
    await shop.engine.send("w", "heard", "go")
    assert await shop.result("w") == ["heard", "slept", "worked", 10]


async def test_two_branches_may_wait_for_the_same_topic(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> Any:
        return await gather(recv("go"), recv("go"), recv("go"))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.parked("w")
    for n in (1, 2, 3):
        await shop.engine.send("w", n, "go")
    assert sorted(await shop.result("w")) == [1, 2, 3]
    assert sorted(m.consumed_by or 0 for m in await shop.engine.messages("w")) == [1, 2, 3]


async def test_the_error_of_the_first_in_order_is_raised_after_all_are_done(shop: Workshop, trace: Trace) -> None:
    others_failed = asyncio.Event()

    @step
    async def fail(n: int) -> None:
        if n == 1:
            await others_failed.wait()
        trace(n)
        if len(trace.calls) == 2:
            others_failed.set()
        raise ValueError(f"{n}")

    @workflow(name="w")
    async def once() -> str:
        try:
            await gather(echo(0), fail(1), fail(2), fail(3))
        except StepFailed as failed:
            return failed.message
        return ""

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == "1"
    assert sorted(trace.calls) == [1, 2, 3]
    assert trace.calls[-1] == 1


async def test_errors_can_be_returned_in_their_places(shop: Workshop) -> None:
    seen: list[Any] = []

    @step
    async def fail() -> None:
        raise ValueError("no")

    @workflow(name="w")
    async def once() -> None:
        outcomes = await gather(echo(1), fail(), echo(3), return_exceptions=True)
        seen.append([str(outcome) for outcome in outcomes])
        await echo("after")

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 4)
    await handle.result(10)
    assert seen == [["1", "ValueError: no", "3"]] * 2


@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_a_cancelled_branch_is_no_result(shop: Workshop, return_exceptions: bool) -> None:
    async def awaits_a_cancelled_task() -> int:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task
        return 1

    @workflow(name="w")
    async def once() -> None:
        await gather(echo(1), awaits_a_cancelled_task(), return_exceptions=return_exceptions)

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    with pytest.raises(WorkflowFailed, match="CancelledError"):
        await shop.result("w")


async def test_branches_have_branches(shop: Workshop) -> None:
    async def inner(n: int) -> list[Any]:
        pair = await gather(echo(n), recv(f"{n}"))
        return [*pair, await echo(-n)]

    @workflow(name="w")
    async def once() -> Any:
        return await gather(inner(1), gather(echo("x"), gather(echo("y"), inner(2))))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.parked("w")
    await shop.engine.send("w", "b", "2")
    await shop.until(lambda: shop.value("select count(*) = 6 from dbos.operation_outputs"), "one went on")
    await shop.parked("w")
    await shop.engine.send("w", "a", "1")
    assert await shop.result("w") == [[1, "a", -1], ["x", ["y", [2, "b", -2]]]]
    assert sorted(r[1] or "" for r in await shop.journal("w")) == [
        "1.1.1.1.1", "1.1.1.2.1", "1.1.2", "1.2.1.1.1", "1.2.1.2.1.1.1", "1.2.1.2.1.2.1.1.1", "1.2.1.2.1.2.1.2.1", "1.2.1.2.1.2.2",
    ]  # fmt: skip


async def test_children_in_branches(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> Any:
        return await gather(*(child(n) for n in range(30)))

    await shop.worker(once, child)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [n * 10 for n in range(30)]


async def test_nothing_to_gather_takes_a_place_all_the_same(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> Any:
        return [await gather(), await echo(1)]

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [[], 1]
    assert [r[1] for r in await shop.journal("w")] == ["2"]


async def test_a_call_from_a_task_that_gather_did_not_make_is_refused(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> None:
        trace("ran")

    @workflow(name="w")
    async def once() -> str:
        try:
            await asyncio.create_task(note())
        except MisplacedCall as error:
            return str(error)
        return ""

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert "from a task that gather did not make" in await shop.result("w")
    assert (trace.calls, await shop.journal("w")) == ([], [])


@pytest.mark.parametrize(
    "call", [lambda: sleep(1), lambda: recv("x"), lambda: gather(), lambda: child(1)], ids=["sleep", "recv", "gather", "child"]
)
async def test_waiting_in_a_foreign_task_is_refused_too(shop: Workshop, call: Any) -> None:
    @workflow(name="w")
    async def once() -> None:
        await asyncio.create_task(call())

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    with pytest.raises(WorkflowFailed, match="gather did not make"):
        await shop.result("w")
