"""A run as one document, to take away: every row that tells what happened, of the run and of all workflows that it set off.

All of it is read in one snapshot, sorted, and written as canonical JSON, so two exports of a run that has ended are the same bytes,
whoever makes them. Rows stand as the tables hold them. What is not in there: how to reach the database.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.identity import escalation_id
from steps.pack_history import history_rows
from steps.seals import seals_of

RUN: LiteralString = """
    select to_jsonb(r)
      from app.runs r
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
"""
INTENT: LiteralString = "select to_jsonb(i) from app.intents i where i.id = %s"
DATABASE: LiteralString = "select current_database()::text"

#: The sections of a run's own rows, each in an order that its key makes whole. An artifact's `payload` only repeats its content.
SECTIONS: Mapping[str, LiteralString] = {
    "runSteps": "select to_jsonb(s) from app.run_steps s where s.run_id = %s order by s.step_id, s.attempt",
    "artifacts": """
        select to_jsonb(a) - 'payload' from app.artifacts a
         where a.run_id = %s order by a.step_id, a.task_key, a.idx, a.attempt
    """,
    "evalResults": "select to_jsonb(e) from app.eval_results e where e.run_id = %s order by e.check_id",
    "sbxRuns": "select to_jsonb(b) from app.sbx_runs b where b.run_id = %s order by b.step_id, b.task_key, b.attempt",
    "opencodeCalls": "select to_jsonb(c) from app.opencode_calls c where c.run_id = %s order by c.step_id, c.created_at, c.id",
    "humanGates": "select to_jsonb(g) from app.human_gates g where g.run_id = %s order by g.created_at, g.gate_key",
}
INTERACTIONS: LiteralString = """
    select to_jsonb(i) from app.human_interactions i where i.workflow_id = %s order by i.created_at, i.id
"""

#: What the roots set off: their children, the forks made of them, and so on.
SCOPE: LiteralString = """
    with recursive scope (id, depth) as (
        select s.workflow_uuid, 0 from dbos.workflow_status s where s.workflow_uuid = any (%s)
        union
        select c.workflow_uuid, scope.depth + 1
          from scope
          join dbos.workflow_status c on c.parent_workflow_id = scope.id or c.forked_from = scope.id
         where scope.depth < 100)
    select distinct id collate "C" as id from scope order by 1
"""
#: Workflows that took a run's patches back in its place. The database made them; only their input names the run.
ROLLBACKS: LiteralString = """
    with patched as materialized (
        select r.workflow_id, floor(extract(epoch from r.created_at) * 1000)::bigint as created_at
          from app.runs r
         where r.id = %s and exists (select from app.patch_history p where p.run_id = r.id))
    select s.workflow_uuid
      from patched p
      join dbos.workflow_status s on s.created_at >= p.created_at
     where s.name = 'RollbackRun' and s.inputs like '%%"' || p.workflow_id || '"%%'
"""
STATUSES: LiteralString = """
    select to_jsonb(s) from dbos.workflow_status s where s.workflow_uuid = any (%s) order by s.workflow_uuid collate "C"
"""
EVENTS: LiteralString = """
    select to_jsonb(e) from dbos.workflow_events e
     where e.workflow_uuid = any (%s) order by e.workflow_uuid collate "C", e.key collate "C"
"""


async def repro_pack(conn: AsyncConnection[Any], id: str) -> JsonObject | None:
    """The pack of the run with this workflow or run id; None when there is none. The connection must not be in a transaction."""
    async with snapshot(conn):
        found = await _documents(conn, RUN, {"id": id})
        if not found:
            return None
        (run,) = found
        run_id, workflow_id = str(run["id"]), str(run["workflow_id"])
        (database,) = await _documents(conn, DATABASE, ())
        pack: JsonObject = {
            "meta": {"runId": run_id, "workflowId": workflow_id, "appDb": database, "sysDb": database},
            "run": run,
            "intent": next(iter(await _documents(conn, INTENT, (run["intent_id"],))), None),
        }
        for section, query in SECTIONS.items():
            pack[section] = await _documents(conn, query, (run_id,))
        pack["humanInteractions"] = await _documents(conn, INTERACTIONS, (workflow_id,))
        pack["dbos"] = await _engine_rows(conn, pack, workflow_id)
        return pack | {"seals": seals_of(pack)}


def pack_bytes(pack: JsonObject) -> bytes:
    """The pack as it is handed out: canonical JSON and a line end."""
    return canonical_json(pack).encode() + b"\n"


@asynccontextmanager
async def snapshot(conn: AsyncConnection[Any]) -> AsyncGenerator[None]:
    """One view of the database for the whole block, in which times read the same for every session."""
    async with conn.transaction():
        await conn.execute("set transaction isolation level repeatable read, read only")
        await conn.execute("set local timezone to 'UTC'")
        yield


async def _engine_rows(conn: AsyncConnection[Any], pack: JsonObject, workflow_id: str) -> JsonObject:
    """The engine's rows of the run's workflow and of all that it set off."""
    run_id = pack["meta"]["runId"]
    roots = {workflow_id, *(task["task_key"] for task in pack["sbxRuns"])}
    roots |= {escalation_id(workflow_id, gate["gate_key"]) for gate in pack["humanGates"]}
    roots |= set(await _documents(conn, ROLLBACKS, (run_id,)))
    scope: list[str] = await _documents(conn, SCOPE, (sorted(roots),))
    others = [id for id in scope if id != workflow_id]
    return {
        "workflowScope": scope,
        "parentStatuses": await _documents(conn, STATUSES, ([workflow_id],)),
        "childStatuses": await _documents(conn, STATUSES, (others,)),
        "parentEvents": await _documents(conn, EVENTS, ([workflow_id],)),
        "childEvents": await _documents(conn, EVENTS, (others,)),
        **await history_rows(conn, scope),
    }


async def _documents(
    conn: AsyncConnection[Any], query: LiteralString, given: Sequence[object] | Mapping[str, object]
) -> list[Any]:
    """The first column of every row."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        return await (await cursor.execute(query, given)).fetchall()
