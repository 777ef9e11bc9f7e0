"""bin/migrate: brings the schema to this code's version, with the recipes that every database starts with, and says what it did."""

import asyncio
from typing import Any

import psycopg

from bin.database import Migration, connect, migrate, where
from bin.settings import Settings
from bin.wiring import database_of, run
from steps.recipes import install_seeds


def main(settings: Settings) -> int:
    dsn = database_of(settings)
    print(f"{where(dsn)}: {prepare(dsn)}")
    return 0


def prepare(dsn: str) -> Migration:
    """Make the database ready for this code."""
    with connect(dsn, autocommit=True) as conn:
        done = migrate(conn)
    asyncio.run(plant_seeds(dsn))
    return done


async def plant_seeds(dsn: str) -> None:
    conn: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(dsn)
    async with conn:
        await install_seeds(conn)


if __name__ == "__main__":
    run(main)
