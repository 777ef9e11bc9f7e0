"""Claims, producers, finishes and housekeeping of one queue meet in every awkward order, one statement at a time.

Each test holds one transaction open while others move. That no other order does harm is shown on paper in test_queue_model.py.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.errors import DeadlockDetected

from engine import queues
from engine.entries import FENCE, FIELD
from engine.queues import Findings, Rate
from tests.engine.queue_hands import QUEUE, Hand, Yard, yard_of
from tests.engine.test_foreign_rows import CANCEL
from tests.engine.workshop import Workshop

NUDGE: LiteralString = "insert into engine.nudge (queue, key) select %s, k from unnest(%s::text[]) k"
HOLD: LiteralString = "select from engine.queue_partition where queue = %s and key = %s for no key update"
HOLD_QUEUE: LiteralString = "select from engine.queue where name = %s for update"
NUDGES: LiteralString = "select count(*) from engine.nudge"
AT_WORK: LiteralString = "select count(*) from dbos.workflow_status where status = 'PENDING' and owner_xid is not null"


@pytest.fixture
async def yard(shop: Workshop) -> AsyncIterator[Yard]:
    async with yard_of(shop) as yard:
        yield yard


@pytest.fixture
async def hand(yard: Yard) -> Hand:
    return await yard.hand()


async def empty_out(yard: Yard, hand: Hand) -> None:
    """Let a claim find the partition 'a' empty, with another one beside it, so that it is not alone."""
    await yard.look()
    await hand.claim(10)
    assert await yard.state("a") == "e"


async def look_on(yard: Yard, times: int) -> None:
    """Look as often as time passes for it."""
    for _ in range(times):
        await yard.shop.pass_time(0.1)
        await yard.look()


async def settle(yard: Yard, state: str = "e") -> None:
    """Look until it is certain that the partition is empty, or full. Other databases' writers count too: the number is not known."""

    async def settled() -> bool:
        await look_on(yard, 1)
        row = await yard.partition("a")
        return row is not None and row["state"] == state and row["due_at_ms"] is None

    await yard.shop.until(settled, "certain")


# -- found empty ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [0, 1, 2, 5], ids=lambda n: f"{n} looks")
async def test_a_workflow_whose_producer_saw_work_in_the_partition_is_found(yard: Yard, hand: Hand, looks: int) -> None:
    for key in "ab":
        await yard.fill(1, key)
    await yard.look()
    async with await yard.connect() as producer:
        async with producer.transaction():
            (late,) = await yard.fill(1, "a", conn=producer)
            await empty_out(yard, hand)
            await look_on(yard, looks)
        assert await yard.shop.value(NUDGES) == 0  # it saw a runnable partition
    await look_on(yard, 1)
    assert await yard.state("a") == "r"
    assert [c.id for c in await hand.claim(10)] == [late]


