"""bin/sbx-template: the registry of prebuilt sandboxes.

    bin/sbx-template build --dockerfile F --toml F --lock F [--register]
                                                    names a template by the files that say what is in it, and writes
                                                    sbx-template-build.json below STATE_DIR; --register also registers it
    bin/sbx-template register ID V TEMPLATE_ID      runs of this recipe version start from that template of the sandbox provider
    bin/sbx-template list                           all that are registered

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

from bin.evidence import write_whole
from bin.settings import Settings
from bin.wiring import migrated_database, run
from engine import connection_string
from steps import recipes, templates
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.errors import InvalidInput

Connection = AsyncConnection[Any]
Command = Callable[[Connection], Awaitable[object]]
EVIDENCE = "sbx-template-build.json"
MAX_FILE_BYTES = 10_000_000


def main(settings: Settings) -> int:
    given = read_arguments(sys.argv[1:])
    match given.command:
        case "build":
            built = templates.build_of(text_of(given.dockerfile), text_of(given.toml), text_of(given.lock))
            answer = build(settings, built, given.register)
        case "register":
            ref = parse(RecipeRef, {"id": given.id, "v": given.v})
            answer = within(settings, lambda conn: register(conn, ref, given.template_id))
        case _:
            answer = within(settings, registered)
    print(pretty(answer).decode())
    return 0


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/sbx-template", description="The registry of prebuilt sandboxes. Answers in JSON.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="names a template by the files that say what is in it")
    for name, what in (("dockerfile", "how it is built"), ("toml", "its settings"), ("lock", "the packages in it")):
        building.add_argument(f"--{name}", required=True, type=Path, metavar="FILE", help=what)
    building.add_argument("--register", action="store_true", help="also register it, as local:dev")
    registering = commands.add_parser("register", help="runs of a recipe version start from a template")
    registering.add_argument("id", help="the recipe")
    registering.add_argument("v", help="its version")
    registering.add_argument("template_id", help="the template, as the sandbox provider calls it")
    commands.add_parser("list", help="all that are registered")
    return parser.parse_args(arguments)


def build(settings: Settings, built: templates.Build, register: bool) -> object:
    document = built.document()
    if register:
        within(settings, lambda conn: templates.register(conn, *templates.LOCAL, built.deps_hash, built.template_id, document))
    evidence = settings.state_dir.absolute() / EVIDENCE
    write_whole(evidence, pretty(document))
    return document | {"registered": register, "evidence": str(evidence)}


async def register(conn: Connection, ref: RecipeRef, template_id: str) -> object:
    version = await recipes.get_version(conn, ref)
    return asdict(await templates.register(conn, version.id, version.v, version.hash, template_id, {"templateId": template_id}))


async def registered(conn: Connection) -> object:
    return [asdict(template) for template in await templates.registered(conn)]


def within(settings: Settings, command: Command) -> object:
    """The command's answer, in one transaction with the database."""
    dsn = migrated_database(settings)

    async def carried_out() -> object:
        async with await AsyncConnection.connect(connection_string(dsn), prepare_threshold=None) as conn:
            return await command(conn)

    return asyncio.run(carried_out())


def text_of(file: Path) -> str:
    try:
        content = file.read_bytes()
        if len(content) > MAX_FILE_BYTES:
            raise InvalidInput(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8 text") from None


def pretty(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


if __name__ == "__main__":
    run(main)
