"""bin/recipe: the recipe registry from the shell.

    bin/recipe list                 every recipe with its latest version
    bin/recipe import FILE          the versions of a bundle, as drafts ('-' reads standard input)
    bin/recipe export ID            all versions of a recipe as a bundle
    bin/recipe candidate ID V       a draft becomes a candidate
    bin/recipe promote ID V         a candidate becomes stable and the active version

Answers in JSON. What is refused is one line on standard error, and has changed nothing.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from psycopg import AsyncConnection

from bin.settings import Settings
from bin.wiring import migrated_database, run
from steps import recipes
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import RecipeBundle
from steps.errors import InvalidInput

Connection = AsyncConnection[Any]
Command = Callable[[Connection], Awaitable[str]]


def main(settings: Settings) -> int:
    command = read_arguments(sys.argv[1:])
    print(asyncio.run(carry_out(migrated_database(settings), command)))
    return 0


def read_arguments(arguments: list[str]) -> Command:
    parser = argparse.ArgumentParser(prog="bin/recipe", description="The recipe registry. Answers in JSON.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every recipe with its latest version")
    reading = commands.add_parser("import", help="the versions of a bundle, as drafts")
    reading.add_argument("file", help="a bundle in JSON, or - for standard input")
    writing = commands.add_parser("export", help="all versions of a recipe as a bundle")
    writing.add_argument("id")
    for name, text in (
        ("candidate", "a draft becomes a candidate"),
        ("promote", "a candidate becomes stable and active"),
    ):
        promotion = commands.add_parser(name, help=text)
        promotion.add_argument("id")
        promotion.add_argument("v")
    given = parser.parse_args(arguments)
    match given.command:
        case "list":
            return list_recipes
        case "import":
            bundle = parse(RecipeBundle, read_json(given.file))
            return lambda conn: import_bundle(conn, bundle)
        case "export":
            return lambda conn: recipes.export_recipe(conn, given.id)
        case _:
            ref = parse(RecipeRef, {"id": given.id, "v": given.v})
            move = recipes.set_candidate if given.command == "candidate" else recipes.promote_stable
            return lambda conn: promoted(conn, ref, move)


async def carry_out(dsn: str, command: Command) -> str:
    async with await AsyncConnection.connect(dsn, application_name="holdfast") as conn:
        return await command(conn)


def read_json(file: str) -> object:
    try:
        return orjson.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from None


async def list_recipes(conn: Connection) -> str:
    return pretty([asdict(recipe) for recipe in await recipes.list_recipes(conn)])


async def import_bundle(conn: Connection, bundle: RecipeBundle) -> str:
    versions = await recipes.import_bundle(conn, bundle)
    return pretty({"id": bundle.id, "versions": [asdict(version) for version in versions]})


async def promoted(
    conn: Connection, ref: RecipeRef, move: Callable[[Connection, RecipeRef], Awaitable[recipes.RecipeVersion]]
) -> str:
    version = await move(conn, ref)
    return pretty({"id": version.id, "v": version.v, "hash": version.hash, "status": version.status})


def pretty(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


if __name__ == "__main__":
    run(main)
