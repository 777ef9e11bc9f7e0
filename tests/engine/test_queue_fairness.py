"""Who is served next: equal or weighted shares for all partitions with work, whatever they did before; urgent first, but nobody never."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from engine import queues, wakeups, workflow
from engine.control import INTERNAL_QUEUE
from engine.queues import Rate
from tests.engine.claimant import NAME
from tests.engine.queue_hands import QUEUE, Hand, Yard, yard_of
from tests.engine.test_foreign_rows import CANCEL, ENQUEUE_STATUS, RESUME
from tests.engine.workshop import NOON_MS, PATIENCE_S, Workshop


@pytest.fixture
async def yard(shop: Workshop) -> AsyncIterator[Yard]:
    async with yard_of(shop) as yard:
        yield yard


@pytest.fixture
async def hand(yard: Yard) -> Hand:
    return await yard.hand()


async def served(hand: Hand, starts: int, room: int) -> Counter[str]:
    return Counter(await hand.serve(starts, room=room))


def shares(got: Counter[str], keys: str = "abc") -> list[float]:
    """Each partition's part of what was served, the smallest as 1."""
    least = min(got[key] for key in keys)
    return [round(got[key] / max(least, 1), 2) for key in keys]


# -- shares ---------------------------------------------------------------------------------------------------------------


async def test_a_tenant_with_ten_thousand_does_not_keep_the_others_waiting(yard: Yard, hand: Hand) -> None:
    """Rounds of a hundred starts for a hundred tenants: what 99 of them enqueue, one each a round, does not wait for a whole round more."""
    await yard.fill(10_000, "heavy")
    await hand.serve(200, room=50)  # it has had the queue to itself
    lights = [f"light {n}" for n in range(99)]
    started, came, waits = 0, dict[str, int](), list[int]()
    for _ in range(6):
        for key in lights:
            came |= dict.fromkeys(await yard.fill(1, key), started)
        for _ in range(5):
            for claimed in await hand.take(20):
                started += 1
                if claimed.id in came:
                    waits.append(started - came.pop(claimed.id))
    assert max(waits) <= 110
    assert len(came) <= 10


@pytest.mark.parametrize("room", [1, 10, 50])
async def test_weights_are_kept(yard: Yard, hand: Hand, room: int) -> None:
    for key, weight in (("a", 1), ("b", 2), ("c", 4)):
        await yard.fill(700, key)
        await yard.shop.engine.queues.weigh(QUEUE, key, weight)
    got = await served(hand, 700, room)
    assert [got[key] for key in "abc"] == pytest.approx([100, 200, 400], rel=0.05)


async def test_a_changed_weight_acts_on_what_is_queued_already(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(500, key)
    assert shares(await served(hand, 200, 10), "ab") == pytest.approx([1, 1], rel=0.05)
    await yard.shop.engine.queues.weigh(QUEUE, "a", 3)
    got = await served(hand, 200, 10)
    assert [got["a"], got["b"]] == pytest.approx([150, 50], rel=0.05)


async def test_several_claims_at_once_keep_the_shares(yard: Yard) -> None:
    keys = "abcdefghijkl"
    for key in keys:
        await yard.fill(300, key)
    got = Counter[str]()

    async def serve(hand: Hand) -> None:
        while got.total() < 1200:
            got.update(await hand.serve(5, room=5))

    hands = [await yard.hand() for _ in range(4)]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*map(serve, hands))
    assert [got[key] for key in keys] == pytest.approx([got.total() / len(keys)] * len(keys), rel=0.1)


async def test_a_claim_serves_every_tenant_when_there_are_more_than_it_has_room_for(yard: Yard, hand: Hand) -> None:
    keys = [f"t{n}" for n in range(100)]
    for key in keys:
        await yard.fill(20, key)
    got = await served(hand, 500, 10)
    assert [got[key] for key in keys] == pytest.approx([5] * 100, abs=1)


