"""Why a workflow is not at work: one story for each reason. Each ends when somebody removes the cause, and the reason goes with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from engine import Engine, Rate, Worker, claims, get_event, recv, set_event, sleep, step, workflow
from steps.contracts.base import JsonObject
from steps.reason import why_not_running
from tests.engine.workshop import NOON_MS, Workshop

QUEUE = "q"
ME = "me"


@workflow(name="quick")
async def quick() -> str:
    return "done"


@step(name="hold")
async def hold(id: str) -> None:
    await held[id].wait()


@workflow(name="busy")
async def busy(id: str) -> str:
    """At work until the test lets it go."""
    await hold(id)
    return "done"


@workflow(name="waits_for_topic")
async def waits_for_topic(topic: str) -> Any:
    return await recv(topic)


@workflow(name="waits_for_event")
async def waits_for_event(id: str) -> Any:
    return await get_event(id, "news")


@workflow(name="publishes")
async def publishes() -> None:
    await set_event("news", "good")


@workflow(name="waits_for_child")
async def waits_for_child() -> Any:
    return await waits_for_topic("go")


@workflow(name="sleeps")
async def sleeps() -> str:
    await sleep(60)
    return "done"


WORKFLOWS = (quick, busy, waits_for_topic, waits_for_event, publishes, waits_for_child, sleeps)
held: dict[str, asyncio.Event] = {}


class Asked(Workshop):
    """A workshop that is asked why."""

    async def reason(self, id: str = ME) -> JsonObject | None:
        async with self.engine.pool.connection() as conn:
            found = await why_not_running(conn, id)
        return None if found is None else found.document()

    async def because(self, code: str, id: str = ME) -> JsonObject:
        """The reason, once it is this one."""

        async def asked() -> JsonObject | None:
            found = await self.reason(id)
            return found if found is not None and found["code"] == code else None

        return await self.until(asked, f"{id} stands still because of {code}")

    async def goes_on(self, id: str = ME) -> None:
        """To its end, and there is no reason then."""
        await self.result(id)
        assert await self.reason(id) is None

    async def serve(self, *, room: int = 10, version: str | None = None) -> Worker:
        return await self.worker(*WORKFLOWS, queues={QUEUE: room}, version=version)

    async def start(self, function: Any, *arguments: Any, id: str = ME, partition: str | None = None, **options: Any) -> None:
        await self.engine.enqueue(function, *arguments, id=id, queue=QUEUE, partition=partition, **options)

    async def occupy(self, id: str = "busy", partition: str | None = None) -> None:
        """Have a workflow at work."""
        held[id] = asyncio.Event()
        await self.start(busy, id, id=id, partition=partition)
        await self.until(lambda: self.is_at_work(id), f"{id} at work")

    async def is_at_work(self, id: str) -> bool:
        return (await self.row(id))["owner_xid"] is not None

    async def look_again(self) -> None:
        """What a claim found empty or full is looked at again a moment later, which never comes while the clock stands still."""
        while True:
            await self.value(
                "with due as (update engine.queue_partition set due_at_ms = 0 where state in ('e', 'g') and due_at_ms > 0 returning 1) "
                "select count(*) from due"
            )
            await asyncio.sleep(0.05)

    async def free(self, id: str = "busy") -> None:
        held[id].set()
        await self.result(id)


@pytest.fixture
async def shop(shared_database: str) -> AsyncIterator[Asked]:
    async with Engine.connect(shared_database) as engine:
        shop = Asked(engine, shared_database)
        await shop.empty()
        await shop.set_clock()
        looking = asyncio.create_task(shop.look_again())
        yield shop
        looking.cancel()
        await shop.stop_all()


# -- a worker -------------------------------------------------------------------------------------------------------------


async def test_nobody_is_there(shop: Asked) -> None:
    await shop.start(quick)
    assert await shop.reason() == {"code": "no-worker", "sentence": "no worker is alive; start one", "since": NOON_MS}
    await shop.serve()
    await shop.goes_on()


async def test_nobody_of_its_version_is_there(shop: Asked) -> None:
    await shop.start(quick, version="v2")
    await shop.serve(version="v1")
    await shop.until(lambda: shop.value("select count(*) from engine.worker"), "the worker is there")
    found = await shop.because("no-worker")
    assert found["sentence"] == "no live worker has application version v2; those alive have v1"
    await shop.serve(version="v2")
    await shop.goes_on()


async def test_nobody_has_room(shop: Asked) -> None:
    await shop.serve(room=1)
    await shop.occupy()
    await shop.start(quick)
    assert (await shop.because("queued"))["sentence"] == "is queued in q, as soon as a worker has room"
    await shop.free()
    await shop.goes_on()


async def test_its_worker_was_lost(shop: Asked) -> None:
    leased_until = NOON_MS + 10_000
    for id, until_ms in (("ghost", leased_until), ("another", 2 * NOON_MS)):
        await shop.run("insert into engine.worker (id, lease_until_ms, started_at_ms) values (%s, %s, 0)", id, until_ms)
    await shop.start(quick)
    await shop.run("select engine.look_again()")
    async with shop.engine.pool.connection() as conn:
        assert await claims.claim(conn, "ghost", "token", {QUEUE: 1}, ["quick"], None)
    assert await shop.reason() is None  # a living worker has it
    await shop.set_clock(leased_until + 1)
    assert await shop.reason() == {
        "code": "worker-lost",
        "sentence": "its worker has stopped renewing its lease; another one takes over",
        "since": NOON_MS,
        "until": leased_until,
        "workerID": "ghost",
    }
    await shop.serve()
    await shop.goes_on()


# -- its queue ------------------------------------------------------------------------------------------------------------


async def pause_queue(shop: Asked, _: Worker) -> None:
    await shop.engine.queues.pause(QUEUE)


async def resume_queue(shop: Asked, _: Worker) -> None:
    await shop.engine.queues.resume(QUEUE)


async def pause_partition(shop: Asked, _: Worker) -> None:
    await shop.engine.queues.pause(QUEUE, "tenant")


async def resume_partition(shop: Asked, _: Worker) -> None:
    await shop.engine.queues.resume(QUEUE, "tenant")


async def pause_worker(shop: Asked, worker: Worker) -> None:
    assert await shop.engine.queues.pause_worker(worker.id)


async def resume_worker(shop: Asked, worker: Worker) -> None:
    assert await shop.engine.queues.pause_worker(worker.id, paused=False)


Act = Callable[[Asked, Worker], Awaitable[None]]


@pytest.mark.parametrize(
    ("pause", "resume", "sentence"),
    [
        (pause_queue, resume_queue, "q is paused; resume it"),
        (pause_partition, resume_partition, "partition tenant of q is paused; resume it"),
        (pause_worker, resume_worker, "every live worker of its application version is paused; resume one"),
    ],
)
async def test_it_is_paused(shop: Asked, pause: Act, resume: Act, sentence: str) -> None:
    worker = await shop.serve()
    await shop.until(lambda: shop.value("select count(*) from engine.worker"), "the worker is there")
    await pause(shop, worker)
    await shop.start(quick, partition="tenant")
    assert await shop.reason() == {"code": "paused", "sentence": sentence, "since": NOON_MS}
    await resume(shop, worker)
    await shop.goes_on()


async def test_a_worker_of_another_version_that_is_paused_is_nobodys_reason(shop: Asked) -> None:
    idle, _ = await shop.serve(version="v1"), await shop.serve(version="v2", room=1)
    await shop.until(lambda: shop.value("select count(*) = 2 from engine.worker"), "the workers are there")
    await pause_worker(shop, idle)
    await shop.start(quick, version="v2")
    await shop.goes_on()
    await shop.start(quick, version="v1", id="other")
    await shop.because("paused", "other")
    await resume_worker(shop, idle)
    await shop.goes_on("other")


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"concurrency": 1}, "q"),
        ({"partition_concurrency": 1}, "partition tenant of q"),
    ],
)
async def test_its_cap_is_reached(shop: Asked, limits: dict[str, Any], what: str) -> None:
    await shop.engine.queues.declare(QUEUE, **limits)
    await shop.serve()
    await shop.occupy(partition="tenant")
    await shop.start(quick, partition="tenant")
    sentence = f"1 of at most 1 of {what} are at work; it goes on when one of them ends or waits"
    assert await shop.reason() == {"code": "cap", "sentence": sentence, "since": NOON_MS}
    await shop.start(quick, partition="else", id="other")
    if "concurrency" in limits:
        assert (await shop.because("cap", "other"))["sentence"] == sentence
    else:
        await shop.goes_on("other")
    await shop.free()
    await shop.goes_on()


async def test_the_cap_of_its_own_partition_is_reached(shop: Asked) -> None:
    await shop.engine.queues.tune(QUEUE, "tenant", concurrency=1)
    await shop.serve()
    await shop.occupy(partition="tenant")
    await shop.start(quick, partition="tenant")
    assert (await shop.because("cap"))["sentence"].startswith("1 of at most 1 of partition tenant of q")
    await shop.engine.queues.tune(QUEUE, "tenant", concurrency=2)
    await shop.goes_on()
    await shop.free()


@pytest.mark.parametrize(
    ("limits", "what"), [({"rate": Rate(1, 60)}, "q"), ({"partition_rate": Rate(1, 60)}, "partition tenant of q")]
)
async def test_its_rate_is_used_up(shop: Asked, limits: dict[str, Any], what: str) -> None:
    await shop.engine.queues.declare(QUEUE, **limits)
    await shop.serve()
    await shop.start(quick, id="first", partition="tenant")
    await shop.goes_on("first")
    await shop.start(quick, partition="tenant")
    found = await shop.because("rate-limit")
    assert found["sentence"] == f"{what} has started as many as its rate allows"
    assert 60_000 <= found["until"] - NOON_MS <= 60_000 * 34 / 32
    await shop.set_clock(found["until"] - 1)
    assert await shop.because("rate-limit") == found
    await shop.set_clock(found["until"])
    await shop.goes_on()


async def test_a_rate_that_is_lifted_is_no_reason(shop: Asked) -> None:
    await shop.engine.queues.declare(QUEUE, rate=Rate(1, 60))
    await shop.serve(room=1)
    await shop.occupy()
    await shop.start(quick)
    await shop.because("rate-limit")
    await shop.engine.queues.declare(QUEUE)
    assert (await shop.because("queued"))["sentence"] == "is queued in q, as soon as a worker has room"
    await shop.free()
    await shop.goes_on()


async def test_no_rate_holds_up_what_goes_on(shop: Asked) -> None:
    await shop.engine.queues.declare(QUEUE, rate=Rate(2, 60))
    await shop.serve(room=1)
    await shop.start(waits_for_topic, "go")
    await shop.parked(ME)
    await shop.occupy()
    await shop.start(quick, id="other")
    await shop.because("rate-limit", "other")
    await shop.engine.send(ME, "yes", topic="go")
    assert (await shop.because("queued"))["since"] == NOON_MS
    await shop.free()
    await shop.goes_on()
    await shop.because("rate-limit", "other")


# -- its own wait ---------------------------------------------------------------------------------------------------------


async def test_its_time_has_not_come(shop: Asked) -> None:
    await shop.serve()
    await shop.start(quick, delay_s=30)
    found = await shop.because("delayed")
    assert found["until"] == NOON_MS + 30_000
    await shop.pass_time(30)
    await shop.goes_on()


async def test_it_sleeps(shop: Asked) -> None:
    await shop.serve()
    await shop.start(sleeps)
    assert (await shop.because("timer"))["until"] == NOON_MS + 60_000
    await shop.pass_time(60)
    await shop.goes_on()


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("news", {"code": "message", "sentence": "waits for a message of topic news"}),
        ("human:gate-1", {"code": "person", "sentence": "waits for a person at gate gate-1", "gateKey": "gate-1"}),
    ],
)
async def test_nobody_has_answered(shop: Asked, topic: str, expected: JsonObject) -> None:
    await shop.serve()
    await shop.start(waits_for_topic, topic)
    assert await shop.because(expected["code"]) == expected | {"since": NOON_MS}
    await shop.engine.send(ME, "yes", topic=topic)
    await shop.goes_on()


async def test_another_workflow_has_not_spoken(shop: Asked) -> None:
    await shop.serve()
    await shop.start(waits_for_event, "other")
    await shop.because("event")
    await shop.start(publishes, id="other")
    await shop.goes_on()


async def test_its_child_has_not_ended(shop: Asked) -> None:
    await shop.serve()
    await shop.start(waits_for_child)
    found = await shop.because("child")
    assert (found["workflowID"], found["sentence"]) == ("me-1", "waits for the end of workflow me-1")
    await shop.because("message", "me-1")
    await shop.engine.send("me-1", "yes", topic="go")
    await shop.goes_on()


async def test_the_engine_does_not_know_it(shop: Asked) -> None:
    await shop.serve()
    assert (await shop.because("no-workflow"))["sentence"].startswith("the engine has no workflow me")
    await shop.start(quick)
    await shop.goes_on()
