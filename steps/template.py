"""From recipe and form to intent: a pure function, so that the same form always asks for the same thing.

A template is JSON with placeholders `{{ formData.a.b }}`. A string that is nothing but a placeholder becomes
the value itself, with its type; a placeholder inside other text becomes text. Fields that the form leaves out
take the form schema's defaults.
"""

import re
from typing import Any

from steps.canonical import number_text
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import Intent
from steps.errors import InvalidInput

STEP_LIBRARY = ("Collect", "Fetch", "Extract", "Normalize", "Decide", "Act", "Report", "Legacy")

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")


def instantiate(intent_template: JsonObject, form_schema: JsonObject, form_data: object) -> JsonObject:
    """The intent that a form asks for. Raises InvalidInput."""
    if not isinstance(form_data, dict):
        raise InvalidInput("formData must be an object")
    filled = _filled(intent_template, {"formData": _with_defaults(form_schema, form_data)})
    parse(Intent, filled, "Intent")
    filled["constraints"] = _with_step_library(filled["constraints"])
    return filled


def _with_defaults(form_schema: JsonObject, form_data: JsonObject) -> JsonObject:
    properties = form_schema.get("properties")
    if not isinstance(properties, dict):
        return form_data
    defaults = {key: field["default"] for key, field in properties.items() if isinstance(field, dict) and "default" in field}
    return defaults | form_data


def _filled(template: Any, scope: JsonObject) -> Any:
    if isinstance(template, str):
        return _filled_text(template, scope)
    if isinstance(template, dict):
        return {key: _filled(item, scope) for key, item in template.items()}
    if isinstance(template, list):
        return [_filled(item, scope) for item in template]
    return template


def _filled_text(template: str, scope: JsonObject) -> Any:
    whole = _PLACEHOLDER.fullmatch(template)
    if whole is not None:
        return _looked_up(whole[1].strip(), scope)
    return _PLACEHOLDER.sub(lambda found: _as_text(found[1].strip(), scope), template)


def _looked_up(path: str, scope: JsonObject) -> Any:
    value: Any = scope
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise InvalidInput(f"missing template key: {path}")
    return value


def _as_text(path: str, scope: JsonObject) -> str:
    value = _looked_up(path, scope)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return number_text(value)
    # JavaScript would write "[object Object]", and two different forms would become one intent.
    raise InvalidInput(f"{path} is not a single value, so it can't stand inside text; let {{{{{path}}}}} be the whole string")


def _with_step_library(constraints: JsonObject) -> JsonObject:
    """The constraints with the full step library, unless they name their own."""
    if "stepLibrary" not in constraints:
        return constraints | {"stepLibrary": {"primitives": list(STEP_LIBRARY)}}
    given = constraints["stepLibrary"]
    primitives = given.get("primitives") if isinstance(given, dict) else given
    if not isinstance(primitives, list) or not primitives or any(name not in STEP_LIBRARY for name in primitives):
        raise InvalidInput("constraints.stepLibrary.primitives must be a non-empty canonical list")
    return constraints
