"""Another try at a run that failed: the same run, under the same id, from the first step that has no result.

There is no second workflow for repairs. The journal is forgotten from behind the last step that went well, and the run replays
up to there and goes on. It counts as a new attempt, so its gates, rows and tasks have new keys; a plan that was approved stays
approved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg.rows import class_row

from engine import Connection, Engine
from steps.errors import Conflict, NotFound
from steps.records import PHASES

STEPS = tuple(PHASES)
RETRYABLE_STATUS = ("failed", "retries_exceeded")

#: Where the work for a step begins, if not right behind the step before: an answer that a person gave in between is not asked for again.
BEGINNINGS: Mapping[str, frozenset[str]] = {"ApplyPatchST": frozenset({"recordPreimages", "ApplyPatchST"})}

# The engine's row is locked before the product's, as everywhere. The product's is locked against approvals that are on their way.
LOCK_WORKFLOW: LiteralString = """
    select s.workflow_uuid
      from dbos.workflow_status s
      join app.runs r on r.workflow_id = s.workflow_uuid
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
       for no key update of s
"""
RUN: LiteralString = """
    select r.id as run_id, r.workflow_id, r.status, r.purpose,
           array(select distinct t.step_id from app.run_steps t where t.run_id = r.id) as done
      from app.runs r
     where r.workflow_id = %s
       for update of r
"""
REOPEN: LiteralString = """
    update app.runs
       set status = 'repairing', retry_count = retry_count + 1, next_action = 'NONE', error = null, updated_at = now()
     where id = %s
"""
#: Without their payloads, so that a journal of any size can be looked at under a lock.
RECORDS: LiteralString = """
    select o.function_id as number, o.function_name as name, o.error is not null as failed
      from dbos.operation_outputs o
     where o.workflow_uuid = %s
     order by o.function_id
"""
#: A question that the rewind forgets is asked again under another key; nobody should answer the old one.
WITHDRAW_GATES: LiteralString = """
    update app.human_gates set resolved_at = now() where run_id = %s and resolved_at is null
"""


@dataclass(frozen=True, slots=True)
class Retry:
    """What a retry does: the run it reopened and the first step it makes again."""

    run_id: str
    workflow_id: str
    from_step: str


@dataclass(frozen=True, slots=True)
class _Failed:
    run_id: str
    workflow_id: str
    status: str
    purpose: str
    done: list[str]


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a journal: its number, what was called, and whether that failed."""

    number: int
    name: str
    failed: bool


async def retry_run(engine: Engine, id: str, *, version: str | None = None) -> Retry:
    """Try a failed run again; `id` is its run or workflow id. Raises NotFound, or Conflict for a run that has not failed
    or that nobody started.

    version: the application version whose workers shall take it, since those that it was started for may be gone.
    """
    async with engine.transaction() as conn:
        return await retry_in(engine, conn, id, version)


async def retry_in(engine: Engine, conn: Connection, id: str, version: str | None) -> Retry:
    """The same, in a transaction that has more to do."""
    run = await _locked(conn, id)
    if run.purpose != "run":
        raise Conflict(f"cannot retry a recipe's own {run.purpose}; ask for another one", run_status=run.status)
    if run.status not in RETRYABLE_STATUS:
        raise Conflict(f"cannot retry run in status {run.status}", run_status=run.status)
    from_step = first_missing(run.done)
    records = await records_of(conn, run.workflow_id)
    await engine.rewind(run.workflow_id, first_record_of(from_step, records), version=version, conn=conn)
    await conn.execute(REOPEN, (run.run_id,))
    await conn.execute(WITHDRAW_GATES, (run.run_id,))
    return Retry(run.run_id, run.workflow_id, from_step)


async def _locked(conn: Connection, id: str) -> _Failed:
    locked = await (await conn.execute(LOCK_WORKFLOW, {"id": id})).fetchone()
    if locked is None:
        raise NotFound("run not found")
    async with conn.cursor(row_factory=class_row(_Failed)) as cursor:
        run = await (await cursor.execute(RUN, (locked[0],))).fetchone()
    assert run is not None
    return run


async def records_of(conn: Connection, workflow_id: str) -> list[Record]:
    """A workflow's journal, in the order of recording."""
    async with conn.cursor(row_factory=class_row(Record)) as cursor:
        return await (await cursor.execute(RECORDS, (workflow_id,))).fetchall()


def first_missing(done: Iterable[str]) -> str:
    """The first step without a row; the last step when all have one, since then it was its result that failed."""
    have = frozenset(done)
    return next((step for step in STEPS if step not in have), STEPS[-1])


def first_record_of(step: str, records: Sequence[Record]) -> int:
    """The number of the first record that this step's work is to write anew."""
    before = STEPS[: STEPS.index(step)]
    behind = 1 + max((record.number for record in records if record.name in before and not record.failed), default=0)
    begun = (record.number for record in records if record.name in BEGINNINGS.get(step, ()) and record.number >= behind)
    return min(begun, default=behind)
