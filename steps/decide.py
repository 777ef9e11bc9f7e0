"""DecideST: the build agent turns the approved plan into patches, tests and the command that runs them."""

from engine import step
from steps.agent import ask_agent
from steps.artifacts import ASIDE, ride_artifact
from steps.budgets import allowance
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.plan import BUILD_SCHEMA, Build, OCOutput, Plan
from steps.documents import compact
from steps.opencode import AgentRequest, rehearsal, rehearsed
from steps.records import begin_step, finish_step
from steps.run_record import Run

STEP = "DecideST"
SCHEMA_VERSION = 1


@step(name=STEP)
async def decide(run: Run, plan: Plan, answer: str | None) -> OCOutput:
    """The build agent's reply, whole. `answer` is what a person said when the run asked for input."""
    attempt = await begin_step(run, STEP)
    reply, build = await ask_agent(build_request(run, plan, answer, attempt.number), Build)
    finish_step(run, STEP, attempt, compact(reply))
    for idx, patch in enumerate(build.patch):
        ride_artifact(
            run.run_id,
            STEP,
            "patch",
            f"{patch.path}.patch",
            {"text": patch.diff},
            idx=idx,
            attempt=attempt.number,
        )
    if not build.patch:
        ride_artifact(run.run_id, STEP, "none", "none", {"text": "no patches"}, idx=ASIDE, attempt=attempt.number)
    return reply


def build_request(run: Run, plan: Plan, answer: str | None, attempt: int) -> AgentRequest:
    document = compact(plan)
    return AgentRequest(
        run_id=run.run_id,
        step_id=STEP,
        attempt=attempt,
        agent="build",
        prompt=build_prompt(run.intent.goal, document, answer),
        schema=BUILD_SCHEMA,
        schema_version=SCHEMA_VERSION,
        subject={"stepId": STEP, "intent": compact(run.intent), "plan": document, "answer": answer},
        produce=lambda: rehearsed(run.intent.constraints, "build", replayed_build(plan)),
        usage=rehearsal(run.intent.constraints, "usage"),
        max_tokens=allowance(run).tokens,
    )


def build_prompt(goal: str, plan: JsonObject, answer: str | None) -> str:
    lines = [
        "Build what this approved plan says.",
        f"Goal: {goal}",
        f"Plan: {canonical_json(plan)}",
        "Answer with patches, tests and the one command that runs a test; return only JSON.",
    ]
    if answer is not None:
        lines.insert(3, f"Answer from the user: {answer}")
    return "\n".join(lines)


def replayed_build(plan: Plan) -> JsonObject:
    """The build that a replay makes up when no fixture holds one."""
    return {"patch": [], "tests": plan.tests, "test_command": "pnpm test"}
