"""Claims and journals by hand, without a worker around them, for tests that order the moves of several owners one by one."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg

from engine import claims, entries, queues
from engine.entries import Owner
from engine.journal import Journal
from engine.pipeline import Pipeline
from tests.engine.workshop import LEASE_S, Ledger, Workshop

REGISTER: LiteralString = (
    "insert into engine.worker (id, lease_until_ms, started_at_ms) values (%s, engine.now_ms() + %s, engine.now_ms())"
)
NAME = "by hand"


async def register(shop: Workshop) -> str:
    """A worker that is only a row; its id."""
    worker_id = str(uuid.uuid4())
    await shop.run(REGISTER, worker_id, round(LEASE_S * 1000))
    return worker_id


async def claim(conn: psycopg.AsyncConnection[Any], worker_id: str, room: int = 1000) -> dict[str, Owner]:
    """Everything queued, claimed for this worker."""
    await queues.look_again(conn)
    claimed = await claims.claim(conn, worker_id, str(uuid.uuid4()), {"default": room}, [NAME], None)
    return {c.id: Owner(c.id, c.token, c.now_ms, c.parent_id) for c in claimed}


async def enqueue_and_claim(shop: Workshop, *ids: str) -> tuple[str, dict[str, Owner]]:
    """Runs by hand: (the worker's id, its claims by workflow)."""
    worker_id = await register(shop)
    await shop.engine.enqueue_many(NAME, [(id, []) for id in ids])
    async with shop.engine.pool.connection() as conn:
        return worker_id, await claim(conn, worker_id)


async def take_over(shop: Workshop, *ids: str) -> None:
    """What a rescue and the next claim do, in one: others own these runs now."""
    await shop.run(
        "update dbos.workflow_status set owner_xid = 'new ' || workflow_uuid where workflow_uuid = any (%s)", list(ids)
    )


def step(owner: Owner, path: str = "1", *, effect: entries.Effect | None = None, entry: str | None = None) -> entries.Step:
    """A finished step to record, perhaps with a row that rides."""
    riders = None if entry is None else [(Ledger.RIDER, json.dumps({"entry": entry}))]
    return entries.Step(owner, path, "step", json.dumps(path), None, 0, effect=effect, riders=riders)


async def fence(conn: psycopg.AsyncConnection[Any], *owners: Owner) -> None:
    """Lock these runs on the connection, or fail."""
    pipe = Pipeline(conn, None)
    entries.fence(pipe, owners)
    await pipe.run()


async def write(conn: psycopg.AsyncConnection[Any], *written: entries.Step | entries.Finish) -> None:
    """What a journal sends for these entries of one run, as its first records."""
    pipe = Pipeline(conn, None)
    entries.fence(pipe, [written[0].owner])
    for number, entry in enumerate(written, 1):
        entry.function_id = number
        if isinstance(entry, entries.Finish):
            entries.finish(pipe, [entry], [])
        else:
            entries.insert_steps(pipe, [entry])
            if isinstance(entry.effect, entries.Event):
                entries.write_events(pipe, [(entry, entry.effect)])
    await pipe.run()


async def park(
    conn: psycopg.AsyncConnection[Any], owner: Owner, *tokens: str, shared: bool = False, wake_at_ms: int | None = None
) -> bool:
    """What a journal sends for a park; whether the run is parked now."""
    pipe = Pipeline(conn, None)
    entries.fence(pipe, [owner])
    verdict = entries.park(pipe, [entries.Park(owner, tokens, tokens if shared else [], wake_at_ms)], [])
    await pipe.run()
    return owner.id.encode() in {row[0] for row in verdict.rows}


@asynccontextmanager
async def journal(shop: Workshop, connect: Any = None) -> AsyncIterator[Journal]:
    """A journal writer on a connection of its own."""
    writing = Journal(connect or shop.connect, prepare=shop.engine.own_sessions, retry_s=0.01)
    writing.start()
    try:
        yield writing
    finally:
        await writing.close()
