"""From form to intent: typed substitution, defaults, the step library, and the same result every time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.canonical import canonical_json
from steps.errors import InvalidInput
from steps.template import STEP_LIBRARY, instantiate

TEMPLATE: dict[str, Any] = {"goal": "{{formData.goal}}", "inputs": {}, "constraints": {}}


def inputs_of(template: Any, form_data: Any, form_schema: dict[str, Any] | None = None) -> Any:
    intent = {"goal": "g", "inputs": {"x": template}, "constraints": {}}
    return instantiate(intent, form_schema or {}, form_data)["inputs"]["x"]


@pytest.mark.parametrize("value", ["text", 3, 2.5, True, None, [1, {"a": 2}], {"k": []}])
def test_a_whole_placeholder_becomes_the_value_with_its_type(value: Any) -> None:
    assert inputs_of("{{formData.v}}", {"v": value}) == value
    assert inputs_of("{{  formData.v  }}", {"v": value}) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "<a>"), (1, "<1>"), (1.0, "<1>"), (2.5, "<2.5>"), (True, "<true>"), (None, "<null>")],
)
def test_a_placeholder_inside_text_becomes_text(value: Any, text: str) -> None:
    assert inputs_of("<{{ formData.v }}>", {"v": value}) == text


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_list_or_object_inside_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"formData\.v is not a single value"):
        inputs_of("<{{formData.v}}>", {"v": value})


def test_placeholders_are_filled_at_every_depth_and_everything_else_is_kept() -> None:
    template = {"deep": [{"a": "{{formData.a.b}} and {{formData.list.1}}"}, 1, None, False]}
    assert inputs_of(template, {"a": {"b": "B"}, "list": ["x", "y"]}) == {"deep": [{"a": "B and y"}, 1, None, False]}


def test_what_a_form_says_is_not_read_as_a_template() -> None:
    assert inputs_of("{{formData.v}} {{formData.v}}", {"v": "{{formData.w}}"}) == "{{formData.w}} {{formData.w}}"


@pytest.mark.parametrize(
    "path",
    [
        "formData.x",
        "formData.a.x",
        "formData.a.b.c",
        "formData.l.2",
        "formData.l.-1",
        "formData.l.²",
        "other.a",
        "",
    ],
)
def test_a_path_that_leads_nowhere_is_refused_by_name(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        inputs_of("{{" + path + "}}", {"a": {"b": 1}, "l": [1, 2]})
    assert refused.value.message == f"missing template key: {path}"


def test_a_default_fills_only_what_the_form_leaves_out() -> None:
    schema = {"properties": {"v": {"default": "dflt"}, "n": {"default": 7}, "none": {"type": "string"}}}
    assert inputs_of("{{formData.v}}", {}, schema) == "dflt"
    assert inputs_of("{{formData.v}}", {"v": None}, schema) is None
    assert inputs_of("{{formData.n}}", {"v": 1}, schema) == 7
    with pytest.raises(InvalidInput, match=r"missing template key: formData\.none"):
        inputs_of("{{formData.none}}", {}, schema)


def test_keys_that_the_form_schema_does_not_know_are_allowed() -> None:
    assert instantiate(TEMPLATE, {"properties": {}}, {"goal": "g", "tenant": "acme"})["goal"] == "g"


@pytest.mark.parametrize("form_data", [None, [], "text", 1])
def test_a_form_that_is_no_object_is_refused(form_data: Any) -> None:
    with pytest.raises(InvalidInput, match="formData must be an object"):
        instantiate(TEMPLATE, {}, form_data)


@pytest.mark.parametrize("goal", ["", 1, None, {}])
def test_a_form_that_makes_no_valid_intent_is_refused(goal: Any) -> None:
    with pytest.raises(InvalidInput, match="invalid Intent: data/goal") as refused:
        instantiate(TEMPLATE, {}, {"goal": goal})
    assert refused.value.details


def test_a_template_that_makes_no_valid_intent_is_refused() -> None:
    with pytest.raises(InvalidInput, match="data must have required property 'constraints'"):
        instantiate({"goal": "g", "inputs": {}}, {}, {})


def test_the_whole_step_library_is_put_in_when_the_template_names_none() -> None:
    intent = instantiate(TEMPLATE, {}, {"goal": "g"})
    assert intent["constraints"] == {"stepLibrary": {"primitives": list(STEP_LIBRARY)}}


@pytest.mark.parametrize("library", [{"primitives": ["Legacy"]}, ["Legacy"], {"primitives": list(STEP_LIBRARY)}])
def test_a_step_library_of_known_names_is_kept(library: Any) -> None:
    template = TEMPLATE | {"constraints": {"stepLibrary": library}}
    assert instantiate(template, {}, {"goal": "g"})["constraints"]["stepLibrary"] == library


@pytest.mark.parametrize("library", [{}, {"primitives": []}, {"primitives": ["Nope"]}, [], None, "Legacy", {"primitives": [[]]}])
def test_a_step_library_of_anything_else_is_refused(library: Any) -> None:
    with pytest.raises(InvalidInput, match=r"constraints\.stepLibrary\.primitives must be a non-empty canonical list"):
        instantiate(TEMPLATE | {"constraints": {"stepLibrary": library}}, {}, {"goal": "g"})


def test_nothing_that_was_passed_in_is_changed() -> None:
    template, form = (
        {"goal": "g", "inputs": "{{formData.i}}", "constraints": "{{formData.c}}"},
        {"i": {}, "c": {}},
    )
    instantiate(template, {}, form)
    assert form == {"i": {}, "c": {}}
    assert template == {"goal": "g", "inputs": "{{formData.i}}", "constraints": "{{formData.c}}"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab"),
    lambda v: st.lists(v) | st.dictionaries(st.text("ab"), v),
)


@given(st.dictionaries(st.text("abc"), JSON))
def test_the_same_form_makes_the_same_intent_whatever_the_order_of_its_keys(form: dict[str, Any]) -> None:
    template = {"goal": "g", "inputs": "{{formData}}", "constraints": {}}
    backwards = dict(reversed(form.items()))
    assert canonical_json(instantiate(template, {}, form)) == canonical_json(instantiate(template, {}, backwards))
