"""bin/token: who may use the front door.

    bin/token create NAME --role ROLE …    a token for a person or a program; its text is printed once and kept nowhere
    bin/token list                         every token that was made, without its text
    bin/token revoke ID                    running services refuse it within seconds

Roles: viewer reads; approver also answers gates; operator also starts, stops and steers runs; admin does everything. --role may be given
more than once, and --group too: a recipe can say which groups answer its gates. --expires takes 90d, 12h or never (90d).
"""

import argparse
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from api import tokens
from bin.operators import on_an_engine, shown
from bin.settings import Settings
from bin.wiring import run
from engine import Engine

SPAN = re.compile(r"(\d{1,5})([dh])", re.ASCII)
HOUR_S = 3600.0
COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "roles": "ROLES",
    "groups": "GROUPS",
    "state": "STATE",
    "created_at": "CREATED",
    "expires_at": "EXPIRES",
    "last_used_at": "LAST USED",
}


def main(settings: Settings) -> int:
    print(on_an_engine(settings, read_arguments(sys.argv[1:])))
    return 0


def read_arguments(arguments: list[str]) -> Callable[[Engine], Awaitable[str]]:
    parser = argparse.ArgumentParser(prog="bin/token", description="Who may use the front door.")
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("create", help="a token for a person or a program; its text is printed once")
    creating.add_argument("name", help="whose token it is: the actor of all that is done with it")
    creating.add_argument("--role", action="append", required=True, choices=tokens.ROLES, help="what it allows; may be repeated")
    creating.add_argument(
        "--group", action="append", default=[], metavar="G", help="a group that may answer gates; may be repeated"
    )
    creating.add_argument("--expires", type=span, default=90 * 24 * HOUR_S, metavar="T", help="90d, 12h or never (90d)")
    listing = commands.add_parser("list", help="every token that was made, without its text")
    listing.add_argument("--json", action="store_true")
    revoking = commands.add_parser("revoke", help="refuse a token from now on")
    revoking.add_argument("id")
    given = parser.parse_args(arguments)
    if given.command == "create":
        return lambda engine: create(engine, given)
    if given.command == "list":
        return lambda engine: list_tokens(engine, as_json=given.json)
    return lambda engine: revoke(engine, given.id)


def span(text: str) -> float | None:
    """For argparse: a time span in seconds; None for never."""
    if text == "never":
        return None
    found = SPAN.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no time span; write 90d, 12h or never")
    return int(found[1]) * HOUR_S * (24 if found[2] == "d" else 1)


async def create(engine: Engine, given: argparse.Namespace) -> str:
    async with engine.transaction() as conn:
        return await tokens.create(conn, given.name, given.role, groups=given.group, expires_in_s=given.expires)


async def list_tokens(engine: Engine, *, as_json: bool) -> str:
    async with engine.pool.connection() as conn:
        good = {holder.id for holder in await tokens.good(conn)}
        rows = [asdict(token) for token in await tokens.every(conn)]
    for row in rows:
        row["state"] = "good" if row["id"] in good else "revoked" if row["revoked_at"] else "expired"
        if not as_json:
            row |= {"roles": ", ".join(row["roles"]), "groups": ", ".join(row["groups"]) or None}
    return shown(rows, COLUMNS, as_json=as_json)


async def revoke(engine: Engine, id: str) -> str:
    async with engine.transaction() as conn:
        await tokens.revoke(conn, id)
    return f"{id} is refused from now on; running services follow within seconds"


if __name__ == "__main__":
    run(main)
