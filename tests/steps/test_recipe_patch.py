"""A patch of recipe JSON makes a new version, or is refused in a sentence; names, diffs, causes and mends follow from what is given."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps import identity
from steps.contracts.base import parse
from steps.contracts.improvement import POSTMORTEM_SCHEMA, RECIPE_PATCH_SCHEMA, PatchOperation, Postmortem, RecipePatch
from steps.errors import InvalidInput
from steps.mending import BLAMED, replayed_patch
from steps.postmortem import Failure, cause_of, replayed_postmortem
from steps.recipe_patch import BadPatch, candidate, next_version, patched, recipe_diff

RECIPE: dict[str, Any] = {
    "id": "wheel",
    "v": "1.0.0",
    "name": "Greet",
    "tags": [],
    "formSchema": {"type": "object", "properties": {"name": {"type": "string", "default": "world"}}},
    "intentTmpl": {
        "goal": "Greet {{formData.name}}",
        "inputs": {"a/b": 1, "m~n": [1, 2, 3]},
        "constraints": {"testHooks": {"replay": {"build": {"test_command": "FAIL_ME"}}}},
    },
    "wfEntry": "Runner.runIntent",
    "queue": "intentQ",
    "limits": {"maxSteps": 10, "maxFanout": 2, "maxSbxMin": 5, "maxTokens": 1024},
    "eval": [{"id": "leaves-files", "kind": "file_exists", "glob": "**/*"}],
    "fixtures": [{"id": "plain", "formData": {}}],
    "prompts": {"compile": "Plan it.", "postmortem": "Say why."},
}
FORM = {"name": "Ada"}


def operation(op: str, path: str, *value: Any) -> PatchOperation:
    return parse(PatchOperation, {"op": op, "path": path} | ({"value": value[0]} if value else {}))


def failure(**facts: Any) -> Failure:
    given: dict[str, Any] = {
        "workflow_id": "ih_1",
        "recipe_id": "wheel",
        "recipe_v": "1.0.0",
        "recipe_hash": "0" * 64,
        "status": "retries_exceeded",
        "error": "it broke",
        "last_step": "DecideST",
        "budget": None,
        "form": FORM,
        "recipe": RECIPE,
        "recorded": None,
        "checks": [],
        "tasks": [],
        "calls": [],
        "artifacts": [],
    }
    return Failure(**given | facts)


# -- operations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "where", "expected"),
    [
        (("replace", "/limits/maxFanout", 5), ("limits", "maxFanout"), 5),
        (("add", "/intentTmpl/inputs/new", None), ("intentTmpl", "inputs", "new"), None),
        (("replace", "/intentTmpl/inputs/a~1b", 2), ("intentTmpl", "inputs", "a/b"), 2),
        (("add", "/intentTmpl/inputs/m~0n/1", 9), ("intentTmpl", "inputs", "m~n"), [1, 9, 2, 3]),
        (("add", "/intentTmpl/inputs/m~0n/-", 9), ("intentTmpl", "inputs", "m~n"), [1, 2, 3, 9]),
        (("add", "/intentTmpl/inputs/m~0n/3", 9), ("intentTmpl", "inputs", "m~n"), [1, 2, 3, 9]),
        (("remove", "/intentTmpl/inputs/m~0n/0"), ("intentTmpl", "inputs", "m~n"), [2, 3]),
        (("remove", "/intentTmpl/constraints/testHooks"), ("intentTmpl", "constraints"), {}),
        (("replace", "/name", "Hello"), ("name",), "Hello"),
        (("replace", "/eval/0/glob", "*"), ("eval", 0, "glob"), "*"),
    ],
)
def test_an_operation_changes_the_one_place_that_its_pointer_names(
    given: tuple[Any, ...], where: tuple[Any, ...], expected: Any
) -> None:
    before = copy.deepcopy(RECIPE)
    found: Any = patched(RECIPE, [operation(*given)])
    for key in where:
        found = found[key]
    assert found == expected
    assert before == RECIPE


@pytest.mark.parametrize(
    "path",
    ["/id", "/v", "/wfEntry", "/queue", "/", "//", "/hash", "/limits~", "/limits~2/x", "limits/maxFanout", "/Limits/maxFanout"],
)
@pytest.mark.parametrize("op", ["add", "replace"])
def test_what_a_recipe_is_and_what_is_no_pointer_is_out_of_reach(op: str, path: str) -> None:
    with pytest.raises((BadPatch, InvalidInput)):
        patched(RECIPE, [operation(op, path, "x")])


@pytest.mark.parametrize(
    "given",
    [
        ("replace", "/limits/maxWishes", 1),
        ("remove", "/intentTmpl/nothing"),
        ("add", "/intentTmpl/nothing/below", 1),
        ("add", "/intentTmpl/inputs/m~0n/4", 1),
        ("replace", "/intentTmpl/inputs/m~0n/-", 1),
        ("replace", "/intentTmpl/inputs/m~0n/01", 1),
        ("replace", "/intentTmpl/inputs/m~0n/-1", 1),
        ("add", "/name/first", 1),
        ("add", "/intentTmpl" + "/inputs" * 40, 1),
    ],
)
def test_a_place_that_is_not_there_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(BadPatch):
        patched(RECIPE, [operation(*given)])


@pytest.mark.parametrize("given", [{"op": "replace", "path": "/name"}, {"op": "remove", "path": "/name", "value": 1}])
def test_only_a_removal_has_no_value(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="value"):
        parse(PatchOperation, given)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "replace", "remove"]),
            st.text("/~01-abinputseval", min_size=2, max_size=20)
            | st.sampled_from(["/intentTmpl/inputs/m~0n/1", "/eval/0", "/tags/-", "/fixtures/0/formData", "/limits"]),
            st.none() | st.integers() | st.text(max_size=3),
        ),
        max_size=4,
    )
)
def test_any_patch_is_applied_or_refused_and_never_reaches_identity(drawn: list[tuple[str, str, Any]]) -> None:
    operations = [operation(op, path, *([] if op == "remove" else [value])) for op, path, value in drawn]
    try:
        made = candidate(RECIPE, operations, "1.0.1", FORM)
    except BadPatch:
        return
    document = made.document()
    assert [document[key] for key in ("id", "v", "wfEntry", "queue")] == ["wheel", "1.0.1", "Runner.runIntent", "intentQ"]


# -- the new version ------------------------------------------------------------------------------------------------------

MEND = operation("remove", "/intentTmpl/constraints/testHooks/replay/build")


def test_the_new_version_has_the_form_that_failed_among_its_fixtures() -> None:
    fixtures = candidate(RECIPE, [MEND], "1.0.1", FORM).fixtures
    assert [fixture.formData for fixture in fixtures] == [{}, FORM]
    assert fixtures[1].id == f"failed-{identity.payload_hash(FORM)[:12]}"
    assert [fixture.id for fixture in candidate(RECIPE, [MEND], "1.0.1", {}).fixtures] == ["plain"]


def test_a_patch_that_leaves_the_intent_as_it_was_gets_the_version_into_it() -> None:
    made = candidate(RECIPE, [operation("replace", "/limits/maxFanout", 9)], "1.0.1", FORM)
    assert made.intentTmpl["constraints"]["recipeV"] == "1.0.1"
    assert "recipeV" not in candidate(RECIPE, [MEND], "1.0.1", FORM).intentTmpl["constraints"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("replace", "/name", "Greet"), "changes nothing"),
        (("replace", "/limits/maxFanout", 0), "maxFanout"),
        (("remove", "/prompts"), "prompts"),
        (("add", "/limits/maxWishes", 1), "maxWishes"),
        (("replace", "/intentTmpl/goal", "{{formData.absent}}"), "absent"),
    ],
)
def test_a_patch_that_makes_no_other_valid_recipe_is_refused(given: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(BadPatch, match=sentence):
        candidate(RECIPE, [operation(*given)], "1.0.1", FORM)


@pytest.mark.parametrize(
    ("v", "taken", "expected"),
    [
        ("1.0.0", [], "1.0.1"),
        ("1.0.9", ["1.0.10"], "1.0.11"),
        ("v1", [], "v1.1"),
        ("v1.1", ["v1.2", "v1.3"], "v1.4"),
        ("7", ["7.1"], "7.2"),
        ("1.0.0-rc.1", [], "1.0.0-rc.2"),
        ("spring", [], "spring.1"),
    ],
)
def test_the_next_version_counts_on(v: str, taken: list[str], expected: str) -> None:
    assert next_version(v, taken) == expected


def test_the_diff_shows_what_is_new_and_nothing_else() -> None:
    diff = recipe_diff(RECIPE, candidate(RECIPE, [MEND], "1.0.1", {}).document())
    changed = [line for line in diff.splitlines() if line[0] in "+-"]
    assert changed[:2] == ["--- wheel@1.0.0", "+++ wheel@1.0.1"]
    assert [line.strip("+- ") for line in changed[2:]] == [
        '"replay": {',
        '"build": {',
        '"test_command": "FAIL_ME"',
        "}",
        "}",
        '"replay": {}',
        '"v": "1.0.0",',
        '"v": "1.0.1",',
    ]


# -- cause and mend -------------------------------------------------------------------------------------------------------

BREACH = '{"name": "BudgetExceeded", "message": "…", "data": {"metric": "%s", "limit": %d, "observed": 7}}'


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"recorded": '{"name": "SandboxFailed", "message": "…", "data": {"errCode": "CMD_NONZERO"}}'}, "CMD_NONZERO"),
        ({"recorded": BREACH % ("maxFanout", 2)}, "budget:maxFanout"),
        ({"recorded": '{"name": "PlanNotApproved", "message": "no"}'}, "PlanNotApproved"),
        ({"recorded": "pickled"}, "UNKNOWN"),
        ({}, "UNKNOWN"),
        ({"status": "succeeded", "checks": [{"checkId": "x", "reason": "regex:miss:log"}]}, "eval:regex"),
    ],
)
def test_the_cause_follows_from_the_facts(facts: dict[str, Any], cause: str) -> None:
    assert cause_of(failure(**facts)) == cause
    assert parse(Postmortem, replayed_postmortem(failure(**facts))).cause == cause


def test_a_long_story_is_told_within_bounds() -> None:
    calls = [{"name": "x", "error": "y" * 2000}] * 20
    tasks = [{"cmd": "z" * 2000, "errCode": "OOM", "exit": 1, "stderr": ""}] * 20
    told = parse(Postmortem, replayed_postmortem(failure(error="e" * 9000, calls=calls, tasks=tasks)))
    assert len(told.evidence) == 20


@pytest.mark.parametrize("cause", [cause for cause, part in BLAMED.items() if part == "build"])
def test_a_rehearsed_answer_that_is_to_blame_goes(cause: str) -> None:
    patch = parse(RecipePatch, replayed_patch(failure(), cause))
    assert [(one.op, one.path) for one in patch.operations] == [("remove", "/intentTmpl/constraints/testHooks/replay/build")]


def test_the_mend_that_a_recipe_rehearses_goes_before_the_rules_and_is_used_up() -> None:
    recipe = copy.deepcopy(RECIPE)
    replay = recipe["intentTmpl"]["constraints"]["testHooks"]["replay"]
    replay["mend"] = [{"op": "replace", "path": "/intentTmpl/constraints/testHooks/replay/build/test_command", "value": "true"}]
    patch = parse(RecipePatch, replayed_patch(failure(recipe=recipe), "CMD_NONZERO"))
    made = patched(recipe, patch.operations)
    assert made["intentTmpl"]["constraints"]["testHooks"]["replay"] == {"build": {"test_command": "true"}}


def test_a_limit_of_the_recipe_is_raised_to_what_was_needed() -> None:
    patch = parse(RecipePatch, replayed_patch(failure(recorded=BREACH % ("maxFanout", 2)), "budget:maxFanout"))
    assert [one.document() for one in patch.operations] == [{"op": "replace", "path": "/limits/maxFanout", "value": 7}]


@pytest.mark.parametrize("budget", [1, 2, 6])
def test_a_budget_of_the_start_is_not_raised_by_the_recipe(budget: int) -> None:
    met = failure(recorded=BREACH % ("maxFanout", min(budget, 2)), budget={"maxFanout": budget})
    answer = replayed_patch(met, "budget:maxFanout")
    assert answer["operations"] == [] and "the start" in answer["summary"]


@pytest.mark.parametrize("cause", ["UNKNOWN", "eval:regex", "PlanNotApproved", "budget:maxWallClockMS", "PREIMAGE_MISMATCH"])
def test_what_no_rule_mends_stays_as_it_is(cause: str) -> None:
    assert replayed_patch(failure(), cause)["operations"] == []


def test_the_schemas_that_agents_get_close_every_object() -> None:
    for schema in (POSTMORTEM_SCHEMA, RECIPE_PATCH_SCHEMA):
        assert schema["additionalProperties"] is False
