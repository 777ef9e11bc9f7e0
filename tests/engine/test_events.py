"""What others publish, and the ends of others' workflows, wake whoever waits for them."""

import asyncio
from typing import Any

from engine import WorkflowFailed, get_event, recv, set_event, start, workflow
from tests.engine.workshop import Workshop


@workflow(name="receive")
async def receive(topic: str | None = None) -> Any:
    return await recv(topic)


async def test_an_event_is_found_awaited_and_kept(shop: Workshop) -> None:
    @workflow(name="setter")
    async def setter() -> None:
        await set_event("progress", 1)
        await recv("go")
        await set_event("progress", 2)
        await set_event("done", True)

    @workflow(name="getter")
    async def getter(key: str) -> Any:
        return await get_event("s", key)

    await shop.worker(setter, getter)
    await shop.engine.enqueue(setter, id="s")
    await shop.parked("s")
    await shop.engine.enqueue(getter, "progress", id="g1")
    assert await shop.result("g1") == 1
    await shop.engine.enqueue(getter, "done", id="g2")
    await shop.parked("g2")
    assert await shop.engine.get_event("s", "done") is None
    await shop.engine.send("s", None, "go")
    assert await shop.result("g2") is True
    assert await shop.engine.events("s") == {"progress": 2, "done": True}
    history = await shop.rows("select function_id, key, value from dbos.workflow_events_history order by 1")
    assert [tuple(r.values()) for r in history] == [(1, "progress", "1"), (3, "progress", "2"), (4, "done", "true")]
    assert await shop.value("select count(*) from engine.wait") == 0


async def test_waiting_for_an_event_ends_with_its_timeout(shop: Workshop) -> None:
    @workflow(name="getter")
    async def getter() -> Any:
        return await get_event("nobody", "key", timeout_s=30)

    await shop.set_clock()
    await shop.worker(getter)
    await shop.engine.enqueue(getter, id="g")
    await shop.parked("g")
    await shop.pass_time(30)
    assert await shop.result("g") is None


async def test_the_engine_waits_for_an_event_too(shop: Workshop) -> None:
    @workflow(name="setter")
    async def setter() -> None:
        await set_event("ready", {"at": 1})

    waiting = asyncio.create_task(shop.engine.get_event("s", "ready", timeout_s=10))
    await shop.engine.enqueue(setter, id="s")
    await shop.worker(setter)
    assert await waiting == {"at": 1}


async def test_the_end_of_somebody_elses_workflow_wakes_whoever_waits_for_it(shop: Workshop) -> None:
    @workflow(name="follower")
    async def follower() -> Any:
        known = await start(receive, "go", id="stranger")  # attaches
        try:
            return await known.result()
        except WorkflowFailed as failed:
            return [failed.name, failed.message]

    await shop.worker(receive, follower)
    await shop.engine.enqueue(receive, "go", id="stranger")
    await shop.parked("stranger")
    await shop.engine.enqueue(follower, id="f1")
    await shop.engine.enqueue(follower, id="f2")
    await shop.parked("f1", "f2")
    await shop.engine.send("stranger", "over", "go")
    assert await shop.result("f1") == await shop.result("f2") == "over"
    assert await shop.value("select count(*) from engine.wait") == 0


async def test_a_cancelled_stranger_wakes_whoever_waits_for_it(shop: Workshop) -> None:
    @workflow(name="follower")
    async def follower() -> Any:
        known = await start(receive, "go", id="stranger")
        try:
            return await known.result()
        except WorkflowFailed as failed:
            return failed.name

    await shop.worker(receive, follower)
    await shop.engine.enqueue(receive, "go", id="stranger")
    await shop.parked("stranger")
    await shop.engine.enqueue(follower, id="f")
    await shop.parked("f")
    await shop.until(lambda: shop.value("select count(*) = 0 from engine.wake"), "whatever came meanwhile is dealt with")
    await shop.parked("f")
    await shop.engine.cancel("stranger")
    assert await shop.result("f") == "Cancelled"


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind(shop: Workshop) -> None:
    @workflow(name="getter")
    async def getter() -> Any:
        return await get_event("s", "key")

    await shop.worker(getter)
    await shop.engine.enqueue(getter, id="g")
    await shop.parked("g")
    await shop.engine.cancel("g")
    await shop.until(lambda: shop.value("select count(*) = 0 from engine.wait"), "the wait is forgotten")
