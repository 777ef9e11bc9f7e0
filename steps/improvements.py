"""The improvements of recipes: who asked for one, after which failure, and what came of it.

An improvement is a workflow with a run of its own, so that its gate, steps and artifacts are seen like any other's. Its rows and its
workflow are made in one commit, once: a version of a recipe has one improvement under way at a time.
"""

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import class_row, dict_row

from engine import Connection, Engine
from steps import identity, tracing
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.improvement import ImprovementView, ImproveRequest
from steps.errors import Conflict, NotFound
from steps.policy import CONTROL_QUEUE

WORKFLOW_NAME = "ImproveRecipe"
WORKFLOW_CLASS = "RecipeWorkflow"


@dataclass(frozen=True, slots=True)
class Improvement:
    """What an improvement's workflow is asked. id: its own. version: what to call the new version, None for the next free name."""

    id: str
    failed_workflow_id: str
    actor: str
    reason: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run, as far as it matters to its improvement. red: a check of what it left has failed."""

    workflow_id: str
    status: str
    purpose: str
    recipe_id: str | None
    recipe_v: str | None
    recipe_hash: str | None
    error: str | None
    queue_partition_key: str | None
    tenant_id: str | None
    has_form: bool
    red: bool
    improved_before: int


RUN: LiteralString = """
    select r.workflow_id, r.status, r.purpose, r.recipe_id, r.recipe_v, r.recipe_hash, r.error, r.queue_partition_key, r.tenant_id,
           i.form is not null as has_form,
           exists (select from app.eval_results e where e.run_id = r.id and not e.pass) as red,
           (select count(*)::int from app.improvements o where o.failed_workflow_id = r.workflow_id) as improved_before
      from app.runs r
      join app.intents i on i.id = r.intent_id
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
"""
# Both unique indexes may be met: that of the id, and that of the improvements under way.
INSERT: LiteralString = """
    insert into app.improvements (workflow_id, failed_workflow_id, recipe_id, from_v, actor, reason, failure)
    values (%(id)s, %(failed)s, %(recipe_id)s, %(from_v)s, %(actor)s, %(reason)s, %(failure)s)
    on conflict do nothing
    returning workflow_id
"""
UNDER_WAY: LiteralString = """
    select workflow_id, failed_workflow_id from app.improvements where recipe_id = %s and from_v = %s and status = 'under_way'
"""
INSERT_RUN: LiteralString = """
    with asked as (
        insert into app.intents (id, goal, payload) values (%(intent_id)s, %(goal)s, %(intent)s::jsonb) on conflict do nothing)
    insert into app.runs (id, intent_id, workflow_id, status, tenant_id, queue_partition_key, recipe_id, recipe_v, recipe_hash, purpose)
    values (%(run_id)s, %(intent_id)s, %(id)s, 'queued', %(tenant_id)s, %(partition)s, %(recipe_id)s, %(from_v)s, %(recipe_hash)s,
            'improvement')
    on conflict do nothing
