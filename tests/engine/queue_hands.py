"""Queues worked by hand: filled, claimed from and given back one call at a time, with all the books open.

Everything goes through the engine's own statements; only the worker around them is missing. Workflows are made as any client makes
them, by inserting rows: `created_at` counts up, so that the order of coming is sharp, and an id begins with its partition's key.
"""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from engine import claims, entries, leases, queues, wakeups
from engine.journal import Journal
from engine.run import Claimed
from tests.engine import claimant
from tests.engine.claimant import NAME
from tests.engine.workshop import Workshop

QUEUE = "q"
VERSION = "v1"

FILL: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, priority, application_version,
                                  delay_until_epoch_ms, created_at, inputs, serialization)
select coalesce(%(key)s, '') || '/' || n, case when %(due_ms)s::bigint is null then 'ENQUEUED' else 'DELAYED' end, %(name)s, %(queue)s,
       %(key)s, %(priority)s, %(version)s, %(due_ms)s, n, '{}', 'portable_json'
  from generate_series(%(first)s::int, %(last)s) n
returning workflow_uuid
"""
TOKEN = "t:go"
HAPPEN: LiteralString = "insert into engine.wake (workflow_uuid, token) select id, 't:go' from unnest(%s::text[]) id"
PARTITION: LiteralString = "select * from engine.queue_partition where queue = %s and key = %s"
STATES: LiteralString = "select key, state from engine.queue_partition where queue = %s"
QUEUED: LiteralString = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED') and queue_name = %s"
#: How many count under caps, by partition.
HELD: LiteralString = """
select coalesce(queue_partition_key, '') as key, count(*) as held from dbos.workflow_status
 where status = 'PENDING' and held and owner_xid is not null and queue_name = %s group by 1
"""


class Hand:
    """A worker that is only a row, and its connection. `mine` is what it has claimed and not given away, by id."""

    def __init__(self, shop: Workshop, conn: psycopg.AsyncConnection[Any], id: str, *, name: str, version: str) -> None:
        self.shop = shop
        self.conn = conn
        self.id = id
        self.name = name
        self.version = version
        self.mine: dict[str, Claimed] = {}
        self._tokens = itertools.count()
        self._journal = Journal(shop.connect, prepare=shop.engine.own_sessions)  # never started

    async def claim(self, room: int = 1, *names: str) -> list[Claimed]:
        """What one claim takes, as it comes."""
        wanted = dict.fromkeys(names or (QUEUE,), room)
        token = f"{self.id} {next(self._tokens)}"
        taken = await claims.claim(self.conn, self.id, token, wanted, [self.name], self.version)
        self.mine.update({c.id: c for c in taken})
        return taken

    async def take(self, room: int = 1, *names: str) -> list[Claimed]:
        """What a worker takes: partitions that got work are made runnable first."""
        await queues.look_again(self.conn)
        return await self.claim(room, *names)

    async def finish(self, *ids: str) -> None:
        """End runs; without ids, all that it has."""
        await self._write([entries.Finish(self._owner(id), "SUCCESS", "1", None, None) for id in sorted(ids or self.mine)])
        for id in list(ids or self.mine):
            self.mine.pop(id, None)

    async def park(self, *ids: str) -> None:
        """Let runs wait for something."""
        parks = [entries.Park(self._owner(id), [TOKEN], [], None) for id in sorted(ids)]
        await self._write(parks)
        for park in parks:
            assert await park.done
            del self.mine[park.owner.id]

    def _owner(self, id: str) -> entries.Owner:
        claimed = self.mine[id]
        place = (claimed.queue or "", claimed.partition or "") if claimed.held else None
        return entries.Owner(id, claimed.token, claimed.now_ms, place=place)

    async def _write(self, batch: Sequence[entries.Entry]) -> None:
        """What a worker's journal sends for these, on this connection."""
        if batch:
            await self._journal._commit(self.conn, list(batch))

    async def give_back(self) -> None:
        """Stop in good order: all that it has is queued again."""
        await claims.release(self.conn, self.id)
        self.mine.clear()

    async def serve(self, starts: int, *, room: int = 1, names: Sequence[str] = ()) -> list[str]:
        """Claim and end at once until that many have started, or nothing is left; the partitions' keys in the order of starting."""
        keys: list[str] = []
        while len(keys) < starts:
            taken = await self.take(min(room, starts - len(keys)), *names)
            if not taken:
                break
            keys += [c.partition or "" for c in taken]
            await self.finish(*(c.id for c in taken))
        return keys


