"""What a run did: its steps, and on request everything else that it recorded: other calls, gates, children.

One statement lists them, from the rows that the run wrote and from its journal. Each row knows its number in the journal, `seq`: that of
the record with which it last changed. So the same statement tells what is new since a number, which is all that the live events of a
run are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.artifacts import ArtifactRow, artifact_ref
from api.http import Door, json_response, numbers_in_query, query_of
from api.tasks import tasks_of
from api.views import Run, require_run
from steps import tracing
from steps.contracts.base import JsonObject, Wire, parse
from steps.contracts.views import StepDetail, StepPage, StepRow
from steps.documents import json_or_text, without_none
from steps.errors import NotFound
from steps.execute import child_id
from steps.records import IMPROVEMENT_PHASES, PHASES

MOST_ROWS = 5000
FROM_THE_START = -1

#: Of runs and of improvements.
STEP_NAMES = IMPROVEMENT_PHASES | PHASES

#: Rows whose last change is behind %(after)s in the journal; all rows for -1. Of a step's attempts the latest counts. A step that
#: failed has a record with its error, and no row; its attempt is the run's. Times fall back to the run's own, since a row may lack them.
#: A step stands where its record says that it began: the clock of its row may be a moment ahead of that of the other records.
#: `begun` is small and `started` a map, so that no plan compares every record of a long journal with every other, or with every child.
ROWS: LiteralString = """
    with run as (
        select r.id as run_id, r.workflow_id, r.retry_count + 1 as attempt, r.created_at
          from app.runs r where r.id = %(run_id)s),
    records as (
        select o.function_id, o.function_name, o.error, o.child_workflow_id, o.started_at_epoch_ms, o.completed_at_epoch_ms
          from dbos.operation_outputs o
         where o.workflow_uuid = (select workflow_id from run) and o.function_id > %(after)s),
    written as (
        select distinct on (s.step_id) s.*
          from app.run_steps s where s.run_id = %(run_id)s order by s.step_id, s.attempt desc),
    recorded as (
        select distinct on (o.function_name) o.*
          from records o
         where o.function_name not like 'DBOS.%%' and o.child_workflow_id is null
         order by o.function_name, o.function_id desc),
    begun as materialized (
        select function_name, started_at_epoch_ms from recorded where function_name = any (%(steps)s)),
    seen as (
        select right(h.key, -3) as gate_key, h.function_id from dbos.workflow_events_history h
         where h.workflow_uuid = (select workflow_id from run) and h.key like 'ui:%%' and h.function_id > %(after)s),
    started as materialized (
        select jsonb_object_agg(x.child_workflow_id, x.function_id) as places
          from (select child_workflow_id, max(function_id) as function_id
                  from records where child_workflow_id is not null group by 1) x),
    rows as (
        select 'step' as kind, s.step_id, s.phase as name, s.attempt,
               case when s.output ->> 'errCode' <> 'NONE' then 'ERROR' else 'SUCCESS' end as status, null::bigint as queued_at_ms,
               floor(extract(epoch from coalesce(s.started_at, s.finished_at, run.created_at)) * 1000)::bigint as started_at_ms,
               floor(extract(epoch from s.finished_at) * 1000)::bigint as ended_at_ms, null::text as error, null::text as worker,
               null::text as parent, s.span_id, o.function_id as seq
          from written s cross join run
          left join recorded o on o.function_name = s.step_id
        union all
        select case when o.function_name = any (%(steps)s) then 'step' else 'call' end, o.function_name, o.function_name, run.attempt,
               case when o.error is null then 'SUCCESS' else 'ERROR' end, null,
               coalesce(o.started_at_epoch_ms, o.completed_at_epoch_ms, floor(extract(epoch from run.created_at) * 1000)::bigint),
               o.completed_at_epoch_ms, o.error, null, null, null, o.function_id
          from recorded o cross join run
         where not exists (select from written s where s.step_id = o.function_name)
        union all
        select 'step', 'BUDGET', 'budget', max(a.attempt), 'ERROR', null,
               floor(extract(epoch from min(a.created_at)) * 1000)::bigint,
               floor(extract(epoch from min(a.created_at)) * 1000)::bigint, null, null, null, null,
               (select min(t.function_id) from dbos.streams t
                 where t.workflow_uuid = (select workflow_id from run) and t.key = 'status' and t.value = '"failed"')
          from app.artifacts a cross join run
         where a.run_id = %(run_id)s and a.step_id = 'BUDGET'
        having count(*) > 0
        union all
        select 'gate', g.gate_key, regexp_replace(g.gate_key, '-[0-9a-f]{16}$', ''), 1,
               case when g.resolved_at is null then 'WAITING'
                    when exists (select from dbos.workflow_events e
                                  where e.workflow_uuid = run.workflow_id and e.key = 'ui:' || g.gate_key || ':result'
                                    and e.value::jsonb ->> 'state' = 'TIMED_OUT') then 'TIMED_OUT'
                    else 'SUCCESS' end, null,
               floor(extract(epoch from g.created_at) * 1000)::bigint, floor(extract(epoch from g.resolved_at) * 1000)::bigint,
               null, null, null, null,
               (select max(h.function_id) from seen h where split_part(h.gate_key, ':', 1) = g.gate_key)
          from app.human_gates g cross join run
         where g.run_id = %(run_id)s
        union all
        select 'child', c.workflow_uuid, coalesce(c.name, c.workflow_uuid),
               greatest(1, (select max(b.attempt) from app.sbx_runs b
                             where b.run_id = %(run_id)s and b.step_id = 'ExecuteST'
                               and b.task_key = split_part(c.workflow_uuid, ':', 1))),
               case when c.status in ('ENQUEUED', 'DELAYED') then 'ENQUEUED'
                    when c.status = 'PENDING' then case when c.executor_id is null then 'WAITING' else 'RUNNING' end
                    when c.status in ('SUCCESS', 'CANCELLED') then c.status else 'ERROR' end,
               c.created_at, coalesce(c.started_at_epoch_ms, c.created_at), c.completed_at, c.error, c.executor_id,
               c.parent_workflow_id, null, (started.places ->> c.workflow_uuid)::int
          from run
          join dbos.workflow_status c on c.parent_workflow_id = run.workflow_id
         cross join started)
    select rows.*, count(*) over () as total
      from rows
      left join begun began on rows.kind = 'step' and began.function_name = rows.step_id
     where (%(kind)s::text is null or kind = %(kind)s) and (%(step_id)s::text is null or step_id = %(step_id)s)
       and coalesce(seq, 0) > %(after)s
     order by case when %(by_seq)s then coalesce(seq, 0) else coalesce(began.started_at_epoch_ms, started_at_ms) end,
              seq nulls last, step_id, kind
     limit %(limit)s offset %(offset)s
