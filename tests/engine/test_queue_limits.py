"""Caps and rates hold at every moment, whatever happens; and once there is room again, nobody is forgotten."""

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import queues
from engine.control import INTERNAL_QUEUE
from engine.queues import Findings, Rate
from tests.conftest import new_database
from tests.engine.queue_hands import QUEUE, Hand, Yard, yard_of
from tests.engine.test_foreign_rows import CANCEL, RESUME
from tests.engine.workshop import NOON_MS, Workshop

OPENS: LiteralString = "select (engine.now_ms() - %s) / 1000.0"


@pytest.fixture
async def yard(shop: Workshop) -> AsyncIterator[Yard]:
    async with yard_of(shop) as yard:
        yield yard


@pytest.fixture
async def hand(yard: Yard) -> Hand:
    return await yard.hand()


async def limit(yard: Yard, of: str, cap: int | None = None, rate: Rate | None = None) -> None:
    """Limit the queue, each of its partitions, or the partition 'a' alone."""
    its = yard.shop.engine.queues
    if of == "the queue":
        await its.declare(QUEUE, concurrency=cap, rate=rate)
    elif of == "each partition":
        await its.declare(QUEUE, partition_concurrency=cap, partition_rate=rate)
    else:
        await its.tune(QUEUE, "a", concurrency=cap, rate=rate)


OF = pytest.mark.parametrize("of", ["the queue", "each partition", "one partition"])


async def take_soon(yard: Yard, hand: Hand, room: int = 50) -> list[str]:
    """What is taken once all that is provisional has become certain, or not."""
    for _ in range(4):
        await yard.shop.pass_time(0.1)
        await yard.look()
    return [c.id for c in await hand.take(room)]


# -- caps -----------------------------------------------------------------------------------------------------------------


@OF
@pytest.mark.parametrize("priorities", [(0,), (0, 5), (0, 5, 9)], ids=lambda p: f"{len(p)} classes")
async def test_a_claim_with_much_room_takes_no_more_than_the_cap(
    yard: Yard, hand: Hand, of: str, priorities: Sequence[int]
) -> None:
    await limit(yard, of, cap=2)
    for priority in priorities:
        await yard.fill(30, "a", priority=priority)
    assert len(await hand.take(50)) == 2
    assert await (await yard.hand()).take(50) == []


@OF
async def test_every_way_to_give_back_a_place_makes_room(yard: Yard, hand: Hand, of: str) -> None:
    async def finish(id: str) -> None:
        await hand.finish(id)

    async def park(id: str) -> None:
        await hand.park(id)

    async def cancel(id: str) -> None:
        await yard.shop.engine.cancel(id)
        hand.mine.clear()

    async def foreign_cancel(id: str) -> None:
        await yard.shop.run(CANCEL, [id])
        hand.mine.clear()

    async def foreign_resume(id: str) -> None:
        await yard.shop.run(RESUME, [id])
        hand.mine.clear()

    async def rewind(id: str) -> None:
        await yard.shop.engine.rewind(id, 1, queue="elsewhere")
        hand.mine.clear()

    async def delete(id: str) -> None:
        await yard.shop.engine.delete(id)
        hand.mine.clear()

    async def crash(_: str) -> None:
        nonlocal hand
        await yard.crash(hand)
        hand = await yard.hand()

    async def give_back(_: str) -> None:
        await hand.give_back()

    await limit(yard, of, cap=1)
    ways: list[Callable[[str], Awaitable[None]]] = [
        finish,
        park,
        cancel,
        foreign_cancel,
        foreign_resume,
        rewind,
        crash,
        give_back,
    ]
    ways.append(delete)
    await yard.fill(20, "a")
    (mine,) = await hand.take(50)
    for way in ways:
        assert await take_soon(yard, hand) == []
        await way(mine.id)
        taken = await hand.take(50)
        assert len(taken) == 1, way.__name__
        (mine,) = taken


@OF
async def test_a_cap_that_comes_later_counts_those_at_work_and_they_make_room_when_they_end(
    yard: Yard, hand: Hand, of: str
) -> None:
    await yard.fill(10, "a")
    first = [c.id for c in await hand.take(3)]
    await limit(yard, of, cap=2)
    other = await yard.hand()
    assert await take_soon(yard, other) == []
    await hand.finish(first[0])
    assert await take_soon(yard, other) == []
    await hand.finish(first[1])
    assert len(await take_soon(yard, other)) == 1
    await hand.finish(first[2])
    assert len(await other.take(50)) == 1


