"""The way in: enqueue workflows, talk to them, look at them, steer them; and make workers.

An Engine is a pool of connections and a notifier. It starts nothing else. Methods that write take `conn`, a connection of the
caller's: what they write is then part of the caller's transaction, and nothing happens if that is undone.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, LiteralString, Self, TypeVar, TypeVarTuple, Unpack, cast, overload

import psycopg
from psycopg_pool import AsyncConnectionPool

from engine import codec, connections, control, enqueue, hints, read, schedules
from engine.children import why_it_ended
from engine.entries import Connection
from engine.errors import ConflictingWorkflow, DuplicateWork, NoSuchWorkflow, WorkflowFailed
from engine.functions import Workflow
from engine.journal import NO_DESTINATION
from engine.names import checked_name
from engine.observer import Observer
from engine.queues import Queues
from engine.records import DELAYED, ENQUEUED, FINAL, NO_TOPIC, SUCCESS, Message, StepRecord, WorkflowStatus
from engine.worker import Worker

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

DEFAULT_QUEUE = "default"
DEDUP_INDEX = "workflow_status_dedup"

#: What an enqueue does when its deduplication id is in use: raise DuplicateWork, or return the handle of the workflow that has it.
DedupPolicy = Literal["reject", "return_existing"]

NAME_OF: LiteralString = "select name from dbos.workflow_status where workflow_uuid = %s"

DEDUP_HOLDER: LiteralString = """
select workflow_uuid from dbos.workflow_status where queue_name = %s and deduplication_id = %s
"""
SEND: LiteralString = """
insert into dbos.notifications (destination_uuid, topic, message, message_uuid, serialization, created_at_epoch_ms)
values (%s, %s, %s, %s, 'portable_json', (select engine.now_ms()))
on conflict (message_uuid) do nothing
returning message_uuid
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One of many workflows to enqueue: its id, its arguments, and what is different for it; None is as the call says."""

    id: str
    args: Sequence[Any] = ()
    partition: str | None = None
    priority: int | None = None
    delay_s: float | None = None
    timeout_s: float | None = None
    attributes: Mapping[str, Any] | None = None

    def row(self) -> dict[str, Any]:
        """Its own columns. Raises InvalidName."""
        row = {
            "id": checked_name(self.id, "workflow id"),
            "inputs": codec.encode({"positionalArgs": list(self.args), "namedArgs": {}}),
            "partition": self.partition if self.partition is None else checked_name(self.partition, "partition key"),
            "priority": self.priority,
            "delay_ms": None if self.delay_s is None else round(self.delay_s * 1000),
            "timeout_ms": None if self.timeout_s is None else round(self.timeout_s * 1000),
            "attributes": self.attributes,
        }
        return {key: value for key, value in row.items() if value is not None}


class Handle(Generic[R]):
    """A workflow by its id. `fresh` tells whether the call that returned it made the workflow, or found it."""

    __slots__ = ("_decoder", "_engine", "fresh", "id")

    def __init__(self, engine: "Engine", id: str, decoder: codec.Decoder | None, fresh: bool) -> None:
        self.id = id
        self.fresh = fresh
        self._engine = engine
        self._decoder = decoder

    async def result(self, timeout_s: float | None = None) -> R:
        """The result, waiting for the end. Raises WorkflowFailed when it ended without one, TimeoutError after timeout_s."""
        value = await self._engine.result(self.id, timeout_s=timeout_s)
        if self._decoder is not None:
            value = codec.shaped(self._decoder, value, f"the result of {self.id}")
        return cast(R, value)

    async def status(self) -> WorkflowStatus:
        """The workflow's row. Raises NoSuchWorkflow."""
        found = await self._engine.status(self.id)
        if found is None:
            raise NoSuchWorkflow(self.id)
        return found