# -- what is saved up: nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 10])
async def test_a_newcomer_takes_no_more_than_its_share(yard: Yard, hand: Hand, room: int) -> None:
    for key in "ab":
        await yard.fill(300, key)
    await hand.serve(300, room=10)
    await yard.fill(100, "c")
    assert shares(await served(hand, 90, room)) == pytest.approx([1, 1, 1], rel=0.15)


@pytest.mark.parametrize("room", [1, 10])
async def test_nor_does_one_that_comes_after_the_queue_was_idle(yard: Yard, hand: Hand, room: int) -> None:
    for key in "ab":
        await yard.fill(150, key)
    await hand.serve(300, room=10)
    assert await hand.take() == []
    await yard.tidy()
    for key in "abc":
        await yard.fill(100, key)
    assert shares(await served(hand, 90, room)) == pytest.approx([1, 1, 1], rel=0.15)


@pytest.mark.parametrize("room", [1, 10])
@pytest.mark.parametrize("how", ["paused", "paused before it came", "at its cap", "at its rate", "for another version"])
async def test_a_partition_that_was_passed_over_has_saved_up_nothing(yard: Yard, hand: Hand, how: str, room: int) -> None:
    its = yard.shop.engine.queues
    if how == "paused before it came":
        await its.pause(QUEUE, "c")
    if how == "at its cap":
        await its.tune(QUEUE, "c", concurrency=1)
    elif how == "at its rate":
        await its.tune(QUEUE, "c", rate=Rate(1, 60))
    await yard.fill(500, "c", version="v2" if how == "for another version" else None)
    if how == "at its cap":
        await (await yard.hand()).take()  # somebody works on it all the time
    elif how == "paused":
        await its.pause(QUEUE, "c")
    for key in "ab":
        await yard.fill(500, key)
    await hand.serve(400, room=10)
    await yard.tidy()
    before = await yard.state("c")
    if how == "for another version":
        await yard.shop.run("update dbos.workflow_status set application_version = null")
        await yard.shop.pass_time(30)
    elif how.startswith("paused"):
        await its.resume(QUEUE, "c")
    else:
        await its.tune(QUEUE, "c")
    assert before == {"paused": "p", "paused before it came": "p", "at its cap": "g", "at its rate": "t"}.get(how, "s")
    assert shares(await served(hand, 90, room)) == pytest.approx([1, 1, 1], rel=0.15)