@OF
async def test_a_cap_that_is_raised_or_lifted_lets_more_start(yard: Yard, hand: Hand, of: str) -> None:
    await limit(yard, of, cap=1)
    await yard.fill(10, "a")
    counts: list[int] = []
    for cap in (1, 3, 2, 4, None):
        await limit(yard, of, cap=cap)
        counts.append(len(await take_soon(yard, hand)))
    assert counts == [1, 2, 0, 1, 6]


async def test_a_partitions_own_cap_stands_instead_of_the_queues(yard: Yard, hand: Hand) -> None:
    its = yard.shop.engine.queues
    await its.declare(QUEUE, partition_concurrency=2)
    await its.tune(QUEUE, "few", concurrency=1)
    await its.tune(QUEUE, "many", concurrency=5)
    for key in ("few", "many", "other"):
        await yard.fill(10, key)
    await hand.take(50)
    assert await yard.held() == {"few": 1, "many": 5, "other": 2}
    await its.declare(QUEUE, partition_concurrency=2, concurrency=9)
    assert len(await take_soon(yard, hand)) == 1 - 1  # each is full already
    await hand.finish()
    await take_soon(yard, hand)
    assert await yard.held() == {"few": 1, "many": 5, "other": 2}


async def test_parked_runs_have_no_place(yard: Yard, hand: Hand) -> None:
    await limit(yard, "each partition", cap=2)
    ids = await yard.fill(6, "a")
    for _ in range(3):
        await hand.park(*(c.id for c in await hand.take(50)))
    await yard.wake(*ids)
    assert len(await hand.take(50)) == 2


async def test_a_place_in_the_partition_without_a_key_is_given_back(yard: Yard, hand: Hand) -> None:
    await limit(yard, "each partition", cap=1)
    await yard.fill(3)
    for _ in range(3):
        assert len(await take_soon(yard, hand)) == 1
        assert await take_soon(yard, hand) == []
        await hand.finish()


# -- rates ----------------------------------------------------------------------------------------------------------------


@OF
@pytest.mark.parametrize("offset_ms", [0, 77, 155, 1234])
async def test_two_in_five_seconds_lets_the_third_wait_for_five_seconds_and_hardly_more(
    yard: Yard, hand: Hand, of: str, offset_ms: int
) -> None:
    await yard.shop.set_clock(NOON_MS + offset_ms)
    await limit(yard, of, rate=Rate(2, 5))
    await yard.fill(5, "a")
    assert len(await hand.take(50)) == 2
    for elapsed_ms in (20, 5000 - 1, 5000 + 200):
        await yard.shop.set_clock(NOON_MS + offset_ms + elapsed_ms)
        assert len(await hand.take(50)) == (2 if elapsed_ms > 5000 else 0), elapsed_ms


@OF
async def test_a_full_burst_and_the_full_rate_go_together(yard: Yard, hand: Hand, of: str) -> None:
    await limit(yard, of, rate=Rate(20, 10))
    await yard.fill(300, "a")
    at_ms: list[int] = []
    for _ in range(350):
        await yard.shop.pass_time(0.1)
        at_ms += [c.now_ms for c in await hand.take(1)]
    assert all(late - early >= 10_000 for early, late in zip(at_ms, at_ms[20:], strict=False))
    assert len(at_ms) >= 75  # of 20 at once and 2 a second for 35 s


@OF
async def test_a_woken_run_goes_on_while_the_rate_is_used_up_and_a_rescued_one_starts_again(
    yard: Yard, hand: Hand, of: str
) -> None:
    await limit(yard, of, rate=Rate(3, 60))
    ids = await yard.fill(5, "a")
    assert [c.id for c in await hand.take(50)] == ids[:3]
    await hand.park(ids[0])
    await hand.park(ids[1])
    assert await take_soon(yard, hand) == []
    await yard.shop.pass_time(40)
    await yard.wake(*ids[:2])
    assert sorted(await take_soon(yard, hand)) == ids[:2]
    assert await take_soon(yard, hand) == []
    await yard.crash(hand)
    hand = await yard.hand()
    assert await take_soon(yard, hand) == []
    await yard.shop.pass_time(22)  # so that the first starts are over, and those who went on meanwhile would not be
    assert sorted(await take_soon(yard, hand)) == ids[:3]
    await hand.park(ids[0])
    await yard.wake(ids[0])
    assert await take_soon(yard, hand) == [ids[0]]  # not one of the new ones