class Yard:
    """A database's queues, and what housekeeping does to them."""

    def __init__(self, shop: Workshop, conn: psycopg.AsyncConnection[Any]) -> None:
        self.shop = shop
        self.conn = conn
        self._numbers = itertools.count(1)
        self._hands: list[Hand] = []

    async def hand(self, *, name: str = NAME, version: str = VERSION) -> Hand:
        """One more worker."""
        conn = await self.connect()
        hand = Hand(self.shop, conn, await claimant.register(self.shop), name=name, version=version)
        self._hands.append(hand)
        return hand

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection as a worker has it."""
        conn = await self.shop.connect()
        await conn.execute(entries.PIN_PLANS, entries.FOR_THE_SESSION)
        return conn

    async def know(self, *names: str) -> None:
        """Serve these queues, as a worker says when it starts."""
        await queues.know(self.conn, names)

    async def fill(
        self,
        count: int,
        key: str | None = None,
        *,
        priority: int = 0,
        queue: str = QUEUE,
        name: str = NAME,
        version: str | None = None,
        due_ms: int | None = None,
        conn: psycopg.AsyncConnection[Any] | None = None,
    ) -> list[str]:
        """Enqueue workflows into a partition; their ids, the oldest first."""
        first = next(self._numbers)
        self._numbers = itertools.count(first + count)
        given = {"first": first, "last": first + count - 1, "key": key, "priority": priority, "queue": queue, "name": name}
        made = await (conn or self.conn).execute(FILL, given | {"version": version, "due_ms": due_ms})
        return [row[0] for row in await made.fetchall()]

    async def look(self) -> int:
        """Look at nudged and due partitions until there are none at this moment."""
        looked = 0
        while more := await queues.look_again(self.conn):
            looked += more
        return looked

    async def tidy(self) -> None:
        await queues.tidy(self.conn)

    async def wake(self, *ids: str) -> None:
        """Let what these parked runs wait for happen, and bring back whoever it is time for."""
        await self.conn.execute(HAPPEN, (list(ids),))
        while await wakeups.wake(self.conn) + await wakeups.timers(self.conn):
            pass

    async def crash(self, hand: Hand) -> None:
        """Let a worker die, and others take back what it had."""
        await self.shop.run("update engine.worker set lease_until_ms = engine.now_ms() - 1 where id = %s", hand.id)
        while await leases.rescue(self.conn):
            pass
        hand.mine.clear()

    async def partition(self, key: str = "", queue: str = QUEUE) -> dict[str, Any] | None:
        """A partition's row."""
        async with self.conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(PARTITION, (queue, key))).fetchone()

    async def state(self, key: str = "", queue: str = QUEUE) -> str | None:
        row = await self.partition(key, queue)
        return None if row is None else row["state"]

    async def states(self, queue: str = QUEUE) -> Counter[str]:
        """How many partitions are in each state."""
        return Counter(row[1] for row in await (await self.conn.execute(STATES, (queue,))).fetchall())

    async def held(self, queue: str = QUEUE) -> dict[str, int]:
        return dict(await (await self.conn.execute(HELD, (queue,))).fetchall())

    async def queued(self, queue: str = QUEUE) -> int:
        row = await (await self.conn.execute(QUEUED, (queue,))).fetchone()
        assert row is not None
        return row[0]

    async def close(self) -> None:
        for hand in self._hands:
            await hand.conn.close()
        await self.conn.close()


@asynccontextmanager
async def yard_of(shop: Workshop) -> AsyncIterator[Yard]:
    """The shop's queues, with the clock stopped at noon."""
    await shop.set_clock()
    yard = Yard(shop, await shop.connect())
    await yard.conn.execute(entries.PIN_PLANS, entries.FOR_THE_SESSION)
    await yard.know(QUEUE)
    try:
        yield yard
    finally:
        await yard.close()
