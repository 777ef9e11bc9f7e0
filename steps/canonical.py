"""Canonical JSON, the one form of a value that hashes are taken over.

Equal values give equal text, whatever the order of their keys and however their numbers were written: keys
are sorted by code point, nothing is indented, non-ASCII stays as it is, and numbers are written as JavaScript
writes them (1.0 is 1, -0 is 0, 1e21 is 1e+21; NaN and infinities are null). One thing differs from
JavaScript: an integer keeps all its digits above 2**53, because two different numbers must not hash alike. A
value that went through jsonb has the same canonical text as before. orjson does the work; this module only
hands it what it would write differently.
"""

import hashlib
import math
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

MAX_DEPTH = 200
MAX_INPUT_DEPTH = 100  # what comes in is later part of something larger: a row, a request to an agent, an export
_INT64 = 2**63 - 1  # what orjson writes itself
_LARGEST_DOUBLE = int(sys.float_info.max)
_COMPACT = 0
_SORTED = orjson.OPT_SORT_KEYS


class NotCanonical(ValueError):
    """A value that has no canonical form: not JSON, nested too deeply, or text that no database can hold."""


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value. Raises NotCanonical."""
    return _encode(value, _SORTED).decode()


def compact_json(value: Any) -> str:
    """The same without sorting keys, for values whose order is part of them. Raises NotCanonical."""
    return _encode(value, _COMPACT).decode()


def sha256_json(value: Any) -> str:
    """Hash of the canonical text, 64 lower hex digits. Raises NotCanonical."""
    return hashlib.sha256(_encode(value, _SORTED)).hexdigest()


def sha256_text(text: str) -> str:
    """Hash of the text itself, as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_storable(value: Any) -> None:
    """Refuses what PostgreSQL cannot hold in text or jsonb, NUL characters and lone surrogates, and nesting without end.
    Raises NotCanonical.
    """
    encoded = _encode(value, _COMPACT, MAX_INPUT_DEPTH)
    # The escape also appears in text that spells it out ("\\u0000"), so a hit is only a reason to look
    # closer.
    if b"\\u0000" in encoded and _holds_nul(value):
        raise NotCanonical("text must not contain the NUL character (\\u0000); remove it")


def _encode(value: Any, option: int, most_levels: int = MAX_DEPTH) -> bytes:
    try:
        return orjson.dumps(_as_javascript(value, most_levels, most_levels), option=option)
    except orjson.JSONEncodeError as error:
        raise NotCanonical(f"the value is not JSON: {error}") from None


def _as_javascript(value: Any, most_levels: int, left: int) -> Any:
    """The value, with what orjson would write otherwise than JavaScript replaced. left: of the levels that it may have."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if left < 0:
        raise NotCanonical(f"the JSON is nested too deeply; keep it under {most_levels} levels")
    if kind is dict:
        return {key: _as_javascript(item, most_levels, left - 1) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_as_javascript(item, most_levels, left - 1) for item in value]
    if kind is int:
        return value if -_INT64 <= value <= _INT64 else orjson.Fragment(_integer_text(value))
    if kind is float:
        return orjson.Fragment(number_text(value) if math.isfinite(value) else "null")
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    raise NotCanonical(f"the value is not JSON: it holds a {kind.__name__}")


def number_text(number: float) -> str:
    """A number as JavaScript's String() writes it; integers with all their digits."""
    if isinstance(number, int):
        return _integer_text(number)
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if number == 0.0:
        return "0"
    sign, digits, point = _shortest(number)
    if 0 < point <= 21:
        whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
        return sign + (f"{whole}.{fraction}" if fraction else whole)
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{sign}{mantissa}e{point - 1:+d}"


def _integer_text(number: int) -> str:
    """Exact, and from 1e21 on in the short form where that is exact too: jsonb gives a float of that size
    back as an integer.
    """
    if 10**21 <= abs(number) <= _LARGEST_DOUBLE:
        short = number_text(float(number))
        if Decimal(short) == number:
            return short
    return str(number)


def _shortest(double: float) -> tuple[str, str, int]:
    """(sign, significant digits d, n) with value = 0.d * 10**n; the shortest digits that read back as the
    same double.
    """
    sign = "-" if double < 0 else ""
    mantissa, _, exponent = f"{abs(double)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return sign, stripped.rstrip("0"), point


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(_holds_nul(item) for item in value)
