"""Calls to the coding agent: fixtures, tools, answers, and the ledger that makes a call happen once."""

from pathlib import Path
from typing import Any

import pytest

from engine import TerminalError
from steps.agent import check_tools, checked_answer, forbid_child_sessions
from steps.compile import plan_prompt, replayed_plan
from steps.contracts.base import JsonObject
from steps.contracts.plan import PLAN_SCHEMA, OCOutput, Plan, ToolCall
from steps.opencode import AgentRequest, RecordOpenCode, ReplayOpenCode, produced, rehearsed


def request(goal: str = "alpha", attempt: int = 1, **answer: Any) -> AgentRequest:
    return AgentRequest(
        run_id="run_1",
        step_id="CompileST",
        attempt=attempt,
        agent="plan",
        prompt=f"plan {goal}",
        schema=PLAN_SCHEMA,
        schema_version=1,
        subject={"goal": goal},
        produce=lambda: replayed_plan(goal) | answer,
    )


def test_an_op_key_names_the_attempt_and_the_prompt() -> None:
    keys = {request().op_key, request(attempt=2).op_key, request("beta").op_key}
    assert len(keys) == 3
    assert request().op_key == request().op_key


async def test_a_replay_without_fixture_answers_as_the_step_would() -> None:
    reply = await ReplayOpenCode().ask(request())
    assert reply.structured == {"goal": "alpha", "design": ["Design for: alpha"], "files": [], "risks": [], "tests": []}


async def test_what_was_recorded_is_what_a_replay_answers(tmp_path: Path) -> None:
    recorded = await RecordOpenCode(tmp_path).ask(request(design=["as recorded"]))
    replayed = await ReplayOpenCode(tmp_path).ask(request(design=["as produced today"]))
    assert replayed == recorded
    assert (await ReplayOpenCode(tmp_path).ask(request("another"))).structured == replayed_plan("another")


async def test_a_broken_fixture_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{request().fixture_key}.json").write_text("{}")
    with pytest.raises(TerminalError, match="is not an agent's answer") as error:
        await ReplayOpenCode(tmp_path).ask(request())
    assert error.value.name == "oc_fixture_invalid"


def test_an_intent_may_set_parts_of_what_a_replay_answers() -> None:
    hooks: JsonObject = {"testHooks": {"replay": {"plan": {"tests": ["a"]}}}}
    assert rehearsed(hooks, "plan", {"goal": "g", "tests": []}) == {"goal": "g", "tests": ["a"]}
    assert rehearsed(hooks, "build", {"tests": []}) == {"tests": []}
    assert rehearsed({"testHooks": []}, "plan", {"tests": []}) == {"tests": []}


def with_tools(*names: str) -> OCOutput:
    return produced(request()).model_copy(update={"toolcalls": [ToolCall(name=name, args={}) for name in names]})


@pytest.mark.parametrize(
    ("agent", "tools"), [("plan", ("read", "grep", "glob", "ls", "skill")), ("build", ("read", "edit", "write", "bash", "patch"))]
)
def test_an_agent_may_use_its_tools(agent: str, tools: tuple[str, ...]) -> None:
    check_tools(agent, with_tools(*tools))


@pytest.mark.parametrize(
    ("agent", "tool"),
    [("plan", "edit"), ("plan", "bash"), ("build", "Edit"), ("build", " edit"), ("build", "task"), ("other", "read")],
)
def test_any_other_tool_is_denied_letter_by_letter(agent: str, tool: str) -> None:
    with pytest.raises(TerminalError, match=f"tool-denied: {tool} for agent {agent}"):
        check_tools(agent, with_tools("read", tool) if agent != "other" else with_tools(tool))


@pytest.mark.parametrize(
    "value",
    [{"parentID": 1}, {"a": [{"parent_session_id": 1}]}, {"PARENT-ID": None}, {"a": {"b": {"parentSessionId": "x"}}}],
)
def test_child_sessions_are_denied_however_they_are_spelled(value: JsonObject) -> None:
    with pytest.raises(TerminalError) as error:
        forbid_child_sessions(value)
    assert error.value.name == "child_session_denied"
    forbid_child_sessions({"parent": 1, "id": {"parents": ["parentID"]}})


def test_an_answer_must_fit_its_schema() -> None:
    assert checked_answer(produced(request()), Plan).goal == "alpha"
    for reply in (
        produced(request(patch=[])),
        produced(request(tests="none")),
        produced(request()).model_copy(update={"structured": None}),
    ):
        with pytest.raises(TerminalError) as error:
            checked_answer(reply, Plan)
        assert error.value.name == "structured_output_invalid"


def test_the_plan_prompt_says_what_is_asked_for() -> None:
    prompt = plan_prompt({"goal": "g", "inputs": {"b": 1, "a": 2}, "constraints": {}}, "Recipe says so.")
    assert prompt.splitlines()[:4] == ["Recipe says so.", "Goal: g", 'Inputs: {"a":2,"b":1}', "Constraints: {}"]
    assert "return only JSON" in prompt
