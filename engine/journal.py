"""The group-commit journal: every write of every run in this process, through one connection.

Calls hand in entries and wait. The writer takes all that is waiting and commits it as one transaction, sent as one pipeline of
array statements, so that hundreds of runs share one fsync and one round trip. A caller goes on only after COMMIT, with the outcome
of its own entry.

The first statement of each transaction is the fence: it locks the status row of every run in the batch where owner_xid is still
that run's token, and fails the whole if one is missing. A plain `where owner_xid = token` would not do: under READ COMMITTED a former
owner's insert could commit after the new owner has read the history.

When a batch fails, `_settle` finds out why: runs that were lost are told so, deadlocks are tried again, and a poisoned entry is
found by halving, between runs and then inside one, so that only its own caller gets the error. When the connection is lost with a
commit in flight, its outcome is looked up before anything is sent again: waiting for the fence's locks first makes sure that the
old transaction is over.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, LiteralString

import psycopg
import structlog

from engine import entries as e
from engine.entries import FIELD, FOR_THE_SESSION, FOR_THE_TRANSACTION, PIN_PLANS, Connection, Entry, Owner
from engine.errors import NoSuchWorkflow, RecordRefused, RunLost
from engine.history import History
from engine.pipeline import Pipeline, Row, number_of, text_of

log = structlog.get_logger("engine.journal")

Connect = Callable[[], Awaitable[Connection]]
AfterCommit = Callable[["Parts"], None]
Held = Callable[[], Sequence[Owner]]
OnMove = Callable[[bool], None]

# Half of what a busy worker has waiting: while the database commits one half, the runs of the other go on. With one batch of all,
# the two would take turns.
BATCH = 128
ENOUGH = 32  # entries worth a commit at once
NOT_OWNED = "HF001"
TRY_AGAIN = frozenset({"40001", "40P01", "55P03", "57014", "53100", "53200", "53300", "53400"})
NO_DESTINATION = "23503"

STILL_OURS: LiteralString = r"""
select s.workflow_uuid
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as b (id, token)
  join dbos.workflow_status s on s.workflow_uuid = b.id and s.owner_xid = b.token and coalesce(s.status, '') = 'PENDING'
 order by s.workflow_uuid
   for no key update of s
"""

RECORDED: LiteralString = r"""
select o.workflow_uuid, o.call_path, o.function_id, o.output, o.serialization, o.completed_at_epoch_ms
  from unnest(string_to_array(%s, E'\x1f'), %s::int[]) as b (id, function_id)
  join dbos.operation_outputs o on o.workflow_uuid = b.id and o.function_id = b.function_id
