"""What a form must look like: the schema's own rules, said in sentences, whatever strangers write into either."""

import time
from typing import Any

import pytest

from steps.canonical import canonical_json
from steps.contracts import recipe as contract
from steps.contracts.base import parse
from steps.contracts.recipe import RecipeBundle, RecipeSpec
from steps.errors import InvalidInput
from steps.forms import MOST_BYTES, completed
from steps.json_schema import DEEPEST, MOST_NODES, BadSchema, TooMuch, effort, failures, require_schema
from steps.patterns import MAX_LENGTH, BadPattern, found, require_pattern
from steps.template import BadTemplate, instantiate, require_template
from tests.steps.samples import SPEC

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://forms.example/one",
    "type": "object",
    "properties": {
        "goal": {"type": "string", "minLength": 2, "default": "the default"},
        "kind": {"enum": ["a", 1]},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}, "uniqueItems": True, "maxItems": 3},
        "step": {"type": "number", "multipleOf": 0.1, "minimum": 0, "exclusiveMaximum": 9},
    },
    "required": ["kind"],
    "additionalProperties": False,
    "patternProperties": {"^x-[a-z]+$": {"type": ["string", "null"], "pattern": "^[a-z]+$"}},
    "$defs": {"row": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}},
}


def refusal(form: Any, schema: dict[str, Any] = SCHEMA) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        completed(schema, form)
    return refused.value


def test_a_form_that_the_schema_describes_is_completed_with_its_defaults() -> None:
    given = {"kind": 1.0, "rows": [{"n": 1}, {"n": 2}], "step": 0.3, "x-note": None}
    assert completed(SCHEMA, given) == {"goal": "the default", **given}


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({}, "formData must have required property 'kind'"),
        ({"kind": "b"}, 'formData/kind must be one of "a", 1'),
        ({"kind": True}, 'formData/kind must be one of "a", 1'),
        ({"kind": "a", "goal": 7}, "formData/goal must be string"),
        ({"kind": "a", "goal": "g"}, "formData/goal must NOT have fewer than 2 characters"),
        ({"kind": "a", "goal": None}, "formData/goal must be string"),
        ({"kind": "a", "rows": [{"n": 1}, {"n": "x"}]}, "formData/rows/1/n must be integer"),
        ({"kind": "a", "rows": [{}]}, "formData/rows/0 must have required property 'n'"),
        ({"kind": "a", "rows": [{"n": 1}, {"n": 1.0}]}, "formData/rows must NOT have the same item twice"),
        ({"kind": "a", "rows": [{"n": n} for n in range(4)]}, "formData/rows must NOT have more than 3 items"),
        ({"kind": "a", "step": 0.25}, "formData/step must be a multiple of 0.1"),
        ({"kind": "a", "step": -1}, "formData/step must be >= 0"),
        ({"kind": "a", "step": 9}, "formData/step must be < 9"),
        ({"kind": "a", "other": 1}, "formData must NOT have additional properties ('other' is unknown)"),
        ({"kind": "a", "x-a": "A"}, 'formData/x-a must match pattern "^[a-z]+$"'),
        ({"kind": "a", "x-a": 1}, "formData/x-a must be string or null"),
        ({"kind": "a", "goal": 1, "step": "s"}, "formData/goal must be string; formData/step must be number"),
    ],
)
def test_a_form_that_the_schema_forbids_is_refused_by_place_and_reason(form: dict[str, Any], sentence: str) -> None:
    assert refusal(form).message == f"invalid formData: {sentence}"


def test_each_place_is_also_given_as_a_json_pointer() -> None:
    details = refusal({"kind": "a", "rows": [{"n": "x"}], "a/b~": 1}).details
    assert {(d["instancePath"], d["keyword"]) for d in details} == {
        ("/formData/rows/0/n", "type"),
        ("/formData", "additionalProperties"),
    }
    assert {"additionalProperty": "a/b~"} in [d["params"] for d in details]


def test_keys_that_the_schema_does_not_know_are_allowed_unless_it_forbids_them() -> None:
    assert completed({"properties": {}}, {"any": [1, {"thing": None}]}) == {"any": [1, {"thing": None}]}


def test_only_so_many_mistakes_are_told() -> None:
    form = {"rows": list(range(5000))}
    assert len(refusal(form, {"properties": {"rows": {"items": {"type": "string"}}}}).details) == 20


@pytest.mark.parametrize("form", [{"a": "\0"}, {"\0": 1}, {"a": "\ud800"}])
def test_what_no_row_can_hold_is_refused(form: dict[str, Any]) -> None:
    assert refusal(form, {}).message.startswith("invalid formData: ")


