"""Retention: which finished workflows are old enough to go, and their deletion, batch by batch.

    after = None
    while True:
        async with engine.transaction() as conn:
            batch = await retention.prune(conn, before_ms, after=after)
        if (after := batch.after) is None:
            break

Workflows that belong together go together. A *family* is all that is connected by parents and forks: a parent that is resumed looks for
its children, and the journal of a fork names the children of its original. A family goes when every member ended before the given moment
and nobody unfinished waits for one of them. What somebody has locked right now is left for another time.

A pass goes through the table once, from the workflow that was made first, in batches that are each a transaction. It may stop after any
of them, and several may run at the same time.

What ended before a moment was made before it, so the index by created_at finds it, at the price of looking at what was made then and has
not ended: a fraction of a second for each hundred thousand. An index by completed_at would hold only what can go, but every workflow
would pay for it at its end with one more entry.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import LiteralString

from psycopg.rows import class_row, dict_row

from engine.entries import PART, Connection

UNFINISHED = "unfinished"
TOO_YOUNG = "ended too late"
LIVE_PARENT = "unfinished parent"
LIVE_CHILD = "unfinished child"
LIVE_FORK = "unfinished fork"
LIVE_ORIGINAL = "unfinished original"
YOUNG_RELATIVE = "relative ended too late"
WAITED_FOR = "waited for"
LOCKED = "locked"

BATCH = 1000

#: In the transaction of a batch alone. On a table that was never analyzed the planner's guesses could choose scans.
USE_INDEXES: LiteralString = """
select set_config(name, 'off', true)
  from unnest(array['enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'jit']) as name
"""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far a pass has come: a workflow's created_at, and its id."""

    created_at_ms: int
    id: str


START = Position(-(2**63), "")


@dataclass(frozen=True, slots=True)
class Family:
    """Finished workflows that go together, by id, and when the first and the last of them ended."""

    ids: tuple[str, ...]
    first_ended_ms: int
    last_ended_ms: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What can go of a part of the table. kept: how many of the workflows that were looked at stay, by reason. after: where the next
    batch begins; None at the end of the table.
    """

    families: Sequence[Family]
    kept: Mapping[str, int]
    after: Position | None

    @property
    def ids(self) -> list[str]:
        """All that can go, in order."""
        return sorted(id for family in self.families for id in family.ids)


@dataclass(frozen=True, slots=True)
class _Row:
    """A workflow with what it hangs on. ended_ms: None while it is unfinished."""

    id: str
    created_at_ms: int
    ended_ms: int | None
    parent: str | None
    original: str | None

    @property
    def position(self) -> Position:
        return Position(self.created_at_ms, self.id)

    def is_old(self, before_ms: int) -> bool:
        return self.ended_ms is not None and self.ended_ms < before_ms


ROW: LiteralString = """
select s.workflow_uuid as id, s.created_at as created_at_ms,
       case when s.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
            then coalesce(s.completed_at, s.updated_at) end as ended_ms,
       s.parent_workflow_id as parent, s.forked_from as original
"""
NEXT: LiteralString = (
    ROW
    + """
  from dbos.workflow_status s
 where s.created_at < %(before_ms)s and s.created_at >= %(created_at_ms)s
   and (s.created_at, s.workflow_uuid) > (%(created_at_ms)s, %(id)s)
 order by s.created_at, s.workflow_uuid
 limit %(limit)s
"""
)
# Only what exists connects: those whose parent was deleted are nobody's children.
CLIMB: LiteralString = """
with recursive above (id) as (
    select unnest(%(ids)s::text[])
     union
    select up.workflow_uuid
      from above a
      join dbos.workflow_status s on s.workflow_uuid = a.id
      join dbos.workflow_status up on up.workflow_uuid = any (array[s.parent_workflow_id, s.forked_from]))
"""
ABOVE: LiteralString = CLIMB + ROW + "  from above a join dbos.workflow_status s on s.workflow_uuid = a.id"
SPREAD: LiteralString = """
with recursive family (id) as (
    select unnest(%(ids)s::text[])
     union
    select near.id
      from family f
     cross join lateral (
           select c.workflow_uuid from dbos.workflow_status c where c.parent_workflow_id = f.id
            union all
           select c.workflow_uuid from dbos.workflow_status c where c.forked_from = f.id
            union all
           select up.workflow_uuid
             from dbos.workflow_status s
             join dbos.workflow_status up on up.workflow_uuid = any (array[s.parent_workflow_id, s.forked_from])
            where s.workflow_uuid = f.id) as near (id)),
member as (select f.id from family f limit %(most)s)
"""
FAMILIES: LiteralString = (
    SPREAD + ROW + "  from member m join dbos.workflow_status s on s.workflow_uuid = m.id order by s.created_at, s.workflow_uuid"
)
LOCK: LiteralString = """
select s.workflow_uuid from dbos.workflow_status s
 where s.workflow_uuid = any (%s) order by s.workflow_uuid for update skip locked
"""
WAITED_FOR_IDS: LiteralString = """
select distinct given.id
  from unnest(%(ids)s::text[]) as given (id)
 cross join lateral (
       select w.workflow_uuid from engine.wait w where w.token = 'c:' || given.id
        union all
       select w.workflow_uuid from engine.wait w
        where w.token >= 'e:' || given.id || %(part)s and w.token < 'e:' || given.id || %(behind_part)s) as waiting (id)
  join dbos.workflow_status s on s.workflow_uuid = waiting.id
 where coalesce(s.status, '') not in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
"""


async def old_workflows(
    conn: Connection, before_ms: int, *, limit: int = BATCH, after: Position | None = None, lock: bool = True
) -> Batch:
    """Which of the next workflows ended before a moment and can go.

    limit: how many to look at. The families that are found have twice as many members at most, or else it is one family. lock: hold
    them until the end of the caller's transaction, for their deletion. Without, nothing is written, and nobody's locks are heeded.
    """
    await conn.execute(USE_INDEXES)
    since = after or START
    rows = await _rows(conn, NEXT, {"before_ms": before_ms, "limit": limit, **asdict(since)})
    end = rows[-1].position if len(rows) == limit else None
    above = await _rows(conn, ABOVE, {"ids": [row.id for row in rows if row.is_old(before_ms)]})
    why, existing = _stays([*rows, *above], before_ms), {row.id for row in above}
    every = heads = [row for row in rows if row.is_old(before_ms) and not {row.parent, row.original} & existing]
    while True:
        most = 2 * limit if len(heads) > 1 else None
        members = await _rows(conn, FAMILIES, {"ids": [row.id for row in heads], "most": most and most + 1})
        if most is None or len(members) <= most:
            break
        heads = heads[: len(heads) // 2]
        rows = rows[: rows.index(every[len(heads)])]
        end = rows[-1].position
    kept = Counter(why[row.id] for row in rows if row.id in why)
    going = _judge([one for one in _grouped(members) if _turn(one) > since], before_ms, kept)
    if lock and going:
        ids = [row.id for family in going for row in family]
        held = {id for (id,) in await (await conn.execute(LOCK, (ids,))).fetchall()}
        now = _grouped(await _rows(conn, FAMILIES, {"ids": ids, "most": None}))  # as they are under the locks
        going = _judge(now, before_ms, kept, held)
    if going:
        going = await _not_waited_for(conn, going, kept)
    return Batch([_family(one) for one in going], kept, end)


async def _rows(conn: Connection, query: LiteralString, given: Mapping[str, object]) -> list[_Row]:
    """Unprepared: a plan that is made once for all does not know how few rows are wanted."""
    async with conn.cursor(row_factory=class_row(_Row)) as cursor:
        return await (await cursor.execute(query, given, prepare=False)).fetchall()


def _stays(rows: Iterable[_Row], before_ms: int) -> dict[str, str]:
    """Why workflows stay, by id, as far as they and what they hang on say so."""
    known = {row.id: row for row in rows}
    why: dict[str, str] = {}
    for row in sorted(known.values(), key=lambda row: row.position):  # what a workflow hangs on was made before it
        if not row.is_old(before_ms):
            why[row.id] = UNFINISHED if row.ended_ms is None else TOO_YOUNG
            continue
        for reason, id in ((LIVE_PARENT, row.parent), (LIVE_ORIGINAL, row.original)):
            if id in known and id in why:
                unfinished = known[id].ended_ms is None
                why[row.id] = reason if unfinished else YOUNG_RELATIVE if why[id] == TOO_YOUNG else why[id]
    return why


def _grouped(rows: Sequence[_Row]) -> list[list[_Row]]:
    """The rows by family; in both the order is that of the rows."""
    toward = {row.id: row.id for row in rows}

    def root(id: str) -> str:
        while toward[id] != id:
            toward[id] = id = toward[toward[id]]
        return id

    for row in rows:
        for above in (row.parent, row.original):
            if above in toward:
                toward[root(row.id)] = root(above)
    families: dict[str, list[_Row]] = {}
    for row in rows:
        families.setdefault(root(row.id), []).append(row)
    return list(families.values())


def _turn(family: Sequence[_Row]) -> Position:
    """Where a pass comes to the family: at the first member that hangs on no other."""
    ids = {row.id for row in family}
    return min((row.position for row in family if not {row.parent, row.original} & ids), default=START)


def _judge(
    families: Iterable[list[_Row]], before_ms: int, kept: Counter[str], held: Container[str] | None = None
) -> list[list[_Row]]:
    """The families that can go. Of the others those members are counted that no reason of their own keeps."""
    going: list[list[_Row]] = []
    for family in families:
        reason = _why_together(family, before_ms)
        if reason is None and held is not None and not all(row.id in held for row in family):
            reason = LOCKED
        if reason is None:
            going.append(family)
        else:
            kept[reason] += len(family) - len(_stays(family, before_ms))
    return going


def _why_together(family: Sequence[_Row], before_ms: int) -> str | None:
    ids = {row.id for row in family}
    for row in family:
        if row.ended_ms is None:
            return LIVE_FORK if row.original in ids else LIVE_CHILD if row.parent in ids else LIVE_PARENT
    return None if all(row.is_old(before_ms) for row in family) else YOUNG_RELATIVE


async def _not_waited_for(conn: Connection, families: list[list[_Row]], kept: Counter[str]) -> list[list[_Row]]:
    given = {"ids": [row.id for one in families for row in one], "part": PART, "behind_part": chr(ord(PART) + 1)}
    wanted = {id for (id,) in await (await conn.execute(WAITED_FOR_IDS, given)).fetchall()}
    going: list[list[_Row]] = []
    for family in families:
        if any(row.id in wanted for row in family):
            kept[WAITED_FOR] += len(family)
        else:
            going.append(family)
    return going


def _family(rows: Sequence[_Row]) -> Family:
    ends = [row.ended_ms for row in rows if row.ended_ms is not None]
    return Family(tuple(row.id for row in rows), min(ends), max(ends))


# Deletion ------------------------------------------------------------------------------------------------------------

COUNT: LiteralString = """
select (select count(*) from dbos.workflow_status t where t.workflow_uuid = any (%(ids)s)) as "dbos.workflow_status",
       (select count(*) from dbos.workflow_input t where t.workflow_uuid = any (%(ids)s)) as "dbos.workflow_input",
       (select count(*) from dbos.workflow_output t where t.workflow_uuid = any (%(ids)s)) as "dbos.workflow_output",
       (select count(*) from dbos.operation_outputs t where t.workflow_uuid = any (%(ids)s)) as "dbos.operation_outputs",
       (select count(*) from dbos.notifications t where t.destination_uuid = any (%(ids)s)) as "dbos.notifications",
       (select count(*) from dbos.workflow_events t where t.workflow_uuid = any (%(ids)s)) as "dbos.workflow_events",
       (select count(*) from dbos.workflow_events_history t where t.workflow_uuid = any (%(ids)s)) as "dbos.workflow_events_history",
       (select count(*) from dbos.streams t where t.workflow_uuid = any (%(ids)s)) as "dbos.streams",
       (select count(*) from engine.wait t where t.workflow_uuid = any (%(ids)s)) as "engine.wait"
"""
DELETE_PARTS: LiteralString = """
with input as (delete from dbos.workflow_input t where t.workflow_uuid = any (%(ids)s)),
     output as (delete from dbos.workflow_output t where t.workflow_uuid = any (%(ids)s)),
     record as (delete from dbos.operation_outputs t where t.workflow_uuid = any (%(ids)s)),
     mail as (delete from dbos.notifications t where t.destination_uuid = any (%(ids)s)),
     event as (delete from dbos.workflow_events t where t.workflow_uuid = any (%(ids)s)),
     history as (delete from dbos.workflow_events_history t where t.workflow_uuid = any (%(ids)s)),
     stream as (delete from dbos.streams t where t.workflow_uuid = any (%(ids)s))
delete from engine.wait t where t.workflow_uuid = any (%(ids)s)
"""
# Whoever takes wake-ups out locks them before the workflows, so theirs are left to them.
DELETE_WAKES: LiteralString = """
delete from engine.wake w
 where w.id in (select x.id from engine.wake x where x.workflow_uuid = any (%(ids)s) for update skip locked)
"""
DELETE_STATUSES: LiteralString = "delete from dbos.workflow_status s where s.workflow_uuid = any (%(ids)s)"


async def count_rows(conn: Connection, ids: Sequence[str]) -> dict[str, int]:
    """How many rows these workflows have, by table."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(COUNT, {"ids": list(ids)})).fetchone()
    return row or {}


async def delete_workflows(conn: Connection, ids: Sequence[str]) -> None:
    """Delete workflows that old_workflows gave, with all that hangs on them, in the same transaction."""
    for statement in (DELETE_PARTS, DELETE_WAKES, DELETE_STATUSES):
        await conn.execute(statement, {"ids": list(ids)})


async def prune(conn: Connection, before_ms: int, *, limit: int = BATCH, after: Position | None = None) -> Batch:
    """Delete what can go of the next workflows, in the caller's transaction: old_workflows and delete_workflows."""
    batch = await old_workflows(conn, before_ms, limit=limit, after=after)
    await delete_workflows(conn, batch.ids)
    return batch


# A client of another make writes payloads beside the status row, and may have deleted that alone.
COUNT_ORPHANS: LiteralString = """
select (select count(*) from dbos.workflow_input i
         where i.retention_timestamp < %(before_ms)s
           and not exists (select from dbos.workflow_status s where s.workflow_uuid = i.workflow_uuid))
     + (select count(*) from dbos.workflow_output o
         where o.retention_timestamp < %(before_ms)s
           and not exists (select from dbos.workflow_status s where s.workflow_uuid = o.workflow_uuid))
"""
DELETE_ORPHANS: LiteralString = """
with input as (
    delete from dbos.workflow_input d where d.workflow_uuid in (
        select i.workflow_uuid from dbos.workflow_input i
         where i.retention_timestamp < %(before_ms)s
           and not exists (select from dbos.workflow_status s where s.workflow_uuid = i.workflow_uuid)
         order by i.retention_timestamp limit %(limit)s for update skip locked)
    returning 1),
output as (
    delete from dbos.workflow_output d where d.workflow_uuid in (
        select o.workflow_uuid from dbos.workflow_output o
         where o.retention_timestamp < %(before_ms)s
           and not exists (select from dbos.workflow_status s where s.workflow_uuid = o.workflow_uuid)
         order by o.retention_timestamp limit %(limit)s for update skip locked)
    returning 1)
select (select count(*) from input) + (select count(*) from output)
"""


async def count_orphans(conn: Connection, before_ms: int) -> int:
    """How many payloads written before a moment belong to no workflow."""
    row = await (await conn.execute(COUNT_ORPHANS, {"before_ms": before_ms})).fetchone()
    return row[0] if row else 0


async def delete_orphans(conn: Connection, before_ms: int, *, limit: int = 10 * BATCH) -> int:
    """Delete payloads written before a moment that belong to no workflow, so many of inputs and of outputs at most; how many."""
    row = await (await conn.execute(DELETE_ORPHANS, {"before_ms": before_ms, "limit": limit})).fetchone()
    return row[0] if row else 0
