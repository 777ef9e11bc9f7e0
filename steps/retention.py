"""Retention: what has been over for long enough is deleted, each run with all that it left behind, in one commit.

The engine says which workflows can go. They come in families: a run, its tasks and escalations, its forks, and what took its patches
back. A run stays, and its family with it, as long as its own row does not say that it is over, or a question of it is open. Its intent
goes too, unless another run has the same.

People prune with `bin/prune`; workers do it every night if they are told for how many days runs are kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg.rows import class_row, dict_row

from engine import Connection, Engine, retention, transaction, workflow
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput
from steps.policy import CONTROL_QUEUE
from steps.timers import FORGET_PAUSE, PAUSE
from steps.times import epoch_ms

SCHEDULE = "retention"
NIGHTLY = "17 3 * * *"
BATCH = 500
MOST_BATCHES = 1000  # that delete something, of one night; what is left waits for the next
MOST_LOOKS = 100  # between two of them
#: For so long the database itself keeps a run that is over (app.keep_run).
LEAST = timedelta(days=1)

OPEN_RUN = "run is open"
ORPHANS = "payloads of no workflow"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go. rows: by table. kept: workflows that stay, by reason. The times are those of ends, in epoch milliseconds."""

    workflows: int = 0
    runs: int = 0
    rows: Mapping[str, int] = field(default_factory=dict[str, int])
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    first_ended_ms: int | None = None
    last_ended_ms: int | None = None

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.workflows + other.workflows,
            self.runs + other.runs,
            dict(Counter(self.rows) + Counter(other.rows)),
            dict(Counter(self.kept) + Counter(other.kept)),
            min((at for at in (self.first_ended_ms, other.first_ended_ms) if at is not None), default=None),
            max((at for at in (self.last_ended_ms, other.last_ended_ms) if at is not None), default=None),
        )


NOW: LiteralString = "select engine.now_ms()"


async def moment(conn: Connection, age: timedelta) -> int:
    """The time so long ago, by the database's clock, in epoch milliseconds. Raises InvalidInput for less than a day."""
    if age < LEAST:
        raise InvalidInput("a run is kept for a day at least")
    row = await (await conn.execute(NOW)).fetchone()
    assert row is not None
    return row[0] - age // timedelta(milliseconds=1)


# A batch -------------------------------------------------------------------------------------------------------------

#: A run that somebody holds is passed over.
LOCK_RUNS: LiteralString = """
    select r.workflow_id from app.runs r where r.workflow_id = any (%s) order by r.workflow_id for update skip locked
"""
RUNS: LiteralString = """
    select r.id, r.workflow_id, r.intent_id,
           r.status not in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
           or r.updated_at > to_timestamp(%s / 1000.0)
           or exists (select from app.human_gates g where g.run_id = r.id and g.resolved_at is null and g.dropped_at is null) as open
      from app.runs r
     where r.workflow_id = any (%s)
     order by r.workflow_id
"""
COUNT: LiteralString = """
    select cardinality(%(runs)s::text[]) as "app.runs",
           (select count(*) from app.run_steps t where t.run_id = any (%(runs)s)) as "app.run_steps",
           (select count(*) from app.artifacts t where t.run_id = any (%(runs)s)) as "app.artifacts",
           (select count(*) from app.eval_results t where t.run_id = any (%(runs)s)) as "app.eval_results",
           (select count(*) from app.opencode_calls t where t.run_id = any (%(runs)s)) as "app.opencode_calls",
           (select count(*) from app.mock_receipts t where t.run_id = any (%(runs)s)) as "app.mock_receipts",
           (select count(*) from app.plan_approvals t where t.run_id = any (%(runs)s)) as "app.plan_approvals",
           (select count(*) from app.sbx_runs t where t.run_id = any (%(runs)s)) as "app.sbx_runs",
           (select count(*) from app.human_gates t where t.run_id = any (%(runs)s)) as "app.human_gates",
           (select count(*) from app.human_interactions t where t.run_id = any (%(runs)s)) as "app.human_interactions",
           (select count(*) from app.patch_history t where t.run_id = any (%(runs)s)) as "app.patch_history",
           (select count(*) from app.workflow_runs t where t.workflow_id = any (%(workflows)s)) as "app.workflow_runs",
           (select count(*) from app.marks t where t.run_id = any (%(workflows)s)) as "app.marks",
           (select count(*) from app.intents i
             where i.id = any (%(intents)s)
               and not exists (select from app.runs r where r.intent_id = i.id and r.id <> all (%(runs)s))) as "app.intents"
"""
DELETE_PARTS: LiteralString = """
    with step as (delete from app.run_steps t where t.run_id = any (%(runs)s)),
         asked as (delete from app.opencode_calls t where t.run_id = any (%(runs)s)),
         receipt as (delete from app.mock_receipts t where t.run_id = any (%(runs)s)),
         approval as (delete from app.plan_approvals t where t.run_id = any (%(runs)s)),
         sandbox as (delete from app.sbx_runs t where t.run_id = any (%(runs)s)),
         patch as (delete from app.patch_history t where t.run_id = any (%(runs)s)),
         flags as (delete from app.workflow_runs t where t.workflow_id = any (%(workflows)s))
    delete from app.marks t where t.run_id = any (%(workflows)s)
"""
#: Takes artifacts, verdicts, gates and answers along; refused by the database while the workflow is there.
DELETE_RUNS: LiteralString = "delete from app.runs r where r.id = any (%(runs)s)"
#: Whoever starts a run holds its intent; under these locks nobody does.
LOCK_INTENTS: LiteralString = """
    select i.id from app.intents i where i.id = any (%(intents)s) order by i.id for update skip locked
"""
DELETE_INTENTS: LiteralString = """
    delete from app.intents i where i.id = any (%s) and not exists (select from app.runs r where r.intent_id = i.id)
"""


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    workflow_id: str
    intent_id: str
    open: bool


