"""CompileST: the plan agent turns the intent into a plan that a person can read and refuse."""

from engine import TerminalError, step
from steps.agent import ask_agent
from steps.artifacts import ASIDE, ride_artifact
from steps.budgets import allowance
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.plan import PLAN_SCHEMA, Plan
from steps.documents import compact
from steps.opencode import AgentRequest, rehearsal, rehearsed
from steps.records import begin_step, finish_step
from steps.run_record import Run

STEP = "CompileST"
SCHEMA_VERSION = 1


@step(name=STEP)
async def compile_intent(run: Run) -> Plan:
    """The plan. What a failed answer was is kept as a diagnostic artifact."""
    attempt = await begin_step(run, STEP)
    try:
        _, plan = await ask_agent(plan_request(run, attempt.number), Plan)
    except TerminalError as error:
        diagnosis = {"json": {"name": error.name, "message": str(error), "data": error.data}}
        ride_artifact(
            run.run_id,
            STEP,
            "json_diagnostic",
            "failure.json",
            diagnosis,
            idx=ASIDE,
            attempt=attempt.number,
            keep=True,
        )
        raise
    document = compact(plan)
    finish_step(run, STEP, attempt, document)
    ride_artifact(run.run_id, STEP, "plan_card", "plan.json", {"json": document}, idx=0, attempt=attempt.number)
    return plan


def plan_request(run: Run, attempt: int) -> AgentRequest:
    intent = compact(run.intent)
    return AgentRequest(
        run_id=run.run_id,
        step_id=STEP,
        attempt=attempt,
        agent="plan",
        prompt=plan_prompt(intent, run.recipe.compile_prompt if run.recipe else None),
        schema=PLAN_SCHEMA,
        schema_version=SCHEMA_VERSION,
        subject={"stepId": STEP, "intent": intent},
        produce=lambda: rehearsed(run.intent.constraints, "plan", replayed_plan(run.intent.goal)),
        usage=rehearsal(run.intent.constraints, "usage"),
        max_tokens=allowance(run).tokens,
    )


def plan_prompt(intent: JsonObject, recipe_prompt: str | None) -> str:
    lines = [
        recipe_prompt or "Compile this intent into a plan.",
        f"Goal: {intent['goal']}",
        f"Inputs: {canonical_json(intent['inputs'])}",
        f"Constraints: {canonical_json(intent['constraints'])}",
        "Answer with a plan that fits the schema; return only JSON.",
    ]
    return "\n".join(lines)


def replayed_plan(goal: str) -> JsonObject:
    """The plan that a replay makes up when no fixture holds one."""
    return {"goal": goal, "design": [f"Design for: {goal}"], "files": [], "risks": [], "tests": []}
