"""Bare claim and finish loops over one queue, ours and plain SKIP LOCKED, with nothing of a worker around them.

A claim is one commit of up to BATCH rows, a finish one commit of what was claimed, by the engine's own statement for both sides; ours is
`engine.claims.claim`, and a finish of ours also tells of places under caps that it gives back.

As a program: prints `ready`; for each line of its input it works for `--seconds` and prints what it did meanwhile; it ends with its input.
"""

import argparse
import asyncio
import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Literal, LiteralString

import orjson
import uvloop
from psycopg import AsyncConnection

from benchmarks.plain_queue import BATCH
from benchmarks.plain_queue import CLAIM as PLAIN_CLAIM
from benchmarks.workloads import QUEUE
from engine import claims, entries
from engine.entries import Connection
from engine.pipeline import Pipeline
from engine.run import Claimed

Side = Literal["holdfast", "plain"]
SIDES: tuple[Side, ...] = ("holdfast", "plain")
NAME, VERSION = "claimed", "v1"
IDLE_S = 0.001

REGISTER: LiteralString = "insert into engine.worker (id, lease_until_ms, started_at_ms) values (%s, 9e15, 0)"
OWNED: LiteralString = """
select workflow_uuid, queue_name, coalesce(queue_partition_key, ''), held
  from dbos.workflow_status where executor_id = %s and status = 'PENDING'
"""


@dataclass
class Tally:
    """What one loop did: rows, calls, and milliseconds of each claim that found something, and of each finish."""

    rows: int = 0
    empty: int = 0
    claim_ms: list[float] = field(default_factory=list[float])
    finish_ms: list[float] = field(default_factory=list[float])


class Claimant:
    """One connection that claims and finishes. Use `open`."""

    def __init__(self, side: Side, conn: Connection) -> None:
        self.side = side
        self.conn = conn
        self.id = str(uuid.uuid4())
        self.tally = Tally()
        self._prepared: dict[str, bytes] = {}

    @classmethod
    async def open(cls, side: Side, dsn: str) -> "Claimant":
        conn = await AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0)
        await conn.execute(entries.PIN_PLANS, entries.FOR_THE_SESSION)
        made = cls(side, conn)
        await conn.execute(REGISTER, (made.id,))
        return made

    async def turn(self) -> int:
        """Claim once and finish what was claimed; how many rows."""
        began = time.perf_counter()
        claimed = await self.claim()
        now = time.perf_counter()
        if not claimed:
            self.tally.empty += 1
        else:
            self.tally.claim_ms.append((now - began) * 1000)
            await self._finish([c.id for c in claimed], {(c.queue or "", c.partition or "") for c in claimed if c.held})
            self.tally.finish_ms.append((time.perf_counter() - now) * 1000)
            self.tally.rows += len(claimed)
        return len(claimed)

    async def claim(self) -> list[Claimed]:
        token = str(uuid.uuid4())
        if self.side == "holdfast":
            return await claims.claim(self.conn, self.id, token, {QUEUE: BATCH}, [NAME], VERSION)
        given = {"queue": QUEUE, "names": [NAME], "version": VERSION, "token": token, "me": self.id}
        return [Claimed(row, token) for row in await (await self.conn.execute(PLAIN_CLAIM, given)).fetchall()]

    def asking(self) -> dict[str, object]:
        """The parameters of `engine.claims.CLAIM` for one claim."""
        return {
            "me": self.id,
            "token": str(uuid.uuid4()),
            "version": VERSION,
            "names": NAME,
            "queues": QUEUE,
            "rooms": entries.numbers([BATCH]),
        }

    async def finish_owned(self) -> None:
        """Finish all that it has claimed."""
        owned = await (await self.conn.execute(OWNED, (self.id,))).fetchall()
        await self._finish([row[0] for row in owned], {(row[1], row[2]) for row in owned if row[3]})

    async def _finish(self, ids: list[str], places: set[tuple[str, str]]) -> None:
        """End these runs in one commit, as the journal does. places: under caps, that they give back."""
        each = len(ids)
        pipe = Pipeline(self.conn, self._prepared)
        given = tuple(map(entries.texts, (ids, ["SUCCESS"] * each, ["1"] * each, [None] * each)))
        pipe.add(entries.FINISH, (entries.FIELD.join(entries.NULL.join(place) for place in places), *given))
        if places:
            entries.nudge_freed(pipe, list(places))
        await pipe.run()


async def run(side: Side, dsn: str, seconds: float) -> None:
    claimant = await Claimant.open(side, dsn)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        claimant.tally = Tally()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not await claimant.turn():
                await asyncio.sleep(IDLE_S)
        print(orjson.dumps(asdict(claimant.tally)).decode(), flush=True)
    await claimant.conn.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--seconds", type=float, default=0.25)
    asked = parser.parse_args()
    uvloop.run(run(asked.side, asked.dsn, asked.seconds))


if __name__ == "__main__":
    main()