async def prune(
    conn: Connection,
    before_ms: int,
    *,
    limit: int = retention.BATCH,
    after: retention.Position | None = None,
    delete: bool = True,
) -> tuple[Pruned, retention.Position | None]:
    """Look at the next workflows, and delete those that ended before a moment and can go, with their runs, in the caller's transaction.

    Returns what went and where the next batch begins, None at the end. limit: as of retention.old_workflows. delete: False only looks.
    """
    batch = await retention.old_workflows(conn, before_ms, limit=limit, after=after, lock=delete)
    families, runs, kept = await _without_open_runs(conn, batch, before_ms, lock=delete)
    ids = sorted(id for family in families for id in family.ids)
    given = {"workflows": ids, "runs": [run.id for run in runs], "intents": sorted({run.intent_id for run in runs})}
    rows = await retention.count_rows(conn, ids) | await _counted(conn, given) if ids else {}
    if delete and ids:
        await conn.execute(DELETE_PARTS, given)
        await retention.delete_workflows(conn, ids)
        await conn.execute(DELETE_RUNS, given)
        free = [id for (id,) in await (await conn.execute(LOCK_INTENTS, given)).fetchall()]
        rows["app.intents"] = (await conn.execute(DELETE_INTENTS, (free,))).rowcount
    if batch.after is None:
        orphans = retention.delete_orphans if delete else retention.count_orphans
        rows[ORPHANS] = await orphans(conn, before_ms)
    pruned = Pruned(
        workflows=len(ids),
        runs=len(runs),
        rows={table: count for table, count in rows.items() if count},
        kept=kept,
        first_ended_ms=min((family.first_ended_ms for family in families), default=None),
        last_ended_ms=max((family.last_ended_ms for family in families), default=None),
    )
    return pruned, batch.after


async def _without_open_runs(
    conn: Connection, batch: retention.Batch, before_ms: int, *, lock: bool
) -> tuple[list[retention.Family], list[_Run], dict[str, int]]:
    """The families that no run holds back, their runs, and how many workflows stay, by reason."""
    held = {id for (id,) in await (await conn.execute(LOCK_RUNS, (batch.ids,))).fetchall()} if lock else None
    async with conn.cursor(row_factory=class_row(_Run)) as cursor:
        runs = await (await cursor.execute(RUNS, (before_ms, batch.ids))).fetchall()
    stays = {run.workflow_id: retention.LOCKED for run in runs if held is not None and run.workflow_id not in held}
    stays |= {run.workflow_id: OPEN_RUN for run in runs if run.open}
    kept = Counter(batch.kept)
    families: list[retention.Family] = []
    for family in batch.families:
        reason = next((stays[id] for id in family.ids if id in stays), None)
        if reason is None:
            families.append(family)
        else:
            kept[reason] += len(family.ids)
    going = {id for family in families for id in family.ids}
    return families, [run for run in runs if run.workflow_id in going], dict(kept)


async def _counted(conn: Connection, given: JsonObject) -> dict[str, int]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(COUNT, given)).fetchone()
    assert row is not None
    return row


# Every night ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nightly:
    """What the schedule hands to each night: how many days everything is kept."""

    days: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What a batch of a night did, and where the next one begins."""

    pruned: Pruned
    after: retention.Position | None


@workflow(name="PruneNightly")
async def prune_nightly(at: datetime, context: Nightly) -> Pruned:
    """Deletes what was over so many days before its time, batch by batch."""
    before_ms = epoch_ms(at - timedelta(days=context.days))
    done, after = Pruned(), None
    for _ in range(MOST_BATCHES):
        stage = await prune_stage(before_ms, after)
        done, after = done + stage.pruned, stage.after
        if after is None:
            break
    return done


@transaction(name="pruneBatch")
async def prune_stage(conn: Connection, before_ms: int, after: retention.Position | None) -> Stage:
    """Go on until something could be deleted: what stays is looked at quickly, and needs no records."""
    done = Pruned()
    for _ in range(MOST_LOOKS):
        batch, after = await prune(conn, before_ms, limit=BATCH, after=after)
        done += batch
        if batch.workflows or after is None:
            break
    return Stage(done, after)


async def set_retention(engine: Engine, days: int) -> None:
    """From now on delete every night what has been over for so many days; with 0 nothing."""
    async with engine.transaction() as conn:
        await conn.execute(FORGET_PAUSE if days else PAUSE, (SCHEDULE,))
    if days:
        context = {"days": days}
        await engine.schedule(SCHEDULE, prune_nightly, NIGHTLY, queue=CONTROL_QUEUE, context=context, backfill=False)
