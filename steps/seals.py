"""Seals on the rows of a repro pack: a hash of each, made when it is exported, that shows which one was changed since."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from steps.canonical import sha256_json
from steps.contracts.base import JsonObject

SEALS = "seals"
ROWS_OF = "dbos"  # the section that holds sections


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is not as it was exported: changed, added (then it has no seal), or missing (then there is no row)."""

    section: str
    index: int
    row: object | None


def seals_of(pack: JsonObject) -> dict[str, list[str]]:
    """The seals of a pack that has none yet, by section."""
    return {section: [sha256_json(row) for row in rows] for section, rows in sections(pack)}


def broken_seals(pack: JsonObject) -> list[Broken]:
    """What does not match the pack's own seals."""
    sealed: dict[str, list[str]] = pack[SEALS]
    found = dict(sections(pack))
    return [broken for section in sealed | found for broken in _broken(section, found.get(section, []), sealed.get(section, []))]


def _broken(section: str, rows: list[object], seals: list[str]) -> Iterator[Broken]:
    missing = set(seals)
    for index, row in enumerate(rows):
        seal = sha256_json(row)
        missing.discard(seal)
        if seal not in seals:
            yield Broken(section, index, row)
    if len(rows) < len(seals):
        yield from (Broken(section, index, None) for index, seal in enumerate(seals) if seal in missing)


def sections(pack: JsonObject) -> Iterator[tuple[str, list[object]]]:
    """The pack's rows by section; what is not a list counts as one row."""
    for name, value in pack.items():
        if name == ROWS_OF and isinstance(value, dict):
            for inner, rows in cast(JsonObject, value).items():
                yield f"{name}.{inner}", _as_rows(rows)
        elif name != SEALS:
            yield name, _as_rows(value)


def _as_rows(value: object) -> list[object]:
    return cast(list[object], value) if isinstance(value, list) else [value]
