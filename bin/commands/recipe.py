"""bin/recipe: the recipe registry from the shell.

    bin/recipe list                 every recipe with its latest version
    bin/recipe import FILE          the versions of a bundle, as drafts ('-' reads standard input)
    bin/recipe export ID            all versions of a recipe as a bundle
    bin/recipe candidate ID V       a draft becomes a candidate
    bin/recipe promote ID V         workers run the candidate's fixtures; when all are green it is stable and the active version
    bin/recipe promotion ID V       the latest promotion of a version, as it stands
    bin/recipe improve WID          a run failed: its recipe is mended, shown at a gate, proven by its fixtures, and promoted

Answers in JSON. What is refused is one line on standard error, and has changed nothing. `promote` waits for the end and tells on standard
error how far it is; Ctrl-C ends the waiting, not the promotion.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import orjson

from bin.improving import improve
from bin.operators import add_who, is_number, on_an_engine, pretty
from bin.settings import Settings
from bin.wiring import complain, run
from engine import Engine
from steps import promotion, recipes
from steps.contracts.base import parse
from steps.contracts.improvement import ImproveRequest
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import CandidateRequest, PromotedVersion, PromoteRequest, PromotionView, RecipeBundle, VersionStatus
from steps.errors import Conflict, InvalidInput, NotFound
from steps.reason import why_not_running

Command = Callable[[Engine], Awaitable[str]]

DEFAULT_ACTOR = "bin/recipe"
DEFAULT_REASON = "asked for at the shell"
PATIENCE_S = 600
LOOK_EVERY_S = 0.2
WORKER_EXPECTED_S = 5.0


def main(settings: Settings) -> int:
    print(on_an_engine(settings, read_arguments(sys.argv[1:], settings)))
    return 0


def read_arguments(arguments: list[str], settings: Settings) -> Command:
    parser = argparse.ArgumentParser(prog="bin/recipe", description="The recipe registry. Answers in JSON.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every recipe with its latest version")
    reading = commands.add_parser("import", help="the versions of a bundle, as drafts")
    reading.add_argument("file", help="a bundle in JSON, or - for standard input")
    writing = commands.add_parser("export", help="all versions of a recipe as a bundle")
    writing.add_argument("id")
    for name, text in (
        ("candidate", "a draft becomes a candidate"),
        ("promote", "a candidate becomes stable and active when its fixtures are green"),
        ("promotion", "the latest promotion of a version"),
    ):
        about = commands.add_parser(name, help=text)
        about.add_argument("id")
        about.add_argument("v")
        if name != "promotion":
            add_who(about)
        if name == "promote":
            about.add_argument("--no-wait", action="store_true", help="do not wait for the end")
            about.add_argument(
                "--timeout", type=is_number, default=PATIENCE_S, metavar="S", help=f"how long to wait ({PATIENCE_S})"
            )
    improving = commands.add_parser("improve", help="make a better version of the recipe of a run that failed")
    improving.add_argument("wid", help="the run that failed, by its workflow or run id")
    improving.add_argument("--name", metavar="V", help="what to call the new version (the next one that is free)")
    improving.add_argument("--wait", action="store_true", help="wait for the end, which somebody at the gate decides")
    improving.add_argument("--timeout", type=is_number, default=PATIENCE_S, metavar="S", help=f"how long to wait ({PATIENCE_S})")
    add_who(improving)
    given = parser.parse_args(arguments)
    match given.command:
        case "improve":
            return improve_recipe(given, settings)
        case "list":
            return list_recipes
        case "import":
            bundle = parse(RecipeBundle, read_json(given.file))
            return lambda engine: import_bundle(engine, bundle)
        case "export":
            return lambda engine: export_recipe(engine, given.id)
        case _:
            return about_version(given, settings)


def about_version(given: argparse.Namespace, settings: Settings) -> Command:
    ref = parse(RecipeRef, {"id": given.id, "v": given.v})
    if given.command == "promotion":
        return lambda engine: show_promotion(engine, ref)
    by = asked_by(given, settings)
    if given.command == "candidate":
        making = parse(CandidateRequest, by)
        return lambda engine: make_candidate(engine, ref, making)
    promoting = parse(PromoteRequest, by)
    return lambda engine: promote(engine, ref, promoting, None if given.no_wait else given.timeout)


def improve_recipe(given: argparse.Namespace, settings: Settings) -> Command:
    named = {} if given.name is None else {"version": given.name}
    asked = parse(ImproveRequest, asked_by(given, settings) | named)
    return lambda engine: improve(engine, given.wid, asked, given.timeout if given.wait else None)


def asked_by(given: argparse.Namespace, settings: Settings) -> dict[str, str]:
    return {
        "actor": given.actor or settings.ops_actor or DEFAULT_ACTOR,
        "reason": given.reason or settings.ops_reason or DEFAULT_REASON,
    }


def read_json(file: str) -> object:
    try:
        return orjson.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from None


async def list_recipes(engine: Engine) -> str:
    async with engine.pool.connection() as conn:
        return pretty([asdict(recipe) for recipe in await recipes.list_recipes(conn)])


async def import_bundle(engine: Engine, bundle: RecipeBundle) -> str:
    async with engine.transaction() as conn:
        versions = await recipes.import_bundle(conn, bundle)
    return pretty({"id": bundle.id, "versions": [asdict(version) for version in versions]})


async def export_recipe(engine: Engine, id: str) -> str:
    async with engine.pool.connection() as conn:
        return await recipes.export_recipe(conn, id)


async def make_candidate(engine: Engine, ref: RecipeRef, asked: CandidateRequest) -> str:
    async with engine.transaction() as conn:
        return shown(await promotion.set_candidate(conn, ref, actor=asked.actor, reason=asked.reason))


async def promote(engine: Engine, ref: RecipeRef, asked: PromoteRequest, patience_s: int | None) -> str:
    """The version once it is stable; with its promotion under way when nobody waits. Raises Conflict when it is refused."""
    begun = await promotion.begin(engine, ref, actor=asked.actor, reason=asked.reason)
    if begun.promotion is not None:
        if patience_s is None:
            version = begun.version
            return pretty(asdict(PromotedVersion(version.id, version.v, version.hash, version.status, begun.promotion)))
        ended = await ended_promotion(engine, ref, begun.promotion, patience_s)
        if ended.status == "refused":
            raise Conflict(f"recipe version {ref.id}@{ref.v} is not promoted: {ended.refusal}")
    async with engine.pool.connection() as conn:
        return shown(await recipes.get_version(conn, ref))


async def ended_promotion(engine: Engine, ref: RecipeRef, found: PromotionView, patience_s: float) -> PromotionView:
    """The promotion when it has ended, telling on the way how far it is. Raises Conflict when that takes too long."""
    began = time.monotonic()
    told, warned = "", False
    while found.status == "under_way":
        if (progress := f"{found.fixturesDone} of {found.fixturesTotal} fixtures are done") != told:
            told = progress
            complain(progress)
        waited = time.monotonic() - began
        if waited > patience_s:
            raise Conflict(
                f"{found.workflowID} had not ended after {patience_s:.0f} s and goes on; see bin/recipe promotion {ref.id} {ref.v}"
            )
        await asyncio.sleep(LOOK_EVERY_S)
        async with engine.pool.connection() as conn:
            found = await promotion.find(conn, ref, found.attempt) or found
            if not warned and waited > WORKER_EXPECTED_S:
                warned = True
                why = await why_not_running(conn, found.workflowID)
                if why is not None and why.code == "no-worker":
                    complain(why.sentence)
    return found


async def show_promotion(engine: Engine, ref: RecipeRef) -> str:
    async with engine.pool.connection() as conn:
        found = await promotion.find(conn, ref)
    if found is None:
        raise NotFound(f"recipe version {ref.id}@{ref.v} was never promoted")
    return pretty(asdict(found))


def shown(version: recipes.RecipeVersion) -> str:
    return pretty(asdict(VersionStatus(version.id, version.v, version.hash, version.status)))


if __name__ == "__main__":
    run(main)