"""

#: Those of some steps. A sandbox task's stand with the task, where the tasks are shown; `tasks` null means with their step.
ARTIFACTS: LiteralString = """
    select a.step_id, a.task_key, a.attempt, a.kind, a.uri,
           coalesce(octet_length(a.inline ->> 'text'), octet_length((a.inline -> 'json')::text),
                    octet_length(a.inline::text), 0) as size,
           coalesce(a.inline ? 'json', false) as holds_json
      from app.artifacts a
     where a.run_id = %(run_id)s and a.step_id = any (%(steps)s) and a.uri is not null
       and (%(tasks)s::text[] is null or a.step_id <> 'ExecuteST' or a.task_key = ''
            or a.task_key in (select unnest(%(tasks)s::text[])))
     order by a.step_id, a.task_key, a.idx
"""
#: Where a run's journal stands. A retry takes records back, so their numbers count within an attempt of the run.
CURSOR: LiteralString = """
    select r.retry_count, coalesce(max(o.function_id), 0)
      from app.runs r
      left join dbos.operation_outputs o on o.workflow_uuid = r.workflow_id
     where r.id = %s
     group by r.retry_count
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that a run did, as the statement lists it."""

    kind: str
    step_id: str
    name: str
    attempt: int
    status: str
    queued_at_ms: int | None
    started_at_ms: int
    ended_at_ms: int | None
    error: str | None
    worker: str | None
    parent: str | None
    span_id: str | None
    seq: int | None
    total: int


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in what a run did: the run's retries so far, and the number of the last record seen. -1 is before everything."""

    retries: int
    seq: int

    def __str__(self) -> str:
        return f"{self.retries}.{self.seq}"


