"""A run that waits holds nothing, and whatever it waits for brings it back: the clock, a message, an event, or somebody's end."""

import asyncio
from typing import Any

import pytest

from engine import NoSuchWorkflow, gather, now, recv, send, sleep, step, workflow
from tests.engine.workshop import NOON_MS, Trace, Workshop


@workflow(name="receive")
async def receive(topic: str | None = None, timeout_s: float | None = None) -> Any:
    return await recv(topic, timeout_s=timeout_s)


@workflow(name="receive three")
async def receive_three(topic: str | None = None) -> list[Any]:
    return [await recv(topic), await recv(topic), await recv(topic)]


async def test_sleep_waits_for_the_databases_clock(shop: Workshop) -> None:
    @workflow(name="w")
    async def nap() -> list[str]:
        before = await now()
        await sleep(3600)
        return [before.isoformat(), (await now()).isoformat()]

    await shop.set_clock()
    await shop.worker(nap)
    await shop.engine.enqueue(nap, id="w")
    await shop.parked("w")
    assert (await shop.row("w"))["wake_at_ms"] == NOON_MS + 3_600_000
    await shop.pass_time(3599.999)
    await shop.engine.enqueue(nap, id="later")
    await shop.parked("w", "later")
    await shop.pass_time(0.001)
    assert await shop.result("w") == ["2026-01-01T12:00:00+00:00", "2026-01-01T13:00:00+00:00"]
    assert await shop.status("later") == "PENDING"
    assert [r[2:] for r in await shop.journal("w")][1] == ("DBOS.sleep", (NOON_MS + 3_600_000) / 1000)


async def test_a_sleep_is_not_longer_for_a_crash(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> None:
        trace("step")

    async def nap() -> None:
        await sleep(100)

    async def busy() -> None:
        await note()
        await asyncio.Event().wait()  # keeps the run in memory

    @workflow(name="w")
    async def both() -> None:
        await gather(nap(), busy())

    await shop.set_clock()
    first = await shop.worker(both)
    await shop.engine.enqueue(both, id="w")
    await shop.until(lambda: shop.value("select count(*) = 2 from dbos.operation_outputs"), "both branches recorded")
    await shop.pass_time(60)
    await shop.crash(first)
    await shop.worker(both)
    await shop.until(lambda: shop.value("select recovery_attempts = 2 from dbos.workflow_status"), "claimed again")
    wakes = await shop.rows("select completed_at_epoch_ms as at from dbos.operation_outputs where function_name = 'DBOS.sleep'")
    assert wakes == [{"at": NOON_MS + 100_000}]
    assert trace.calls == ["step"]


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_sleep_of_no_time_goes_straight_on(shop: Workshop, seconds: float) -> None:
    @workflow(name="w")
    async def nap() -> int:
        await sleep(seconds)
        return 1

    await shop.set_clock()
    worker = await shop.worker(nap)
    await shop.engine.enqueue(nap, id="w")
    assert await shop.result("w") == 1
    assert worker.ended["parked"] == 0


async def test_a_parked_run_holds_no_owner_no_executor_no_slot_and_no_memory(shop: Workshop) -> None:
    worker = await shop.worker(receive, slots=2, queues={"default": 1})
    ids = [f"w{n}" for n in range(5)]
    await shop.engine.enqueue_many(receive, [(id, ["go"]) for id in ids])
    await shop.parked(*ids)  # all five, one after the other, through a single slot
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "memory is empty")
    assert worker.ended["parked"] == 5
    for id in ids:
        row = await shop.row(id)
        assert (row["status"], row["owner_xid"], row["executor_id"], row["waits"]) == ("PENDING", None, None, ["t:go"])
    for id in ids:
        await shop.engine.send(id, id, "go")
    assert await shop.ended(*ids) == ["SUCCESS"] * 5


