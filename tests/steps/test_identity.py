"""Ids and keys: each depends on exactly what names it."""

import re
from hashlib import sha256

import pytest

from steps import identity
from steps.contracts.gate import GATE_KEY_PATTERN, TOPIC_PATTERN
from steps.errors import InvalidInput

INTENT = {"goal": "g", "inputs": {"b": 1, "a": 2}, "constraints": {}}


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def test_a_run_is_named_by_the_hash_of_its_intent() -> None:
    hashed = identity.intent_hash(INTENT)
    assert hashed == digest('{"constraints":{},"goal":"g","inputs":{"a":2,"b":1}}')
    assert identity.workflow_id(hashed) == f"ih_{hashed}"
    assert identity.run_id(f"ih_{hashed}") == "run_" + digest(f'{{"workflowId":"ih_{hashed}"}}')[:32]


def test_the_order_of_an_intents_keys_does_not_change_its_run() -> None:
    assert identity.intent_hash(INTENT) == identity.intent_hash({"constraints": {}, "inputs": {"a": 2, "b": 1}, "goal": "g"})


def test_a_task_is_named_by_what_it_runs() -> None:
    def key(**changes: str) -> str:
        arguments = {"cmd": "pnpm test", "template_key": "env:x", "template_ref": "x"} | changes
        return identity.task_key("ih_1", "run_1", **arguments)

    assert key() == digest(
        '{"intentId":"ih_1","normalizedReq":{"cmd":"pnpm test","templateKey":"env:x","templateRef":"x"},'
        '"runId":"run_1","stepId":"ExecuteST"}'
    )
    assert len({key(), key(test="a"), key(test="b"), key(cmd="other"), key(template_ref="y")}) == 5
    assert identity.task_key("ih_2", "run_1", cmd="pnpm test", template_key="env:x", template_ref="x") != key()


@pytest.mark.parametrize(
    ("purpose", "slug"),
    [
        ("approve-plan", "approve-plan"),
        ("ask-user", "ask-user"),
        ("parallel-1", "parallel-1"),
        ("Very Long Purpose Indeed", "very-long-purpos"),
    ],
)
def test_a_gate_is_named_by_run_step_purpose_and_attempt(purpose: str, slug: str) -> None:
    key = identity.gate_key("run_1", "ApplyPatchST", purpose, 1)
    assert key == f"{slug}-{digest(f'run_1:ApplyPatchST:{purpose}:1')[:16]}"
    assert re.fullmatch(GATE_KEY_PATTERN, key)
    assert re.fullmatch(TOPIC_PATTERN, identity.human_topic(key))
    assert key != identity.gate_key("run_1", "ApplyPatchST", purpose, 2)


def test_the_events_of_a_gate_have_frozen_names() -> None:
    assert identity.prompt_event("g") == "ui:g"
    assert identity.result_event("g") == "ui:g:result"
    assert identity.audit_event("g") == "ui:g:audit"
    assert identity.decision_event("g") == "decision:g"
    assert identity.human_topic("g") == "human:g"
    assert identity.system_topic("k") == "sys:k"
    assert identity.send_key("human:g", "d") == "send:human:g:d"


@pytest.mark.parametrize(
    ("text", "slug"),
    [("  Hello  World ", "hello-world"), ("A/B//C", "a-b-c"), ("x:y_z-1", "x:y_z-1"), ("Ünder", "-nder")],
)
def test_free_text_becomes_a_topic(text: str, slug: str) -> None:
    assert identity.topic_slug(text) == slug


def test_other_workflows_are_named_after_what_they_belong_to() -> None:
    assert identity.escalation_id("ih_1", "gate") == "esc:ih_1:gate"
    assert identity.fixture_workflow_id("r", "1", "f") == digest('{"fixtureId":"f","recipeId":"r","recipeV":"1"}')
    assert identity.legacy_intent_id("0123456789abcdef") == "it_0123456789abcdef"


def test_a_call_is_keyed_by_its_schema_as_sent_and_its_prompt() -> None:
    ordered = identity.schema_hash({"type": "object", "additionalProperties": False})
    assert ordered == digest('{"type":"object","additionalProperties":false}')
    assert ordered != identity.schema_hash({"additionalProperties": False, "type": "object"})
    assert identity.op_key("run_1", "CompileST", 1, ordered, "p") == digest(f"run_1:CompileST:1:{ordered}:p")
    assert identity.op_key("run_1", "CompileST", 2, ordered, "p") != identity.op_key("run_1", "CompileST", 1, ordered, "p")


def test_a_receipt_is_keyed_by_the_payload_of_the_side_effect() -> None:
    assert identity.receipt_key("run_1", "ExecuteST", "h") == digest("run_1:ExecuteST:h")


def test_the_dedupe_key_of_a_route_without_one_follows_from_the_answer() -> None:
    key = identity.legacy_dedupe_key("legacy-approve", "ih_1", "run_1", "g", "human:g", "h")
    assert re.fullmatch(r"legacy-approve:[a-f0-9]{64}", key)
    assert key != identity.legacy_dedupe_key("legacy-approve", "ih_1", "run_1", "g", "human:g", "other")
    assert identity.pre_approval_dedupe_key("ih_1", "g") == "legacy-plan-approval:ih_1:g"


def test_two_equal_actions_of_an_operator_have_two_keys() -> None:
    first = identity.ops_task_key("cancel", "ih_1", "ops", "drill", None, 1)
    second = identity.ops_task_key("cancel", "ih_1", "ops", "drill", None, 2)
    assert first.startswith("op-intent:cancel:")
    assert first != second


@pytest.mark.parametrize(("task", "name"), [("task-1", "stdout.log"), ("", "plan.json"), ("t", "files/a/b.txt")])
def test_an_artifact_address_is_read_back_as_it_was_written(task: str, name: str) -> None:
    uri = identity.artifact_uri("run_1", "ExecuteST", task, name)
    assert identity.parse_artifact_uri(uri) == identity.ArtifactAddress("run_1", "ExecuteST", task, name)


@pytest.mark.parametrize(
    "uri",
    [
        "http://run/r/step/s/task/t/n",
        "artifact://run/r/step/s/task/t/",
        "artifact://run/r/step/s/t/n",
        "artifact://run//step/s/task/t/n",
        "",
    ],
)
def test_an_artifact_address_of_another_shape_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match="invalid artifact URI"):
        identity.parse_artifact_uri(uri)