def nested(levels: int, key: str = "a") -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {key: value}
    return value


@pytest.mark.parametrize("levels", [101, 1_000, 100_000])
def test_a_form_that_is_nested_too_deeply_is_refused(levels: int) -> None:
    assert "nested too deeply" in refusal(nested(levels), {}).message
    with pytest.raises(InvalidInput, match="nested too deeply"):
        instantiate({"goal": "g", "inputs": "{{formData}}", "constraints": {}}, {}, nested(levels))


def test_a_form_that_is_too_large_is_refused() -> None:
    assert refusal({"a": "x" * MOST_BYTES}, {}).message == f"invalid formData: it is larger than {MOST_BYTES} bytes"


def test_a_template_can_not_make_a_form_into_an_intent_without_end() -> None:
    template = {"goal": "g", "inputs": {str(n): "{{formData.a}}" for n in range(10)}, "constraints": {}}
    with pytest.raises(InvalidInput, match="the template puts more than"):
        instantiate(template, {}, {"a": "x" * (MOST_BYTES - 100)})


# What takes for ever elsewhere ------------------------------------------------------------------------------------------------


def test_a_reference_that_goes_round_in_a_circle_is_refused() -> None:
    for schema in ({"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}):
        require_schema(schema)
        assert refusal({}, schema).message == "invalid formData: it can't be held against formSchema: it goes too deep"


def test_references_that_double_and_double_again_are_given_up_in_time() -> None:
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(50)} | {"a50": {}}
    begun = time.monotonic()
    with effort(300_000), pytest.raises(TooMuch):
        failures({"$ref": "#/$defs/a0", "$defs": parts}, {})
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"uniqueItems": True}, [{}] + [{"a": n} for n in range(100_000)]),
        ({"additionalProperties": False, "patternProperties": {"^(a+)+$": {}}}, {"a" * 50_000 + "b": 1}),
        ({"propertyNames": {"pattern": "(x+x+)+y"}}, {"x" * 50_000: 1}),
        ({"anyOf": [{"type": "string"}] * 1_900}, [1] * 300_000),
        ({"items": {"enum": [[n] for n in range(900)]}}, [["x"]] * 100_000),
        ({"type": "number", "multipleOf": 1e-300}, 1e300),
    ],
)
def test_large_values_are_checked_or_given_up_in_time(schema: dict[str, Any], value: Any) -> None:
    begun = time.monotonic()
    try:
        failures(schema, value)
    except TooMuch:
        pass
    assert time.monotonic() - begun < 15


def test_the_fixtures_of_a_bundle_are_checked_in_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "MOST_FIXTURE_EFFORT", 300_000)
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(12)} | {"a12": {}}
    fixtures = [{"id": str(n), "formData": {}} for n in range(100)]
    one = SPEC | {"formSchema": {"$ref": "#/$defs/a0", "$defs": parts}, "fixtures": fixtures}
    begun = time.monotonic()
    with pytest.raises(InvalidInput, match="it takes too long"):
        parse(RecipeBundle, {"id": "b", "versions": [one | {"v": str(v)} for v in range(5)]})
    assert time.monotonic() - begun < 5


def test_a_tree_is_checked_down_to_its_leaves() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}, "v": {"type": "integer"}}}}}
    value: Any = {"v": "leaf"}
    for _ in range(20):
        value = {"a": value}
    [failure] = failures(schema, value)
    assert failure.path == (*["a"] * 20, "v")


def test_a_checked_value_is_the_same_again() -> None:
    value = {"rows": [{"n": 1}]}
    before = canonical_json(value)
    failures(SCHEMA, value)
    assert canonical_json(value) == before


# Schemas that come in ---------------------------------------------------------------------------------------------------------


