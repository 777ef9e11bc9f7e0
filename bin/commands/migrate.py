"""bin/migrate: brings the schema to this code's version, with the recipes that every database starts with, and says what it did."""

import asyncio

from bin.database import Migration, connect, migrate, where
from bin.settings import Settings
from bin.wiring import database_of, run
from engine import Engine
from steps.seeds import install_seeds


def main(settings: Settings) -> int:
    dsn = database_of(settings)
    print(f"{where(dsn)}: {prepare(dsn)}")
    return 0


def prepare(dsn: str, *, only_default_recipe: bool = False) -> Migration:
    """Make the database ready for this code."""
    with connect(dsn, autocommit=True) as conn:
        done = migrate(conn)
    asyncio.run(plant_seeds(dsn, only_default_recipe))
    return done


async def plant_seeds(dsn: str, only_default: bool) -> None:
    async with Engine.connect(dsn, pool_size=1) as engine:
        await install_seeds(engine, only_default=only_default)


if __name__ == "__main__":
    run(main)
