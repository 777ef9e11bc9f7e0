"""A copy of a workflow, or the workflow itself, runs again from any of its steps, with the journal before that kept."""

from typing import Any

import pytest

from engine import close_stream, gather, recv, set_event, sleep, step, uuid4, workflow, write_stream
from tests.engine.workshop import Trace, Workshop


@step
async def echo(value: Any) -> Any:
    return value


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
STORY = [
    "DBOS.uuid",
    "DBOS.setEvent",
    "DBOS.writeStream",
    "DBOS.recv",
    "DBOS.setEvent",
    "DBOS.writeStream",
    "DBOS.closeStream",
    echo.name,
]


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
    tables = await shop.rows("""
        select 'status' from dbos.workflow_status union all select 'steps' from dbos.operation_outputs
        union all select 'events' from dbos.workflow_events union all select 'history' from dbos.workflow_events_history
        union all select 'streams' from dbos.streams union all select 'mail' from dbos.notifications
    """)
    assert tables == []