def spec(**changes: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        parse(RecipeSpec, SPEC | changes)
    return refused.value


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"type": "array"}, "must be a schema of type object"),
        ({"type": "nope"}, "must be JSON Schema 2020-12: 'nope' is not valid under any of the given schemas (at /type)"),
        ({"properties": {"a": {"minLength": -1}}}, "(at /properties/a/minLength)"),
        ({"properties": []}, "(at /properties)"),
        ({"$ref": "https://elsewhere.example/schema"}, "must begin with #: a schema can't refer to another document (at /$ref)"),
        ({"$ref": "other.json#/a"}, "must begin with #"),
        ({"allOf": [{"$ref": "#/$defs/none"}]}, "must refer to something in this schema (at /allOf/0/$ref)"),
        ({"title": "text", "$ref": "#/title"}, "must refer to a place where a schema stands"),
        ({"$ref": "#/x", "x": {"type": "nope"}}, "must refer to a place where a schema stands"),
        ({"$dynamicRef": "#gone"}, "must refer to something in this schema"),
        ({"properties": {"a": {"pattern": "a(?=b)"}}}, "without lookarounds and backreferences"),
        ({"patternProperties": {"(": {}}}, "must be a pattern that RE2 can read"),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, "(at /properties/a/pattern)"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be https://json-schema.org/draft/2020-12/schema"),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, "must stand at the top only"),
        ({"$defs": {"a": {"$id": "https://b.example/"}}}, "must stand at the top only"),
        ({"unevaluatedProperties": False}, "must not be used"),
        ({"enum": list(range(MOST_NODES))}, f"must be a schema of at most {MOST_NODES} values"),
        ({"const": nested(DEEPEST + 1)}, f"must be a schema of at most {DEEPEST} levels"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused_by_place_and_reason(schema: dict[str, Any], sentence: str) -> None:
    refused = spec(formSchema=schema, fixtures=[])
    assert refused.message.startswith("invalid RecipeSpec: data/formSchema ")
    assert sentence in refused.message
    assert [detail["instancePath"] for detail in refused.details] == ["/formSchema"]
    if "type object" not in sentence:
        check = {"id": "c", "kind": "jsonschema", "artifact": "a", "schema": schema}
        assert spec(eval=[check]).details[0]["instancePath"] == "/eval/0/schema"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"const": {"$ref": "https://elsewhere.example/"}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"pattern": "^a"}, "$id": True}},
        {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
        {"$ref": "#/$defs/a~1b~1", "$defs": {"a/b/": {}}},
        {"allOf": [{"if": {"const": 1}, "then": False}], "not": {"contains": {"type": "null"}}, "unknown": [1]},
    ],
)
def test_what_only_looks_like_a_reference_or_a_pattern_is_left_alone(schema: dict[str, Any]) -> None:
    require_schema(schema)


def test_the_deepest_schema_that_is_allowed_can_be_used() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    value: Any = 1
    for _ in range((DEEPEST - 2) // 2):
        schema, value = {"properties": {"a": schema}}, {"a": value}
    require_schema(schema)
    assert failures(schema, value) == []
    with pytest.raises(BadSchema):
        require_schema({"properties": {"a": {"properties": {"a": schema}}}})


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("x" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH} characters"),
        ("(?<!a)b", "without lookarounds"),
        ("((a{500}){500}){500}", "must be a pattern that RE2 can read"),
        ("[", "must be a pattern that RE2 can read"),
        ("\ud800", "without lone surrogates"),
    ],
)
def test_a_pattern_that_can_not_be_used_is_refused(pattern: str, sentence: str) -> None:
    with pytest.raises(BadPattern, match=sentence.replace("(", r"\(")):
        require_pattern(pattern)
    if "\ud800" not in pattern:
        assert sentence in spec(eval=[{"id": "c", "kind": "regex", "artifact": "a", "re": pattern}]).message


@pytest.mark.parametrize("pattern", [r"^(\d{4})-(?P<m>\d\d)$", r"\pL+", "(?i)ok", "", "a|b", r"^\s*$", "[^,]*(,[^,]*){3}"])
def test_usual_patterns_are_read(pattern: str) -> None:
    require_pattern(pattern)
    assert isinstance(found(pattern, "2026-01"), bool)


@pytest.mark.parametrize(
    "text",
    [
        "{{other.a}}",
        "{{formData.}}",
        "{{formData..a}}",
        "{{.formData}}",
        "{{formDataa}}",
        "{{ }}",
        "{{}}",
        "{{formData.a",
        "{{formData.{a}}}",
        "{{formData.a}} {{",
        "{{formData. a}}",
        "{{formData." + "a" * 500 + "}}",
    ],
)
def test_a_placeholder_that_no_form_could_fill_is_refused(text: str) -> None:
    with pytest.raises(BadTemplate):
        require_template({"goal": "g", "inputs": {"deep": [text]}})
    assert spec(intentTmpl={"inputs": {"deep": [text]}}).details[0]["instancePath"] == "/intentTmpl"


@pytest.mark.parametrize(
    "text",
    [
        "{{formData}}",
        "{{ formData.a.0.b-c }}",
        "a {{formData.a}}-{{formData.ä b}}",
        '{"a":{"b":1}}',
        "{{{formData.a}}}",
        "}}",
        "",
    ],
)
def test_placeholders_and_braces_that_are_none_are_left_alone(text: str) -> None:
    require_template({"goal": text})
