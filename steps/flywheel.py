"""The flywheel: a run failed, so its recipe gets better, as data and through a gate.

Read `improve_recipe` from top to bottom. Why did it fail, what would mend it, does a person agree? Only then is there a new version; its
fixtures prove it, the failed form among them; it becomes stable, and the form that failed is run again under it. A no, a bad patch or a
fixture that fails leaves the recipe as it was active before. A crash anywhere goes on at the next record.
"""

from typing import LiteralString

from engine import Connection, Engine, Rider, TerminalError, ride, start, step, transaction, workflow, workflow_info
from steps import improvements, ingress, promotion, recipes
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import RecipeRef, RunRequest, RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.errors import Conflict, NotFound, ProductError
from steps.gates import APPROVAL_FORM, Question, ask
from steps.improvements import Improvement
from steps.mending import draft_patch
from steps.policy import CONTROL_QUEUE
from steps.ports import ports
from steps.postmortem import Failure, load_failure, postmortem
from steps.progress import enter, leave
from steps.promoting import promote_recipe
from steps.promotion import PromotionOutcome, PromotionRequest
from steps.records import Attempt, begin_step, finish_step
from steps.run_record import Run, load_run

APPLY, FIXTURES, PUBLISH = "ApplyPatchST", "FixturesST", "PublishST"

POSTMORTEM = Rider("""
    update app.improvements i
       set postmortem = n.postmortem
      from json_to_recordset(%s) as n (workflow_id text, postmortem text)
     where i.workflow_id = n.workflow_id
""")


@workflow(name=improvements.WORKFLOW_NAME, class_name=improvements.WORKFLOW_CLASS, max_recovery_attempts=10)
async def improve_recipe(asked: Improvement) -> JsonObject:
    """One turn, from the failure to the rerun."""
    if workflow_info().id != asked.id:
        raise TerminalError(f"a fork of {asked.id} improves nothing; ask for another improvement", name="ForkedImprovement")
    if not await open_improvement(asked):
        return {"status": "not_needed"}
    run = await load_run(asked.id)
    await enter("running")
    try:
        failure = await load_failure(asked.failed_workflow_id)
        cause = await postmortem(run, failure)
        ride(POSTMORTEM, {"workflow_id": asked.id, "postmortem": cause["artifact"]})
        draft = await draft_patch(run, failure, cause, asked.version)
        await approve(run, failure, cause, draft)
        await apply_patch(run, asked, draft)
        await prove(run, asked, failure.recipe_id, draft["v"])
        published = await publish(run, failure, draft["v"])
    except Exception:
        await leave("failed")
        raise
    await leave("succeeded")
    return published


# Before anything is changed --------------------------------------------------------------------------------------------------


@transaction(name="openImprovement")
async def open_improvement(conn: Connection, asked: Improvement) -> bool:
    """Whether there is something to do: the rows are there, or are made now for one that the recipe itself asked for."""
    if await _is_under_way(conn, asked.id):
        return True
    try:
        failed = await improvements.improvable(conn, asked.failed_workflow_id)
    except (NotFound, Conflict):
        return False
    return await improvements.insert(conn, asked, failed)


UNDER_WAY: LiteralString = "select 1 from app.improvements where workflow_id = %s and status = 'under_way'"


async def _is_under_way(conn: Connection, id: str) -> bool:
    return await (await conn.execute(UNDER_WAY, (id,))).fetchone() is not None


async def approve(run: Run, failure: Failure, cause: JsonObject, draft: JsonObject) -> None:
    """Show the change, and wait until somebody agrees. Fails the improvement unless the answer is a yes."""
    hints: JsonObject = {
        "kind": "recipe-improvement",
        "recipe": failure.recipe_id,
        "fromV": failure.recipe_v,
        "toV": draft["v"],
        "failedWorkflowID": failure.workflow_id,
        "cause": cause["cause"],
        "postmortem": cause["summary"],
        "summary": draft["summary"],
        "diff": draft["diff"],
        "artifacts": [cause["artifact"], draft["artifact"]],
    }
    question = Question(APPLY, "improve-recipe", APPROVAL_FORM, approves=True, hints=hints)
    await enter("waiting_input", next_action=question.next_action)
    _, decision = await ask(run, question)
    if not decision.yes:
        raise TerminalError(f"Improvement rejected: no (rationale: {decision.rationale or 'none'})", name="ImprovementRejected")
    await enter("running")


# A new version ---------------------------------------------------------------------------------------------------------------

SET_TO_V: LiteralString = """
    update app.improvements set to_v = %s where workflow_id = %s and status = 'under_way' returning 1
"""


@transaction(name=APPLY)
async def apply_patch(conn: Connection, run: Run, asked: Improvement, draft: JsonObject) -> JsonObject:
    """The new version in the registry, as a candidate."""
    attempt = await _attempt(conn, run, APPLY)
    bundle = parse(RecipeBundle, {"id": draft["recipe"]["id"], "versions": [draft["recipe"]]})
    ref = RecipeRef(id=bundle.id, v=draft["v"])
    if await (await conn.execute(SET_TO_V, (ref.v, asked.id))).fetchone() is None:
        raise TerminalError("the improvement is not under way any more; ask for another one", name="ImprovementEnded")
    await recipes.import_bundle(conn, bundle)
    version = await promotion.set_candidate(conn, ref, actor=asked.actor, reason=reason_of(asked))
    return finish_step(run, APPLY, attempt, {"id": version.id, "v": version.v, "hash": version.hash, "status": version.status})


