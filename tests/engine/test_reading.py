"""Workflows, journals, events, streams and mailboxes as the engine's callers see them."""

import asyncio
from typing import Any

import pytest

from engine import NoSuchWorkflow, WorkflowFailed, close_stream, recv, set_event, step, workflow, write_stream
from tests.engine.workshop import NOON_MS, Workshop


@step(name="fail")
async def fail() -> None:
    raise ValueError("no")


@workflow(name="receive")
async def receive(topic: str) -> Any:
    return await recv(topic)


@workflow(name="talk")
async def talk(n: int) -> int:
    await set_event("at", n)
    for i in range(3):
        await write_stream("log", {"i": i})
    await close_stream("log")
    try:
        await fail()
    except Exception:
        return n
    return 0


async def test_what_is_not_there_is_none_or_an_error_that_names_it(shop: Workshop) -> None:
    assert await shop.engine.status("ghost") is None
    assert (await shop.engine.steps("ghost"), await shop.engine.events("ghost"), await shop.engine.messages("ghost")) == (
        [],
        {},
        [],
    )
    for call in (shop.engine.result("ghost"), shop.engine.handle("ghost").status()):
        with pytest.raises(NoSuchWorkflow, match="there is no workflow 'ghost'; check the id, or enqueue it first"):
            await call


async def test_a_status_tells_all_of_a_workflow(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.worker(talk)
    await shop.pass_time(1)
    await shop.engine.enqueue(talk, 5, id="w", partition="t", priority=3, timeout_s=60)
    await shop.result("w")
    status = await shop.engine.handle("w").status()
    assert (status.id, status.status, status.name, status.class_name) == ("w", "SUCCESS", "talk", None)
    assert (status.queue, status.partition, status.priority, status.version) == ("default", "t", 3, None)
    assert (status.input, status.output, status.error) == ({"positionalArgs": [5], "namedArgs": {}}, 5, None)
    assert (status.attempts, status.claims, status.parent_id, status.forked_from) == (1, 1, None, None)
    times = (status.created_at_ms, status.started_at_ms, status.completed_at_ms, status.deadline_ms)
    assert times == (NOON_MS + 1000, NOON_MS + 1000, NOON_MS + 1000, NOON_MS + 61_000)


async def test_a_parked_workflow_tells_what_it_waits_for(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", id="w")
    await shop.parked("w")
    status = await shop.engine.handle("w").status()
    assert (status.status, status.executor_id, status.waits, status.wake_at_ms) == ("PENDING", None, ["t:go"], None)


async def test_a_journal_tells_outputs_and_errors_in_order(shop: Workshop) -> None:
    await shop.worker(talk)
    await shop.engine.enqueue(talk, 5, id="w")
    await shop.result("w")
    steps = await shop.engine.steps("w")
    assert [s.name for s in steps] == ["DBOS.setEvent", *["DBOS.writeStream"] * 3, "DBOS.closeStream", "fail"]
    assert (steps[-1].output, steps[-1].error) == (None, {"name": "ValueError", "message": "no"})
    assert all(s.started_at_ms is not None and s.completed_at_ms is not None for s in steps)


async def test_a_stream_is_read_from_any_offset(shop: Workshop) -> None:
    await shop.worker(talk)
    await shop.engine.enqueue(talk, 5, id="w")
    await shop.result("w")
    values = [{"i": 0}, {"i": 1}, {"i": 2}, "__DBOS_STREAM_CLOSED__"]
    assert [await shop.engine.stream("w", "log", start=n) for n in (0, 2, 9)] == [values, values[2:], []]
    assert await shop.engine.stream("w", "other") == []


async def test_a_list_is_filtered_and_newest_first(shop: Workshop) -> None:
    await shop.set_clock()
    for n, queue in enumerate(["a", "b", "a"]):
        await shop.pass_time(1)
        await shop.engine.enqueue(talk, n, id=f"t{n}", queue=queue)
    await shop.pass_time(1)
    await shop.engine.enqueue(receive, "go", id="r", queue="a")
    await shop.engine.cancel("t2")

    async def ids(**wanted: Any) -> list[str]:
        return [found.id for found in await shop.engine.list(**wanted)]

    assert await ids() == ["r", "t2", "t1", "t0"]
    assert await ids(limit=2) == ["r", "t2"]
    assert await ids(name="talk") == ["t2", "t1", "t0"]
    assert await ids(queue="a") == ["r", "t2", "t0"]
    assert await ids(status="CANCELLED") == ["t2"]
    assert await ids(status="ENQUEUED", queue="a", name="talk") == ["t0"]


async def test_a_result_that_does_not_come_in_time_is_a_timeout(shop: Workshop) -> None:
    await shop.engine.enqueue(talk, 1, id="w")
    with pytest.raises(TimeoutError, match="workflow w had not ended after 0 s"):
        await shop.engine.result("w", timeout_s=0)


async def test_a_result_is_waited_for(shop: Workshop) -> None:
    waiting = asyncio.create_task((await shop.engine.enqueue(receive, "go", id="w")).result(10))
    await shop.worker(receive)
    await shop.parked("w")
    assert not waiting.done()
    await shop.engine.send("w", 9, "go")
    assert await waiting == 9


async def test_a_failure_keeps_its_name_message_and_data(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> None:
        await fail()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    with pytest.raises(WorkflowFailed) as failed:
        await handle.result(10)
    assert (failed.value.workflow_id, failed.value.name, failed.value.data) == ("w", "ValueError", None)
    status = await handle.status()
    assert (status.status, status.output) == ("ERROR", None)
    assert status.error == {"name": "ValueError", "message": failed.value.message}
