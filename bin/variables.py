"""Reads a dataclass from a mapping of texts, such as the environment.

A field's name in capitals is its variable; its type and default say how it is read. An empty text counts as not set. What the type
can't say (another name, a range, a prefix for a nested dataclass, a URL, a secret) is said by one of the field makers below.
"""

import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

Weights = Mapping[str, float]

TRUE_AND_FALSE = {"true": True, "1": True, "false": False, "0": False}
WEIGHT = re.compile(r"\d{1,4}(\.\d{1,4})?", re.ASCII)
DURATION = re.compile(r"(?:(?P<minutes>\d{1,4})m)?(?:(?P<seconds>\d{1,6})s?)?", re.ASCII)

T = TypeVar("T")


class BadSetting(Exception):
    """One line that names the variable and what is wrong with it."""


def check_url(name: str, text: str) -> None:
    try:
        parts = urlsplit(text.replace("{traceId}", "0").replace("{spanId}", "0"))
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise BadSetting(f"{name}: invalid url env value: {text}; it must start with http:// or https:// and name a host")


def check_urls(name: str, text: str) -> None:
    for one in listed(text):
        check_url(name, one)


def listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def env(name: str, default: Any = None, *, secret: bool = False) -> Any:
    """A field whose variable isn't simply its name."""
    return field(default=default, repr=not secret, metadata={"env": name})


def integer(default: int, *, least: int = 0, most: int = 2**31 - 1) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


def port_number(default: int) -> Any:
    return integer(default, most=65535)


def secret(check: Callable[[str, str], None] | None = None) -> Any:
    """check: raises BadSetting, without the text."""
    return field(default=None, repr=False, metadata={"check": check} if check else {})


def url(default: str | None) -> Any:
    return field(default=default, metadata={"check": check_url})


def urls() -> Any:
    return field(default=None, metadata={"check": check_urls})


def group(prefix: str, default: object) -> Any:
    return field(default=default, metadata={"prefix": prefix})


def names(of: type) -> Iterator[str]:
    """Every variable that is read."""
    for one in fields(of):
        prefix = one.metadata.get("prefix")
        if prefix is None:
            yield one.metadata.get("env", one.name.upper())
        else:
            yield from (prefix + name for name in names(type(one.default)))


def read(of: type[T], environ: Mapping[str, str], prefix: str, defaults: T) -> T:
    kinds = get_type_hints(of)
    values: dict[str, object] = {}
    for one in fields(of):  # type: ignore[arg-type]  # of is one of the dataclasses above
        default: object = getattr(defaults, one.name)
        if is_dataclass(default):
            values[one.name] = read(type(default), environ, one.metadata["prefix"], default)
            continue
        name = prefix + one.metadata.get("env", one.name.upper())
        text = environ.get(name, "")
        values[one.name] = _parse(name, text, kinds[one.name], one.metadata) if text else default
    return of(**values)


def _parse(name: str, text: str, kind: Any, metadata: Mapping[str, Any]) -> object:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(choice for choice in get_args(kind) if choice is not types.NoneType)
    if kind is bool:
        if text not in TRUE_AND_FALSE:
            raise BadSetting(f"{name}: invalid boolean env value: {text}; use true, false, 1 or 0")
        return TRUE_AND_FALSE[text]
    if kind is int:
        return _integer(name, text, metadata.get("least", -(2**63)), metadata.get("most", 2**63 - 1))
    if kind is timedelta:
        return duration(name, text)
    if kind == Weights:
        return weights(name, text)
    if kind is Path:
        return Path(text).expanduser()
    if get_origin(kind) is Literal and text not in get_args(kind):
        label = name.rsplit("_", 1)[-1].lower()
        raise BadSetting(f"{name}: invalid {label} env value: {text}; use {', '.join(get_args(kind))}")
    if check := metadata.get("check"):
        check(name, text)
    return text


def duration(name: str, text: str) -> timedelta:
    """A time span such as 90s, 2m, 1m30s or a bare number of seconds. Raises BadSetting."""
    found = DURATION.fullmatch(text)
    if not text or found is None:
        raise BadSetting(f"{name}: invalid duration env value: {text}; write it as 20s, 2m or 1m30s")
    return timedelta(minutes=int(found["minutes"] or 0), seconds=int(found["seconds"] or 0))


def weights(name: str, text: str) -> Weights:
    """Shares by partition, from a list such as tenant-a=4,tenant-b=0.5. Raises BadSetting."""
    found: dict[str, float] = {}
    for part in text.split(","):
        key, _, weight = (word.strip() for word in part.partition("="))
        if not 0 < len(key) <= 512 or not key.isprintable() or not WEIGHT.fullmatch(weight) or not 0.001 <= float(weight) <= 1000:
            raise BadSetting(
                f"{name}: invalid weights env value: {text!r}; write it as tenant-a=4,tenant-b=0.5, each from 0.001 to 1000"
            )
        if key in found:
            raise BadSetting(f"{name}: invalid weights env value: {text!r}; it has {key!r} twice")
        found[key] = float(weight)
    return found


def _integer(name: str, text: str, least: int, most: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise BadSetting(f"{name}: invalid integer env value: {text}")
    if not least <= int(text) <= most:
        raise BadSetting(f"{name}: invalid integer env value: {text}; it must be from {least} to {most}")
    return int(text)