async def test_people_and_workers_are_told_when_a_rate_opens(yard: Yard, hand: Hand) -> None:
    await limit(yard, "the queue", rate=Rate(2, 5))
    await yard.fill(5, "a")
    await hand.take(1)
    assert [q.opens_at_ms for q in await yard.shop.engine.queues.states()] == [None]
    await hand.take(1)
    (state,) = await yard.shop.engine.queues.states()
    assert state.opens_at_ms is not None
    assert 5000 <= state.opens_at_ms - NOON_MS <= 5200
    assert await queues.next_look_s(yard.conn) == pytest.approx((state.opens_at_ms - NOON_MS) / 1000, abs=0.001)
    await yard.shop.set_clock(state.opens_at_ms)
    assert len(await hand.take(50)) == 2


@pytest.mark.parametrize("given", [{"concurrency": 0}, {"partition_concurrency": -1}])
async def test_a_limit_below_one_is_refused(yard: Yard, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await yard.shop.engine.queues.declare(QUEUE, **given)
    for starts, period_s in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="a rate needs"):
            Rate(starts, period_s)
    with pytest.raises(ValueError, match="a weight is between"):
        await yard.shop.engine.queues.weigh(QUEUE, "a", 0)


# -- the ring of counts ---------------------------------------------------------------------------------------------------

LEFT: LiteralString = "select engine.starts_left(%s::int[], %s, %s, %s)"
AFTER: LiteralString = "select engine.starts_after(%s::int[], %s, %s, %s), engine.starts_newest(%s, %s)"
OPEN: LiteralString = "select engine.starts_open(%s::int[], %s, %s)"


@pytest.fixture(scope="module")
def sql(server: str, engine_template: str) -> Iterator[psycopg.Connection[Any]]:
    with new_database(server, engine_template, direct=True) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def ask(sql: psycopg.Connection[Any], query: LiteralString, *values: Any) -> Any:
    row = sql.execute(query, values).fetchone()
    assert row is not None
    return row if len(row) > 1 else row[0]


STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 20), st.integers(0, 10**9))
def test_the_ring_counts_what_started_in_the_last_33_parts(
    sql: psycopg.Connection[Any], steps: list[tuple[int, int]], most: int, at: int
) -> None:
    ring, upto = None, 0
    starts: list[int] = []
    for forward, count in steps:
        at += forward
        recent = [b for b in starts if b > at - 33]
        assert ask(sql, LEFT, ring, upto, at, most) == max(0, most - len(recent))
        if ring is not None:
            opens = ask(sql, OPEN, ring, upto, at)
            assert opens == (min(recent) + 33 if recent else at + 1)
        ring, upto = ask(sql, AFTER, ring, upto, at, count, upto, at)
        starts += [at] * count


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-33, 20), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_clock_that_is_set_back_a_little_counts_as_if_it_stood(
    sql: psycopg.Connection[Any], steps: list[tuple[int, int]]
) -> None:
    ring, upto, at = None, 0, 10**6
    starts: list[int] = []
    for move, count in steps:
        at = max(at + move, upto - 33)
        newest = max(at, upto)
        assert ask(sql, LEFT, ring, upto, at, 100) == 100 - sum(b > newest - 33 for b in starts)
        ring, upto = ask(sql, AFTER, ring, upto, at, count, upto, at)
        assert upto == newest
        starts += [newest] * count


def test_a_clock_that_is_set_back_far_forgets(sql: psycopg.Connection[Any]) -> None:
    ring, upto = ask(sql, AFTER, None, 0, 1000, 5, 0, 1000)
    assert ask(sql, LEFT, ring, upto, 1000, 5) == 0
    assert ask(sql, LEFT, ring, upto, 900, 5) == 5
    ring, upto = ask(sql, AFTER, ring, upto, 900, 2, upto, 900)
    assert (upto, ask(sql, LEFT, ring, upto, 900, 5), ask(sql, OPEN, ring, upto, 900)) == (900, 3, 933)


# -- anything at all ------------------------------------------------------------------------------------------------------

ROWS: LiteralString = """
select workflow_uuid as id, status, owner_xid is not null as owned, queue_name as queue, coalesce(queue_partition_key, '') as key
  from dbos.workflow_status order by workflow_uuid
"""
KEYS = ("a", "b", "c", "")


