"""Ids, names, topics and keys: any text that is not empty and holds no control character."""

from engine.errors import InvalidName

MAX_LENGTH = 512


def checked_name(value: str, what: str) -> str:
    """The value, or InvalidName with a sentence that says what to change. Control characters separate values inside the engine."""
    if not value:
        raise InvalidName(f"{what} is empty; give it at least one character")
    if len(value) > MAX_LENGTH:
        raise InvalidName(f"{what} has {len(value)} characters; {MAX_LENGTH} are allowed")
    if not value.isprintable():
        raise InvalidName(f"{what} {value!r} holds a control character; use printable characters")
    return value
