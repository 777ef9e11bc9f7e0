"""The wire: strict, exact about what is wrong, and unchanged on its way through."""

from copy import deepcopy
from typing import Any

import orjson
import pytest

from steps.contracts.base import Wire, parse
from steps.contracts.gate import ExternalEvent, GateReply, GateView
from steps.contracts.intent import Intent, RunRequest, RunStartRequest
from steps.contracts.plan import BUILD_SCHEMA, PLAN_SCHEMA, Build, OCOutput, Plan
from steps.contracts.recipe import RecipeBundle, RecipeSpec
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.contracts.views import RunHeader
from steps.errors import Conflict, InvalidInput, NotFound, QueuePolicyError, RunIdentityConflict
from steps.recipes import seed_bundles
from tests.steps.samples import SPEC

START: dict[str, Any] = {"recipeRef": {"id": "r", "v": "1"}, "formData": {"goal": "g"}}
BUDGET = {
    "maxFanout": 1,
    "maxSBXMinutes": 1,
    "maxArtifactsMB": 1,
    "maxRetriesPerStep": 0,
    "maxWallClockMS": 1,
}
PLAN: dict[str, Any] = {"goal": "g", "design": [], "files": [], "risks": [], "tests": []}
BUILD: dict[str, Any] = {"patch": [], "tests": [], "test_command": "pnpm test"}


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a path such as a/0/b, or without what is there when the value is ..."""
    changed: Any = deepcopy(document)
    target, *rest = changed, *path.split("/")
    keys = [int(part) if part.isdigit() else part for part in rest]
    for key in keys[:-1]:
        target = target[key]
    if value is ...:
        del target[keys[-1]]
    else:
        target[keys[-1]] = value
    return changed


def refusal(model: type[Wire], data: Any, context: str | None = None) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        parse(model, data, context)
    return refused.value


def test_a_refusal_names_the_context_and_every_place_that_is_wrong() -> None:
    data = START | {"opts": {"lane": "x", "budget": BUDGET | {"maxFanout": 0}}, "bogus": 1}
    refused = refusal(RunStartRequest, data)
    assert refused.message == (
        "invalid RunStartRequest: data/opts/lane must be one of 'interactive' or 'batch'; "
        "data/opts/budget/maxFanout must be >= 1; data must NOT have additional properties ('bogus' is unknown)"
    )
    assert refused.body() == {"error": refused.message, "details": refused.details}
    assert [(d["instancePath"], d["keyword"]) for d in refused.details] == [
        ("/opts/lane", "enum"),
        ("/opts/budget/maxFanout", "minimum"),
        ("", "additionalProperties"),
    ]
    assert orjson.dumps(refused.body())


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (Intent, {}, "data must have required property 'goal'"),
        (
            Intent,
            {"goal": "", "inputs": {}, "constraints": {}},
            "data/goal must NOT have fewer than 1 characters",
        ),
        (Intent, {"goal": 1, "inputs": {}, "constraints": {}}, "data/goal must be string"),
        (Intent, {"goal": "g", "inputs": [], "constraints": {}}, "data/inputs must be object"),
        (
            Intent,
            {"goal": "g", "inputs": {}, "constraints": {}, "connectors": [1]},
            "data/connectors/0 must be string",
        ),
        (Intent, [], "data must be object"),
        (Intent, None, "data must be object"),
        (RunRequest, {"priority": "1"}, "data/priority must be integer"),
        (RunRequest, {"priority": 1.5}, "data/priority must be integer"),
        (RunRequest, {"priority": True}, "data/priority must be integer"),
        (RunRequest, {"priority": 2**31}, "data/priority must be <= 2147483647"),
        (
            RunRequest,
            {"queueName": "nopeQ"},
            "data/queueName must be one of 'compileQ', 'sbxQ', 'controlQ' or 'intentQ'",
        ),
        (
            RunRequest,
            {"queuePartitionKey": ""},
            "data/queuePartitionKey must NOT have fewer than 1 characters",
        ),
        (RunRequest, {"tenantId": "a\tb"}, "data/tenantId must hold printable characters only"),
        (
            RunRequest,
            {"workload": {"concurrency": 1, "steps": 1}},
            "must have required property 'sandboxMinutes'",
        ),
        (
            RunRequest,
            {"unknownField": "x"},
            "data must NOT have additional properties ('unknownField' is unknown)",
        ),
        (GateReply, {"payload": {}, "dedupeKey": "k"}, "data must have required property 'origin'"),
        (GateReply, {"payload": {}, "dedupeKey": "k", "origin": "engine-dbos"}, "data/origin must be one of"),
        (
            GateReply,
            {"payload": {}, "dedupeKey": "x" * 257, "origin": "manual"},
            "must NOT have more than 256 characters",
        ),
        (RecipeBundle, {"id": "r", "versions": []}, "data/versions must NOT have fewer than 1 items"),
        (
            RecipeBundle,
            {"id": "r", "versions": [put(SPEC, "eval/0/glob", ...)]},
            "data/versions/0/eval/0 must have required property 'glob'",
        ),
        (RecipeSpec, put(SPEC, "eval/0/kind", "nope"), "data/eval/0 must have a kind of 'file_exists'"),
        (RecipeSpec, put(SPEC, "eval/2/n", -1), "data/eval/2/n must be >= 0"),
        (RecipeSpec, put(SPEC, "eval/1/id", "e1"), "data must have a different id for each of its eval"),
        (RecipeSpec, put(SPEC, "limits/maxFanout", 0), "data/limits/maxFanout must be >= 1"),
        (RecipeSpec, put(SPEC, "queue", "otherQ"), "data/queue must be one of"),
        (RecipeSpec, put(SPEC, "fixtures/0/extra", 1), "data/fixtures/0 must NOT have additional properties"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(model: type[Wire], data: Any, sentence: str) -> None:
    assert sentence in refusal(model, data).message


def test_a_path_with_special_characters_is_a_json_pointer() -> None:
    refused = refusal(SBXReq, {"env": {"a/b~c": 1}})
    assert "/env/a~1b~0c" in [detail["instancePath"] for detail in refused.details]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_can_not_be_stored_is_refused_wherever_it_is(text: str) -> None:
    assert refusal(RunStartRequest, START | {"formData": {"deep": [{"x": text}]}}).message.startswith(
        "invalid RunStartRequest: data"
    )


def test_every_option_of_a_start_may_be_null_or_missing() -> None:
    parse(RunStartRequest, START | {"opts": None})
    parse(RunRequest, dict.fromkeys(RunRequest.model_fields))


def test_a_spec_leaves_as_it_came_in() -> None:
    assert parse(RecipeSpec, SPEC).document() == SPEC
    assert parse(RecipeSpec, put(SPEC, "tags", ...)).document() == put(SPEC, "tags", ...)


@pytest.mark.parametrize("field", [field for field in SPEC if field != "tags"])
def test_every_field_of_a_spec_but_its_tags_is_required(field: str) -> None:
    assert f"must have required property '{field}'" in refusal(RecipeSpec, put(SPEC, field, ...)).message


def test_the_seed_recipes_are_valid() -> None:
    assert "compile-default" in [spec.id for bundle in seed_bundles() for spec in bundle.versions]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topic", "human:"),
        ("topic", "other:x"),
        ("topic", "human:X"),
        ("gateKey", "-x"),
        ("gateKey", "a" * 129),
    ],
)
def test_an_external_event_needs_a_well_formed_address(field: str, value: str) -> None:
    event = {
        "workflowId": "w",
        "gateKey": "g",
        "topic": "human:g",
        "payload": {},
        "dedupeKey": "k",
        "origin": "engine-dbos",
    }
    parse(ExternalEvent, event)
    assert f"data/{field} " in refusal(ExternalEvent, event | {field: value}).message


def test_a_plan_may_not_bring_its_own_patch() -> None:
    parse(Plan, PLAN | {"patchPlan": [{"targetPath": "a", "postimageContent": "", "diffText": ""}]})
    assert "'patch' is unknown" in refusal(Plan, PLAN | {"patch": []}).message


@pytest.mark.parametrize(("field", "limit"), [("design", 25), ("files", 30), ("risks", 15), ("tests", 100)])
def test_a_plan_has_limits(field: str, limit: int) -> None:
    parse(Plan, PLAN | {field: ["x"] * limit})
    assert f"data/{field} must NOT have more than {limit} items" in refusal(Plan, PLAN | {field: ["x"] * (limit + 1)}).message


def test_a_build_has_limits() -> None:
    parse(Build, BUILD | {"patch": [{"path": "a", "diff": "x" * 20_000}]})
    assert "20000" in refusal(Build, BUILD | {"patch": [{"path": "a", "diff": "x" * 20_001}]}).message


def test_an_agents_envelope_is_open_and_its_tool_calls_are_not() -> None:
    envelope: dict[str, Any] = {"prompt": "p", "toolcalls": [], "responses": [], "diffs": [], "own": 1}
    assert parse(OCOutput, envelope).document() == envelope
    assert "'x' is unknown" in refusal(OCOutput, envelope | {"toolcalls": [{"name": "read", "args": {}, "x": 1}]}).message


def test_the_schemas_sent_to_agents_hold_no_prose() -> None:
    for schema in (PLAN_SCHEMA, BUILD_SCHEMA):
        assert b'"description"' not in orjson.dumps(schema)
        assert b'"title"' not in orjson.dumps(schema)
        assert schema["additionalProperties"] is False


def test_a_sandbox_request_and_result_are_strict() -> None:
    request = {
        "envRef": "local-node-24",
        "cmd": "pnpm test",
        "filesIn": [{"path": "a.txt", "inline": "x"}],
        "env": {"A": "b"},
        "timeoutMs": 1000,
        "limits": {"cpu": 1, "memMB": 512},
        "net": False,
        "taskKey": "t",
    }
    assert parse(SBXReq, request).document() == request
    assert "'x' is unknown" in refusal(SBXReq, request | {"x": 1}).message
    result = {
        "exit": 0,
        "stdout": "OK",
        "stderr": "",
        "filesOut": [],
        "metrics": {"wallMs": 1, "cpuMs": 1, "memPeakMB": 1},
        "sandboxRef": "mock-runner",
        "errCode": "NONE",
        "taskKey": "t",
    }
    assert parse(SBXRes, result).document() == result
    assert "data/errCode must be one of" in refusal(SBXRes, result | {"errCode": "OTHER"}).message


@pytest.mark.parametrize("model", [RunHeader, GateView])
def test_views_refuse_fields_that_nobody_agreed_on(model: type[Wire]) -> None:
    assert "'surprise' is unknown" in refusal(model, {"surprise": 1}).message


def test_each_refusal_has_its_status_and_body() -> None:
    drift = [
        {"field": "tenant_id", "existing": None, "incoming": "t"},
        {"field": "budget", "existing": 1, "incoming": 2},
    ]
    conflict = RunIdentityConflict("ih_1", drift)
    assert conflict.body() == {
        "error": "Divergence in run ih_1: identity drift on tenant_id, budget",
        "drift": drift,
    }
    assert conflict.status == 409
    assert Conflict("no", run_status="succeeded").body() == {"error": "no", "status": "succeeded"}
    assert Conflict("no").body() == {"error": "no"}
    assert NotFound("gone").status == 404
    assert InvalidInput("bad").body() == {"error": "bad"}
    assert QueuePolicyError("no").body() == {"error": "no", "code": "queue_policy_violation"}