class Driver:
    """Does to a queue whatever can be done, at random, and checks after every step that its limits hold.

    The limits that hold now are known here too; a start is noted when a claim returns a run that has not begun. What was at work before
    a cap came down may be more, but then it only gets less.
    """

    def __init__(self, yard: Yard, seed: int) -> None:
        self.yard = yard
        self.its = yard.shop.engine.queues
        self.chance = random.Random(seed)
        self.hands: list[Hand] = []
        self.rows: list[dict[str, Any]] = []
        self.parked: set[str] = set()
        self.begun: set[str] = set()
        self.paused: set[str | None] = set()  # None: the queue
        self.cap: dict[str | None, int | None] = dict.fromkeys((None, *KEYS))
        self.cap_of_each: int | None = None
        self.most: dict[str | None, int] = {}  # at work that an older cap had let in
        self.rate: dict[str | None, Rate | None] = dict.fromkeys((None, *KEYS))
        self.rate_of_each: Rate | None = None
        self.starts: dict[str | None, list[int]] = defaultdict(list)  # since the rate of that scope was last changed
        self.findings = Findings()
        self.did: Counter[str] = Counter()

    async def run(self, steps: int) -> None:
        self.hands = [await self.yard.hand() for _ in range(3)]
        moves = {
            self.enqueue: 4, self.claim: 8, self.finish: 5, self.park: 3, self.wake: 3, self.crash: 1, self.give_back: 1,
            self.cancel: 1, self.foreign: 2, self.pause: 1, self.resume: 2, self.declare: 1, self.tune: 1, self.clock: 5, self.tidy: 1,
            self.delete: 1,
        }  # fmt: skip
        for _ in range(steps):
            await self.look()
            (move,) = self.chance.choices(list(moves), list(moves.values()))
            self.did[move.__name__] += 1
            await move()
            await self.check(move.__name__)
        await self.drain()

    # -- what holds at every moment -----------------------------------------------------------------------------------

    async def look(self) -> None:
        self.rows = await self.yard.shop.rows(ROWS)

    def cap_on(self, key: str | None) -> int | None:
        return self.cap[key] if key is None else self.cap[key] or self.cap_of_each

    def rate_on(self, key: str | None) -> Rate | None:
        return self.rate[key] if key is None else self.rate[key] or self.rate_of_each

    def at_work(self, key: str | None) -> int:
        return sum(r["owned"] and r["queue"] == QUEUE and key in (None, r["key"]) for r in self.rows)

    async def check(self, move: str) -> None:
        await self.look()
        for key in (None, *KEYS):
            cap, rate = self.cap_on(key), self.rate_on(key)
            if cap is not None:
                count = self.at_work(key)
                most = self.most[key] = max(cap, min(self.most.get(key, count), count))
                assert count <= most, f"{count} at work in {key!r} under a cap of {cap} after {move}"
            if rate is not None:
                at_ms = self.starts[key]
                for early, late in zip(at_ms, at_ms[rate.starts :], strict=False):
                    assert late - early >= rate.period_s * 1000, f"{key!r} after {move}: {at_ms} under {rate}"
        assert all(early <= late for at_ms in self.starts.values() for early, late in pairwise(at_ms))
        await queues.reconcile(self.yard.conn, self.findings)
        assert (self.findings.stranded, self.findings.leaked) == (0, 0), move

    # -- what can be done ---------------------------------------------------------------------------------------------

    def some(self, holds: Callable[[dict[str, Any]], bool]) -> list[str]:
        ids = [r["id"] for r in self.rows if holds(r)]
        return self.chance.sample(ids, min(len(ids), self.chance.randint(0, 3)))

    def forget(self, ids: Sequence[str]) -> None:
        """These are nobody's any more, and would start anew."""
        for id in ids:
            self.begun.discard(id)
            self.parked.discard(id)
            for hand in self.hands:
                hand.mine.pop(id, None)

    async def enqueue(self) -> None:
        key, priority = self.chance.choice(KEYS), self.chance.choice([0, 0, 0, 3, 7])
        due_ms = self.chance.choice([None, None, NOON_MS + self.chance.randint(0, 20_000)])
        await self.yard.fill(self.chance.randint(1, 8), key or None, priority=priority, due_ms=due_ms)

    async def claim(self) -> None:
        hand = self.chance.choice(self.hands)
        if self.chance.random() < 0.7:
            await self.yard.look()
        for claimed in await hand.claim(self.chance.choice([1, 3, 20]), QUEUE, INTERNAL_QUEUE):
            assert None not in self.paused or claimed.queue == INTERNAL_QUEUE
            assert claimed.partition not in self.paused or claimed.queue == INTERNAL_QUEUE
            if claimed.id not in self.begun and claimed.queue == QUEUE:
                for key in (None, claimed.partition or ""):
                    self.starts[key].append(claimed.now_ms)
            self.begun.add(claimed.id)

    async def finish(self) -> None:
        hand = self.chance.choice(self.hands)
        if hand.mine:
            await hand.finish(*self.chance.sample(sorted(hand.mine), self.chance.randint(1, len(hand.mine))))

    async def park(self) -> None:
        hand = self.chance.choice(self.hands)
        if hand.mine:
            ids = self.chance.sample(sorted(hand.mine), 1)
            await hand.park(*ids)
            self.parked.update(ids)

    async def wake(self) -> None:
        ids = self.chance.sample(sorted(self.parked), min(len(self.parked), 2))
        await self.yard.wake(*ids)
        self.parked.difference_update(ids)

    async def crash(self) -> None:
        hand = self.chance.choice(self.hands)
        ids = list(hand.mine)
        await self.yard.crash(hand)
        self.forget(ids)
        self.hands[self.hands.index(hand)] = await self.yard.hand()

    async def give_back(self) -> None:
        hand = self.chance.choice(self.hands)
        ids = list(hand.mine)
        await hand.give_back()
        self.forget(ids)

    async def cancel(self) -> None:
        ids = self.some(lambda r: r["status"] in ("PENDING", "ENQUEUED", "DELAYED"))
        if ids:
            await self.yard.shop.engine.cancel(*ids)
            self.forget(ids)

    async def delete(self) -> None:
        if ids := self.some(lambda r: True):
            await self.yard.shop.engine.delete(*ids)
            self.forget(ids)

    async def foreign(self) -> None:
        ids = self.some(lambda r: r["status"] in ("PENDING", "ENQUEUED", "CANCELLED"))
        await self.yard.shop.run(self.chance.choice([CANCEL, RESUME]), ids)
        self.forget(ids)

    async def pause(self) -> None:
        key = self.chance.choice([None, "a", "b"])
        await self.its.pause(QUEUE, key)
        self.paused.add(key)

    async def resume(self) -> None:
        if ids := self.some(lambda r: r["status"] in ("CANCELLED", "PENDING"))[:1]:
            await self.yard.shop.engine.resume(ids[0], queue=QUEUE)
            self.forget(ids)
        for key in list(self.paused):
            await self.its.resume(QUEUE, key)
            self.paused.discard(key)

    def any_cap(self) -> int | None:
        return self.chance.choice([None, 1, 2, 3, 5])

    def any_rate(self) -> Rate | None:
        return self.chance.choice([None, None, Rate(1, 0.5), Rate(3, 1), Rate(5, 4)])

    async def declare(self) -> None:
        self.cap[None], self.cap_of_each = self.any_cap(), self.any_cap()
        rate, rate_of_each = self.any_rate(), self.any_rate()
        if rate != self.rate[None]:
            self.rate[None] = rate
            self.starts.pop(None, None)
        if rate_of_each != self.rate_of_each:
            self.rate_of_each = rate_of_each
            for key in KEYS:
                self.starts.pop(key, None)
        await self.its.declare(
            QUEUE, concurrency=self.cap[None], rate=rate, partition_concurrency=self.cap_of_each, partition_rate=rate_of_each
        )
        self.most.clear()

    async def tune(self) -> None:
        key = self.chance.choice(KEYS[:2])
        self.cap[key], rate = self.any_cap(), self.any_rate()
        if rate != self.rate[key]:
            self.rate[key] = rate
            self.starts.pop(key, None)
        await self.its.tune(QUEUE, key, weight=self.chance.choice([None, 1, 4]), concurrency=self.cap[key], rate=rate)
        self.most.clear()

    async def clock(self) -> None:
        await self.yard.shop.pass_time(self.chance.choice([0.01, 0.06, 0.2, 1.0, 5.0]))
        await self.yard.wake()

    async def tidy(self) -> None:
        await self.yard.tidy()

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Without limits and pauses everything comes to its end."""
        await self.its.declare(QUEUE)
        for key in KEYS:
            if key:
                await self.its.tune(QUEUE, key)
        for key in (None, "a", "b"):
            await self.its.resume(QUEUE, key)
        await self.yard.wake(*sorted(self.parked))
        for hand in self.hands:
            await hand.finish()
        for _ in range(30):
            await self.yard.shop.pass_time(1)
            await self.yard.wake()
            await self.hands[0].take(50, QUEUE, INTERNAL_QUEUE)
            await self.hands[0].finish()
        await self.look()
        assert {r["status"] for r in self.rows} <= {"SUCCESS", "CANCELLED"}
        assert self.findings.stranded == self.findings.leaked == 0


@pytest.mark.parametrize("seed", range(4))
async def test_limits_hold_whatever_is_done(yard: Yard, seed: int) -> None:
    driver = Driver(yard, seed)
    await driver.run(250)
    assert len(driver.did) >= 14
