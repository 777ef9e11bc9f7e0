"""Operators can end a workflow, let it go on, copy it and rewind it, in any state, and the journal stays true."""

import asyncio
from typing import Any

import pytest

from engine import (
    Engine,
    NoSuchWorkflow,
    WorkflowFailed,
    close_stream,
    gather,
    recv,
    set_event,
    sleep,
    step,
    uuid4,
    workflow,
    write_stream,
)
from tests.engine.workshop import Trace, Workshop


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


async def test_steering_on_a_callers_connection_is_part_of_its_transaction(shop: Workshop) -> None:
    await shop.engine.enqueue(receive, id="w")
    with pytest.raises(RuntimeError, match="undo"):
        async with shop.engine.transaction() as conn:
            await shop.engine.cancel("w", conn=conn)
            raise RuntimeError("undo")
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


# Fork and rewind ---------------------------------------------------------------------------------------------------------


@workflow(name="story")
async def story() -> Any:
    token = await uuid4()
    await set_event("stage", "one")
    await write_stream("log", "first")
    heard = await recv("go")
    await set_event("stage", "two")
    await write_stream("log", "second")
    await close_stream("log")
    return [token, heard, await echo("end")]


CLOSED = "__DBOS_STREAM_CLOSED__"
STORY = ["DBOS.uuid", "DBOS.setEvent", "DBOS.writeStream", "DBOS.recv", "DBOS.setEvent", "DBOS.writeStream", "DBOS.closeStream", echo.name]


async def finish_story(shop: Workshop, id: str, heard: Any) -> Any:
    await shop.engine.send(id, heard, "go")
    return await shop.result(id)


@pytest.fixture
async def told(shop: Workshop) -> Any:
    """The result of story 'w', which has ended."""
    await shop.worker(story)
    await shop.engine.enqueue(story, id="w", queue="default", partition="t", priority=4)
    result = await finish_story(shop, "w", "original")
    assert await shop.names("w") == STORY
    return result


async def test_a_fork_from_the_first_step_repeats_everything(shop: Workshop, told: Any) -> None:
    new = await shop.engine.fork("w", 1)
    await shop.parked(new)
    token, heard, _ = await finish_story(shop, new, "copy")
    assert (token != told[0], heard) == (True, "copy")
    assert await shop.result("w") == told
    row, original = await shop.row(new), await shop.row("w")
    assert (row["forked_from"], original["was_forked_from"], original["status"]) == ("w", True, "SUCCESS")
    assert (row["queue_name"], row["queue_partition_key"], row["priority"]) == ("default", "t", 4)


async def test_a_fork_keeps_records_events_and_streams_before_its_start(shop: Workshop, told: Any) -> None:
    new = await shop.engine.fork("w", 4, new_id="copy")
    assert new == "copy"
    await shop.parked(new)
    assert await shop.names(new) == STORY[:3]
    assert await shop.engine.events(new) == {"stage": "one"}
    assert await shop.engine.stream(new, "log") == ["first"]
    assert await finish_story(shop, new, "copy") == [told[0], "copy", "end"]
    assert await shop.engine.stream(new, "log") == ["first", "second", CLOSED]
    assert await shop.engine.stream("w", "log") == ["first", "second", CLOSED]


async def test_a_fork_from_the_last_step_repeats_only_that(shop: Workshop, told: Any) -> None:
    new = await shop.engine.fork("w", 8)
    assert await shop.result(new) == told
    assert await shop.names(new) == STORY
    assert await shop.engine.events(new) == {"stage": "two"}


async def test_a_fork_of_a_run_that_still_runs_copies_what_there_is(shop: Workshop) -> None:
    await shop.worker(story)
    await shop.engine.enqueue(story, id="w")
    await shop.parked("w")
    new = await shop.engine.fork("w", 99)
    await shop.parked("w", new)
    assert (await finish_story(shop, new, 2))[1] == 2
    assert await shop.status("w") == "PENDING"
    assert (await finish_story(shop, "w", 1))[1] == 1


async def test_a_fork_in_the_middle_of_branches_repeats_the_rest_of_them(shop: Workshop, trace: Trace) -> None:
    @step
    async def note(n: int) -> int:
        trace(n)
        return n

    async def branch(n: int) -> int:
        return await note(n) + await note(n + 10)

    @workflow(name="w")
    async def once() -> Any:
        return await gather(branch(1), branch(2))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [12, 14]
    done = [r[3] for r in await shop.journal("w")][:3]
    trace.calls.clear()
    assert await shop.result(await shop.engine.fork("w", 4)) == [12, 14]
    assert trace.calls == [n for n in (1, 2, 11, 12) if n not in done]


async def test_rewind_forgets_records_messages_events_and_streams_from_there(shop: Workshop, told: Any) -> None:
    await shop.engine.rewind("w", 4)
    # Its message is in the mailbox again, so it does not wait.
    assert await shop.result("w") == told
    assert await shop.names("w") == STORY
    assert await shop.engine.events("w") == {"stage": "two"}
    assert await shop.engine.stream("w", "log") == ["first", "second", CLOSED]
    assert [m.consumed_by for m in await shop.engine.messages("w")] == [4]
    history = await shop.rows("select function_id, value from dbos.workflow_events_history order by 1")
    assert [tuple(row.values()) for row in history] == [(2, '"one"'), (5, '"two"')]


async def test_rewind_to_the_first_step_forgets_everything(shop: Workshop, told: Any) -> None:
    await shop.stop_all()
    await shop.engine.rewind("w", 1)
    row = await shop.row("w")
    assert (row["status"], row["output"], row["completed_at"], row["recovery_attempts"]) == ("ENQUEUED", None, None, 0)
    assert (await shop.names("w"), await shop.engine.events("w"), await shop.engine.stream("w", "log")) == ([], {}, [])
    await shop.worker(story)
    assert (await shop.result("w"))[0] != told[0]


async def test_rewind_takes_a_parked_run_back(shop: Workshop) -> None:
    await shop.worker(story)
    await shop.engine.enqueue(story, id="w")
    await shop.parked("w")
    await shop.engine.rewind("w", 2)
    await shop.until(lambda: shop.value("select claims = 2 from dbos.workflow_status"), "it is claimed again")
    await shop.parked("w")
    assert await shop.names("w") == STORY[:3]
    assert await shop.engine.stream("w", "log") == ["first"]


async def test_a_rewound_timer_is_set_anew(shop: Workshop) -> None:
    @workflow(name="w")
    async def nap() -> None:
        await sleep(60)

    await shop.set_clock()
    await shop.worker(nap)
    await shop.engine.enqueue(nap, id="w")
    await shop.parked("w")
    await shop.pass_time(60)
    await shop.result("w")
    await shop.engine.rewind("w", 1)
    await shop.parked("w")
    await shop.pass_time(60)
    assert await shop.result("w") is None


async def test_deleting_a_workflow_removes_all_that_hangs_on_it(shop: Workshop, told: Any) -> None:
    await shop.engine.delete("w")
    for table in ("workflow_status", "operation_outputs", "workflow_events", "workflow_events_history", "streams", "notifications"):
        assert await shop.value(f"select count(*) from dbos.{table}") == 0, table  # type: ignore[arg-type]


async def test_an_engine_of_another_process_steers_as_well(shop: Workshop) -> None:
    await shop.worker(receive)
    async with Engine.connect(shop.dsn) as other:
        handle = await other.enqueue("receive", "go", id="w")
        await shop.parked("w")
        await other.send("w", 3, "go")
        assert await handle.result(10) == 3
