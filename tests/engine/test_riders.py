"""Rows that ride are written in the commit of a journal record: once, never without it, and never at the cost of anybody else."""

import asyncio
from typing import Any

import pytest

from engine import MisplacedCall, RecordRefused, Rider, StepFailed, gather, recv, ride, sleep, step, step_info, workflow
from tests.engine.workshop import Brake, Ledger, Workshop


def entry(text: str) -> dict[str, str]:
    return {"entry": text}


async def test_a_row_rides_with_its_steps_record(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def charge() -> None:
        ride(Ledger.RIDER, entry("charged"))

    @workflow(name="w")
    async def once() -> None:
        await charge()

    first = await shop.worker(once)
    brake = Brake(first, 1, after=False)
    await shop.engine.enqueue(once, id="w")
    await brake.reached.wait()
    await shop.crash(first)
    assert (await shop.names("w"), await ledger.entries()) == ([], [])
    await shop.worker(once)
    await shop.result("w")
    assert (await shop.names("w"), await ledger.entries()) == ([charge.name], ["charged"])


async def test_rows_of_many_runs_share_a_commit_and_none_is_lost(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def charge(n: int) -> None:
        ride(Ledger.RIDER, entry(f"{n:03} a"))
        ride(Ledger.RIDER, entry(f"{n:03} b"))

    @workflow(name="w")
    async def once(n: int) -> None:
        await charge(n)

    ids = await shop.engine.enqueue_many(once, [(f"w{n}", [n]) for n in range(100)])
    worker = await shop.worker(once)
    await shop.ended(*ids)
    assert await ledger.entries() == sorted(f"{n:03} {x}" for n in range(100) for x in "ab")
    assert worker.journal.flushes < 50


async def test_rows_of_a_failed_attempt_are_dropped_unless_kept(shop: Workshop, ledger: Ledger) -> None:
    @step(max_attempts=3, backoff_s=0.001)
    async def flaky() -> None:
        attempt = step_info().attempt
        ride(Ledger.RIDER, entry(f"result of {attempt}"))
        ride(Ledger.RIDER, entry(f"cost of {attempt}"), keep=True)
        if attempt < 3:
            raise OSError("again")

    @workflow(name="w")
    async def once() -> None:
        await flaky()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await ledger.entries() == ["cost of 1", "cost of 2", "cost of 3", "result of 3"]


async def test_a_step_that_fails_writes_only_what_it_keeps(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def broken() -> None:
        ride(Ledger.RIDER, entry("result"))
        ride(Ledger.RIDER, entry("cost"), keep=True)
        raise OSError("down")

    @workflow(name="w")
    async def once() -> None:
        try:
            await broken()
        except StepFailed:
            pass

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await ledger.entries() == ["cost"]


async def test_a_row_of_workflow_code_rides_with_the_next_record_and_is_not_written_again(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def nothing() -> None:
        pass

    @workflow(name="w")
    async def once() -> None:
        ride(Ledger.RIDER, entry("before the step"))
        await nothing()
        ride(Ledger.RIDER, entry("before the sleep"))
        await sleep(0)
        ride(Ledger.RIDER, entry("at the end"))

    first = await shop.worker(once)
    brake = Brake(first, 3, after=False)  # the finish
    await shop.engine.enqueue(once, id="w")
    await brake.reached.wait()
    assert await ledger.entries() == ["before the sleep", "before the step"]
    await shop.crash(first)
    await shop.worker(once)
    await shop.result("w")
    assert await ledger.entries() == ["at the end", "before the sleep", "before the step"]


async def test_a_row_before_a_message_that_has_come_is_written_once(shop: Workshop, ledger: Ledger) -> None:
    @workflow(name="w")
    async def once() -> Any:
        ride(Ledger.RIDER, entry("before the message"))
        return await recv("go")

    await shop.engine.enqueue(once, id="w")
    await shop.engine.send("w", 1, "go")
    await shop.worker(once)
    assert await shop.result("w") == 1
    assert await ledger.entries() == ["before the message"]


async def test_a_row_that_a_branch_rides_last_is_written_too(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def nothing() -> None:
        pass

    async def branch(n: int) -> None:
        await nothing()
        ride(Ledger.RIDER, entry(f"end of branch {n}"))

    @workflow(name="w")
    async def once() -> None:
        await gather(branch(1), branch(2))
        await nothing()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    assert await ledger.entries() == ["end of branch 1", "end of branch 2"]
    await shop.engine.rewind("w", 4)
    await handle.result(10)
    assert await ledger.entries() == ["end of branch 1", "end of branch 2"]


@pytest.mark.parametrize(
    "poison", [{"n": 0}, {"n": "many"}, {"n": object()}, {"n": "\ud800"}], ids=["zero", "text", "object", "surrogate"]
)
async def test_a_poisoned_row_fails_only_its_own_caller(shop: Workshop, ledger: Ledger, poison: dict[str, Any]) -> None:
    meeting = asyncio.Barrier(51)  # all records reach the journal together

    @step
    async def charge(n: int) -> int:
        await meeting.wait()
        ride(Ledger.RIDER, entry(f"{n:02}"))
        if n == 25:
            ride(Ledger.POISONED, poison)
        return n

    @workflow(name="w")
    async def once(n: int) -> int:
        return await charge(n)

    ids = await shop.engine.enqueue_many(once, [(f"w{n:02}", [n]) for n in range(51)])
    await shop.worker(once)
    statuses = await shop.ended(*ids)
    assert [id for id, status in zip(ids, statuses, strict=True) if status != "SUCCESS"] == ["w25"]
    assert await ledger.entries() == [f"{n:02}" for n in range(51) if n != 25]
    assert len(await shop.rows("select 1 from dbos.operation_outputs where workflow_uuid <> 'w25'")) == 50


async def test_a_caller_that_handles_a_refused_record_goes_on(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def poisoned() -> None:
        ride(Ledger.POISONED, {"n": 0})

    @step
    async def note() -> None:
        ride(Ledger.RIDER, entry("handled"))

    @workflow(name="w")
    async def once() -> None:
        try:
            await poisoned()
        except RecordRefused:
            await note()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await ledger.entries() == ["handled"]
    assert [r[:3] for r in await shop.journal("w")] == [(1, "2", note.name)]


async def test_a_workflow_whose_last_row_is_refused_ends_as_an_error(shop: Workshop, ledger: Ledger) -> None:
    @workflow(name="w")
    async def once() -> None:
        ride(Ledger.POISONED, {"n": 0})

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.ended("w") == ["ERROR"]
    assert await ledger.entries() == []


def test_nothing_rides_outside_of_a_workflow() -> None:
    with pytest.raises(MisplacedCall, match="inside a workflow"):
        ride(Rider("select %s"), {})
