"""Values come back from their JSON text as they went in, and errors become records that read the same everywhere."""

import enum
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Optional

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import StepFailed, TerminalError, UnreadablePayload, codec

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))]))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Leaf:
    text: str
    at: datetime
    colour: Colour
    level: Level | None
    amount: Decimal
    day: date
    key: uuid.UUID


@dataclass(frozen=True)
class Branch:
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]
    pair: tuple[int, Leaf | None]
    seen: frozenset[str]
    ratio: float


class Model(pydantic.BaseModel):
    leaf: Leaf
    maybe: Optional[int] = None  # noqa: UP045 - both spellings are met


LEAVES = st.builds(
    Leaf,
    text=TEXT,
    at=MOMENTS,
    colour=st.sampled_from(Colour),
    level=st.none() | st.sampled_from(Level),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    day=st.dates(),
    key=st.uuids(),
)
BRANCHES = st.builds(
    Branch,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    by_name=st.dictionaries(TEXT, LEAVES, max_size=2),
    pair=st.tuples(st.integers(-(2**53), 2**53), st.none() | LEAVES),
    seen=st.frozensets(TEXT, max_size=3),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
)


def there_and_back(value: Any, annotation: Any) -> Any:
    return codec.shaped(codec.decoder_for(annotation), codec.decode(codec.encode(value)), "it")


@given(JSON)
def test_json_comes_back_as_it_went_in(value: Any) -> None:
    assert there_and_back(value, Any) == value
    assert json.loads(codec.encode(value)) == value


@given(JSON)
def test_the_text_holds_no_raw_control_character(value: Any) -> None:
    assert not any(ord(c) < 32 for c in codec.encode(value))


@given(BRANCHES)
def test_dataclasses_come_back_as_they_went_in(value: Branch) -> None:
    assert there_and_back(value, Branch) == value


@given(LEAVES)
def test_pydantic_models_come_back_as_they_went_in(leaf: Leaf) -> None:
    model = Model(leaf=leaf)
    assert there_and_back([model, model], list[Model]) == [model, model]


@given(
    st.one_of(BRANCHES, LEAVES, MOMENTS, st.decimals(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63), TEXT)
)
def test_a_value_settles_to_what_its_record_will_give(value: Any) -> None:
    decoder = codec.decoder_for(type(value))
    text, settled = codec.settled(value, decoder, "it")
    replayed = codec.shaped(decoder, codec.decode(text), "it")
    assert (settled, type(settled)) == (replayed, type(replayed)) == (value, type(value))


@given(st.one_of(st.floats(), st.integers(-100, 100), st.booleans(), st.none(), st.text(max_size=5)))
def test_whatever_a_plain_value_is_declared_as_it_settles_to_what_its_record_will_give(value: Any) -> None:
    for annotation in (float, str, int, bool, Any, float | None):
        decoder = codec.decoder_for(annotation)
        try:
            text, settled = codec.settled(value, decoder, "it")
        except (TypeError, UnreadablePayload):
            continue
        replayed = codec.shaped(decoder, codec.decode(text), "it")
        assert (repr(settled), type(settled)) == (repr(replayed), type(replayed))


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, 1 << 64, b"bytes", "\ud800", {"a": {None: 1}}], ids=lambda v: type(v).__name__
)
def test_what_json_cannot_hold_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        codec.encode(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Colour, "green"),
        (datetime, "yesterday"),
        (Leaf, []),
        (Leaf, {"text": "only"}),
        (uuid.UUID, "x"),
        (Model, {"leaf": 1}),
        (tuple[int, int], [1]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(annotation: Any, value: Any) -> None:
    with pytest.raises(UnreadablePayload):
        codec.shaped(codec.decoder_for(annotation), value, "the answer")


@pytest.mark.parametrize("serialization", ["py_pickle", "js_superjson", None, "DBOS_JSON"])
def test_only_portable_json_is_read(serialization: str | None) -> None:
    with pytest.raises(UnreadablePayload, match="send and enqueue with portable_json"):
        codec.decode("1", serialization)
    assert codec.decode(None, serialization) is None


def test_broken_text_is_named() -> None:
    with pytest.raises(UnreadablePayload, match="not valid JSON"):
        codec.decode("{")


def test_times_are_written_for_everyone() -> None:
    assert codec.encode(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == '"2026-01-02T03:04:05Z"'
    assert codec.encode(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))) == '"2026-01-02T03:04:05+01:00"'


# Errors ------------------------------------------------------------------------------------------------------------------


class Odd(Exception):
    name = 5
    message = {"not": "text"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("error", "record"),
    [
        (ValueError("no"), ("ValueError", "no", None)),
        (ValueError(), ("ValueError", "", None)),
        (KeyError("k"), ("KeyError", "'k'", None)),
        (TerminalError("sentence", name="CODE", data=[1]), ("CODE", "sentence", [1])),
        (StepFailed("CODE", "sentence", {"a": 1}), ("CODE", "sentence", {"a": 1})),
        (AttributeError("gone", name="colour", obj=None), ("AttributeError", "gone", None)),
        (ExceptionGroup("several", [ValueError("a")]), ("ExceptionGroup", "several", None)),
        (TerminalError("", data=0), ("TerminalError", "", 0)),
    ],
    ids=repr,
)
def test_an_error_becomes_a_record(error: Exception, record: tuple[Any, ...]) -> None:
    name, message, data = codec.decode_error(codec.encode_error(error))
    assert (name, data) == (record[0], record[2])
    assert message.startswith(record[1])


@given(st.text(), st.one_of(JSON, st.binary(), st.builds(object)))
def test_every_error_can_be_recorded(message: str, data: Any) -> None:
    name, _, _ = codec.decode_error(codec.encode_error(TerminalError(message, data=data)))
    assert name == "TerminalError"


def test_odd_attributes_of_an_error_are_no_harm() -> None:
    name, message, _ = codec.decode_error(codec.encode_error(Odd("text")))
    assert (name, type(message)) == ("Odd", str)


@pytest.mark.parametrize("text", ["gibberish", "[1]", "null", "{}", '{"name": 1}'])
def test_errors_that_others_wrote_are_read_as_well_as_can_be(text: str) -> None:
    name, message, _ = codec.decode_error(text)
    assert isinstance(name, str)
    assert isinstance(message, str)


@given(st.text())
def test_reading_an_error_never_fails(text: str) -> None:
    codec.decode_error(text, "py_pickle")
    codec.decode_error(text)