"""
VERSION_EXISTS: LiteralString = "select 1 from app.recipe_versions where id = %s and v = %s"


async def begin(engine: Engine, id: str, request: ImproveRequest, *, version: str | None = None) -> ImprovementView:
    """The improvement of a failed run's recipe, begun now or under way already; `id` is the run's or its workflow's.

    version: the application version whose workers shall make it; None for any. Raises NotFound, or Conflict for a run that nothing can
    be learnt from, and while another run's improvement of the same version is under way.
    """
    async with engine.transaction() as conn:
        failed = await improvable(conn, id)
        if request.version is not None:
            await _require_free(conn, failed, request.version)
        asked = Improvement(
            id=identity.improvement_id(failed.workflow_id, failed.improved_before + 1),
            failed_workflow_id=failed.workflow_id,
            actor=request.actor,
            reason=request.reason,
            version=request.version,
        )
        if await insert(conn, asked, failed):
            await engine.enqueue(
                WORKFLOW_NAME,
                asked,
                id=asked.id,
                class_name=WORKFLOW_CLASS,
                queue=CONTROL_QUEUE,
                partition=failed.queue_partition_key,
                version=version,
                attributes=tracing.attributes_of(asked.id, None),
                conn=conn,
            )
        return await _under_way(conn, failed)


async def improvable(conn: Connection, id: str) -> FailedRun:
    """The run, if its recipe can learn from it. Raises NotFound, Conflict."""
    run = await _find(conn, id)
    if run is None:
        raise NotFound("run not found")
    if run.purpose != "run":
        raise Conflict(
            f"run {run.workflow_id} is a recipe's own {run.purpose}; improve the recipe of a run that somebody started"
        )
    if run.recipe_id is None or not run.has_form:
        raise Conflict(f"run {run.workflow_id} was not made from a recipe and a form, so there is no recipe to improve")
    if run.status not in ("failed", "retries_exceeded") and not (run.status == "succeeded" and run.red):
        raise Conflict(f"cannot learn from a run in status {run.status} without a red check", run_status=run.status)
    return run


async def _require_free(conn: Connection, failed: FailedRun, v: str) -> None:
    if await (await conn.execute(VERSION_EXISTS, (failed.recipe_id, v))).fetchone() is not None:
        raise Conflict(f"recipe version {failed.recipe_id}@{v} exists already; choose another name")


async def _find(conn: Connection, id: str) -> FailedRun | None:
    async with conn.cursor(row_factory=class_row(FailedRun)) as cursor:
        return await (await cursor.execute(RUN, {"id": id})).fetchone()


async def insert(conn: Connection, asked: Improvement, failed: FailedRun) -> bool:
    """The rows of an improvement; whether they are new. None are written while its version has another one under way."""
    goal = f"Improve {failed.recipe_id}@{failed.recipe_v}"
    inputs = {"failedWorkflowID": failed.workflow_id, "reason": asked.reason}
    values = {
        "id": asked.id,
        "failed": failed.workflow_id,
        "recipe_id": failed.recipe_id,
        "from_v": failed.recipe_v,
        "recipe_hash": failed.recipe_hash,
        "actor": asked.actor,
        "reason": asked.reason,
        "failure": failed.error or "a check of what it left is red",
        "intent_id": identity.improvement_intent_id(asked.id),
        "goal": goal,
        "intent": canonical_json({"goal": goal, "inputs": inputs, "constraints": {}}),
        "run_id": identity.run_id(asked.id),
        "tenant_id": failed.tenant_id,
        "partition": failed.queue_partition_key,
    }
    if await (await conn.execute(INSERT, values)).fetchone() is None:
        return False
    await conn.execute(INSERT_RUN, values)
    return True


async def _under_way(conn: Connection, failed: FailedRun) -> ImprovementView:
    found = await (await conn.execute(UNDER_WAY, (failed.recipe_id, failed.recipe_v))).fetchone()
    if found is None:
        raise Conflict(
            f"the improvement of {failed.recipe_id}@{failed.recipe_v} ended a moment ago; look at it before you ask again"
        )
    workflow_id, cause = found
    if cause != failed.workflow_id:
        raise Conflict(
            f"{failed.recipe_id}@{failed.recipe_v} is being improved already, after run {cause}; wait for {workflow_id}"
        )
    return (await _views(conn, {"id": workflow_id}))[0]


# Reading ---------------------------------------------------------------------------------------------------------------------

VIEW: LiteralString = """
    select w.improvement_workflow_id as "workflowID", w.status, w.actor, w.reason, w.recipe_id as "recipeId", w.from_v as "fromV",
           w.to_v as "toV", w.to_status as "toStatus", w.failed_workflow_id as "failedWorkflowID", w.failure, w.postmortem,
           w.promotion_workflow_id as "promotionWorkflowID", w.rerun_workflow_id as "rerunWorkflowID", w.rerun_status as "rerunStatus",
           w.error, floor(extract(epoch from w.created_at) * 1000)::bigint as "createdAt",
           floor(extract(epoch from w.ended_at) * 1000)::bigint as "endedAt"
      from app.v_recipe_flywheel w
"""
NEWEST: LiteralString = " order by w.created_at desc, w.improvement_workflow_id desc limit 200"
VIEWS: LiteralString = (
    VIEW + " where w.improvement_workflow_id = %(id)s or w.failed_workflow_id = %(id)s or w.rerun_workflow_id = %(id)s" + NEWEST
)
OF_RECIPE: LiteralString = VIEW + " where w.recipe_id = %(id)s" + NEWEST


async def list_improvements(conn: Connection, workflow_id: str) -> list[ImprovementView]:
    """The turns of the wheel in which this run failed, or is the rerun, or the improvement itself; the newest first."""
    return await _views(conn, {"id": workflow_id})


async def list_of_recipe(conn: Connection, recipe_id: str) -> list[ImprovementView]:
    """The turns of the wheel of a recipe, whatever its version; the newest first."""
    return await _views(conn, {"id": recipe_id}, OF_RECIPE)


async def _views(conn: Connection, given: JsonObject, query: LiteralString = VIEWS) -> list[ImprovementView]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows: list[dict[str, Any]] = await (await cursor.execute(query, given)).fetchall()
    return [ImprovementView.model_validate(row | {"runId": identity.run_id(row["workflowID"])}) for row in rows]
