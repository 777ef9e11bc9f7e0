"""No wake-up is lost: parking and what a run waits for may meet in any order, one statement at a time.

Each test holds one of the two transactions open while the other moves.
"""

import asyncio

import pytest

from engine import entries, wakeups
from engine.entries import FENCE, Owner
from tests.engine import claimant
from tests.engine.workshop import NOON_MS, Workshop

KEY = entries.event_token("setter", "key")


async def waits_on(shop: Workshop, id: str) -> bool:
    row = await shop.row(id)
    return row["status"] == "PENDING" and row["owner_xid"] is None


@pytest.fixture
async def owner(shop: Workshop) -> Owner:
    _, owned = await claimant.enqueue_and_claim(shop, "w")
    return owned["w"]


async def test_a_message_that_comes_while_the_run_is_being_parked_wakes_it(shop: Workshop, owner: Owner) -> None:
    async with await shop.connect() as parking, await shop.connect() as waking:
        async with parking.transaction():
            assert await claimant.park(parking, owner, "t:go")
            await shop.engine.send("w", 1, "go")  # does not wait for the park
            wake = asyncio.create_task(wakeups.wake(waking))
            await shop.blocked()  # this one does
        assert await wake == 1
    assert await shop.status("w") == "ENQUEUED"


async def test_a_message_that_is_not_committed_when_the_run_is_parked_wakes_it_afterwards(shop: Workshop, owner: Owner) -> None:
    async with await shop.connect() as parking:
        async with shop.engine.transaction() as sending:
            await shop.engine.send("w", 1, "go", conn=sending)
            assert await claimant.park(parking, owner, "t:go")
            assert await wakeups.wake(parking) == 0
        assert await wakeups.wake(parking) == 1
    assert await shop.status("w") == "ENQUEUED"


async def test_a_message_whose_wake_up_came_too_early_is_seen_by_the_park(shop: Workshop, owner: Owner) -> None:
    await shop.engine.send("w", 1, "go")
    async with await shop.connect() as conn:
        assert await wakeups.wake(conn) == 1  # taken out while the run was awake
        assert not await claimant.park(conn, owner, "t:go")
    assert not await waits_on(shop, "w")


async def test_a_park_that_waits_for_a_wake_up_under_way_sees_its_message(shop: Workshop, owner: Owner) -> None:
    await shop.engine.send("w", 1, "go")
    async with await shop.connect() as waking, claimant.journal(shop) as journal:
        async with waking.transaction():
            await waking.execute(wakeups.TAKE_WAKES)
            await waking.execute(wakeups.LOCK_RUNS, (["w"],))
            parked = asyncio.ensure_future(journal.add(entries.Park(owner, ["t:go"], [], None)))
            await shop.blocked()
            await waking.execute(wakeups.WAKE, ("w", "t:go"))
        assert await parked is False


async def test_a_message_of_another_topic_leaves_the_run_parked(shop: Workshop, owner: Owner) -> None:
    async with await shop.connect() as conn:
        await shop.engine.send("w", 1, "other")
        assert await claimant.park(conn, owner, "t:go")
        await shop.engine.send("w", 2, "third")
        assert await wakeups.wake(conn) == 2
    assert await waits_on(shop, "w")


async def test_a_child_that_ends_while_its_parent_is_being_parked_wakes_it(shop: Workshop) -> None:
    worker_id = await claimant.register(shop)
    await shop.engine.enqueue_many(claimant.NAME, [("p", []), ("c", [])])
    await shop.run("update dbos.workflow_status set parent_workflow_id = 'p' where workflow_uuid = 'c'")
    async with await shop.connect() as parking, await shop.connect() as ending:
        owned = await claimant.claim(parking, worker_id)
        async with ending.transaction():
            await claimant.write(ending, entries.Finish(owned["c"], "SUCCESS", "1", None, None))
            assert await claimant.park(parking, owned["p"], "c:c")  # the end is not to be seen yet
        assert await wakeups.wake(parking) == 1
        assert await shop.status("p") == "ENQUEUED"


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
async def test_a_child_that_has_ended_keeps_its_parent_from_being_parked(shop: Workshop, status: str) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "p", "c")
    async with claimant.journal(shop) as journal:
        await journal.add(entries.Finish(owned["c"], status, "1", None, None))
        assert await journal.add(entries.Park(owned["p"], ["c:c"], [], None)) is False


async def test_a_cancel_that_is_not_committed_when_the_parent_is_parked_wakes_it_afterwards(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "p", "c")
    await shop.run("update dbos.workflow_status set parent_workflow_id = 'p' where workflow_uuid = 'c'")
    async with await shop.connect() as parking:
        async with shop.engine.transaction() as cancelling:
            await shop.engine.cancel("c", conn=cancelling)
            assert await claimant.park(parking, owned["p"], "c:c")
        assert await wakeups.wake(parking) == 1
    assert await shop.status("p") == "ENQUEUED"


