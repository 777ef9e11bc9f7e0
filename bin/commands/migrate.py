"""bin/migrate: brings the schema to this code's version, with the recipes that every database starts with, and says what it did.

    bin/migrate            make it, or upgrade it; service and workers may go on meanwhile
    bin/migrate --check    only say whether that is needed: exit code 1 if so. Writes nothing
    bin/migrate --plan     only print the SQL that it would run. Writes nothing

An upgrade waits for no lock longer than a second, and tries again; it can be interrupted and repeated at any time.
"""

import argparse
import asyncio
from collections.abc import Callable

from psycopg import Connection

from bin.database import (
    PARTS,
    SCHEMA_FILE,
    SCHEMA_VERSION,
    Migration,
    connect,
    migrate,
    planned,
    refuse_too_new,
    version_of,
    where,
)
from bin.settings import Settings
from bin.sql_files import read_parts
from bin.wiring import FAILED, database_of, run
from engine import Engine
from steps.seeds import install_seeds


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/migrate", description="Brings the schema to the version of this code.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="say whether it is needed (exit code 1 if so); write nothing")
    only.add_argument("--plan", action="store_true", help="print the SQL that would run; write nothing")
    given = parser.parse_args()
    if given.check or given.plan:
        dsn = database_of(settings, create=False)
        with connect(dsn, autocommit=True) as conn:
            return check(conn) if given.check else plan(conn)
    dsn = database_of(settings)
    print(f"{where(dsn)}: {prepare(dsn, tell=lambda text: print(text, flush=True))}")
    return 0


def check(conn: Connection) -> int:
    """The exit code. Raises DatabaseUnusable when the schema is too new for this code."""
    found = version_of(conn)
    refuse_too_new(conn, found, SCHEMA_VERSION)
    has = f"schema version {found}" if found else "no schema"
    todo = "run bin/migrate" if found < SCHEMA_VERSION else "nothing to do"
    print(f"{where(conn.info.dsn)}: {has} is there, this code is of version {SCHEMA_VERSION}: {todo}")
    return FAILED if found < SCHEMA_VERSION else 0


def plan(conn: Connection) -> int:
    found = version_of(conn)
    refuse_too_new(conn, found, SCHEMA_VERSION)
    if found == 0:
        print(f"begin;\n{read_parts(SCHEMA_FILE, PARTS)}commit;")
        return 0
    for upgrade in planned(found):
        print(f"-- {upgrade.file.name}")
        for statement in (*upgrade.ahead, "begin", *upgrade.together, "commit"):
            print(f"{statement};")
    return 0


def prepare(dsn: str, *, only_default_recipe: bool = False, tell: Callable[[str], None] = lambda _: None) -> Migration:
    """Make the database ready for this code."""
    with connect(dsn, autocommit=True) as conn:
        done = migrate(conn, tell=tell)
    asyncio.run(plant_seeds(dsn, only_default_recipe))
    return done


async def plant_seeds(dsn: str, only_default: bool) -> None:
    async with Engine.connect(dsn, pool_size=1) as engine:
        await install_seeds(engine, only_default=only_default)


if __name__ == "__main__":
    run(main)