async def test_delayed_starts_that_become_due_together_take_their_share(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(300, key)
    await yard.fill(300, "c", due_ms=NOON_MS + 1000)
    await hand.serve(300, room=10)
    await yard.shop.pass_time(1)
    assert await wakeups.timers(yard.conn) == 300
    assert shares(await served(hand, 90, 10)) == pytest.approx([1, 1, 1], rel=0.15)


async def test_only_partitions_that_mean_nothing_are_forgotten(yard: Yard, hand: Hand) -> None:
    its = yard.shop.engine.queues
    await its.declare(QUEUE, partition_rate=Rate(100, 60))
    keys = ["plain", "weighed", "capped", "rated", "paused", "busy", "in debt"]
    for key in keys:
        await yard.fill(5, key)
    await its.weigh(QUEUE, "weighed", 2)
    await its.tune(QUEUE, "capped", concurrency=9)
    await its.tune(QUEUE, "rated", rate=Rate(9, 1))
    await hand.serve(35, room=10)
    assert await hand.take() == []
    await its.pause(QUEUE, "paused")
    await yard.fill(1, "busy")

    async def forgotten() -> list[str]:
        for _ in range(5):
            await yard.shop.pass_time(0.1)
            await yard.look()
        await yard.shop.run("update engine.queue_partition set vtime = 1000000000 where key = 'in debt'")
        await yard.tidy()
        return [key for key in keys if await yard.state(key) is None]

    assert await forgotten() == []  # a rate must remember what they started
    await yard.shop.pass_time(70)
    await yard.look()
    assert await forgotten() == ["plain"]


# -- classes --------------------------------------------------------------------------------------------------------------


async def test_the_lower_priority_number_goes_first_in_its_partition_only(yard: Yard, hand: Hand) -> None:
    for key, priority in (("a", 5), ("a", 1), ("a", -1), ("b", 9)):
        await yard.fill(3, key, priority=priority)
    taken = [c for _ in range(12) for c in await hand.take()]
    assert [c.priority for c in taken if c.partition == "a"] == [-1] * 3 + [1] * 3 + [5] * 3
    assert Counter(c.partition for c in taken[:6]) == {"a": 3, "b": 3}


@pytest.mark.parametrize("room", [1, 7, 50])
async def test_no_class_starves_under_endless_urgent_work(yard: Yard, hand: Hand, room: int) -> None:
    await yard.fill(1000, "a")
    for priority in (5, 9):
        await yard.fill(100, "a", priority=priority)
    got: list[int] = []
    while len(got) < 320:
        got += [c.priority for c in await hand.take(room)]
    count = Counter(got)
    assert count[5] + count[9] == pytest.approx(len(got) / 16, abs=4)
    assert min(count[5], count[9]) >= 7
    if room == 1:
        assert all(max(got[at : at + 16]) > 0 for at in range(0, 320, 16))


async def test_a_class_for_others_does_not_keep_the_next_class_from_its_turn(yard: Yard, hand: Hand) -> None:
    await yard.fill(300, "a")
    await yard.fill(3, "a", priority=5, version="v2")
    await yard.fill(20, "a", priority=9)
    got = [c.priority for _ in range(160) for c in await hand.take()]
    assert Counter(got) == {0: 150, 9: 10}


@pytest.mark.parametrize("lonely", [True, False])
async def test_the_first_come_of_a_class_is_the_first_served(yard: Yard, hand: Hand, lonely: bool) -> None:
    first = await yard.fill(10, "a")
    if not lonely:
        await yard.fill(100, "b")
    second = await yard.fill(10, "a")
    order: list[str] = []
    while len(order) < 20:
        order += sorted((c.id for c in await hand.take(3) if c.partition == "a"), key=lambda id: int(id[2:]))
    assert order == first + second


@pytest.mark.parametrize("lonely", [True, False])
async def test_a_run_that_is_woken_goes_before_newer_work_of_its_class(yard: Yard, hand: Hand, lonely: bool) -> None:
    if not lonely:
        await yard.fill(20, "b")
    (old,) = await yard.fill(1, "a")
    await hand.take(2)
    await hand.park(old)
    newer = await yard.fill(5, "a")
    await yard.wake(old)
    taken = [c.id for _ in range(6) for c in await hand.take() if c.partition == "a"]
    assert taken[:2] == [old, newer[0]]


# -- whose work it is -----------------------------------------------------------------------------------------------------


async def test_partitions_with_work_for_others_do_not_block_the_rest(yard: Yard, hand: Hand) -> None:
    for n in range(200):
        if n % 2:
            await yard.fill(1, f"other {n}", name="elsewhere")
        else:
            await yard.fill(1, f"other {n}", version="v2")
    await hand.take()
    (mine,) = await yard.fill(1, "z")
    taken = [[c.id for c in await hand.take(50)] for _ in range(4)]
    assert [mine] in taken
    assert (await yard.states())["s"] >= 199
    (next_one,) = await yard.fill(1, "z")  # and now they cost nothing any more
    assert [c.id for c in await hand.take(5)] == [next_one]


async def test_the_right_worker_finds_what_others_passed_over(yard: Yard, hand: Hand) -> None:
    (theirs,) = await yard.fill(1, "a", version="v2")
    await yard.fill(50, "b")
    right = await yard.hand(version="v2")
    for _ in range(3):
        await hand.take()
    assert await yard.state("a") == "s"
    for _ in range(20):
        await yard.shop.pass_time(0.1)
        if theirs in [c.id for c in await right.take()]:
            break
    else:
        pytest.fail("not found within 2 s")


async def test_new_work_in_a_partition_for_others_is_found_at_once(yard: Yard, hand: Hand) -> None:
    await yard.fill(3, "a", version="v2")
    await yard.fill(3, "b")
    await hand.take(10)
    assert await yard.state("a") == "s"
    (mine,) = await yard.fill(1, "a")
    assert [c.id for c in await hand.take(10)] == [mine]


async def test_a_worker_gets_through_a_crowd_of_strangers_without_waiting_for_its_next_poll(shop: Workshop) -> None:
    @workflow(name="mine")
    async def mine() -> str:
        return "done"

    await shop.run(
        "insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, serialization)"
        " select 's' || n, 'ENQUEUED', 'strange', 'default', 'p' || n, 'portable_json' from generate_series(1, 1000) n"
    )
    await shop.run(
        "insert into engine.queue_partition (queue, key, state, tie) values ('default', 'z', 'e', 2147483647)"
    )  # the last
    await shop.engine.enqueue(mine, id="w", partition="z")
    await shop.worker(mine, poll_s=60.0)
    assert await shop.result("w") == "done"


async def test_what_other_clients_insert_and_resume_is_served(yard: Yard, hand: Hand) -> None:
    await yard.shop.run(ENQUEUE_STATUS, "foreign", NAME, QUEUE, "portable_json")
    assert [c.id for c in await hand.take(5)] == ["foreign"]
    await yard.shop.run(CANCEL, ["foreign"])
    await yard.shop.run(RESUME, ["foreign"])
    assert [c.id for c in await hand.take(5, INTERNAL_QUEUE)] == ["foreign"]


async def test_what_is_resumed_while_it_is_queued_is_served_in_its_new_queue(yard: Yard, hand: Hand) -> None:
    foreign, ours = await yard.fill(2, "a")
    await yard.shop.run(RESUME, [foreign])
    assert await yard.shop.engine.resume(ours, queue="another")
    await yard.know(INTERNAL_QUEUE, "another")
    assert [c.id for c in await hand.take(5, INTERNAL_QUEUE)] == [foreign]
    assert [c.id for c in await hand.take(5, "another")] == [ours]


# -- pauses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lonely", [True, False])
async def test_what_is_paused_gives_nothing_and_comes_back(yard: Yard, hand: Hand, lonely: bool) -> None:
    its = yard.shop.engine.queues
    await yard.fill(10, "a")
    if not lonely:
        await yard.fill(10, "b")
    await its.pause(QUEUE)
    assert await hand.take() == []
    await its.resume(QUEUE)
    assert len(await hand.take()) == 1
    assert await its.pause_worker(hand.id)
    assert await hand.take() == []
    assert len(await (await yard.hand()).take()) == 1
    assert await its.pause_worker(hand.id, paused=False)
    assert len(await hand.take()) == 1
    await its.pause(QUEUE, "a")
    await yard.fill(1, "a")
    await hand.give_back()
    assert {c.partition for c in await hand.take(30)} <= {"b"}
    await yard.shop.pass_time(3600)
    assert await hand.take() == []
    await its.resume(QUEUE, "a")
    assert {c.partition for c in await hand.take(30)} == {"a"}


async def test_a_pause_of_a_partition_is_told_to_people(yard: Yard) -> None:
    its = yard.shop.engine.queues
    await its.pause(QUEUE, "a")
    assert [(p.key, p.state) for p in await its.partitions(QUEUE)] == [("a", "p")]
    await its.pause(QUEUE)
    assert [(q.name, q.paused) for q in await its.states()] == [(QUEUE, True)]
    assert await queues.next_look_s(yard.conn) is None
