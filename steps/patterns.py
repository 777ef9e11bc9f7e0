"""Patterns that strangers write, matched in time that grows with the text alone.

RE2 does what other engines do, without what can take for ever: a pattern that looks around or refers back is refused when it comes in.
A pattern may match anywhere in the text unless it is anchored; letters beyond ASCII are letters, `\\d` and `\\w` are ASCII.
"""

from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

MAX_LENGTH = 1_000
_MEMORY = 1 << 20  # of one compiled pattern, in bytes


class BadPattern(ValueError):
    """A pattern that can't be used; the message is the end of a sentence that begins with its place."""


def require_pattern(pattern: str) -> None:
    """Refuses what `found` could not use. Raises BadPattern."""
    if len(pattern) > MAX_LENGTH:
        raise BadPattern(f"must be a pattern of at most {MAX_LENGTH} characters")
    try:
        _compiled(pattern)
    except re2.error as error:
        reason: object = error.args[0] if error.args else ""
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise BadPattern(f"must be a pattern that RE2 can read, without lookarounds and backreferences: {said}") from None
    except UnicodeEncodeError:
        raise BadPattern("must be a pattern without lone surrogates") from None


def found(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text."""
    return _compiled(pattern).search(text.encode()) is not None


def glob_pattern(glob: str) -> str:
    """The pattern of what the glob matches whole: `*` is any characters, slashes too, and `?` is one."""
    parts: list[str] = []
    for char in glob:
        part = {"*": ".*", "?": "."}.get(char) or _escaped(char)
        if part != ".*" or parts[-1:] != [".*"]:
            parts.append(part)
    return rf"(?s)\A{''.join(parts)}\z"


def _escaped(char: str) -> str:
    return cast(str, re2.escape(char))


def _compiled(pattern: str) -> Any:
    return cast(Any, re2).compile(pattern, options=_OPTIONS)


def _options() -> Any:
    options = cast(Any, re2).Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    return options


_OPTIONS = _options()
