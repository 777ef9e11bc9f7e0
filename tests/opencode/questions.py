"""Questions to the agents, and patience that suits a test."""

from steps.compile import replayed_plan
from steps.contracts.base import JsonObject
from steps.contracts.plan import BUILD_SCHEMA, PLAN_SCHEMA, Plan
from steps.decide import replayed_build
from steps.opencode import AgentRequest
from steps.opencode_server.watchdog import Patience

#: Long enough for a busy machine, and no longer than a test wants to wait where nothing is to come.
PATIENT = Patience(turn_s=60, silence_s=60, up_s=60, back_off_s=0.05)


def plan_question(run_id: str, prompt: str = "Plan it.", max_tokens: int | None = None) -> AgentRequest:
    return AgentRequest(
        run_id=run_id,
        step_id="CompileST",
        attempt=1,
        agent="plan",
        prompt=prompt,
        schema=PLAN_SCHEMA,
        schema_version=1,
        subject={"prompt": prompt},
        produce=made_up_plan,
        max_tokens=max_tokens,
    )


def build_question(run_id: str, prompt: str = "Build it.") -> AgentRequest:
    return AgentRequest(
        run_id=run_id,
        step_id="DecideST",
        attempt=1,
        agent="build",
        prompt=prompt,
        schema=BUILD_SCHEMA,
        schema_version=1,
        subject={"prompt": prompt},
        produce=lambda: replayed_build(Plan.model_validate(made_up_plan())),
    )


def made_up_plan() -> JsonObject:
    return replayed_plan("made up")
