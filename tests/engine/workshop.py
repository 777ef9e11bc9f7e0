"""A database with the engine's schema, and what tests do with it: start workers, own the clock, look at rows, crash.

Workers get a lease so long that no jump of the clock ends it. A crash is therefore said, not waited for: `crash` stops a worker the
way `kill -9` would and then lets its lease run out. Waiting for something that a worker does is polling with a deadline.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from engine import FINAL, Engine, Rider, Worker, Workflow, leases
from engine.entries import Entry
from tests.conftest import direct

NOON_MS = 1_767_268_800_000  # 2026-01-01 12:00 UTC
PATIENCE_S = 10.0
LEASE_S = 1_000_000_000.0

SET_CLOCK: LiteralString = """
insert into engine.clock (now_ms) values (%s) on conflict (only_row) do update set now_ms = excluded.now_ms
"""
EMPTY: LiteralString = """
delete from dbos.workflow_status;
delete from dbos.workflow_input; delete from dbos.workflow_output; delete from dbos.operation_outputs;
delete from dbos.workflow_schedules; delete from dbos.queues;
delete from engine.worker; delete from engine.wake; delete from engine.wait; delete from engine.clock;
delete from engine.nudge; delete from engine.queue_partition; delete from engine.queue;
"""
END_LEASE: LiteralString = "update engine.worker set lease_until_ms = engine.now_ms() - 1 where id = any (%s)"


class Undone(Exception):
    """What a test raises in a transaction so that it is undone."""


class Workshop:
    """One engine on one database, its workers and its clock."""

    def __init__(self, engine: Engine, dsn: str) -> None:
        self.engine = engine
        self.dsn = dsn
        self._working: dict[Worker, asyncio.Task[None]] = {}

    async def empty(self) -> None:
        """Take every row away."""
        await self.run(EMPTY)

    # -- workers ------------------------------------------------------------------------------------------------------

    async def worker(self, *workflows: Workflow[Any, Any], **options: Any) -> Worker:
        """Start a worker for these workflows."""
        options = {"poll_s": 0.02, "lease_s": LEASE_S} | options
        worker = self.engine.worker(list(workflows), **options)
        worker.rest_s = 0.0
        self._working[worker] = asyncio.create_task(worker.run())
        return worker

    async def stop(self, *workers: Worker) -> None:
        """Stop workers in good order: what they did not finish goes back to its queue."""
        for worker in workers:
            worker.stop()
        for worker in workers:
            await self._working.pop(worker)

    async def drain(self, worker: Worker) -> None:
        """Let a worker finish what it has."""
        worker.drain()
        await self._working.pop(worker)

    async def stop_all(self) -> None:
        await self.stop(*self._working)

    async def crash(self, worker: Worker) -> None:
        """End a worker as `kill -9` would: nothing more is written, nothing is given back. Its runs are then taken from it."""
        me, worker.id = worker.id, "nobody"  # so that stopping gives nothing back
        worker._knows = lambda run_id, token: True  # nor does a look that is under way
        worker._begin = lambda claimed, history: None  # and what a claim under way brings is not begun
        journal = worker.journal._task
        if journal is not None:
            journal.cancel()
            await asyncio.wait([journal])
        for run in list(worker.running.values()):
            run.abandon("the process is gone")
        await self.stop(worker)
        await self.rescue(me)

    async def rescue(self, *worker_ids: str) -> None:
        """Let the leases of these workers run out and their runs be taken back, all of them."""
        async with await self.connect() as conn:
            await conn.execute(END_LEASE, (list(worker_ids),))
            while await leases.rescue(conn):
                pass
        self.engine.hint()

    # -- time ---------------------------------------------------------------------------------------------------------

    async def set_clock(self, now_ms: int = NOON_MS) -> None:
        """Stop the clock at this time, and let workers look at their timers."""
        await self.run(SET_CLOCK, now_ms)
        self.engine.hint()

    async def pass_time(self, seconds: float) -> None:
        """Move the stopped clock on."""
        await self.run("update engine.clock set now_ms = now_ms + %s", round(seconds * 1000))
        self.engine.hint()

    # -- rows ---------------------------------------------------------------------------------------------------------

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection of the test's own."""
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, prepare_threshold=None)

    async def own_session(self) -> psycopg.AsyncConnection[Any]:
        """A connection past any pooler: one that hears notifications, and has the name that it was given."""
        return await psycopg.AsyncConnection.connect(direct(self.dsn), autocommit=True)

    async def run(self, query: LiteralString, *values: Any) -> None:
        async with self.engine.pool.connection() as conn:
            await conn.execute(query, values or None)

    async def rows(self, query: LiteralString, *values: Any) -> list[dict[str, Any]]:
        async with self.engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(query, values)).fetchall()

    async def value(self, query: LiteralString, *values: Any) -> Any:
        async with self.engine.pool.connection() as conn:
            row = await (await conn.execute(query, values)).fetchone()
        return None if row is None else row[0]

    async def row(self, id: str) -> dict[str, Any]:
        """A workflow's own row, as the table holds it."""
        (row,) = await self.rows("select * from dbos.workflow_status where workflow_uuid = %s", id)
        return row

    async def journal(self, id: str) -> list[tuple[int, str | None, str, Any]]:
        """(function_id, path, name, output or error) of each record."""
        return [(s.function_id, s.path, s.name, s.output if s.error is None else s.error) for s in await self.engine.steps(id)]

    async def names(self, id: str) -> list[str]:
        """What is recorded, by name, in order."""
        return [s.name for s in await self.engine.steps(id)]

    async def blocked(self, count: int = 1) -> None:
        """Wait until that many connections wait for somebody's lock."""
        query: LiteralString = """
            select count(*) >= %s from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
        """
        await self.until(lambda: self.value(query, count), "somebody waits for a lock")

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Poll until something holds; it."""
        end = time.monotonic() + PATIENCE_S
        while not (found := await holds()):
            assert time.monotonic() < end, f"never happened: {what}"
            await asyncio.sleep(0.005)
        return found

    async def status(self, id: str) -> str | None:
        return await self.value("select status from dbos.workflow_status where workflow_uuid = %s", id)

    async def parked(self, *ids: str) -> None:
        """Wait until workflows hold nothing: pending without owner, waiting for something."""
        query: LiteralString = """
            select count(*) = %s from dbos.workflow_status
             where workflow_uuid = any (%s) and status = 'PENDING' and owner_xid is null and executor_id is null
        """
        await self.until(lambda: self.value(query, len(ids), list(ids)), f"{ids} parked")

    async def ended(self, *ids: str) -> list[str]:
        """Wait until workflows have ended; their statuses."""

        async def statuses() -> list[str]:
            found = [await self.status(id) or "" for id in ids]
            return found if all(s in FINAL for s in found) else []

        return await self.until(statuses, f"{ids} ended")

    async def result(self, id: str) -> Any:
        return await self.engine.result(id, timeout_s=PATIENCE_S)


class Brake:
    """Holds a worker's journal at one of its commits, counted from 1, just before it or between it and the news of it.

    Those are the moments at which a crash matters. `reached` is set when the journal stands there; set `released` to let it go on.
    """

    def __init__(self, worker: Worker, commit: int, *, after: bool) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        self._worker = worker
        self._commits = 0
        self._at = commit
        self._after = after
        self._real = worker.journal._commit
        worker.journal._commit = self._commit

    async def _commit(self, conn: psycopg.AsyncConnection[Any], batch: list[Entry]) -> None:
        self._commits += 1
        if self._commits < self._at:
            await self._real(conn, batch)
            return
        if self._after:
            for entry in batch:
                entry.done = asyncio.get_running_loop().create_future()  # nobody waits for these
            await self._real(conn, batch)
        self.reached.set()
        await self.released.wait()
        if not self._after:
            await self._real(conn, batch)


class Trace:
    """What the code of a test really did, which the journal must not repeat."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, call: Any) -> int:
        """Note a call; how many there have been."""
        self.calls.append(call)
        return len(self.calls)


class Ledger:
    """A table of the caller's own, without any key, so that it shows what was written twice."""

    #: Writes {"entry": text} with a journal record.
    RIDER = Rider("insert into public.ledger (entry) select r.entry from json_to_recordset(%s) as r (entry text)")
    #: The same, but {"n": 0} makes the database refuse it.
    POISONED = Rider("insert into public.ledger (entry) select 1 / r.n from json_to_recordset(%s) as r (n int)")
    WRITE: LiteralString = "insert into public.ledger (entry) values (%s)"

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def make(self) -> None:
        await self._shop.run("drop table if exists public.ledger; create table public.ledger (entry text not null)")

    async def entries(self) -> list[str]:
        """Everything in it, sorted."""
        return [row["entry"] for row in await self._shop.rows("select entry from public.ledger order by entry")]
