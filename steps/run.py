"""The product's story: an intent becomes a plan, the plan becomes changed files, a person agrees, and it is executed.

Read `run_intent` from top to bottom. Every call in it is journaled, so it may stop anywhere and go on anywhere else; while it
waits for a person it is a row. What fails after files were changed changes them back. There is no other way through: a retry
replays this same story up to where it broke.
"""

from engine import StepFailed, TerminalError, WorkflowFailed, now, workflow
from steps.apply import apply_patches, record_preimages, roll_back_patches
from steps.budgets import breach_of, ride_breach
from steps.compile import compile_intent
from steps.contracts.base import JsonObject
from steps.contracts.plan import Plan
from steps.decide import decide
from steps.evaluation import evaluate
from steps.execute import execute
from steps.gates import approve_plan, ask_user
from steps.progress import enter, leave
from steps.run_record import WORKFLOW_CLASS, WORKFLOW_NAME, Run, load_run


@workflow(name=WORKFLOW_NAME, class_name=WORKFLOW_CLASS, max_recovery_attempts=10)
async def run_intent(workflow_id: str) -> JsonObject:
    """One intent, from plan to result."""
    run = await load_run(workflow_id)
    begun_at = await now()
    await enter("running")
    try:
        plan = await compile_intent(run)
        answer = await ask_user(run) if run.asks.ask_user else None
        if plan.patchPlan:
            await record_preimages(run, plan)
        try:
            await apply_patches(run, plan)
            await approve_plan(run)
            decision = await decide(run, plan, answer)
            await execute(run, decision, begun_at)
            if run.recipe is not None:
                await evaluate(run, run.recipe)
        except Exception as failure:
            await undo(run, plan, failure)
            raise
        if run.purpose == "fixture" and plan.patchPlan:
            await roll_back_patches(run)
    except Exception as failure:
        await say_why(run, failure)
        raise
    await leave("succeeded")
    return {"runId": run.run_id, "status": "succeeded"}


async def undo(run: Run, plan: Plan, failure: Exception) -> None:
    """Take the plan's patches back. Fails with both reasons when that is not possible."""
    if not plan.patchPlan:
        return
    try:
        await roll_back_patches(run)
    except StepFailed as second:
        raise TerminalError(
            f"APPLY_PATCH_ROLLBACK_FAILED:{second.message};source={sentence(failure)}",
            name="APPLY_PATCH_ROLLBACK_FAILED",
        ) from failure


async def say_why(run: Run, failure: Exception) -> None:
    """Leave the evidence of a broken budget and tell who listens; the error itself reaches app.runs with the workflow's end."""
    breach = breach_of(failure)
    if breach is not None:
        ride_breach(run.run_id, breach)
    await leave("failed")


def sentence(failure: Exception) -> str:
    if isinstance(failure, (StepFailed, WorkflowFailed)):
        return failure.message
    return str(failure)