async def prove(run: Run, asked: Improvement, recipe_id: str, v: str) -> None:
    """Let all fixtures of the version run, and make it stable and active. Fails the improvement when it is refused."""
    request = PromotionRequest(recipe_id, v, asked.actor, reason_of(asked))
    handle = await start(promote_recipe, request, queue=CONTROL_QUEUE, partition=f"fixture:{recipe_id}")
    outcome = await handle.result()
    await record_proof(run, handle.id, outcome)
    if outcome.status == "refused":
        raise TerminalError(f"{recipe_id}@{v} stays a candidate: {outcome.reason}", name="PromotionRefused")


def reason_of(asked: Improvement) -> str:
    return f"{asked.id}: {asked.reason}"


PROMOTED_BY = Rider("""
    update app.improvements i
       set promotion_workflow_id = n.promotion_workflow_id
      from json_to_recordset(%s) as n (workflow_id text, promotion_workflow_id text)
     where i.workflow_id = n.workflow_id
""")


@step(name=FIXTURES)
async def record_proof(run: Run, promotion_id: str, outcome: PromotionOutcome) -> JsonObject:
    """How the fixtures went."""
    attempt = await begin_step(run, FIXTURES)
    ride(PROMOTED_BY, {"workflow_id": workflow_info().id, "promotion_workflow_id": promotion_id})
    fixtures = [{"id": one.fixtureId, "green": one.green, "reason": one.reason} for one in outcome.fixtures]
    output: JsonObject = {"promotion": promotion_id, "status": outcome.status, "reason": outcome.reason, "fixtures": fixtures}
    return finish_step(run, FIXTURES, attempt, output)


# The rerun -------------------------------------------------------------------------------------------------------------------

STARTED_WITH: LiteralString = """
    select r.trace_id, r.tenant_id, r.queue_partition_key, r.budget, s.priority, s.workflow_timeout_ms,
           (select own.application_version from dbos.workflow_status own where own.workflow_uuid = %s)
      from app.runs r
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where r.workflow_id = %s
"""
SET_RERUN: LiteralString = "update app.improvements set rerun_workflow_id = %s, error = %s where workflow_id = %s"


@transaction(name=PUBLISH)
async def publish(conn: Connection, run: Run, failure: Failure, v: str) -> JsonObject:
    """Start the form that failed under the new version, in the way that it was started before; the whole chain of ids.

    The version is published even if the start is refused, of which the row tells.
    """
    attempt = await _attempt(conn, run, PUBLISH)
    rerun, refused = None, None
    try:
        rerun = await _rerun(conn, failure, v)
    except ProductError as error:
        refused = f"published, but not run again: {error.message}"
    await conn.execute(SET_RERUN, (rerun, refused, workflow_info().id))
    output: JsonObject = {
        "status": "published",
        "failedWorkflowID": failure.workflow_id,
        "recipe": failure.recipe_id,
        "fromV": failure.recipe_v,
        "toV": v,
        "rerunWorkflowID": rerun,
        "refused": refused,
    }
    return finish_step(run, PUBLISH, attempt, output)


async def _rerun(conn: Connection, failure: Failure, v: str) -> str:
    found = await (await conn.execute(STARTED_WITH, (workflow_info().id, failure.workflow_id))).fetchone()
    assert found is not None, "the run was there when its failure was read"
    trace_id, tenant_id, partition, budget, priority, timeout_ms, version = found
    options = {"traceId": trace_id, "tenantId": tenant_id, "queuePartitionKey": partition, "budget": budget}
    options |= {"priority": priority or None, "timeoutMS": timeout_ms}
    request = RunStartRequest(
        recipeRef=RecipeRef(id=failure.recipe_id, v=v),
        formData=failure.form,
        opts=parse(RunRequest, {name: value for name, value in options.items() if value is not None}),
    )
    engine = Engine(ports().pool)
    started = await ingress.start_run_on(engine, conn, request, ports().limits.queue_rules, version=version)
    return started.run.workflow_id


ATTEMPT: LiteralString = """
    select r.retry_count + 1 as number, engine.now_ms() as started_at_ms, s.output as recorded
      from app.runs r
      left join app.run_steps s on s.run_id = r.id and s.step_id = %s and s.attempt = r.retry_count + 1
     where r.id = %s
"""


async def _attempt(conn: Connection, run: Run, step_id: str) -> Attempt:
    """As begin_step, on the transaction's own connection."""
    found = await (await conn.execute(ATTEMPT, (step_id, run.run_id))).fetchone()
    if found is None:
        raise TerminalError(f"run {run.run_id} has no row any more", name="RunNotFound")
    return Attempt(*found, rolled_back=False)
