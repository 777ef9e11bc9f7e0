"""JSON Schema 2020-12 for schemas that strangers write: nothing is fetched, and neither a schema nor what it is held against can take
for ever.

A schema is looked over once, when it comes in (`require_schema`). What it is then used for is counted, in units of about what one
keyword looks at, and given up when it is too much. Patterns are matched by `steps.patterns`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias, cast

import orjson
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from steps.canonical import NotCanonical, canonical_json
from steps.contracts.base import JsonObject
from steps.patterns import BadPattern, found, require_pattern

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Of one schema: values in it, and how deep they are nested.
MOST_NODES = 2_000
DEEPEST = 40
#: Of one check of a value against a schema, unless more is allowed; about 3 seconds.
MOST_EFFORT = 2_000_000
MOST_NESTED = 120
#: What a part of a schema must not hold, and why.
REFUSED: Mapping[str, str] = {
    "$id": "must stand at the top only; refer to parts of the schema by #/…",
    "$schema": "must stand at the top only",
    "unevaluatedItems": "must not be used, since it takes for ever; say items: false beside prefixItems",
    "unevaluatedProperties": "must not be used, since it takes for ever; say additionalProperties: false beside the properties",
}

Path: TypeAlias = tuple[str | int, ...]
Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class BadSchema(ValueError):
    """A schema that can't be used. path: where in it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class TooMuch(Exception):
    """A check that was given up: it would take too long, or go too deep."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong with a value. given: what the schema's keyword says; name: the property that it is about, if it is one."""

    path: Path
    keyword: str
    given: Any
    name: str | None = None


# A schema that comes in --------------------------------------------------------------------------------------------------


def require_schema(schema: JsonObject) -> None:
    """Refuses what is no JSON Schema 2020-12, or one that can't be used here. Raises BadSchema."""
    _require_size(schema)
    try:
        refused = _refused(canonical_json(schema))
    except NotCanonical as error:
        raise BadSchema((), f"must be JSON: {error}") from None
    if refused is not None:
        raise BadSchema(*refused)


def _require_size(schema: JsonObject) -> None:
    if node_count(schema) > MOST_NODES:
        raise BadSchema((), f"must be a schema of at most {MOST_NODES} values")
    level: list[Any] = [schema]
    for _ in range(DEEPEST):
        level = [item for node in level for item in _items(node)]
    if level:
        raise BadSchema((), f"must be a schema of at most {DEEPEST} levels")


def node_count(value: Any) -> int:
    """How many values there are in a JSON value, itself and those inside of others."""
    waiting, count = [value], 0
    while waiting:
        count += 1
        waiting.extend(_items(waiting.pop()))
    return count


def _items(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return cast(JsonObject, node).values()
    return cast(list[Any], node) if isinstance(node, list) else ()


@lru_cache(maxsize=512)
def _refused(text: str) -> tuple[Path, str] | None:
    """What is wrong with the schema of this canonical text: where, and the end of a sentence."""
    schema: JsonObject = orjson.loads(text)
    if schema.get("$schema", DIALECT) != DIALECT:
        return ("$schema",), f"must be {DIALECT}"
    try:
        error = next(_META.iter_errors(schema), None)
        if error is not None:
            return tuple(error.absolute_path), f"must be JSON Schema 2020-12: {_shortened(error.message)}"
        _require_parts(schema)
    except BadSchema as bad:
        return bad.path, str(bad)
    except RecursionError:
        return (), f"must be a schema of at most {DEEPEST} levels"
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _require_parts(schema: JsonObject) -> None:
    """Every part of it that is a schema itself, and that they refer to nothing but each other."""
    plain = _plain(schema)
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(plain))
    waiting: list[tuple[Path, Any]] = [((), plain)]
    parts: list[tuple[Path, JsonObject]] = []
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, dict):
            parts.append((path, cast(JsonObject, part)))
            waiting.extend(_parts(*parts[-1]))
    known = {id(part) for _, part in parts}
    for path, part in parts:
        for keyword, reason in REFUSED.items():
            if keyword in part:
                raise BadSchema((*path, keyword), reason)
        _require_patterns(path, part)
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in part:
                _require_local(resolver, (*path, keyword), part[keyword], known)


def _require_patterns(path: Path, part: JsonObject) -> None:
    given: list[tuple[Path, str]] = [(("patternProperties", pattern), pattern) for pattern in part.get("patternProperties", {})]
    if "pattern" in part:
        given.append((("pattern",), part["pattern"]))
    for place, pattern in given:
        try:
            require_pattern(pattern)
        except BadPattern as error:
            raise BadSchema((*path, *place), str(error)) from None


def _require_local(resolver: Any, path: Path, ref: str, known: set[int]) -> None:
    if not ref.startswith("#"):
        raise BadSchema(path, "must begin with #: a schema can't refer to another document")
    try:
        target = resolver.lookup(ref).contents
    except (Unresolvable, ValueError, TypeError, LookupError):
        raise BadSchema(path, "must refer to something in this schema") from None
    if id(target) not in known and not isinstance(target, bool):
        raise BadSchema(path, "must refer to a place where a schema stands, such as #/$defs/…")