async def test_an_empty_partition_is_left_alone_once_that_is_certain(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(1, key)
    await empty_out(yard, hand)
    await settle(yard)
    assert await yard.shop.value("select engine.look_again()") == 0
    (late,) = await yard.fill(1, "a")
    assert [c.id for c in await hand.take(10)] == [late]


async def test_a_long_reader_does_not_put_off_that_certainty(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(1, key)
    async with await yard.connect() as reader:
        await reader.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with reader.transaction():
            await reader.execute("select count(*) from dbos.workflow_status")
            await empty_out(yard, hand)
            await settle(yard)


async def test_a_producer_that_breaks_off_leaves_nothing_behind(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(1, key)
    await yard.look()
    async with await yard.connect() as producer:
        async with producer.transaction(force_rollback=True):
            await yard.fill(1, "a", conn=producer)
            await empty_out(yard, hand)
            await look_on(yard, 2)
            assert (await yard.partition("a") or {})["due_at_ms"] is not None  # it might still commit
    await settle(yard)


async def test_a_producer_under_repeatable_read_is_found_by_reconciling(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(1, key)
    await yard.look()
    findings = Findings()
    async with await yard.connect() as producer:
        await producer.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with producer.transaction():
            await producer.execute("select count(*) from engine.queue_partition")  # its view for good: runnable
            await empty_out(yard, hand)
            await settle(yard)
            (late,) = await yard.fill(1, "a", conn=producer)
    await look_on(yard, 3)
    assert await hand.take(10) == []  # nobody knows
    await queues.reconcile(yard.conn, findings)
    assert findings == Findings(stranded=1)
    assert [c.id for c in await hand.take(10)] == [late]
    await queues.reconcile(yard.conn, findings)
    assert findings == Findings(stranded=1)


async def test_the_first_look_comes_after_everybody_who_looked_before_the_claim_ended(yard: Yard, hand: Hand) -> None:
    """A look that began before the partition became empty must not take it for due: it would not see who enqueues meanwhile."""
    for key in "ab":
        await yard.fill(1, key)
    await yard.shop.engine.queues.declare(QUEUE, concurrency=100)
    await yard.look()
    async with await yard.connect() as other:
        async with other.transaction():
            await other.execute(HOLD_QUEUE, (QUEUE,))
            claim = asyncio.create_task(hand.claim(10))
            await yard.shop.blocked()
            await yard.shop.pass_time(60)
        assert len(await claim) == 2
    row = await yard.partition("a")
    assert row is not None
    assert row["state"] == "e"
    assert row["due_at_ms"] > await yard.shop.value("select engine.now_ms()")


async def test_a_nudge_that_is_taken_while_a_claim_finds_the_partition_empty_makes_it_runnable(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(1, key)
    await yard.look()
    async with await yard.connect() as looking, hand.conn.transaction():
        await hand.claim(10)
        await yard.shop.run(NUDGE, QUEUE, ["a"])
        look = asyncio.create_task(queues.look_again(looking))
        await yard.shop.blocked()
        await hand.conn.execute("select 1")
        await end(hand.conn)
        assert await look == 1
    assert await yard.state("a") == "r"


async def end(conn: psycopg.AsyncConnection[Any]) -> None:
    """Commit the transaction that a block has opened, and let the block go on in a new one."""
    await conn.execute("commit")
    await conn.execute("begin")


# -- found full -----------------------------------------------------------------------------------------------------------


async def at_cap(yard: Yard, hand: Hand) -> str:
    """A partition with one place, which is taken, and work; it is runnable all the same. Returns who has the place."""
    await yard.shop.engine.queues.declare(QUEUE, partition_concurrency=1)
    await yard.fill(3, "a")
    (taken,) = await hand.take(10)
    await yard.shop.run(NUDGE, QUEUE, ["a"])
    await yard.look()
    assert await yard.state("a") == "r"
    return taken.id


@pytest.mark.parametrize("looks", [0, 1, 2, 5], ids=lambda n: f"{n} looks")
async def test_a_finish_that_saw_room_in_the_partition_makes_room(yard: Yard, hand: Hand, looks: int) -> None:
    taken = await at_cap(yard, hand)
    other = await yard.hand()
    async with hand.conn.transaction():
        await hand.finish(taken)
        assert await other.claim(10) == []
        assert await yard.state("a") == "g"
        await look_on(yard, looks)
        assert await yard.state("a") == "g"
    assert await yard.shop.value(NUDGES) == 0  # it saw a runnable partition
    await look_on(yard, 1)
    assert len(await other.claim(10)) == 1


async def test_a_finish_while_a_claim_finds_the_cap_full_makes_room(yard: Yard, hand: Hand) -> None:
    taken = await at_cap(yard, hand)
    other = await yard.hand()
    async with other.conn.transaction():
        assert await other.claim(10) == []
        await hand.finish(taken)  # the claim's verdict, g, is not to be seen yet
    assert await yard.state("a") == "g"
    await look_on(yard, 1)
    assert len(await hand.claim(10)) == 1


async def test_a_full_partition_is_left_alone_once_that_is_certain_and_whoever_ends_says_so(yard: Yard, hand: Hand) -> None:
    await yard.shop.engine.queues.declare(QUEUE, partition_concurrency=1)
    await yard.fill(2, "a")
    await hand.take(10)
    await settle(yard, "g")
    assert await yard.look() == 0
    await hand.finish()
    assert await yard.shop.value(NUDGES) == 1
    assert len(await hand.take(10)) == 1


async def test_a_nudge_that_is_taken_while_a_claim_finds_the_cap_full_makes_room(yard: Yard, hand: Hand) -> None:
    taken = await at_cap(yard, hand)
    other = await yard.hand()
    async with await yard.connect() as looking, other.conn.transaction():
        assert await other.claim(10) == []
        await hand.finish(taken)
        await yard.shop.run(NUDGE, QUEUE, ["a"])
        look = asyncio.create_task(queues.look_again(looking))
        await yard.shop.blocked()
        await end(other.conn)
        assert await look == 1
    assert len(await hand.claim(10)) == 1


async def test_a_cancel_under_repeatable_read_is_found_by_reconciling(yard: Yard, hand: Hand) -> None:
    """So cancels the other client; its view is older than the verdict that the partition is full."""
    taken = await at_cap(yard, hand)
    findings = Findings()
    async with await yard.connect() as client:
        await client.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with client.transaction():
            await client.execute("select count(*) from engine.queue_partition")
            assert await hand.claim(10) == []
            await settle(yard, "g")
            await client.execute(CANCEL, ([taken],))
    await look_on(yard, 3)
    assert await hand.take(10) == []  # nobody knows
    await queues.reconcile(yard.conn, findings)
    assert findings == Findings(leaked=1)
    assert len(await hand.take(10)) == 1


@pytest.mark.parametrize("of", ["the queue", "each partition", "one partition"])
async def test_two_claims_at_once_never_take_more_than_the_cap(yard: Yard, hand: Hand, of: str) -> None:
    if of == "the queue":
        await yard.shop.engine.queues.declare(QUEUE, concurrency=3)
    elif of == "each partition":
        await yard.shop.engine.queues.declare(QUEUE, partition_concurrency=3)
    else:
        await yard.shop.engine.queues.tune(QUEUE, "a", concurrency=3)
    await yard.fill(10, "a")
    await yard.look()
    other = await yard.hand()
    async with hand.conn.transaction():
        assert len(await hand.claim(2)) == 2
        second = asyncio.create_task(other.claim(2))
        await yard.shop.blocked()
    assert len(await second) == 1
    assert await yard.held() == {"a": 3}


async def test_a_cap_that_is_declared_during_a_claim_counts_what_that_claim_takes(yard: Yard, hand: Hand) -> None:
    await yard.fill(10, "a")
    await yard.look()
    async with hand.conn.transaction():
        await hand.claim(5)
        declare = asyncio.create_task(yard.shop.engine.queues.declare(QUEUE, partition_concurrency=3))
        await asyncio.wait([declare], timeout=0.2)  # whether it waits for the claim or not
    await declare
    assert await (await yard.hand()).take(5) == []
    assert await yard.shop.value(AT_WORK) == 5


async def test_a_rate_that_is_lifted_during_a_claim_holds_nobody_back_afterwards(yard: Yard, hand: Hand) -> None:
    await yard.shop.engine.queues.declare(QUEUE, partition_rate=Rate(1, 3600))
    await yard.fill(3, "a")
    await yard.look()
    assert len(await hand.claim(5)) == 1
    await yard.shop.pass_time(4000)
    await yard.look()
    other = await yard.hand()
    async with await yard.connect() as holder:
        async with holder.transaction():
            await holder.execute(HOLD, (QUEUE, "a"))
            claim = asyncio.create_task(other.claim(5))
            await yard.shop.blocked()
            lift = asyncio.create_task(yard.shop.engine.queues.declare(QUEUE))
            await asyncio.wait([lift], timeout=0.2)
    await lift
    assert len(await claim) + len(await hand.take(5)) == 2


# -- claims among themselves ----------------------------------------------------------------------------------------------


async def test_a_claim_waits_for_the_only_partition_instead_of_going_away_empty(yard: Yard, hand: Hand) -> None:
    await yard.fill(3, "a")
    await yard.fill(3, "a", priority=1)  # not plain
    await yard.look()
    other = await yard.hand()
    async with hand.conn.transaction():
        assert len(await hand.claim(4)) == 4
        second = asyncio.create_task(other.claim(4))
        await yard.shop.blocked()
    assert len(await second) == 2


async def test_a_claim_passes_over_a_partition_that_another_one_holds(yard: Yard, hand: Hand) -> None:
    for key in "ab":
        await yard.fill(5, key)
    await yard.look()
    async with await yard.connect() as holder, holder.transaction():
        await holder.execute(HOLD, (QUEUE, "a"))
        assert {c.partition for c in await hand.claim(20)} == {"b"}


async def test_a_claim_that_waited_takes_nothing_from_a_partition_that_was_paused_meanwhile(yard: Yard, hand: Hand) -> None:
    await yard.fill(3, "a")
    await yard.fill(3, "a", priority=1)
    await yard.look()
    async with await yard.connect() as pausing:
        async with pausing.transaction():
            await pausing.execute(queues.PAUSE_PARTITION, (QUEUE, "a"))
            claim = asyncio.create_task(hand.claim(4))
            await yard.shop.blocked()
        assert await claim == []


async def test_two_claims_of_a_lonely_partition_take_different_workflows(yard: Yard, hand: Hand) -> None:
    ids = await yard.fill(6, "a")
    await yard.look()
    other = await yard.hand()
    async with hand.conn.transaction():
        mine = [c.id for c in await hand.claim(2)]
        others = [c.id for c in await other.claim(2)]  # does not even wait
    assert mine + others == ids[:4]


# -- deadlocks ------------------------------------------------------------------------------------------------------------


async def test_a_claim_that_waits_holds_no_partition_that_a_look_waits_for(yard: Yard, hand: Hand) -> None:
    """All partitions are held. The one that the claim waits for is paused meanwhile; the look is on its way to that one."""
    await yard.shop.run(
        "insert into engine.queue_partition (queue, key, vtime) values (%s, 'a', 1), (%s, 'm', 2), (%s, 'z', 0)", *[QUEUE] * 3
    )
    await yard.shop.run(NUDGE, QUEUE, ["a", "m", "z"])
    async with await yard.connect() as holder, await yard.connect() as pausing, await yard.connect() as looking:
        async with holder.transaction():
            await holder.execute(HOLD, (QUEUE, "m"))
            async with pausing.transaction():
                await pausing.execute(queues.PAUSE_PARTITION, (QUEUE, "z"))
                look = asyncio.create_task(queues.look_again(looking))  # has a, waits for m, will want z
                await yard.shop.blocked()
                claim = asyncio.create_task(hand.claim(1))  # waits for z
                await yard.shop.blocked(2)
            await asyncio.wait([claim], timeout=0.1)
        results = await asyncio.gather(claim, look, return_exceptions=True)
    assert not [r for r in results if isinstance(r, BaseException)]


async def test_declaring_a_cap_and_a_journal_lock_workflows_in_one_order(yard: Yard, hand: Hand) -> None:
    await yard.fill(2, "z")
    await yard.fill(2, "a")
    taken = {c.id: c for c in await hand.take(10)}
    first, *_, last = sorted(taken)
    assert first < last and first.startswith("a") and last.startswith("z")
    async with await yard.connect() as journal:
        async with journal.transaction():
            await journal.execute(FENCE, (first, taken[first].token, "1"))
            declare = asyncio.create_task(yard.shop.engine.queues.declare(QUEUE, concurrency=10))
            await yard.shop.blocked()
            await journal.execute(FENCE, (FIELD.join([last]), taken[last].token, "1"))
        await declare
    assert sum((await yard.held()).values()) == 4


class Bustle:
    """Four people who do all that can be done to three queues, at random, each on a connection of his own."""

    NAMES = ("q1", "q2", "q3")

    def __init__(self, yard: Yard, seed: int) -> None:
        self.yard = yard
        self.seed = seed
        self.done = 0
        self.claimed = 0

    async def run(self, operations: int) -> None:
        await self.yard.know(*self.NAMES)
        hands = [await self.yard.hand() for _ in range(4)]
        await asyncio.gather(*(self._act(hand, random.Random(f"{self.seed} {n}"), operations) for n, hand in enumerate(hands)))

    async def _act(self, hand: Hand, chance: random.Random, operations: int) -> None:
        moves = [self._claim] * 5 + [self._look] * 4 + [self._finish] * 3 + [self._enqueue] * 3
        moves += [self._tidy, self._reconcile, self._limit, self._pause]
        for _ in range(operations):
            await chance.choice(moves)(hand, chance)
            self.done += 1

    async def _claim(self, hand: Hand, chance: random.Random) -> None:
        names = chance.sample(self.NAMES, chance.randint(1, 3))
        self.claimed += len(await hand.claim(chance.choice([1, 5, 30]), *names))

    async def _look(self, hand: Hand, chance: random.Random) -> None:
        await queues.look_again(hand.conn)

    async def _finish(self, hand: Hand, chance: random.Random) -> None:
        await hand.finish(*chance.sample(sorted(hand.mine), len(hand.mine) // 2))

    async def _enqueue(self, hand: Hand, chance: random.Random) -> None:
        async with hand.conn.transaction():
            for _ in range(chance.randint(1, 3)):
                key, name = chance.choice("abcdefgh"), chance.choice(self.NAMES)
                await self.yard.fill(chance.randint(1, 5), key, queue=name, priority=chance.randint(0, 1), conn=hand.conn)

    async def _tidy(self, hand: Hand, chance: random.Random) -> None:
        await queues.tidy(hand.conn)

    async def _reconcile(self, hand: Hand, chance: random.Random) -> None:
        await queues.reconcile(hand.conn, Findings())

    async def _limit(self, hand: Hand, chance: random.Random) -> None:
        name, few = chance.choice(self.NAMES), chance.choice([None, 10, 50])
        if chance.random() < 0.5:
            await self.yard.shop.engine.queues.declare(name, concurrency=few, partition_concurrency=chance.choice([None, 5]))
        else:
            await self.yard.shop.engine.queues.tune(name, chance.choice("abc"), weight=chance.choice([1, 2]), concurrency=few)

    async def _pause(self, hand: Hand, chance: random.Random) -> None:
        name, key = chance.choice(self.NAMES), chance.choice("abcdefgh")
        await self.yard.shop.engine.queues.pause(name, key)
        await self.yard.shop.engine.queues.resume(name, key)


async def test_whatever_four_do_at_once_nobody_deadlocks(yard: Yard) -> None:
    bustle = Bustle(yard, seed=1)
    try:
        await bustle.run(150)
    except DeadlockDetected as error:
        pytest.fail(f"after {bustle.done} operations: {error}")
    assert bustle.claimed > 100