async def test_an_event_that_is_set_while_its_reader_is_being_parked_is_found_by_the_second_look(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "reader", "setter")
    event = claimant.step(owned["setter"], effect=entries.Event("key", "1"))
    async with await shop.connect() as parking, await shop.connect() as housekeeping, claimant.journal(shop) as journal:
        async with parking.transaction():
            assert await claimant.park(parking, owned["reader"], KEY, shared=True)
            await journal.add(event)
            assert await wakeups.spread(housekeeping, [KEY]) == 0  # its wait is not to be seen yet
        assert await wakeups.look_again(housekeeping, ["reader"]) == 1
        assert await wakeups.wake(housekeeping) == 1
    assert await shop.status("reader") == "ENQUEUED"


async def test_an_event_that_is_not_committed_when_its_reader_is_parked_is_spread_afterwards(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "reader", "setter")
    async with await shop.connect() as setting, await shop.connect() as conn:
        async with setting.transaction():
            await claimant.write(setting, claimant.step(owned["setter"], effect=entries.Event("key", "1")))
            assert await claimant.park(conn, owned["reader"], KEY, shared=True)
            assert await wakeups.look_again(conn, ["reader"]) == 0
        assert await wakeups.spread(conn, [KEY]) == 1
        assert await wakeups.wake(conn) == 1
    assert await shop.status("reader") == "ENQUEUED"


async def test_names_with_colons_do_not_hide_an_event(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "reader", "a::b")
    async with claimant.journal(shop) as journal:
        await journal.add(claimant.step(owned["a::b"], effect=entries.Event("key", "1")))
        assert (
            await journal.add(
                entries.Park(owned["reader"], [entries.event_token("a::b", "key")], [entries.event_token("a::b", "key")], None)
            )
            is False
        )


async def test_a_time_that_has_come_keeps_the_run_from_being_parked(shop: Workshop) -> None:
    await shop.set_clock()
    _, owned = await claimant.enqueue_and_claim(shop, "w", "x")
    async with await shop.connect() as conn:
        assert not await claimant.park(conn, owned["w"], wake_at_ms=NOON_MS)
        assert await claimant.park(conn, owned["x"], wake_at_ms=NOON_MS + 1)
        assert await wakeups.timers(conn) == 0
        await shop.pass_time(0.001)
        assert await wakeups.timers(conn) == 1
    assert (await shop.status("x"), await shop.status("w")) == ("ENQUEUED", "PENDING")


async def test_a_timer_and_a_message_wake_a_run_once(shop: Workshop) -> None:
    await shop.set_clock()
    _, owned = await claimant.enqueue_and_claim(shop, "w")
    async with await shop.connect() as timing, await shop.connect() as waking:
        assert await claimant.park(timing, owned["w"], "t:go", wake_at_ms=NOON_MS + 1)
        await shop.pass_time(1)
        await shop.engine.send("w", 1, "go")
        async with timing.transaction():
            assert await wakeups.timers(timing) == 1
            wake = asyncio.create_task(wakeups.wake(waking))
            await shop.blocked()
        assert await wake == 1
        claimed = await claimant.claim(timing, await claimant.register(shop))
        assert list(claimed) == ["w"]
        await timing.execute(FENCE, ("w", claimed["w"].token, "1"))  # the late wake-up took nothing away


async def test_a_wake_up_never_takes_a_run_from_its_owner(shop: Workshop, owner: Owner) -> None:
    async with await shop.connect() as conn:
        await conn.execute("insert into engine.wake (workflow_uuid, token) values ('w', 't:go'), ('nobody', 't:go')")
        await conn.execute("update dbos.workflow_status set wake_at_ms = 0")
        assert await wakeups.wake(conn) == 2
        await wakeups.timers(conn)
        await claimant.fence(conn, owner)


async def test_two_workers_wake_disjoint_runs(shop: Workshop) -> None:
    ids = [f"w{n:02}" for n in range(40)]
    _, owned = await claimant.enqueue_and_claim(shop, *ids)
    async with claimant.journal(shop) as journal:
        await asyncio.gather(*(journal.add(entries.Park(owned[id], ["t:go"], [], None)) for id in ids))
    for id in ids:
        await shop.engine.send(id, 1, "go")
    async with await shop.connect() as a, await shop.connect() as b:
        taken = await asyncio.gather(wakeups.wake(a), wakeups.wake(b))
    assert sum(taken) == 40
    assert [await shop.status(id) for id in ids] == ["ENQUEUED"] * 40
