"""A form: what somebody filled in, completed and held against the schema of the recipe that asked for it."""

from collections.abc import Sequence
from typing import Any

from steps.canonical import NotCanonical, canonical_json, compact_json, require_storable
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput, schema_error
from steps.json_schema import Failure, TooMuch, failures

#: Of one form, as JSON.
MOST_BYTES = 1024 * 1024
_LONGEST_SHOWN = 200


def completed(form_schema: JsonObject, form_data: object) -> JsonObject:
    """The form with the defaults of top-level properties that it leaves out. Raises InvalidInput, also when it is not one that the
    schema describes.
    """
    if not isinstance(form_data, dict):
        raise InvalidInput("formData must be an object")
    try:
        require_storable(form_data)
        size = len(compact_json(form_data).encode())
    except NotCanonical as error:
        raise InvalidInput(f"invalid formData: {error}") from None
    if size > MOST_BYTES:
        raise InvalidInput(f"invalid formData: it is larger than {MOST_BYTES} bytes")
    form = _with_defaults(form_schema, form_data)
    try:
        wrong = failures(form_schema, form)
    except TooMuch as error:
        raise InvalidInput(f"invalid formData: it can't be held against formSchema: {error}") from None
    if wrong:
        details = [detail(failure, "formData") for failure in wrong]
        sentences = [f"formData{detail['instancePath'].removeprefix('/formData')} {detail['message']}" for detail in details]
        raise InvalidInput(f"invalid formData: {'; '.join(sentences)}", details)
    return form


def _with_defaults(form_schema: JsonObject, form_data: JsonObject) -> JsonObject:
    properties = form_schema.get("properties")
    if not isinstance(properties, dict):
        return form_data
    defaults = {key: field["default"] for key, field in properties.items() if isinstance(field, dict) and "default" in field}
    return defaults | form_data


# JSON Schema's keyword -> what it asks for.
_SENTENCES = {
    "exclusiveMaximum": "must be < {}",
    "exclusiveMinimum": "must be > {}",
    "false schema": "must not be there",
    "maxItems": "must NOT have more than {} items",
    "maxLength": "must NOT have more than {} characters",
    "maxProperties": "must NOT have more than {} properties",
    "maximum": "must be <= {}",
    "minItems": "must NOT have fewer than {} items",
    "minLength": "must NOT have fewer than {} characters",
    "minProperties": "must NOT have fewer than {} properties",
    "minimum": "must be >= {}",
    "multipleOf": "must be a multiple of {}",
    "const": "must be {}",
    "pattern": "must match pattern {}",
    "uniqueItems": "must NOT have the same item twice",
}


def detail(failure: Failure, root: str) -> JsonObject:
    """The failure as one of an InvalidInput's details. root: what the checked value is called."""
    keyword, given, name = failure.keyword, failure.given, failure.name
    path: Sequence[str | int] = (root, *failure.path)
    if keyword == "required":
        return schema_error(path, keyword, f"must have required property '{name}'", {"missingProperty": name})
    if keyword == "additionalProperties" and name is not None:
        message = f"must NOT have additional properties ('{_shown(name)}' is unknown)"
        return schema_error(path, keyword, message, {"additionalProperty": name})
    if keyword == "type":
        kinds = [given] if isinstance(given, str) else list(given)
        return schema_error(path, keyword, f"must be {' or '.join(kinds)}", {"type": given})
    if keyword == "enum":
        return schema_error(path, keyword, f"must be one of {_shown(', '.join(map(canonical_json, given)))}", {})
    if keyword in _SENTENCES:
        return schema_error(path, keyword, _SENTENCES[keyword].format(_shown(canonical_json(given))), {"limit": given})
    return schema_error(path, keyword, f"must keep to the schema's {keyword}", {})


def _shown(text: Any) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