async def test_a_message_wakes_the_run_that_waits_for_its_topic(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", id="w")
    await shop.parked("w")
    await shop.engine.send("w", "not this one", "stay")
    await shop.engine.send("w", {"go": [1]}, "go")
    assert await shop.result("w") == {"go": [1]}
    assert await shop.journal("w") == [(1, "1", "DBOS.recv", {"go": [1]})]
    assert [(m.topic, m.consumed_by) for m in await shop.engine.messages("w")] == [("stay", None), ("go", 1)]


async def test_everything_wakes_by_polling_alone(shop: Workshop) -> None:
    await shop.worker(receive, listen=False)
    await shop.engine.enqueue(receive, "go", id="w")
    await shop.parked("w")
    await shop.run(
        "insert into dbos.notifications (destination_uuid, topic, message, serialization) values ('w', 'go', '1', 'portable_json')"
    )
    assert await shop.result("w") == 1


async def test_a_message_sent_before_the_wait_is_found_without_parking(shop: Workshop) -> None:
    await shop.engine.enqueue(receive, "go", id="w")
    await shop.engine.send("w", "early", "go")
    worker = await shop.worker(receive)
    assert await shop.result("w") == "early"
    assert worker.ended["parked"] == 0


async def test_messages_of_a_topic_are_taken_oldest_first(shop: Workshop) -> None:
    await shop.set_clock()  # all in one millisecond
    await shop.engine.enqueue(receive_three, "go", id="w")
    for n in (1, 2, 3, 4):
        await shop.engine.send("w", n, "go")
    await shop.worker(receive_three)
    assert await shop.result("w") == [1, 2, 3]
    assert [m.consumed_by for m in await shop.engine.messages("w")] == [1, 2, 3, None]


async def test_topics_do_not_mix(shop: Workshop) -> None:
    @workflow(name="w")
    async def both() -> list[Any]:
        return [await recv("b"), await recv(), await recv("a")]

    await shop.engine.enqueue(both, id="w")
    for topic in ("a", "b", None):
        await shop.engine.send("w", f"to {topic}", topic)
    await shop.worker(both)
    assert await shop.result("w") == ["to b", "to None", "to a"]


async def test_a_message_without_topic_reaches_a_receive_without_topic(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, id="w")
    await shop.parked("w")
    await shop.engine.send("w", 1)
    assert await shop.result("w") == 1


async def test_the_same_key_is_one_message(shop: Workshop) -> None:
    await shop.engine.enqueue(receive_three, id="w")
    await shop.engine.enqueue(receive_three, id="other")
    assert await shop.engine.send("w", 1, key="k")
    assert not await shop.engine.send("w", "again", key="k")
    assert await shop.engine.send("other", 2, key="k")  # a key belongs to its destination
    assert [m.value for m in await shop.engine.messages("w")] == [1]
    assert [m.value for m in await shop.engine.messages("other")] == [2]


async def test_a_message_that_was_taken_is_not_sent_again_by_its_key(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.engine.enqueue(receive, id="w")
    await shop.engine.send("w", 1, key="k")
    assert await shop.result("w") == 1
    assert not await shop.engine.send("w", 2, key="k")


async def test_a_send_to_nobody_says_so(shop: Workshop) -> None:
    with pytest.raises(NoSuchWorkflow, match="there is no workflow 'nobody'"):
        await shop.engine.send("nobody", 1)


async def test_recv_gives_none_when_its_time_is_over(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", 60.0, id="w")
    await shop.parked("w")
    await shop.pass_time(59.9)
    await shop.engine.enqueue(receive, "go", id="marker")
    await shop.parked("w", "marker")
    await shop.pass_time(0.1)
    assert await shop.result("w") is None
    assert await shop.journal("w") == [(1, "2", "DBOS.sleep", NOON_MS / 1000 + 60), (2, "1", "DBOS.recv", None)]


async def test_a_message_in_time_beats_the_timeout(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", 60.0, id="w")
    await shop.parked("w")
    await shop.engine.send("w", "in time", "go")
    assert await shop.result("w") == "in time"


async def test_a_message_counts_even_if_it_is_only_found_after_the_timeout(shop: Workshop) -> None:
    await shop.set_clock()
    first = await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", 60.0, id="w")
    await shop.parked("w")
    await shop.stop(first)
    await shop.engine.send("w", "in time", "go")
    await shop.pass_time(61)
    await shop.worker(receive)
    assert await shop.result("w") == "in time"


async def test_the_timeout_of_zero_only_looks(shop: Workshop) -> None:
    worker = await shop.worker(receive)
    await shop.engine.enqueue(receive, "go", 0.0, id="w")
    assert await shop.result("w") is None
    assert worker.ended["parked"] == 0


async def test_a_workflow_can_send_to_another(shop: Workshop) -> None:
    @workflow(name="sender")
    async def sender(to: str) -> None:
        await send(to, {"n": 1}, "go")
        await send(to, {"n": 2}, "go", key="k")
        await send(to, {"n": 3}, "go", key="k")

    await shop.worker(receive_three, sender)
    await shop.engine.enqueue(receive_three, "go", id="w")
    await shop.parked("w")
    await shop.engine.enqueue(sender, "w", id="s")
    await shop.result("s")
    assert [m.value for m in await shop.engine.messages("w")] == [{"n": 1}, {"n": 2}]
    await shop.engine.rewind("s", 1)  # its sends are the same sends
    await shop.result("s")
    assert [m.value for m in await shop.engine.messages("w")] == [{"n": 1}, {"n": 2}]


async def test_a_workflows_send_to_nobody_fails_alike_on_replay(shop: Workshop) -> None:
    seen: list[str] = []

    @step
    async def after() -> None:
        pass

    @workflow(name="sender")
    async def sender() -> None:
        try:
            await send("nobody", 1)
            seen.append("sent")
        except NoSuchWorkflow as error:
            seen.append(error.workflow_id)
        await after()

    await shop.worker(sender)
    handle = await shop.engine.enqueue(sender, id="s")
    await handle.result(10)
    await shop.engine.enqueue("later known", id="nobody", queue="elsewhere")
    await shop.engine.rewind("s", (await shop.journal("s"))[-1][0])
    await handle.result(10)
    assert seen == ["nobody", "nobody"]


async def test_suspension_cannot_be_held_up_by_the_workflows_own_handlers(shop: Workshop, trace: Trace) -> None:
    @step
    async def note(text: str) -> None:
        trace(text)

    @workflow(name="w")
    async def stubborn() -> Any:
        try:
            return await recv("go")
        except Exception:
            return "eaten"
        except BaseException:
            await note("while it is parked")
            raise
        finally:
            await note("finally")

    await shop.worker(stubborn)
    await shop.engine.enqueue(stubborn, id="w")
    await shop.parked("w")
    assert (trace.calls, await shop.names("w")) == ([], [])
    await shop.engine.send("w", 5, "go")
    assert await shop.result("w") == 5
    assert trace.calls == ["finally"]