"""


class Journal:
    """Writes entries in groups. One per worker; used from the event loop it was started on."""

    def __init__(
        self,
        connect: Connect,
        *,
        prepare: bool = True,
        after_commit: AfterCommit | None = None,
        held: Held = lambda: (),
        on_move: OnMove = lambda went_back: None,
        retry_s: float = 0.1,
    ) -> None:
        """held: whose runs this worker has. on_move: called when the database is another than before; went_back: it lacks something
        that was committed, and nothing of the runs in hand is written any more.
        """
        self._connect = connect
        self._held = held
        self._on_move = on_move
        self._history = History()
        self._looking = asyncio.Lock()
        self._prepare = prepare
        self._prepared: dict[str, bytes] | None = None  # statements that the connection knows, by name
        self._after_commit = after_commit
        self._retry_s = retry_s
        self._conn: Connection | None = None
        self._waiting: list[Entry] = []
        self._flying: list[Entry] = []  # in the commit under way
        self._arrived = asyncio.Event()
        self._landed = asyncio.Condition()
        self._aside = 0  # who waits for a commit to end
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.flushes = 0
        self.records = 0

    def add(self, entry: Entry) -> asyncio.Future[Any]:
        """Hand in an entry; the future resolves after COMMIT with its outcome."""
        self._waiting.append(entry)
        self._arrived.set()
        return entry.done

    @contextlib.asynccontextmanager
    async def standing_aside(self, owner: Owner) -> AsyncGenerator[None]:
        """Write nothing of this run inside the block, so that the caller may take its next function_id and its lock."""
        self._aside += 1
        try:
            async with self._landed:
                await self._landed.wait_for(lambda: not owner.alone and all(x.owner is not owner for x in self._flying))
                owner.alone = True
        finally:
            self._aside -= 1
        try:
            yield
        finally:
            owner.alone = False
            self._arrived.set()
            async with self._landed:
                self._landed.notify_all()

    def start(self) -> None:
        self._task = asyncio.create_task(self._write(), name="journal")

    async def close(self) -> None:
        """Write what is waiting, then let go of the connection."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=10)
            self._task.cancel()
        if self._conn is not None:
            await self._conn.close()

    async def _write(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if len(self._waiting) < ENOUGH:
                await asyncio.sleep(0)  # whoever is ready now joins this commit
            self._arrived.clear()
            batch = self._take()
            if not batch:
                await self._arrived.wait()
                continue
            try:
                await self._settle(batch)
            except Exception as error:  # a defect of ours must not leave callers waiting for ever
                log.exception("journal batch failed", entries=len(batch))
                for entry in batch:
                    refuse(entry, error)
            self._flying = []
            if self._aside:
                async with self._landed:
                    self._landed.notify_all()

    def _take(self) -> list[Entry]:
        """The next batch. What stays for a later one: all of runs that must be left alone, a run's second Receive, and the surplus."""
        kept: list[Entry] = []
        put_off: list[Entry] = []
        receiving: set[str] = set()
        for place, entry in enumerate(self._waiting):
            if len(kept) == BATCH:
                put_off += self._waiting[place:]
                break
            if entry.owner.alone:
                put_off.append(entry)
                continue
            if isinstance(entry, e.Receive):
                if entry.owner.id in receiving:
                    put_off.append(entry)
                    continue
                receiving.add(entry.owner.id)
            kept.append(entry)
        self._waiting = put_off
        self._flying = kept
        return kept

    async def _settle(self, batch: list[Entry]) -> None:
        """Commit the batch, whatever it takes; every entry's `done` is resolved afterwards."""
        while batch:
            conn = await self._connected()
            batch = alive(batch)
            if not batch:
                return
            try:
                await self._commit(conn, batch)
                return
            except psycopg.Error as error:
                if conn.closed or conn.broken:
                    self._conn = None
                    batch = await self._unsettled(batch)
                    continue
                state = error.sqlstate or ""
                if state == NOT_OWNED:
                    batch = await self._drop_lost(batch)
                elif state in TRY_AGAIN:
                    log.warning("journal commit is tried again", sqlstate=state, entries=len(batch))
                    await asyncio.sleep(self._retry_s)
                elif len(batch) == 1:
                    refuse(batch[0], refusal(batch[0], error))
                    return
                else:
                    for half in halves(batch):
                        await self._settle(half)
                    return

    async def _connected(self) -> Connection:
        while self._conn is None:
            conn: Connection | None = None
            try:
                conn = await self._connect()
                if self._prepare:
                    await conn.execute(PIN_PLANS, FOR_THE_SESSION)
                await self.compare(conn)
                self._conn = conn
                self._prepared = {} if self._prepare else None
            except psycopg.Error as error:
                log.warning("journal has no database", error=str(error).partition("\n")[0])
                if conn is not None:
                    await conn.close()
                await asyncio.sleep(self._retry_s)
        return self._conn

    async def _ask(self, question: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of a query, whatever it takes: on a new connection if this one breaks, again if the server can't answer now."""
        while True:
            conn = await self._connected()
            try:
                return await (await conn.execute(question, params)).fetchall()
            except psycopg.Error as error:
                if conn.closed or conn.broken:
                    self._conn = None
                elif error.sqlstate not in TRY_AGAIN:
                    raise
                await asyncio.sleep(self._retry_s)

    async def compare(self, conn: Connection) -> None:
        """Build on the server of this new connection only if it has what was committed. Raises psycopg.Error."""
        async with self._looking:  # what two find at the same time is told once
            found = await self._history.look(conn, [owner for owner in self._in_hand() if not owner.void])
            if found.went_back:
                self.went_back()
            elif found.moved:
                self._on_move(False)

    def went_back(self) -> None:
        """The database lacks something that was committed: write nothing more of any run that is in hand."""
        for owner in self._in_hand():
            owner.void = True
        self._on_move(True)

    def _in_hand(self) -> list[Owner]:
        """Every run that this worker may write of."""
        owners = [*self._held(), *(entry.owner for entry in (*self._flying, *self._waiting))]
        return list({id(owner): owner for owner in owners}.values())

    async def _commit(self, conn: Connection, batch: list[Entry]) -> None:
        """One transaction: fence, then every kind in the batch. Resolves all entries, or raises and has written nothing."""
        parts = Parts(batch)
        pipe = Pipeline(conn, self._prepared)
        timed = received = parked = None
        places = list(parts.places)
        if not self._prepare:
            pipe.add(PIN_PLANS, FOR_THE_TRANSACTION)
        e.fence(pipe, parts.owners)
        if parts.steps:
            e.insert_steps(pipe, parts.steps)
        if parts.effects:
            write_effects(pipe, parts.effects)
        if parts.timers:
            timed = e.insert_timers(pipe, parts.timers)
        for rider, rows in parts.riders.items():
            pipe.add(rider.sql, (e.json_array(rows),))
        if parts.receives:
            received = e.receive(pipe, parts.receives)
        if parts.parks:
            parked = e.park(pipe, parts.parks, places)
        if parts.ends:
            e.finish(pipe, parts.ends, places)
        if places:
            e.nudge_freed(pipe, places)
        await pipe.run()
        self.flushes += 1
        self.records += len(batch)
        for owner in parts.owners:
            owner.recorded = parts.counts[owner.id]
        if parts.steps:
            last = parts.steps[-1]
            self._history.committed(last.owner.id, last.function_id)
        if timed is not None:
            give_moments(parts.timers, timed.rows)
        if received is not None:
            give_mail(parts.receives, received.rows)
        if parked is not None:
            give_verdicts(parts.parks, parked.rows)
        for entry in parts.plain:
            if not entry.done.done():
                entry.done.set_result(None)
        if self._after_commit is not None:
            self._after_commit(parts)

    async def _drop_lost(self, batch: list[Entry]) -> list[Entry]:
        """Tell the runs that are no longer ours; returns the entries of the others."""
        owners = {x.owner.id: x.owner for x in batch}.values()
        rows = await self._ask(STILL_OURS, (FIELD.join([o.id for o in owners]), FIELD.join([o.token for o in owners])))
        ours = {row[0] for row in rows}
        for entry in batch:
            if entry.owner.id not in ours:
                lose(entry)
        return [x for x in batch if x.owner.id in ours]

    async def _unsettled(self, batch: list[Entry]) -> list[Entry]:
        """After a lost connection: resolve what the lost commit did write; returns what must be sent again."""
        await self._connected()
        batch = await self._drop_lost(alive(batch))
        rows = await self._ask(RECORDED, (FIELD.join([x.owner.id for x in batch]), e.numbers([x.function_id for x in batch])))
        recorded = {(row[0], row[1]): row for row in rows}
        again: list[Entry] = []
        for entry in batch:
            row = recorded.get((entry.owner.id, getattr(entry, "path", "")))
            if row is None:
                again.append(entry)
                continue
            entry.owner.recorded = max(entry.owner.recorded, row[2])
            if type(entry) is e.Timer:
                resolve(entry, row[5])
            elif type(entry) is e.Receive:
                resolve(entry, (row[3], row[4]))
            else:
                resolve(entry, None)
        return again


class Parts:
    """A batch taken apart by kind in one pass. Every record gets its function_id: the next ones of its run, receives last, since
    they may find nothing.
    """

    __slots__ = (
        "count",
        "counts",
        "effects",
        "ends",
        "owners",
        "parks",
        "places",
        "plain",
        "receives",
        "riders",
        "steps",
        "timers",
    )

    def __init__(self, batch: Sequence[Entry]) -> None:
        self.count = len(batch)
        self.owners: list[Owner] = []
        self.counts: dict[str, int] = {}  # by run: its journal rows after this commit, what it receives aside
        self.steps: list[e.Step] = []
        self.effects: list[e.Step | e.Said] = []  # those of the steps that do something besides, and what steps say meanwhile
        self.timers: list[e.Timer] = []
        self.receives: list[e.Receive] = []
        self.parks: list[e.Park] = []
        self.ends: list[e.Finish] = []
        self.places: set[e.Place] = set()  # under caps, that ends and parks give back
        self.plain: list[Entry] = []  # whose outcome is None
        self.riders: dict[e.Rider, list[str]] = {}  # one execution a statement, with the rows of the whole batch
        counts, owners, steps, plain = self.counts, self.owners, self.steps, self.plain
        for entry in batch:
            owner = entry.owner
            count = counts.get(owner.id)
            if count is None:
                owners.append(owner)
                count = counts[owner.id] = owner.recorded
            if isinstance(entry, e.Step):
                entry.function_id = counts[owner.id] = count + 1
                steps.append(entry)
                plain.append(entry)
                if entry.effect is not None:
                    self.effects.append(entry)
            elif isinstance(entry, e.Finish):
                self.ends.append(entry)
                plain.append(entry)
                if owner.place is not None:
                    self.places.add(owner.place)
            elif isinstance(entry, e.Timer):
                entry.function_id = counts[owner.id] = count + 1
                self.timers.append(entry)
            elif isinstance(entry, e.Receive):
                self.receives.append(entry)
            elif isinstance(entry, e.Park):
                self.parks.append(entry)
                if owner.place is not None:
                    self.places.add(owner.place)
            elif isinstance(entry, e.Said):
                entry.function_id = count + 1
                self.effects.append(entry)
                plain.append(entry)
            if entry.riders is not None:
                for rider, row in entry.riders:
                    self.riders.setdefault(rider, []).append(row)
        for entry in self.receives:
            entry.function_id = counts[entry.owner.id] + 1


def write_effects(pipe: Pipeline, steps: Sequence[e.Step | e.Said]) -> None:
    events = [(s, s.effect) for s in steps if type(s) is e.Step and type(s.effect) is e.Event]
    mail = [s.effect for s in steps if type(s.effect) is e.Mail]
    children = [s.effect for s in steps if type(s.effect) is e.Child]
    chunks = [(s, s.effect) for s in steps if type(s.effect) is e.Chunk]
    if events:
        e.write_events(pipe, events)
    if mail:
        e.insert_mail(pipe, mail)
    if children:
        e.insert_children(pipe, children)
    if chunks:
        e.insert_chunks(pipe, chunks)


def give_moments(timers: Sequence[e.Timer], rows: Sequence[Row]) -> None:
    found = {(number_of(row[1]), text_of(row[0])): row for row in rows}
    for timer in timers:
        row = found[timer.function_id, timer.owner.id]
        timer.owner.seen_ms = number_of(row[3])
        resolve(timer, number_of(row[2]))


def give_mail(wanted: Sequence[e.Receive], rows: Sequence[Row]) -> None:
    found = {text_of(row[0]): (text_of(row[1]), None if row[2] is None else text_of(row[2])) for row in rows}
    for entry in wanted:
        if entry.owner.id in found:
            entry.owner.recorded += 1
        resolve(entry, found.get(entry.owner.id))


def give_verdicts(parks: Sequence[e.Park], rows: Sequence[Row]) -> None:
    parked = {text_of(row[0]) for row in rows if row[0] is not None}
    now_ms = next(number_of(row[1]) for row in rows if row[1] is not None)
    for entry in parks:
        entry.owner.seen_ms = now_ms
        resolve(entry, entry.owner.id in parked)


def alive(batch: list[Entry]) -> list[Entry]:
    """Those that are still to be written. The others' callers are told."""
    if not any(entry.owner.void for entry in batch):
        return batch
    for entry in batch:
        if entry.owner.void:
            refuse(entry, RunLost(f"the database's history went back, run {entry.owner.id} is taken up from there"))
    return [entry for entry in batch if not entry.owner.void]


def halves(batch: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Two parts, split between runs if there are several; the order inside a run is kept."""
    runs = list({x.owner.id: None for x in batch})
    if len(runs) == 1:
        middle = len(batch) // 2
        return list(batch[:middle]), list(batch[middle:])
    first = set(runs[: len(runs) // 2])
    return [x for x in batch if x.owner.id in first], [x for x in batch if x.owner.id not in first]


def refusal(entry: Entry, error: psycopg.Error) -> Exception:
    if error.sqlstate == NO_DESTINATION and type(entry) is e.Step and type(entry.effect) is e.Mail:
        return NoSuchWorkflow(entry.effect.destination)
    return RecordRefused(f"the database refused a record of {entry.owner.id}: {error}")


def resolve(entry: Entry, outcome: Any) -> None:
    if not entry.done.done():
        entry.done.set_result(outcome)


def refuse(entry: Entry, error: BaseException) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)


def lose(entry: Entry) -> None:
    refuse(entry, RunLost(f"run {entry.owner.id} was cancelled or taken over"))
