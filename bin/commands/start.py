"""bin/start: everything in one process. The database if none is configured, its schema, the seed recipes, front door and worker."""

import asyncio
from typing import Any

import psycopg

from bin.database import connect, migrate
from bin.roles import Role, serve_until_stopped
from bin.serving import address_of, listen, listen_nearby
from bin.settings import Settings
from bin.wiring import database_of, run
from steps.recipes import install_seeds


def main(settings: Settings) -> int:
    door = listen("PORT", settings.listen_host, settings.port)
    dsn = database_of(settings)
    with connect(dsn, autocommit=True) as conn:
        migrate(conn)
    asyncio.run(plant_seeds(dsn))
    role = Role("start", listen_nearby(settings.listen_host, settings.admin_port), door, works=True)

    def up() -> None:
        print(f"holdfast is up: {address_of(door)}, for operators {address_of(role.admin)}; Ctrl-C drains", flush=True)

    return serve_until_stopped(settings, dsn, role, when_up=up)


async def plant_seeds(dsn: str) -> None:
    conn: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(dsn)
    async with conn:
        await install_seeds(conn)


if __name__ == "__main__":
    run(main)
