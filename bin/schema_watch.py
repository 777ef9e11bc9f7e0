"""A process that goes on while the database is upgraded drains when the new schema no longer works with its code.

A look every ten seconds, so it is a net and no plan: who upgrades to such a version stops the older processes first.
"""

import asyncio
from contextlib import suppress
from typing import LiteralString

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from bin.database import SCHEMA_VERSION
from bin.serving import Stopping
from engine import Engine

LOOK_S = 10.0
PATIENCE_S = 5.0

NEWEST: LiteralString = "select version, works_with from engine.schema_version order by version desc limit 1"

log = structlog.get_logger("bin.schema")


async def watch_schema(engine: Engine, stopping: Stopping, *, version: int = SCHEMA_VERSION) -> None:
    """Goes on until the process drains, for this reason or another. version: of this code."""
    while not stopping.draining.is_set():
        with suppress(psycopg.Error, PoolTimeout, TimeoutError):
            found, works_with = await newest(engine)
            if works_with > version:
                log.error("the schema is too new for this code: it drains", found=found, works_with=works_with, version=version)
                stopping.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stopping.draining.wait()


async def newest(engine: Engine) -> tuple[int, int]:
    async with asyncio.timeout(PATIENCE_S), engine.pool.connection(timeout=PATIENCE_S) as conn:
        row = await (await conn.execute(NEWEST)).fetchone()
    return (0, 0) if row is None else (row[0], row[1])
