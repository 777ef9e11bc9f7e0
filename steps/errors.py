"""What the product refuses, and how it says so.

Each refusal is a type with the HTTP status it becomes and the body it shows; whoever raises one has written
nothing. Anything else that escapes is a defect, and the caller sees 500 without details.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails


class ProductError(Exception):
    """Base of all refusals."""

    status: ClassVar[int] = 500
    code: ClassVar[str | None] = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def body(self) -> dict[str, Any]:
        """The JSON that the caller sees."""
        return {"error": self.message, "code": self.code} if self.code else {"error": self.message}


class InvalidInput(ProductError):
    """The input is malformed; `details` says where, in the form of JSON Schema errors."""

    status = 400

    def __init__(self, message: str, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.details = [dict(detail) for detail in details]

    def body(self) -> dict[str, Any]:
        return super().body() | ({"details": self.details} if self.details else {})


class QueuePolicyError(ProductError):
    """The input is well formed, but the rules of the queues forbid it."""

    status = 400
    code = "queue_policy_violation"


class NotFound(ProductError):
    """There is no such thing."""

    status = 404


class Conflict(ProductError):
    """The thing exists in a state that forbids the request; `run_status` where that is the state of a run."""

    status = 409

    def __init__(self, message: str, run_status: str | None = None) -> None:
        super().__init__(message)
        self.run_status = run_status

    def body(self) -> dict[str, Any]:
        return super().body() | ({"status": self.run_status} if self.run_status else {})


class RunIdentityConflict(Conflict):
    """A run of this identity exists with other particulars; `drift` lists them."""

    def __init__(self, workflow_id: str, drift: Sequence[Mapping[str, Any]]) -> None:
        fields = ", ".join(str(entry["field"]) for entry in drift)
        super().__init__(f"Divergence in run {workflow_id}: identity drift on {fields}")
        self.drift = [dict(entry) for entry in drift]

    def body(self) -> dict[str, Any]:
        return super().body() | {"drift": self.drift}


def invalid_input(context: str, error: ValidationError, data: object) -> InvalidInput:
    """A failed validation of `data` as one sentence and a list of JSON Schema errors."""
    details = [_detail(found, data) for found in error.errors(include_url=False)]
    sentences = [f"data{detail['instancePath']} {detail['message']}" for detail in details]
    return InvalidInput(f"invalid {context}: {'; '.join(sentences)}", details)


# pydantic's error type -> (JSON Schema keyword, message, the parameter that both name). Type errors are in
# _TYPES.
_KEYWORDS: dict[str, tuple[str, str, str]] = {
    "string_too_short": ("minLength", "must NOT have fewer than {} characters", "min_length"),
    "string_too_long": ("maxLength", "must NOT have more than {} characters", "max_length"),
    "too_short": ("minItems", "must NOT have fewer than {} items", "min_length"),
    "too_long": ("maxItems", "must NOT have more than {} items", "max_length"),
    "greater_than_equal": ("minimum", "must be >= {}", "ge"),
    "less_than_equal": ("maximum", "must be <= {}", "le"),
    "string_pattern_mismatch": ("pattern", 'must match pattern "{}"', "pattern"),
    "literal_error": ("enum", "must be one of {}", "expected"),
    "union_tag_invalid": ("discriminator", "must have a kind of {}", "expected_tags"),
}
_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing_size": "integer",
    "float_type": "number",
    "finite_number": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "union_tag_not_found": "object with a known kind",
}


def _detail(found: ErrorDetails, data: object) -> dict[str, Any]:
    path = _instance_path(found["loc"], data)
    kind, given = found["type"], found.get("ctx", {})
    if kind == "missing":
        name = str(path.pop())
        return schema_error(path, "required", f"must have required property '{name}'", {"missingProperty": name})
    if kind == "extra_forbidden":
        name = str(path.pop())
        message = f"must NOT have additional properties ('{name}' is unknown)"
        return schema_error(path, "additionalProperties", message, {"additionalProperty": name})
    if kind in _TYPES:
        return schema_error(path, "type", f"must be {_TYPES[kind]}", {"type": _TYPES[kind]})
    if kind in _KEYWORDS:
        keyword, message, parameter = _KEYWORDS[kind]
        return schema_error(path, keyword, message.format(given.get(parameter)), {"limit": given.get(parameter)})
    return schema_error(path, kind, str(given.get("error", found["msg"])), {})


def schema_error(path: Sequence[str | int], keyword: str, message: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """One of an InvalidInput's details: an error in the form that JSON Schema's checkers give it."""
    return {"instancePath": pointer(path), "keyword": keyword, "message": message, "params": dict(params)}


def pointer(path: Iterable[str | int]) -> str:
    """A path into JSON as a JSON Pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _instance_path(loc: tuple[str | int, ...], data: object) -> list[str | int]:
    """The path of an error in the data itself: pydantic's location also names the branch of a union, which
    the data does not have.
    """
    path: list[str | int] = []
    here: Any = data
    for index, part in enumerate(loc):
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            if index < len(loc) - 1:
                continue
        path.append(part)
    return path
