"""From recipe and form to intent: a pure function, so that the same form always asks for the same thing.

A template is JSON with placeholders `{{ formData.a.b }}`. A string that is nothing but a placeholder becomes
the value itself, with its type; a placeholder inside other text becomes text. The form is completed and checked first
(steps.forms).
"""

import re
from collections.abc import Iterator
from typing import Any, cast

from steps.canonical import compact_json, number_text
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import Intent
from steps.errors import InvalidInput
from steps.forms import completed

STEP_LIBRARY = ("Collect", "Fetch", "Extract", "Normalize", "Decide", "Act", "Report", "Legacy")

#: Of all that placeholders put into one intent, as JSON.
MOST_FILLED = 4 * 1024 * 1024
LONGEST_PATH = 500

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_PATH = re.compile(r"formData(\.[^.{}\s](?:[^.{}]*[^.{}\s])?)*")


class BadTemplate(ValueError):
    """A template that can't be used; the message is the end of a sentence that begins with its place."""


def require_template(template: JsonObject) -> None:
    """Refuses a template with a placeholder that no form could fill. Raises BadTemplate."""
    for text in _texts(template):
        for path in _PLACEHOLDER.findall(text):
            if len(path) > LONGEST_PATH or not _PATH.fullmatch(path.strip()):
                raise BadTemplate(
                    f"must hold placeholders such as {{{{formData.a.b}}}} only; {_shown('{{' + path + '}}')} is none"
                )
        if "{{" in (rest := _PLACEHOLDER.sub("", text)):
            raise BadTemplate(f"must close each placeholder that it begins: {_shown(rest[rest.index('{{') :])}")


def _texts(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, (dict, list)):
        for item in cast(JsonObject, template).values() if isinstance(template, dict) else cast(list[Any], template):
            yield from _texts(item)


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def instantiate(intent_template: JsonObject, form_schema: JsonObject, form_data: object) -> JsonObject:
    """The intent that a form asks for. Raises InvalidInput."""
    filled = _filled(intent_template, _Form(completed(form_schema, form_data)))
    parse(Intent, filled, "Intent")
    filled["constraints"] = _with_step_library(filled["constraints"])
    return filled


class _Form:
    """A completed form, and how much of it may still be put into the intent."""

    def __init__(self, data: JsonObject) -> None:
        self._scope: JsonObject = {"formData": data}
        self._sizes: dict[str, int] = {}
        self._left = MOST_FILLED

    def value(self, path: str) -> Any:
        """What the form holds at this path. Raises InvalidInput."""
        value: Any = self._scope
        for part in path.split("."):
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(value):
                value = value[int(part)]
            else:
                raise InvalidInput(f"missing template key: {path}")
        if path not in self._sizes:
            self._sizes[path] = len(compact_json(value))
        self._left -= self._sizes[path]
        if self._left < 0:
            raise InvalidInput(f"the template puts more than {MOST_FILLED} characters of the form into the intent")
        return value


def _filled(template: Any, form: _Form) -> Any:
    if isinstance(template, str):
        return _filled_text(template, form)
    if isinstance(template, dict):
        return {key: _filled(item, form) for key, item in template.items()}
    if isinstance(template, list):
        return [_filled(item, form) for item in template]
    return template


def _filled_text(template: str, form: _Form) -> Any:
    whole = _PLACEHOLDER.fullmatch(template)
    if whole is not None:
        return form.value(whole[1].strip())
    return _PLACEHOLDER.sub(lambda found: _as_text(found[1].strip(), form), template)


def _as_text(path: str, form: _Form) -> str:
    value = form.value(path)
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
