"""Ids, names, topics and keys may be any text that people can read, and nothing that the engine uses as a separator."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import InvalidName
from engine.entries import FIELD, ITEM, NULL
from engine.names import MAX_LENGTH, checked_name

CONTROL = st.characters(categories=["Cc", "Cs", "Zl", "Zp"])
READABLE = st.characters(exclude_categories=["C", "Z"])


@pytest.mark.parametrize(
    "name", ["a", "order 7", "ключ", "a::b", "x" * MAX_LENGTH, "human:gate/1?#%", "'); drop table x; --", "☃"]
)
def test_readable_text_is_a_name(name: str) -> None:
    assert checked_name(name, "id") == name


@given(st.text(READABLE, min_size=1, max_size=MAX_LENGTH))
def test_any_readable_text_is_a_name(name: str) -> None:
    assert checked_name(name, "id") == name


@given(st.text(max_size=20), CONTROL, st.text(max_size=20))
def test_no_name_holds_a_control_character(before: str, control: str, after: str) -> None:
    with pytest.raises(InvalidName, match="holds a control character; use printable characters"):
        checked_name(before + control + after, "id")


@given(st.text(min_size=1, max_size=MAX_LENGTH))
def test_what_passes_can_be_joined_and_stored(name: str) -> None:
    try:
        checked_name(name, "id")
    except InvalidName:
        return
    assert not {FIELD, ITEM, NULL, "\x00"} & set(name)
    assert name.encode().decode() == name
    assert all(unicodedata.category(c) not in ("Cc", "Cs") for c in name)


def test_a_name_has_at_least_one_character_and_a_bounded_number() -> None:
    with pytest.raises(InvalidName, match="topic is empty; give it at least one character"):
        checked_name("", "topic")
    with pytest.raises(InvalidName, match=f"topic has {MAX_LENGTH + 1} characters; {MAX_LENGTH} are allowed"):
        checked_name("x" * (MAX_LENGTH + 1), "topic")