async def step_rows(conn: AsyncConnection[Any], run: Run) -> list[StepRow]:
    """The latest attempt at each step, with its artifacts; BUDGET is for a budget that stopped the run."""
    return await _with_artifacts(conn, run, await _rows(conn, run, kind="step"), apart=False)


async def page(conn: AsyncConnection[Any], run: Run, *, offset: int, limit: int) -> StepPage:
    """A part of all that the run did. Its cursor is not newer than its rows."""
    cursor = await cursor_of(conn, run.run_id)
    rows = await _rows(conn, run, offset=offset, limit=limit)
    counted = rows or await _rows(conn, run, limit=1)  # a part behind the end is empty, the whole is not
    steps = await _with_artifacts(conn, run, rows, apart=True)
    return StepPage(steps=steps, total=counted[0].total if counted else 0, cursor=str(cursor))


async def news(conn: AsyncConnection[Any], run: Run, *, after: int, limit: int) -> list[StepRow]:
    """What changed behind this number of the journal, in its order; what has no number comes first, from the start only."""
    return await _with_artifacts(conn, run, await _rows(conn, run, after=after, limit=limit, by_seq=True), apart=True)


async def cursor_of(conn: AsyncConnection[Any], run_id: str) -> Cursor:
    """Where the run's journal stands."""
    found = await (await conn.execute(CURSOR, (run_id,))).fetchone()
    return Cursor(*found) if found else Cursor(0, 0)


