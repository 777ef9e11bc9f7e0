"""Canonical JSON: one text for equal values, and a plain refusal of what has none."""

import hashlib
import json
import math
import shutil
import struct
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.canonical import (
    MAX_DEPTH,
    MAX_INPUT_DEPTH,
    NotCanonical,
    canonical_json,
    compact_json,
    require_storable,
    sha256_json,
    sha256_text,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=20)
STORED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda v: st.lists(v) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), v),
    max_leaves=20,
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def test_keys_are_sorted_at_every_depth_and_nothing_is_indented() -> None:
    assert canonical_json({"b": {"d": 1, "c": [2, {"z": None, "a": True}]}, "a": "x"}) == (
        '{"a":"x","b":{"c":[2,{"a":true,"z":null}],"d":1}}'
    )


def test_keys_are_sorted_by_code_point() -> None:
    assert canonical_json({"é": 1, "a": 2, "B": 3, "😀": 4, "\uff5e": 5}) == '{"B":3,"a":2,"é":1,"～":5,"😀":4}'


@given(STORED)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(value) == canonical_json(shuffled(value))


@given(STORED)
def test_reading_it_back_and_writing_it_again_gives_the_same_text(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (-1.5, "-1.5"),
        (123.0, "123"),
        (1e16, "10000000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-1.25e21, "-1.25e+21"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (float("-inf"), "null"),
        (10**21, "1e+21"),
        (7, "7"),
    ],
)
def test_numbers_are_written_as_javascript_writes_them(number: float, text: str) -> None:
    assert canonical_json(number) == text


@pytest.mark.parametrize("integer", [2**53 + 1, 2**63, -(2**64), 10**21 + 1, 10**400])
def test_an_integer_keeps_all_its_digits(integer: int) -> None:
    assert canonical_json(integer) == str(integer)
    assert canonical_json(integer) != canonical_json(integer - 1)


def test_equal_numbers_are_one_however_they_were_written() -> None:
    assert len({canonical_json(json.loads(text)) for text in ("1", "1.0", "1e0", "10e-1")}) == 1


def test_text_is_escaped_only_where_json_asks_for_it() -> None:
    assert canonical_json('é"\\\b\f\n\r\t\x01\x7f\u2028/') == '"é\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f\u2028/"'


def test_times_are_utc_with_milliseconds() -> None:
    noon = datetime(2026, 1, 2, 12, 0, 0, 123999, timezone(timedelta(hours=2)))
    assert canonical_json(noon) == '"2026-01-02T10:00:00.123Z"'
    assert canonical_json(datetime(2026, 1, 2, tzinfo=UTC)) == '"2026-01-02T00:00:00.000Z"'


def test_compact_json_keeps_the_order_of_keys() -> None:
    assert compact_json({"b": 1.0, "a": 2}) == '{"b":1,"a":2}'


def test_a_hash_is_of_the_canonical_text() -> None:
    assert sha256_json({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()
    assert sha256_json("x") == hashlib.sha256(b'"x"').hexdigest()
    assert sha256_text("x") == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("value", [object(), {1: "number as key"}, {"a": {1, 2}}, b"bytes", [1j]])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(NotCanonical, match="not JSON"):
        canonical_json(value)


def test_endless_nesting_is_refused_and_deep_nesting_is_not() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert canonical_json(deep).startswith("[[[")
    with pytest.raises(NotCanonical, match="too deeply"):
        canonical_json([[deep]])


def test_what_comes_in_leaves_room_for_what_is_made_of_it() -> None:
    deep: Any = 1
    for _ in range(MAX_INPUT_DEPTH):
        deep = {"a": deep}
    require_storable(deep)
    with pytest.raises(NotCanonical, match=f"keep it under {MAX_INPUT_DEPTH} levels"):
        require_storable([deep])


@pytest.mark.parametrize("value", ["a\0b", {"key": ["\0"]}, {"\0": 1}, "\ud800", {"\udfff": 1}])
def test_text_that_postgres_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(NotCanonical):
        require_storable(value)


@pytest.mark.parametrize("value", ["\\u0000", {"a": "C:\\u0000"}, "😀", {"é": ["\x01"]}])
def test_text_that_only_looks_like_it_is_not_refused(value: Any) -> None:
    require_storable(value)


@given(VALUES)
def test_every_value_is_either_written_or_refused(value: Any) -> None:
    try:
        text = canonical_json(value)
    except NotCanonical:
        return
    json.loads(text)


@pytest.mark.skipif(shutil.which("node") is None, reason="compares with JavaScript where node is installed")
def test_node_writes_the_same_floats() -> None:
    random = Random(7)
    bits = [random.getrandbits(64) for _ in range(20_000)]
    doubles = [value for (value,) in (struct.unpack("<d", struct.pack("<Q", b)) for b in bits) if math.isfinite(value)]
    doubles += [random.uniform(-1, 1) * 10.0 ** random.randint(-10, 25) for _ in range(20_000)]
    script = "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
    written = subprocess.run(["node", "-e", script], input=json.dumps(doubles), capture_output=True, text=True, check=True)
    assert canonical_json(doubles) == written.stdout