class Engine:
    """Durable workflows in one PostgreSQL database. `Engine.connect(dsn)` or `Engine(pool)`."""

    def __init__(self, pool: AsyncConnectionPool[Any], *, prepare: bool = True) -> None:
        self.pool = pool
        self.own_sessions = prepare  # False behind a pooler in transaction mode
        self._notifier = hints.Notifier(pool.connection)
        self._after: dict[Connection, set[tuple[str, str]]] = {}  # hints for the end of each open block of `transaction`
        self._enqueuer = enqueue.Enqueuer(pool.connection, prepare=prepare)
        self.queues = Queues(pool.connection, lambda: self.hint(wake=False))  # their limits, weights and pauses

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, dsn: str, *, pool_size: int = 10, prepare: bool | None = None) -> AsyncGenerator[Self]:
        """An engine with a pool of its own, closed at the end of the block. Raises psycopg.Error when the database is out of reach.

        dsn: may name several hosts; the one that may be written to is taken, now and after each loss. prepare: whether sessions are
        ours alone, so that statements may be prepared in them, settings made and hints heard; None finds out, and takes any pooler
        for one in transaction mode, where they are not.
        """
        # At once, with the reason, when there is no database; the pool would go on trying.
        async with await connections.PrimaryConnection.connect(connections.connection_string(dsn), autocommit=True) as probe:
            if prepare is None:
                prepare = await connections.has_own_session(probe)
        pool = connections.Pool(dsn, pool_size, prepare=prepare)
        await pool.open()
        engine = cls(pool, prepare=prepare)
        try:
            yield engine
        finally:
            await engine.close()
            await pool.close()

    async def close(self) -> None:
        """Send the hints that are still collected. The pool stays open; it is the caller's."""
        await self._notifier.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection in a transaction that commits at the end of the block; pass it as `conn`. Workers are hinted after the commit."""
        async with self.pool.connection() as conn:
            told = self._after[conn] = set()
            try:
                async with conn.transaction():
                    yield conn
            finally:
                del self._after[conn]
        if told:
            self._tell(None, *told)
        else:
            self.hint()

    def hint(self, *, wake: bool = True) -> None:
        """Tell workers that there may be work; for callers that committed on a connection of their own.

        wake: also that something may have happened that parked runs wait for; without, that runs were enqueued.
        """
        self._notifier.tell(hints.CHANNEL, hints.WORK)
        if wake:
            self._notifier.tell(hints.CHANNEL, hints.WAKE)

    @contextlib.asynccontextmanager
    async def _writing(self, conn: Connection | None, *told: tuple[str, str]) -> AsyncGenerator[Connection]:
        """The caller's connection, or a transaction of our own that is followed by hints."""
        if conn is not None:
            yield conn
        else:
            async with self.pool.connection() as own, own.transaction():
                yield own
        self._tell(conn, *told)

    @contextlib.asynccontextmanager
    async def _stating(self, conn: Connection | None, *told: tuple[str, str]) -> AsyncGenerator[Connection]:
        """Like _writing, for one statement: on an autocommit connection it is its own transaction, one round trip."""
        if conn is not None:
            yield conn
        else:
            async with self.pool.connection() as own:
                yield own
        self._tell(conn, *told)

    def _tell(self, conn: Connection | None, *told: tuple[str, str]) -> None:
        """Send these hints now; or, when they are about what is written on `conn`, after the end of its block of `transaction`."""
        if conn is None:
            for channel, payload in told:
                self._notifier.tell(channel, payload)
        elif conn in self._after:
            self._after[conn].update(told)

    # -- starting -----------------------------------------------------------------------------------------------------

    @overload
    async def enqueue(
        self,
        workflow: str,
        /,
        *args: Any,
        id: str | None = None,
        queue: str = DEFAULT_QUEUE,
        partition: str | None = None,
        priority: int = 0,
        delay_s: float | None = None,
        timeout_s: float | None = None,
        dedup_id: str | None = None,
        dedup: DedupPolicy = "reject",
        version: str | None = None,
        class_name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        conn: Connection | None = None,
    ) -> Handle[Any]: ...
    @overload
    async def enqueue(
        self,
        workflow: Callable[[Unpack[Ts]], Awaitable[R]],
        /,
        *args: *Ts,
        id: str | None = None,
        queue: str = DEFAULT_QUEUE,
        partition: str | None = None,
        priority: int = 0,
        delay_s: float | None = None,
        timeout_s: float | None = None,
        dedup_id: str | None = None,
        dedup: DedupPolicy = "reject",
        version: str | None = None,
        class_name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        conn: Connection | None = None,
    ) -> Handle[R]: ...
    async def enqueue(
        self,
        workflow: Any,
        /,
        *args: Any,
        id: str | None = None,
        queue: str = DEFAULT_QUEUE,
        partition: str | None = None,
        priority: int = 0,
        delay_s: float | None = None,
        timeout_s: float | None = None,
        dedup_id: str | None = None,
        dedup: DedupPolicy = "reject",
        version: str | None = None,
        class_name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        conn: Connection | None = None,
    ) -> Handle[Any]:
        """Put a workflow into a queue, once for its id; returns its handle, `fresh` if this call made it.

        workflow: a decorated function, or the name of one that this process does not have. priority: lower starts earlier, 0 first.
        partition: whose share of the queue it takes. delay_s: not before. timeout_s: counted from the first claim, then it is
        cancelled. dedup_id: at most one unfinished workflow of the queue has it; dedup says what becomes of another: "reject" raises
        DuplicateWork, "return_existing" returns the handle of the one that has it. version: only workers of that application version
        take it. Raises ConflictingWorkflow when the id belongs to a workflow of another name, InvalidName.
        """
        target = _target(workflow)
        id = checked_name(id if id is not None else str(uuid.uuid4()), "workflow id")
        row: dict[str, Any] = {
            "id": id,
            "name": target.name,
            "class_name": class_name or target.class_name,
            "inputs": codec.encode({"positionalArgs": args, "namedArgs": {}}),
            "queue": checked_name(queue, "queue name"),
            "partition": partition if partition is None else checked_name(partition, "partition key"),
            "priority": priority,
            "version": version if version is None else checked_name(version, "application version"),
            "timeout_ms": None if timeout_s is None else round(timeout_s * 1000),
            "delay_ms": None if delay_s is None else round(delay_s * 1000),
            "dedup_id": dedup_id if dedup_id is None else checked_name(dedup_id, "deduplication id"),
            "attributes": attributes,
            "status": ENQUEUED if delay_s is None else DELAYED,
        }
        while True:
            try:
                fresh = await self._insert(row, conn)
                break
            except psycopg.errors.UniqueViolation as error:
                if dedup_id is None or error.diag.constraint_name != DEDUP_INDEX:
                    raise
                if dedup == "reject":
                    raise DuplicateWork(queue, dedup_id) from None
                async with self._stating(conn) as reading:
                    holder = await (await reading.execute(DEDUP_HOLDER, (queue, dedup_id))).fetchone()
                if holder is not None:  # else it has just ended
                    return Handle(self, holder[0], target.decoder, False)
        if fresh:
            self._tell(conn, (hints.CHANNEL, hints.WORK))
        else:
            async with self._stating(conn) as reading:
                await self._check_same(reading, id, target.name)
        return Handle(self, id, target.decoder, fresh)

    async def _insert(self, row: dict[str, Any], conn: Connection | None) -> bool:
        if conn is None:
            return await self._enqueuer.add(row)
        if row["dedup_id"] is None:
            return await enqueue.one(conn, row)
        async with conn.transaction():  # a refusal leaves the caller's transaction as it was
            return await enqueue.one(conn, row)

    async def _check_same(self, conn: Connection, id: str, name: str) -> None:
        found = await (await conn.execute(NAME_OF, (id,))).fetchone()
        if found is not None and found[0] != name:
            raise ConflictingWorkflow(f"{id!r} is a workflow named {found[0]!r}, not {name!r}; choose another id")

    async def enqueue_many(
        self,
        workflow: Workflow[Any, Any] | str,
        calls: Sequence[Start | tuple[str, Sequence[Any]]],
        *,
        queue: str = DEFAULT_QUEUE,
        partition: str | None = None,
        priority: int = 0,
        version: str | None = None,
        class_name: str | None = None,
        conn: Connection | None = None,
    ) -> list[str]:
        """Enqueue many of one workflow in one commit, all or none; returns the ids that were new.

        calls: (id, arguments) of each, or a Start where one differs in more. Raises InvalidName.
        """
        target = _target(workflow)
        common = {
            "name": target.name,
            "class_name": class_name or target.class_name,
            "queue": checked_name(queue, "queue name"),
            "partition": partition if partition is None else checked_name(partition, "partition key"),
            "priority": priority,
            "version": version if version is None else checked_name(version, "application version"),
        }
        starts = [call if isinstance(call, Start) else Start(*call) for call in calls]
        rows = [codec.encode(common | start.row()) for start in starts]
        async with self._stating(conn, (hints.CHANNEL, hints.WORK)) as writing:
            return await enqueue.many(writing, rows)

    def handle(self, id: str) -> Handle[Any]:
        """A handle on a workflow that exists, or may."""
        return Handle(self, id, None, False)

    async def schedule(
        self,
        name: str,
        workflow: Workflow[Any, Any] | str,
        cron: str,
        *,
        queue: str = DEFAULT_QUEUE,
        context: Any = None,
        backfill: bool = True,
        timezone: str | None = None,
    ) -> None:
        """Start a workflow at the times of a cron line, exactly once each. It is called with (ISO time, context).

        backfill: after a pause start every interval that was missed, otherwise the latest only. Raises ValueError for a bad line.
        """
        target = _target(workflow)
        async with self.pool.connection() as conn:
            await schedules.create(
                conn,
                checked_name(name, "schedule name"),
                target.name,
                cron,
                queue=queue,
                class_name=target.class_name,
                context=context,
                backfill=backfill,
                timezone=timezone,
            )

    # -- talking ------------------------------------------------------------------------------------------------------

    async def send(
        self,
        workflow_id: str,
        message: Any,
        topic: str | None = None,
        *,
        key: str | None = None,
        conn: Connection | None = None,
    ) -> bool:
        """Put a message into a workflow's mailbox; True unless one with this key is there already. Raises NoSuchWorkflow."""
        topic = NO_TOPIC if topic is None else checked_name(topic, "topic")
        message_id = f"{checked_name(key, 'key')}::{workflow_id}" if key is not None else str(uuid.uuid4())
        told = [(hints.CHANNEL, hints.WAKE), (hints.MAIL_CHANNEL, f"{workflow_id}::{topic}")]
        async with self._stating(conn, *told) as writing:
            try:
                made = await writing.execute(SEND, (workflow_id, topic, codec.encode(message), message_id))
                return await made.fetchone() is not None
            except psycopg.Error as error:
                if error.sqlstate != NO_DESTINATION:
                    raise
                raise NoSuchWorkflow(workflow_id) from None

    async def get_event(self, workflow_id: str, key: str, *, timeout_s: float = 0) -> Any:
        """The value of a workflow's event, waiting up to timeout_s for it; None if it is not set."""

        async def look() -> tuple[Any] | None:
            async with self.pool.connection() as conn:
                return await read.event(conn, workflow_id, key)

        found = await _until(look, timeout_s)
        return None if found is None else found[0]

    async def events(self, workflow_id: str) -> dict[str, Any]:
        """All events of a workflow."""
        async with self.pool.connection() as conn:
            return await read.events(conn, workflow_id)

    async def stream(self, workflow_id: str, key: str, *, start: int = 0) -> list[Any]:
        """The values of a stream from an offset on."""
        async with self.pool.connection() as conn:
            return await read.stream(conn, workflow_id, key, start)

    async def result(self, workflow_id: str, *, timeout_s: float | None = None) -> Any:
        """A workflow's result as JSON value, waiting for its end.

        Raises WorkflowFailed when it ended without one, NoSuchWorkflow, and TimeoutError after timeout_s.
        """

        async def look() -> tuple[Any, ...] | None:
            async with self.pool.connection() as conn:
                row = await read.outcome(conn, workflow_id)
            if row is None:
                raise NoSuchWorkflow(workflow_id)
            return row if row[0] in FINAL else None

        row = await _until(look, timeout_s)
        if row is None:
            raise TimeoutError(f"workflow {workflow_id} had not ended after {timeout_s} s")
        status, output, error, serialization = row
        if status == SUCCESS:
            return codec.decode(output, serialization) if output is not None else None
        raise WorkflowFailed(workflow_id, *why_it_ended(status, error, serialization))

    # -- looking ------------------------------------------------------------------------------------------------------

    async def status(self, workflow_id: str, *, conn: Connection | None = None) -> WorkflowStatus | None:
        """One workflow, None if there is none."""
        async with self._stating(conn) as reading:
            return await read.status(reading, workflow_id)

    async def list(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int = 100,
        conn: Connection | None = None,
    ) -> list[WorkflowStatus]:
        """The newest workflows first, filtered by what is given."""
        async with self._stating(conn) as reading:
            return await read.listing(reading, status=status, name=name, queue=queue, limit=limit)

    async def steps(self, workflow_id: str, *, conn: Connection | None = None) -> "list[StepRecord]":
        """A workflow's journal in the order of recording."""
        async with self._stating(conn) as reading:
            return await read.steps(reading, workflow_id)

    async def messages(self, workflow_id: str) -> "list[Message]":
        """A workflow's mailbox, consumed messages included, oldest first."""
        async with self.pool.connection() as conn:
            return await read.messages(conn, workflow_id)

    # -- steering -----------------------------------------------------------------------------------------------------

    async def cancel(self, *ids: str, children: bool = False, conn: Connection | None = None) -> "list[str]":
        """End workflows as CANCELLED, with all their children if asked; the ids ended now. Raises NoSuchWorkflow, changing nothing."""
        told = [(hints.CHANNEL, f"x:{id}") for id in ids]
        async with self._writing(conn, *told) as writing:
            return await control.cancel(writing, ids, children=children)

    async def resume(self, id: str, *, queue: str | None = None, conn: Connection | None = None) -> bool:
        """Let a cancelled, dead or stuck workflow go on from its journal. False if it ended as SUCCESS or ERROR. Raises NoSuchWorkflow."""
        async with self._writing(conn, (hints.CHANNEL, f"x:{id}")) as writing:
            return await control.resume(writing, id, queue=queue)

    async def fork(
        self,
        id: str,
        start_step: int,
        *,
        new_id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        conn: Connection | None = None,
    ) -> str:
        """Start a copy that keeps the journal before start_step; returns its id. Raises NoSuchWorkflow."""
        async with self._writing(conn, (hints.CHANNEL, hints.WORK)) as writing:
            return await control.fork(writing, id, start_step, new_id=new_id, version=version, queue=queue)

    async def rewind(
        self,
        id: str,
        start_step: int,
        *,
        version: str | None = None,
        queue: str | None = None,
        conn: Connection | None = None,
    ) -> None:
        """Forget the journal from start_step on and run again from there, by workers of that version if one is given.

        Raises NoSuchWorkflow.
        """
        async with self._writing(conn, (hints.CHANNEL, f"x:{id}")) as writing:
            await control.rewind(writing, id, start_step, version=version, queue=queue)

    async def delete(self, *ids: str, conn: Connection | None = None) -> None:
        """Remove workflows and all that hangs on them."""
        async with self._writing(conn, *[(hints.CHANNEL, f"x:{id}") for id in ids]) as writing:
            await control.delete(writing, ids)

    # -- working ------------------------------------------------------------------------------------------------------

    def worker(
        self,
        workflows: Sequence[Workflow[Any, Any]],
        *,
        queues: Mapping[str, int] | None = None,
        slots: int = 256,
        version: str | None = None,
        lease_s: float = 10.0,
        poll_s: float = 1.0,
        listen: bool | None = None,
        observer: Observer | None = None,
    ) -> Worker:
        """A worker for these workflows; `await worker.run()`.

        queues: how many runs of each queue this worker holds at most. slots: of all queues together. version: the application version;
        runs that were enqueued for another one are left alone. lease_s: how long others wait before they take over after a crash.
        poll_s: the longest pause between looks into the queues. listen: hear hints by LISTEN; None does where sessions are ours alone.
        observer: is told of runs, step attempts and commits.
        """
        return Worker(
            self._connect,
            self._connect_sync,
            self.pool,
            workflows,
            queues=queues or {DEFAULT_QUEUE: slots},
            slots=slots,
            version=version,
            lease_s=lease_s,
            poll_s=poll_s,
            listen=self.own_sessions if listen is None else listen,
            prepare=self.own_sessions,
            observer=observer,
        )

    async def run_worker(self, workflows: Sequence[Workflow[Any, Any]], **options: Any) -> None:
        """Make a worker (see `worker` for the options) and run it until TERM or INT; a second signal stops it hard."""
        await self.worker(workflows, **options).run(signals=True)

    async def _connect(self, **overrides: Any) -> connections.PrimaryConnection:
        kwargs: dict[str, Any] = self._pool_kwargs() | {"autocommit": True, "prepare_threshold": 0 if self.own_sessions else None}
        return await connections.PrimaryConnection.connect(self._conninfo(**overrides), **kwargs)

    def _connect_sync(self, **overrides: Any) -> connections.PromptConnection:
        kwargs: dict[str, Any] = self._pool_kwargs() | {"autocommit": True, "prepare_threshold": None}
        return connections.PromptConnection.connect(self._conninfo(**overrides), **kwargs)

    def _conninfo(self, **overrides: Any) -> str:
        return connections.connection_string(str(self.pool.conninfo), **overrides)

    def _pool_kwargs(self) -> dict[str, Any]:
        given: Any = self.pool.kwargs  # a pool may also be made with a function, which cannot be asked for its arguments
        return cast(dict[str, Any], given) if isinstance(given, dict) else {}


class _Target:
    """What is enqueued: a name, and how to read the result."""

    __slots__ = ("class_name", "decoder", "name")

    def __init__(self, name: str, class_name: str | None, decoder: codec.Decoder | None) -> None:
        self.name = name
        self.class_name = class_name
        self.decoder = decoder


def _target(workflow: Any) -> _Target:
    if isinstance(workflow, Workflow):
        return _Target(workflow.name, workflow.class_name, workflow.signature.result)
    if isinstance(workflow, str):
        return _Target(checked_name(workflow, "workflow name"), None, None)
    raise TypeError("enqueue takes a function decorated with @workflow, or a workflow's name")


async def _until(look: Callable[[], Awaitable[tuple[Any, ...] | None]], timeout_s: float | None) -> tuple[Any, ...] | None:
    """Look with growing pauses, 1 ms to 250 ms, until there is something or the time is over."""
    loop = asyncio.get_running_loop()
    end = None if timeout_s is None else loop.time() + timeout_s
    pause_s = 0.001
    while True:
        found = await look()
        if found is not None:
            return found
        left_s = pause_s if end is None else end - loop.time()
        if left_s <= 0:
            return None
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.3, 0.25)
