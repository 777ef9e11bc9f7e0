"""Putting workflows into their queues, many callers in one commit.

Concurrent calls of `Enqueuer.add` share a statement: while one commit is under way the next callers collect, and go with the next.
Each returns after the commit that holds its row. A row that the database refuses fails its own caller only.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg

from engine import codec
from engine.entries import Connection, json_array
from engine.pipeline import Pipeline, text_of

BATCH = 500
SENDERS = 2  # commits under way at once: while one waits for its fsync, another carries who came since
TRY_AGAIN = frozenset({"40001", "40P01"})
NOT_PREPARED = "26000"  # psycopg deallocates what a connection has prepared after a rollback of its own statements

Row = dict[str, Any]
Acquire = Callable[[], contextlib.AbstractAsyncContextManager[Connection]]

ENQUEUE: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, inputs, queue_name, queue_partition_key, priority,
    application_version, workflow_timeout_ms, delay_until_epoch_ms, deduplication_id, attributes, creator_xid, created_at, updated_at,
    serialization)
select %(id)s, %(status)s, %(name)s, %(class_name)s, %(inputs)s, %(queue)s, %(partition)s, %(priority)s, %(version)s,
       %(timeout_ms)s, clock.now_ms + %(delay_ms)s, %(dedup_id)s, %(attributes)s::jsonb, %(id)s, clock.now_ms, clock.now_ms,
       'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock
on conflict (workflow_uuid) do nothing
returning 1
"""
ENQUEUE_MANY: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, inputs, queue_name, queue_partition_key, priority,
    application_version, workflow_timeout_ms, delay_until_epoch_ms, deduplication_id, attributes, creator_xid, created_at, updated_at,
    serialization)
select r.id, case when r.delay_ms is null then 'ENQUEUED' else 'DELAYED' end, r.name, r.class_name, r.inputs, r.queue, r.partition,
       r.priority, r.version, r.timeout_ms, clock.now_ms + r.delay_ms, r.dedup_id, r.attributes, r.id, clock.now_ms, clock.now_ms,
       'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       json_to_recordset(%s) as r (id text, name text, class_name text, inputs text, queue text, partition text, priority int,
                                   version text, timeout_ms bigint, delay_ms bigint, dedup_id text, attributes jsonb)
 order by r.id
on conflict (workflow_uuid) do nothing
returning workflow_uuid
"""


async def one(conn: Connection, row: Row) -> bool:
    """Insert one workflow; False when its id exists. Raises psycopg.errors.UniqueViolation for a deduplication id in use."""
    attributes = row["attributes"]
    given = row | {"attributes": None if attributes is None else codec.encode(attributes)}
    return await (await conn.execute(ENQUEUE, given)).fetchone() is not None


async def many(conn: Connection, rows: Sequence[str]) -> list[str]:
    """Insert workflows, given as JSON texts, in one statement in the order of their ids; the ids that were new. One refused row
    refuses all.
    """
    made = await conn.execute(ENQUEUE_MANY, (json_array(rows),))
    return [row[0] for row in await made.fetchall()]


class Waiting:
    """A caller's row, on its way into the next commit."""

    __slots__ = ("done", "id", "text")

    def __init__(self, row: Row) -> None:
        self.id: str = row["id"]
        self.text = codec.encode(
            {key: value for key, value in row.items() if value is not None}
        )  # refused here, it fails its caller
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Enqueuer:
    """Commits the rows of concurrent callers together."""

    def __init__(self, acquire: Acquire, *, prepare: bool) -> None:
        self._acquire = acquire
        self._prepare = prepare
        self._prepared: WeakKeyDictionary[Connection, dict[str, bytes]] = WeakKeyDictionary()
        self._waiting: list[Waiting] = []
        self._sending = 0
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio keeps weak references only

    async def add(self, row: Row) -> bool:
        """Insert a workflow; returns after the commit, False when its id exists. Raises what the database refuses it with."""
        waiting = Waiting(row)
        self._waiting.append(waiting)
        if self._sending < SENDERS:
            self._sending += 1
            task = asyncio.create_task(self._send(), name="enqueuer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.done

    async def _send(self) -> None:
        """Commit until nobody waits, on one connection of the pool while it lasts."""
        try:
            while self._waiting:
                try:
                    async with self._acquire() as conn:
                        while self._waiting and not conn.closed:
                            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                            await self._commit(conn, batch)
                except Exception as error:  # no connection to be had
                    batch, self._waiting = self._waiting, []
                    refuse(batch, error)
        finally:
            self._sending -= 1  # in the same step as the last look, so that nobody is left behind

    async def _commit(self, conn: Connection, batch: list[Waiting]) -> None:
        """Insert the batch, or find out whose row the database refuses. Every caller has its answer afterwards."""
        try:
            made = await self._insert(conn, batch)
        except psycopg.Error as error:
            if error.sqlstate == NOT_PREPARED:
                self._prepared.pop(conn, None)
                await self._commit(conn, batch)
            elif error.sqlstate in TRY_AGAIN:
                await self._commit(conn, batch)
            elif len(batch) > 1 and not isinstance(error, psycopg.OperationalError):
                for each in batch:
                    await self._commit(conn, [each])
            else:
                refuse(batch, error)
        except BaseException as error:
            refuse(batch, error)
            raise
        else:
            for each in batch:
                fresh = each.id in made
                made.discard(each.id)  # the same id twice in one commit: the first caller made it
                if not each.done.done():
                    each.done.set_result(fresh)

    async def _insert(self, conn: Connection, batch: list[Waiting]) -> set[str]:
        pipe = Pipeline(conn, self._prepared.setdefault(conn, {}) if self._prepare else None)
        made = pipe.add(ENQUEUE_MANY, (json_array([each.text for each in batch]),))
        await pipe.run()
        return {text_of(row[0]) for row in made.rows}


def refuse(batch: Sequence[Waiting], error: BaseException) -> None:
    for each in batch:
        if not each.done.done():
            each.done.set_exception(error)
