"""What the operators' commands share: who acts and why, the workflows they name, batches, and how rows are shown."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

import orjson

from bin.settings import Settings
from bin.wiring import FAILED, complain, migrated_database
from engine import Engine
from steps.contracts.ops import OpsAccepted
from steps.errors import InvalidInput, ProductError

Action = Callable[[Engine, str], Awaitable[OpsAccepted]]
Row = Mapping[str, Any]
T = TypeVar("T")

UNSAID = {"actor": "say who acts: --actor, or OPS_ACTOR", "reason": "say why: --reason, or OPS_REASON"}


def on_an_engine(settings: Settings, command: Callable[[Engine], Awaitable[T]]) -> T:
    """What the command makes of the configured database. Raises DatabaseUnusable."""
    dsn = migrated_database(settings)

    async def carry_out() -> T:
        async with Engine.connect(dsn, pool_size=2) as engine:
            return await command(engine)

    return asyncio.run(carry_out())


def add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--actor", help="who does this (OPS_ACTOR)")
    parser.add_argument("--reason", help="why (OPS_REASON)")


def who(given: argparse.Namespace, settings: Settings) -> dict[str, str]:
    """Who acts and why, from the arguments or else the settings. Raises InvalidInput."""
    said = {"actor": given.actor or settings.ops_actor, "reason": given.reason or settings.ops_reason}
    for name, text in said.items():
        if not text or not text.strip():
            raise InvalidInput(UNSAID[name])
    return {name: text for name, text in said.items() if text}


def workflow_ids(named: Sequence[str], typed: TextIO) -> list[str]:
    """The workflows that the arguments name, or else the first word of each line of standard input; each once. Raises InvalidInput."""
    if not named and typed.isatty():
        raise InvalidInput("name the workflows, as arguments or one a line on standard input")
    words = named or [line.split()[0] for line in typed if line.strip()]
    for word in words:
        if not word.isprintable():
            raise InvalidInput(f"{word!r} holds a control character and names no workflow")
    return list(dict.fromkeys(words))


async def act_on_each(engine: Engine, ids: Iterable[str], act: Action, show: Callable[[OpsAccepted], str]) -> int:
    """Act on one after the other, each in a transaction of its own, and show each that went well; the exit code."""
    code = 0
    for id in ids:
        try:
            print(show(await act(engine, id)), flush=True)
        except ProductError as error:
            complain(f"{id}: {error.message}")
            code = FAILED
    return code


def accepted(done: OpsAccepted) -> str:
    """One line: the workflow, and its fork behind a tab."""
    return f"{done.workflowID}\t{done.forkedWorkflowID}" if done.forkedWorkflowID else done.workflowID


def shown(rows: Sequence[Row], columns: Mapping[str, str], *, as_json: bool) -> str:
    """As JSON as they are, or as a table of these columns (key in the row -> heading)."""
    if as_json:
        return pretty(list(rows))
    return table([[cell(row.get(key)) for key in columns] for row in rows], list(columns.values()))


def pretty(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def cell(value: object) -> str:
    """The value on one line, in which nothing steers the terminal; '-' for nothing."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split())) or "-"


def is_number(text: str) -> int:
    """For argparse: a number from 1 on."""
    if not text.isdecimal() or not 1 <= int(text) <= 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


def standard_input() -> TextIO:
    return sys.stdin
