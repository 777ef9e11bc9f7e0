"""bin/oc-live-smoke: asks the agents of a real OpenCode server for one plan and one build.

Needs OC_MODE=live and a server at OC_BASE_URL. What is missing is printed, and the exit code is 0; with OC_STRICT_MODE=1 that is a
failure. So are, always, an answer that does not fit and a server that permits its agents more than to answer. It costs two calls to
the model, new ones each time. Nothing is written to the database.
"""

import asyncio
import uuid
from dataclasses import dataclass

from bin.live_opencode import live_opencode
from bin.settings import Settings
from bin.wiring import FAILED, complain, run
from engine import TerminalError
from steps.agent import check_tools, checked_answer
from steps.compile import plan_prompt, replayed_plan
from steps.contracts.base import JsonObject, Wire
from steps.contracts.plan import BUILD_SCHEMA, PLAN_SCHEMA, Build, Plan
from steps.decide import build_prompt, replayed_build
from steps.opencode import AgentName, AgentRequest
from steps.opencode_server.faults import Faulty
from steps.opencode_server.live import LiveOpenCode
from steps.redaction import Redaction

UP_S = 5.0
GOAL = "Write a file hello.txt that says hello"


@dataclass(frozen=True, slots=True)
class Question:
    agent: AgentName
    prompt: str
    schema: JsonObject
    answer: type[Wire]


def main(settings: Settings) -> int:
    if settings.oc_mode != "live":
        return skipped(settings, f"OC_MODE is {settings.oc_mode}")
    opencode = live_opencode(settings)
    try:
        version = asyncio.run(opencode.ready(UP_S))
    except Faulty as trouble:
        if trouble.fault.name == "oc_live_unavailable":
            return skipped(settings, f"there is no OpenCode server at {settings.oc_base_url}: {trouble.fault.message}")
        complain(f"{trouble.fault.name}: {trouble.fault.message}")
        return FAILED
    print(f"OpenCode {version} at {settings.oc_base_url}", flush=True)
    hide = Redaction([settings.oc_server_password or "", settings.oc_provider_key or ""])
    for question in questions():
        try:
            print(asyncio.run(asked(opencode, question)), flush=True)
        except TerminalError as error:
            complain(hide.text(f"{question.agent}: {error}"))
            return FAILED
    return 0


def skipped(settings: Settings, reason: str) -> int:
    if settings.oc_strict_mode:
        complain(f"{reason}, and OC_STRICT_MODE does not let that pass")
        return FAILED
    print(f"SKIP: {reason}")
    return 0


def questions() -> list[Question]:
    plan = replayed_plan(GOAL)
    return [
        Question("plan", plan_prompt({"goal": GOAL, "inputs": {}, "constraints": {}}, None), PLAN_SCHEMA, Plan),
        Question("build", build_prompt(GOAL, plan, None), BUILD_SCHEMA, Build),
    ]


async def asked(opencode: LiveOpenCode, question: Question) -> str:
    """One line about the answer. Raises TerminalError."""
    request = AgentRequest(
        run_id=f"smoke_{uuid.uuid4().hex}",
        step_id="Smoke",
        attempt=1,
        agent=question.agent,
        prompt=question.prompt,
        schema=question.schema,
        schema_version=1,
        subject={"goal": GOAL},
        produce=lambda: (
            replayed_plan(GOAL) if question.agent == "plan" else replayed_build(Plan.model_validate(replayed_plan(GOAL)))
        ),
    )
    reply = await opencode.ask(request)
    check_tools(question.agent, reply)
    checked_answer(reply, question.answer)
    told = reply.document()
    if "made_up" in told:
        raise TerminalError(f"the answer is made up: {told['made_up']}", name="oc_live_unavailable")
    tokens = told["usage"]["total_tokens"]
    return (
        f"{question.agent}: a valid answer, {tokens} tokens, session {told['session_id']}, model {told.get('model', 'unknown')}"
    )


if __name__ == "__main__":
    run(main)