def _plain(schema: JsonObject) -> JsonObject:
    """Without its own name, and without its dialect, which would choose another checker."""
    return {keyword: value for keyword, value in schema.items() if keyword not in ("$id", "$schema")}


_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "contentSchema")
_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def _parts(path: Path, part: JsonObject) -> Iterator[tuple[Path, Any]]:
    """The schemas right in this one."""
    yield from (((*path, keyword), part[keyword]) for keyword in _ONE if keyword in part)
    yield from (((*path, keyword, index), item) for keyword in _LIST for index, item in enumerate(part.get(keyword, ())))
    yield from (((*path, keyword, name), item) for keyword in _NAMED for name, item in part.get(keyword, {}).items())


_META = Draft202012Validator(Draft202012Validator.META_SCHEMA)


# A value held against a schema --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Left:
    """What a check may still cost, and how deep it may still go."""

    effort: int
    levels: int


_LEFT: ContextVar[_Left | None] = ContextVar("holdfast_schema_effort", default=None)


def _spend(effort: int) -> _Left:
    left = _LEFT.get()
    assert left is not None, "a check is made inside of failures()"
    left.effort -= effort
    if left.effort < 0:
        raise TooMuch("it takes too long")
    return left


@contextmanager
def effort(most: int) -> Iterator[None]:
    """All checks inside may together cost so much; inside of another such block, what that one has left."""
    if _LEFT.get() is not None:
        yield
        return
    token = _LEFT.set(_Left(most, MOST_NESTED))
    try:
        yield
    finally:
        _LEFT.reset(token)


def failures(schema: JsonObject, value: Any, *, most: int = 20) -> list[Failure]:
    """What is wrong with the value, in the order of the schema; empty when it is valid. The schema is one that came in through
    `require_schema`. most: of them are told. Raises TooMuch.
    """
    with effort(MOST_EFFORT):
        try:
            return [_failure(error) for error in itertools.islice(_checker(schema).iter_errors(value), most)]
        except RecursionError:
            raise TooMuch("it goes too deep") from None


def _failure(error: ValidationError) -> Failure:
    name: Any = error.cause.args[0] if isinstance(error.cause, _About) else None
    return Failure(tuple(error.absolute_path), str(error.validator or "false schema"), error.validator_value, name)


def _checker(schema: JsonObject) -> Any:
    return _CHECKER(_plain(schema), registry=Registry())  # a registry that fetches nothing


class _About(Exception):
    """Carries the name of the property that an error is about."""


def _wrong(name: str | None = None) -> ValidationError:
    return ValidationError("", cause=None if name is None else _About(name))


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not found(pattern, value):
        yield _wrong()


def _pattern_properties(validator: Any, patterns: JsonObject, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    properties = cast(JsonObject, value)
    _spend(len(patterns) * len(properties))
    for pattern, part in patterns.items():
        for name, item in properties.items():
            if found(pattern, name):
                yield from validator.descend(item, part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, part: Any, value: Any, schema: JsonObject) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    properties: Mapping[str, Any] = schema.get("properties", {})
    patterns: Iterable[str] = schema.get("patternProperties", ())
    for name, item in cast(JsonObject, value).items():
        if name in properties or any(found(pattern, name) for pattern in patterns):
            continue
        if part is False:
            yield _wrong(name)
        else:
            yield from validator.descend(item, part, path=name)


def _required(validator: Any, names: list[str], value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        yield from (_wrong(name) for name in names if name not in value)


def _unique_items(validator: Any, unique: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(value, list):
        items = [canonical_json(item) for item in cast(list[Any], value)]
        _spend(sum(map(len, items)) // 16)
        if len(set(items)) < len(items):
            yield _wrong()


def _multiple_of(validator: Any, step: float, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _is_multiple(value, step):
        yield _wrong()


def _is_multiple(value: float, step: float) -> bool:
    """As decimal numbers are meant: 0.3 is a multiple of 0.1."""
    return (_fraction(value) / _fraction(step)).denominator == 1


def _fraction(number: float) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _counted(function: Keyword) -> Keyword:
    """The keyword, at a price. Its messages hold copies of what was checked, so they go at once."""

    def counted(validator: Any, given: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        left = _spend(8 + _size(given) + (len(cast(Any, value)) >> 6 if isinstance(value, str) else _size(value) >> 2))
        left.levels -= 1
        if left.levels < 0:
            raise TooMuch("it goes too deep")
        try:
            for error in function(validator, given, value, schema) or ():
                _spend(len(error.message) >> 5)
                error.message = ""
                yield error
        finally:
            left.levels += 1

    return counted


def _size(value: Any) -> int:
    return len(cast(Any, value)) if isinstance(value, (dict, list)) else 0


_OWN: Mapping[str, Keyword] = {
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "required": _required,
    "uniqueItems": _unique_items,
}
_CHECKER: Any = extend(
    cast(Any, Draft202012Validator),
    {name: _counted(function) for name, function in {**cast(Any, Draft202012Validator).VALIDATORS, **_OWN}.items()},
)
