"""Operators can end a workflow, let it go on, copy it and rewind it, in any state, and the journal stays true."""

import asyncio
import contextlib
from typing import Any

import pytest

from engine import (
    Engine,
    NoSuchWorkflow,
    WorkflowFailed,
    recv,
    step,
    workflow,
)
from tests.engine.workshop import Trace, Undone, Workshop


@workflow(name="receive")
async def receive(topic: str = "go") -> Any:
    return await recv(topic)


@step
async def echo(value: Any) -> Any:
    return value


# Cancel ------------------------------------------------------------------------------------------------------------------


async def test_cancelling_a_queued_workflow_keeps_it_from_starting(shop: Workshop, trace: Trace) -> None:
    @workflow(name="w")
    async def once() -> None:
        trace("ran")

    await shop.engine.enqueue(once, id="w")
    await shop.engine.enqueue(once, id="other")
    assert await shop.engine.cancel("w") == ["w"]
    await shop.worker(once)
    await shop.result("other")
    assert (await shop.status("w"), trace.calls) == ("CANCELLED", ["ran"])
    with pytest.raises(WorkflowFailed, match="it was cancelled"):
        await shop.result("w")


async def test_cancelling_a_delayed_workflow_keeps_it_from_starting(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.engine.enqueue(receive, id="w", delay_s=5)
    await shop.engine.enqueue(receive, id="other", delay_s=5)
    await shop.engine.cancel("w")
    await shop.worker(receive)
    await shop.pass_time(10)
    await shop.parked("other")
    assert await shop.status("w") == "CANCELLED"


async def test_cancel_reaches_a_run_in_the_middle_of_a_long_step(shop: Workshop, trace: Trace) -> None:
    inside = asyncio.Event()

    @step
    async def long() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            trace("stopped")
            raise

    @workflow(name="w")
    async def once() -> None:
        await long()

    worker = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await inside.wait()
    await shop.engine.cancel("w")
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "the run is gone")
    assert (trace.calls, await shop.names("w")) == (["stopped"], [])
    assert await shop.status("w") == "CANCELLED"


async def test_a_cancelled_run_writes_nothing_more(shop: Workshop) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    @step
    async def shielded() -> None:
        inside.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    @workflow(name="w")
    async def once() -> None:
        await shielded()

    worker = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await inside.wait()
    await shop.engine.cancel("w")
    go.set()
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "the run is gone")
    assert (await shop.names("w"), await shop.status("w")) == ([], "CANCELLED")


async def test_cancelling_a_parked_run_ends_it(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, id="w")
    await shop.parked("w")
    await shop.engine.cancel("w")
    await shop.engine.send("w", 1, "go")
    await shop.until(lambda: shop.value("select count(*) = 0 from engine.wake"), "the message has woken nobody")
    row = await shop.row("w")
    assert (row["status"], row["owner_xid"], row["waits"], row["wake_at_ms"]) == ("CANCELLED", None, None, None)


async def test_cancelling_what_has_ended_changes_nothing(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, id="w")
    await shop.engine.send("w", 1, "go")
    await shop.result("w")
    assert await shop.engine.cancel("w") == []
    assert await shop.status("w") == "SUCCESS"


async def test_cancelling_several_of_which_one_does_not_exist_changes_nothing(shop: Workshop) -> None:
    await shop.engine.enqueue(receive, id="w")
    with pytest.raises(NoSuchWorkflow, match="'ghost'"):
        await shop.engine.cancel("w", "ghost")
    assert await shop.status("w") == "ENQUEUED"


@pytest.mark.parametrize("call", ["cancel", "resume"])
async def test_steering_a_workflow_that_does_not_exist_says_so(shop: Workshop, call: str) -> None:
    with pytest.raises(NoSuchWorkflow):
        await getattr(shop.engine, call)("ghost")
    with pytest.raises(NoSuchWorkflow):
        await shop.engine.fork("ghost", 1)
    with pytest.raises(NoSuchWorkflow):
        await shop.engine.rewind("ghost", 1)


async def test_a_rewound_workflow_can_be_given_to_workers_of_another_version(shop: Workshop) -> None:
    @workflow(name="fail once")
    async def fail_once() -> None:
        raise ValueError("no")

    await shop.worker(fail_once, version="old")
    await shop.engine.enqueue(fail_once, id="w", version="old")
    await shop.ended("w")
    await shop.engine.rewind("w", 1, version="new")
    assert (await shop.row("w"))["application_version"] == "new"
    await shop.engine.rewind("w", 1)
    assert (await shop.row("w"))["application_version"] == "new"


async def test_steering_on_a_callers_connection_is_part_of_its_transaction(shop: Workshop) -> None:
    await shop.engine.enqueue(receive, id="w")
    with contextlib.suppress(Undone):
        async with shop.engine.transaction() as conn:
            await shop.engine.cancel("w", conn=conn)
            raise Undone
    assert await shop.status("w") == "ENQUEUED"


# Resume ------------------------------------------------------------------------------------------------------------------


async def test_resume_lets_a_cancelled_workflow_go_on_from_its_journal(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> str:
        trace("note")
        return "noted"

    @workflow(name="w")
    async def once() -> Any:
        return [await note(), await recv("go")]

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w", queue="default", timeout_s=1000)
    await shop.parked("w")
    await shop.engine.cancel("w")
    assert await shop.engine.resume("w")
    await shop.parked("w")
    row = await shop.row("w")
    assert (row["queue_name"], row["completed_at"]) == ("default", None)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == ["noted", 1]
    assert trace.calls == ["note"]


async def test_resume_takes_a_running_workflow_from_whoever_runs_it(shop: Workshop, trace: Trace) -> None:
    inside = asyncio.Event()

    @step
    async def stuck() -> str:
        if trace("stuck") == 1:
            inside.set()
            await asyncio.Event().wait()
        return "done"

    @workflow(name="w")
    async def once() -> str:
        return await stuck()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await inside.wait()
    assert await shop.engine.resume("w")
    assert await shop.result("w") == "done"
    assert len(await shop.journal("w")) == 1


async def test_resume_leaves_what_has_ended_with_an_outcome(shop: Workshop) -> None:
    @workflow(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    await shop.worker(receive, fails)
    await shop.engine.enqueue(receive, id="w")
    await shop.engine.send("w", 1, "go")
    await shop.engine.enqueue(fails, id="f")
    assert await shop.ended("w", "f") == ["SUCCESS", "ERROR"]
    assert [await shop.engine.resume(id) for id in ("w", "f")] == [False, False]
    assert await shop.ended("w", "f") == ["SUCCESS", "ERROR"]


async def test_an_engine_of_another_process_steers_as_well(shop: Workshop) -> None:
    await shop.worker(receive)
    async with Engine.connect(shop.dsn) as other:
        handle = await other.enqueue("receive", "go", id="w")
        await shop.parked("w")
        await other.send("w", 3, "go")
        assert await handle.result(10) == 3
