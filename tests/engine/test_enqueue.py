"""What is enqueued starts once, in its turn, by a worker that knows it, or says why not."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import psycopg
import pytest

from engine import (
    ConflictingWorkflow,
    DuplicateWork,
    Engine,
    InvalidName,
    Start,
    TerminalError,
    WorkflowFailed,
    gather,
    recv,
    start,
    step,
    workflow,
)
from tests.engine.workshop import NOON_MS, Brake, Trace, Undone, Workshop

STARTED_BY: LiteralString = """
select count(distinct o.xmin::text) from dbos.operation_outputs o where o.workflow_uuid = %s and o.function_name = 'echo'
"""  # in how many transactions


@workflow(name="receive")
async def receive(topic: str = "go") -> Any:
    return await recv(topic)


@workflow(name="echo")
async def echo(value: Any) -> Any:
    return value


async def test_the_same_id_twice_is_one_workflow(shop: Workshop) -> None:
    first = await shop.engine.enqueue(echo, 1, id="w")
    second = await shop.engine.enqueue(echo, 2, id="w")
    assert (first.fresh, second.fresh) == (True, False)
    await shop.worker(echo)
    assert await second.result(10) == 1


async def test_an_id_of_a_workflow_with_another_name_is_refused(shop: Workshop) -> None:
    await shop.engine.enqueue(echo, 1, id="w")
    with pytest.raises(ConflictingWorkflow, match="'w' is a workflow named 'echo', not 'receive'"):
        await shop.engine.enqueue(receive, id="w")
    assert (await shop.row("w"))["name"] == "echo"


async def test_an_enqueue_on_a_callers_connection_is_part_of_its_transaction(shop: Workshop) -> None:
    await shop.worker(echo)
    with contextlib.suppress(Undone):
        async with shop.engine.transaction() as conn:
            await shop.engine.enqueue(echo, 1, id="undone", conn=conn)
            await shop.engine.enqueue(receive, id="talked to", conn=conn)
            await shop.engine.send("talked to", 1, "go", conn=conn)
            raise Undone
    async with shop.engine.transaction() as conn:
        await shop.engine.enqueue(echo, 2, id="done", conn=conn)
        assert await shop.status("done") is None
    assert await shop.result("done") == 2
    assert (await shop.status("undone"), await shop.status("talked to")) == (None, None)
    assert await shop.value("select count(*) from dbos.notifications") == 0


async def told_by(shop: Workshop, write: Callable[[psycopg.AsyncConnection[Any]], Awaitable[object]]) -> list[str]:
    """What workers hear after a transaction that does this, in order."""
    async with await shop.own_session() as listener:
        await listener.execute("listen holdfast")
        async with shop.engine.transaction() as conn:
            await write(conn)
        notices = [notice async for notice in listener.notifies(timeout=10, stop_after=1)]
        notices += [notice async for notice in listener.notifies(timeout=0)]  # those of one statement come together
    return sorted(notice.payload for notice in notices)


async def test_after_a_transaction_workers_hear_of_just_what_it_wrote(shop: Workshop) -> None:
    async with shop.engine.pool.connection() as conn:  # of which nobody is told
        await shop.engine.enqueue(receive, id="w", delay_s=60, conn=conn)
    assert await told_by(shop, lambda conn: shop.engine.enqueue(echo, 1, conn=conn)) == ["work"]
    assert await told_by(shop, lambda conn: shop.engine.send("w", 1, "go", conn=conn)) == ["wake"]
    assert await told_by(shop, lambda conn: shop.engine.cancel("w", conn=conn)) == ["x:w"]
    assert await told_by(shop, lambda conn: conn.execute("select 1")) == [
        "wake",
        "work",
    ]  # it may have written what we can't know


async def test_many_are_enqueued_in_one_commit(shop: Workshop) -> None:
    await shop.engine.enqueue(echo, "mine", id="w3")
    made = await shop.engine.enqueue_many(echo, [(f"w{n}", [n]) for n in range(5)], queue="default", priority=2)
    assert sorted(made) == ["w0", "w1", "w2", "w4"]
    await shop.worker(echo)
    assert [await shop.result(f"w{n}") for n in range(5)] == [0, 1, 2, "mine", 4]


async def test_each_of_many_may_differ_in_partition_priority_delay_and_attributes(shop: Workshop) -> None:
    await shop.set_clock()
    starts = [
        Start("plain", [1]),
        Start("other", [2], partition="b", priority=7, attributes={"n": 1}),
        Start("later", [3], delay_s=60, timeout_s=5),
    ]
    assert sorted(await shop.engine.enqueue_many(echo, starts, partition="a", priority=2)) == ["later", "other", "plain"]
    rows = [await shop.row(one.id) for one in starts]
    columns = ("queue_partition_key", "priority", "attributes", "status", "delay_until_epoch_ms", "workflow_timeout_ms")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("a", 2, None, "ENQUEUED", None, None),
        ("b", 7, {"n": 1}, "ENQUEUED", None, None),
        ("a", 2, None, "DELAYED", NOON_MS + 60_000, 5000),
    ]
    with pytest.raises(InvalidName):
        await shop.engine.enqueue_many(echo, [Start("good"), Start("bad\n")])
    assert await shop.status("good") is None


async def test_children_that_are_started_together_are_one_commit(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> int:
        handles = await gather(*(start(echo, n, id=f"c{n}") for n in range(100)))
        return len(await gather(*(handle.result() for handle in handles)))

    worker = await shop.worker(parent, echo, queues={"default": 200})
    await shop.engine.enqueue(parent, id="p")
    assert await shop.result("p") == 100
    assert await shop.value(STARTED_BY, "p") == 1

    async def all_counted() -> bool:
        return worker.ended["SUCCESS"] == 101

    await shop.until(all_counted, "every end to be counted")


async def test_callers_at_the_same_time_each_learn_whether_they_made_the_workflow(shop: Workshop) -> None:
    handles = await asyncio.gather(*(shop.engine.enqueue(echo, n, id=f"w{n % 20}") for n in range(200)))
    fresh = [handle.id for handle in handles if handle.fresh]
    assert sorted(fresh) == sorted({handle.id for handle in handles})
    assert await shop.value("select count(*) from dbos.workflow_status") == 20
    assert await shop.value("select count(distinct xmin::text) from dbos.workflow_status") < 20  # they shared commits


REFUSED: list[dict[str, Any]] = [
    {"dedup_id": "d"},
    {"priority": 1 << 40},
    {"version": "\x00"},
    {"version": "\ud800"},
    {"dedup_id": "\ud800"},
    {"attributes": {"a": "\x00"}},
]


@pytest.mark.parametrize("bad", REFUSED, ids=ascii)
async def test_an_enqueue_that_is_refused_fails_only_its_own_caller(shop: Workshop, bad: dict[str, Any]) -> None:
    await shop.engine.enqueue(receive, id="first", dedup_id="d")
    calls = [shop.engine.enqueue(echo, n, id=f"w{n:03}", **(bad if n == 50 else {})) for n in range(600)]
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [50]
    assert await shop.value("select count(*) from dbos.workflow_status") == 600
    assert (await shop.engine.enqueue(echo, 1, id="next")).fresh


async def test_attributes_are_stored_as_json_however_many_enqueue_at_once(shop: Workshop) -> None:
    await shop.engine.enqueue(echo, 0, id="alone", attributes={"n": 1})
    await asyncio.gather(*(shop.engine.enqueue(echo, n, id=f"w{n}", attributes={"n": 1}) for n in range(10)))
    rows = await shop.rows("select attributes from dbos.workflow_status")
    assert [row["attributes"] for row in rows] == [{"n": 1}] * 11


async def test_urgent_work_starts_first_and_then_the_oldest(shop: Workshop, trace: Trace) -> None:
    @workflow(name="note")
    async def note(n: int) -> None:
        trace(n)

    await shop.set_clock()
    for n, priority in enumerate([1000, 1, 0, 1000, 1, 0]):
        await shop.pass_time(0.001)
        await shop.engine.enqueue(note, n, id=f"w{n}", priority=priority)
    await shop.worker(note, slots=1)
    await shop.ended(*(f"w{n}" for n in range(6)))
    assert trace.calls == [2, 5, 1, 4, 0, 3]


async def test_a_worker_runs_no_more_of_a_queue_than_it_may(shop: Workshop) -> None:
    running = 0
    most: list[int] = []

    @step
    async def busy() -> None:
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0.002)
        running -= 1

    @workflow(name="w")
    async def once() -> None:
        await busy()

    ids = await shop.engine.enqueue_many(once, [(f"w{n}", []) for n in range(20)], queue="narrow")
    await shop.worker(once, queues={"narrow": 3})
    await shop.ended(*ids)
    assert max(most) == 3


async def test_a_queue_that_the_worker_does_not_serve_is_left_alone(shop: Workshop) -> None:
    await shop.worker(echo, queues={"mine": 5})
    await shop.engine.enqueue(echo, 1, id="other", queue="other")
    await shop.engine.enqueue(echo, 2, id="w", queue="mine")
    await shop.result("w")
    assert await shop.status("other") == "ENQUEUED"


async def test_a_delayed_start_waits_for_its_time(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.worker(echo)
    await shop.engine.enqueue(echo, 1, id="w", delay_s=60)
    assert await shop.status("w") == "DELAYED"
    await shop.pass_time(59)
    await shop.engine.enqueue(echo, 1, id="marker")
    await shop.result("marker")
    assert await shop.status("w") == "DELAYED"
    await shop.pass_time(1)
    assert await shop.result("w") == 1
    assert (await shop.row("w"))["started_at_epoch_ms"] == NOON_MS + 60_000


async def test_a_workflow_that_takes_too_long_is_cancelled(shop: Workshop, trace: Trace) -> None:
    @step
    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            trace("stopped")

    @workflow(name="w")
    async def once() -> None:
        await long()

    await shop.set_clock()
    await shop.engine.enqueue(once, id="w", timeout_s=30)
    await shop.engine.enqueue(receive, id="parked", timeout_s=30)
    await shop.engine.enqueue(receive, id="queued", timeout_s=30, queue="nobody's")
    await shop.pass_time(100)  # the time starts with the first claim
    worker = await shop.worker(once, receive)
    await shop.parked("parked")
    assert (await shop.engine.handle("parked").status()).deadline_ms == NOON_MS + 130_000
    await shop.pass_time(30)
    assert await shop.ended("w", "parked") == ["CANCELLED", "CANCELLED"]
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "the run is gone")
    assert (trace.calls, await shop.status("queued")) == (["stopped"], "ENQUEUED")


async def test_only_one_unfinished_workflow_of_a_queue_has_a_deduplication_id(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, id="w1", dedup_id="d")
    with pytest.raises(DuplicateWork, match="queue 'default' already holds unfinished work with deduplication id 'd'"):
        await shop.engine.enqueue(receive, id="w2", dedup_id="d")
    await shop.engine.enqueue(receive, id="elsewhere", dedup_id="d", queue="other")
    await shop.engine.send("w1", 1, "go")
    await shop.result("w1")
    await shop.engine.enqueue(receive, id="w3", dedup_id="d")
    await shop.engine.cancel("w3")
    await shop.engine.enqueue(receive, id="w4", dedup_id="d")


async def test_a_deduplication_id_in_use_can_lead_to_the_workflow_that_has_it(shop: Workshop) -> None:
    await shop.worker(receive)
    first = await shop.engine.enqueue(receive, id="w1", dedup_id="d")
    again = await shop.engine.enqueue(receive, id="w2", dedup_id="d", dedup="return_existing")
    assert (first.fresh, again.id, again.fresh) == (True, "w1", False)
    async with shop.engine.transaction() as conn:
        assert (await shop.engine.enqueue(receive, id="w2", dedup_id="d", dedup="return_existing", conn=conn)).id == "w1"
        with pytest.raises(DuplicateWork):
            await shop.engine.enqueue(receive, id="w2", dedup_id="d", conn=conn)
        await shop.engine.enqueue(receive, id="beside", conn=conn)
    assert await shop.status("beside") is not None, "a refusal does not undo what else the transaction wrote"
    assert await shop.status("w2") is None
    await shop.engine.send("w1", 1, "go")
    assert await again.result() == 1


@pytest.mark.parametrize("error", [ValueError("\udcff"), TerminalError("x", data=object())], ids=["surrogate", "object"])
async def test_a_workflow_ends_even_with_an_error_that_json_cannot_hold(shop: Workshop, error: Exception) -> None:
    @workflow(name="w")
    async def once() -> None:
        raise error

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.ended("w") == ["ERROR"]
    failure = (await shop.engine.handle("w").status()).error
    assert failure is not None
    assert failure["name"] == type(error).__name__


async def test_a_workflow_ends_even_if_its_result_is_no_json(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> Any:
        return object()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    with pytest.raises(WorkflowFailed, match=r"TypeError: .*JSON"):
        await shop.result("w")


async def test_a_workflow_that_awaits_a_cancelled_task_ends_as_an_error(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.ended("w") == ["ERROR"]


async def test_the_end_is_written_once_if_the_worker_crashes_around_it(shop: Workshop) -> None:
    first = await shop.worker(echo)
    brake = Brake(first, 1, after=True)
    await shop.engine.enqueue(echo, 5, id="w")
    await brake.reached.wait()
    await shop.crash(first)
    second = await shop.worker(echo)
    assert await shop.result("w") == 5
    assert second.ended == {}


@pytest.mark.parametrize("bad", [{"id": ""}, {"id": "a\x1fb"}, {"queue": ""}, {"partition": "\n"}, {"id": "x" * 513}], ids=str)
async def test_a_name_that_cannot_be_one_is_refused_and_nothing_is_written(shop: Workshop, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        await shop.engine.enqueue(echo, 1, **bad)
    assert await shop.value("select count(*) from dbos.workflow_status") == 0


async def test_an_enqueue_outlives_that_its_connection_forgot_its_statements(shop: Workshop) -> None:
    """psycopg deallocates all that a connection has prepared when a transaction in which it prepared something is rolled back."""
    async with Engine.connect(str(shop.engine.pool.conninfo), pool_size=1) as engine:
        await engine.enqueue(echo, 1, id="before")
        async with engine.pool.connection() as conn:
            await conn.execute("deallocate all")
        await asyncio.gather(*(engine.enqueue(echo, n, id=f"after {n}") for n in range(8)))
    assert await shop.value("select count(*) from dbos.workflow_status") == 9