async def _rows(
    conn: AsyncConnection[Any],
    run: Run,
    *,
    after: int = FROM_THE_START,
    kind: str | None = None,
    step_id: str | None = None,
    by_seq: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> list[Row]:
    given = {"after": after, "kind": kind, "step_id": step_id, "by_seq": by_seq, "offset": offset, "limit": limit}
    async with conn.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(ROWS, {"run_id": run.run_id, "steps": list(STEP_NAMES), **given})
        return await cursor.fetchall()


async def _with_artifacts(conn: AsyncConnection[Any], run: Run, rows: Sequence[Row], *, apart: bool) -> list[StepRow]:
    """The rows as clients see them. apart: the artifacts of a sandbox task stand with the task and not with its step."""
    if not rows:
        return []
    tasks = [row.step_id.partition(":")[0] for row in rows if row.kind == "child"] if apart else None
    steps = [*(row.step_id for row in rows), *(["ExecuteST"] if tasks else [])]
    async with conn.cursor(row_factory=class_row(ArtifactRow)) as cursor:
        await cursor.execute(ARTIFACTS, {"run_id": run.run_id, "steps": steps, "tasks": tasks})
        artifacts = await cursor.fetchall()
    told = await tasks_of(conn, run.run_id, tasks or [])
    refs = by_owner(artifacts, run.workflow_id, apart=apart)
    trace_id = tracing.trace_id(run.workflow_id, run.trace_id)
    return [
        step_row(row, trace_id, refs.get((row.step_id, 0 if row.kind == "child" else row.attempt), []), task_in(told, row))
        for row in rows
    ]


def task_in(told: Mapping[str, JsonObject], row: Row) -> JsonObject:
    """What is known of the sandbox task that this row is."""
    return told.get(row.step_id.partition(":")[0], {}) if row.kind == "child" else {}


def by_owner(artifacts: Iterable[ArtifactRow], workflow_id: str, *, apart: bool) -> Mapping[tuple[str, int], list[JsonObject]]:
    """The artifacts by (step, attempt); those of children, where they stand apart, by (child, 0)."""
    refs: defaultdict[tuple[str, int], list[JsonObject]] = defaultdict(list)
    for artifact in artifacts:
        owner = artifact.step_id, artifact.attempt
        if apart and artifact.task_key and artifact.step_id == "ExecuteST":
            owner = child_id(artifact.task_key, artifact.attempt), 0
        refs[owner].append(artifact_ref(artifact, workflow_id))
    return refs


def step_row(row: Row, trace_id: str, refs: list[JsonObject], task: JsonObject) -> StepRow:
    shown: JsonObject = {
        "stepID": row.step_id,
        "name": STEP_NAMES.get(row.step_id, row.name),
        "attempt": row.attempt,
        "startedAt": row.started_at_ms,
        "artifactRefs": refs,
        "traceId": trace_id,
        "spanId": row.span_id,
        "kind": row.kind,
        "status": row.status,
    }
    optional = {
        "endedAt": row.ended_at_ms,
        "queuedAt": row.queued_at_ms,
        "worker": row.worker,
        "parent": row.parent,
        "seq": row.seq,
        "error": None if row.error is None else error_of(row.error),
    }
    return StepRow.model_validate(shown | without_none(optional) | task)


def error_of(recorded: str) -> JsonObject:
    """A recorded error as an object, also where another client wrote something else."""
    error = json_or_text(recorded)
    return error if isinstance(error, dict) else {"message": str(error)}


# Over HTTP --------------------------------------------------------------------------------------------------


class StepsQuery(Wire):
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None


async def list_steps(door: Door, request: Request) -> Response:
    """The steps; with offset or limit a part of everything that the run did."""
    query = parse(StepsQuery, numbers_in_query(query_of(request, only=("offset", "limit"))))
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        if query.model_fields_set:
            shown = await page(conn, run, offset=query.offset, limit=query.limit or MOST_ROWS)
            return json_response(shown.document())
        cursor = await cursor_of(conn, run.run_id)
        rows = await step_rows(conn, run)
    response = json_response([row.document() for row in rows])
    response.headers["x-cursor"] = str(cursor)
    return response


#: What went into a step and what came out of it, as JSON text: of a child its workflow's, of an agent's step the agent's.
INPUT_AND_OUTPUT: LiteralString = """
    select coalesce((select c.request::text from app.opencode_calls c
                      where c.run_id = %(run_id)s and c.step_id = %(step_id)s order by c.created_at desc, c.id desc limit 1),
                    (select coalesce(c.inputs, i.inputs) from dbos.workflow_status c
                       left join dbos.workflow_input i using (workflow_uuid)
                      where c.workflow_uuid = %(step_id)s and c.parent_workflow_id = %(wid)s)) as input,
           coalesce((select s.output::text from app.run_steps s
                      where s.run_id = %(run_id)s and s.step_id = %(step_id)s order by s.attempt desc limit 1),
                    (select o.output from dbos.operation_outputs o
                      where o.workflow_uuid = %(wid)s and o.function_name = %(step_id)s order by o.function_id desc limit 1),
                    (select coalesce(c.output, x.output) from dbos.workflow_status c
                       left join dbos.workflow_output x using (workflow_uuid)
                      where c.workflow_uuid = %(step_id)s and c.parent_workflow_id = %(wid)s)) as output
"""


async def get_step(door: Door, request: Request) -> Response:
    """One row of a run's, with what went in and what came out."""
    step_id = request.path_params["step_id"]
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        rows = await _rows(conn, run, step_id=step_id, limit=1)
        if not rows:
            raise NotFound("step not found")
        (row,) = await _with_artifacts(conn, run, rows, apart=rows[0].kind == "child")
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(INPUT_AND_OUTPUT, {"run_id": run.run_id, "wid": run.workflow_id, "step_id": step_id})
            both = await cursor.fetchone() or {}
    detail = StepDetail.model_validate(row.document() | {name: json_or_text(text) for name, text in both.items()})
    return json_response(detail.document())
