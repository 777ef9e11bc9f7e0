"""Values to portable JSON text and back.

What is stored is plain JSON, readable by people, by SQL and by clients in other languages. What a function gets back is shaped by
its annotations: dataclasses, enums, datetimes, UUIDs, pydantic models (anything with `model_validate`), and lists, tuples, dicts and
unions of these. A value without an annotation stays as JSON gave it.
"""

import dataclasses
import enum
import functools
import types
import typing
import uuid
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast

import orjson

from engine.errors import UnreadablePayload

PORTABLE = "portable_json"
_PLAIN = (str, int, bool, type(None))  # come back from JSON as they went in

Decoder = Callable[[Any], Any]


def _default(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value):  # orjson's own way leaves private fields out and writes those that __init__ does not take
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(cast(set[str], value))
    raise TypeError(f"{type(value).__name__} is not JSON; return a dict, list, dataclass or pydantic model")


def encode(value: Any) -> str:
    """The value as compact JSON text. Raises TypeError for what JSON cannot hold."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS).decode()


def decode(text: str | None, serialization: str | None = PORTABLE) -> Any:
    """The stored text as JSON value; None for SQL NULL. Raises UnreadablePayload for other serializations (pickle is never loaded)."""
    if text is None:
        return None
    if serialization != PORTABLE:
        raise UnreadablePayload(
            f"a payload is stored as {serialization or 'the default of another client'}; send and enqueue with portable_json"
        )
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UnreadablePayload(f"a payload is not valid JSON: {error}") from None


def encode_error(error: BaseException) -> str:
    """An error as the portable record {name, message, data?}; no stack, so that it reads the same on every replay. Never raises."""
    name, message, data = (getattr(error, key, None) for key in ("name", "message", "data"))
    if isinstance(error, (AttributeError, NameError, ImportError)):
        name = None  # theirs is what was looked for
    record: dict[str, Any] = {
        "name": _clean(name) if isinstance(name, str) and name else type(error).__name__,
        "message": _clean(message if isinstance(message, str) and message else str(error)),
    }
    if data is not None:
        try:
            return encode(record | {"data": data})
        except TypeError:
            pass  # JSON cannot hold it; the sentence says enough
    return encode(record)


def _clean(text: str) -> str:
    """The text without lone surrogates, which no encoding can hold."""
    return text.encode("utf-8", "replace").decode()


def decode_error(text: str, serialization: str | None = PORTABLE) -> tuple[str, str, Any]:
    """(name, message, data) of a recorded error; tolerant, since foreign clients write these too."""
    try:
        record = decode(text, serialization)
    except UnreadablePayload:
        return "Error", text[:500], None
    if not isinstance(record, dict):
        return "Error", str(record), None
    record = cast(dict[str, Any], record)
    return str(record.get("name", "Error")), str(record.get("message", "")), record.get("data")


def _same(value: Any) -> Any:
    return value


def _into_dataclass(cls: type[Any]) -> Decoder:
    @functools.cache
    def fields() -> dict[str, Decoder]:  # looked up late: a dataclass may hold itself
        hints = typing.get_type_hints(cls)
        return {f.name: decoder_for(hints[f.name]) for f in dataclasses.fields(cls) if f.init}

    def into(value: Any) -> Any:
        if not isinstance(value, dict):
            raise UnreadablePayload(f"expected an object for {cls.__name__}, found {type(value).__name__}")
        given = cast(dict[str, Any], value)
        unknown = given.keys() - fields().keys()
        if unknown:
            raise UnreadablePayload(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
        return cls(**{name: fields()[name](item) for name, item in given.items()})

    return into


def _into_union(options: tuple[Any, ...]) -> Decoder:
    rest = [o for o in options if o is not type(None)]
    if len(rest) == 1:
        inner = decoder_for(rest[0])
        return lambda value: None if value is None else inner(value)
    return _same


def _into_container(origin: Callable[..., Any], args: tuple[Any, ...]) -> Decoder:
    if origin is dict:
        item = decoder_for(args[1])
        return _same if item is _same else lambda value: {k: item(v) for k, v in value.items()}
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        parts = [decoder_for(a) for a in args]
        return lambda value: tuple(part(v) for part, v in zip(parts, value, strict=True))
    item = decoder_for(args[0])
    if origin is list and item is _same:
        return _same

    def into(value: Any) -> Any:
        return origin(item(v) for v in value)

    return into


@functools.cache
def decoder_for(annotation: Any) -> Decoder:
    """A function that shapes a JSON value into the annotated type."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return decoder_for(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _into_union(typing.get_args(annotation))
    if origin in (list, dict, tuple, set, frozenset):
        return _into_container(origin, typing.get_args(annotation))
    if not isinstance(annotation, type) or annotation in (str, int, bool, type(None), object, dict, list):
        return _same
    if annotation is float:
        return lambda value: float(value) if isinstance(value, int) else value
    if annotation in (datetime, date):
        return annotation.fromisoformat
    if annotation in (uuid.UUID, Decimal) or issubclass(annotation, enum.Enum):
        return annotation
    if annotation in (tuple, set, frozenset):
        return annotation
    shape = cast(Any, annotation)
    if hasattr(shape, "model_validate"):
        return shape.model_validate
    return _into_dataclass(cast(type[Any], shape)) if dataclasses.is_dataclass(shape) else _same


def shaped(decoder: Decoder, value: Any, what: str) -> Any:
    """The value in its declared type, or UnreadablePayload that names what did not fit."""
    if decoder is _same:
        return value
    try:
        return decoder(value)
    except UnreadablePayload:
        raise
    except Exception as error:
        raise UnreadablePayload(f"{what} does not fit its declared type: {error}") from error


def settled(value: Any, decoder: Decoder, what: str) -> tuple[str, Any]:
    """(text to record, value to go on with): the value as a replay of the record would give it, so that both runs see the same."""
    text = encode(value)
    if decoder is _same and type(value) in _PLAIN:
        return text, value
    return text, shaped(decoder, orjson.loads(text), what)
