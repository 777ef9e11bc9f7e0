"""Reads that workflow code makes of the database, outside of the journal.

A connection that breaks, or a server that is away or in need for a while, is no failure of the workflow: the read is made again until
it answers, or the run is lost.
"""

import asyncio
from typing import Any, LiteralString

import psycopg
from psycopg_pool import PoolTimeout

from engine.run import Branch

CONNECTION_LOST = "08006"  # what a lost connection amounts to when the server could not say it
PAUSE_S = 0.2


def connection_lost(error: Exception) -> bool:
    """Whether the connection broke, its server may not be written to any more, or there was none to be had: all there is to do is try
    again.
    """
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return True
    if isinstance(error, psycopg.OperationalError):
        return (error.sqlstate or CONNECTION_LOST).startswith(("57P", "08"))
    return isinstance(error, PoolTimeout)


def cannot_now(error: Exception) -> bool:
    """Whether the database could not do it now, and may later: it was lost, is short of disk, memory or connections, or somebody, or a
    timeout of the server's, broke the statement off.
    """
    return connection_lost(error) or (isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(("53", "57")))


async def look_up(branch: Branch, sql: LiteralString, params: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The first row of a query. Raises RunLost when the run is lost meanwhile."""
    while True:
        if branch.run.gone is not None:
            raise branch.run.gone
        try:
            async with branch.run.services.pool.connection() as conn:
                return await (await conn.execute(sql, params)).fetchone()
        except (psycopg.Error, PoolTimeout) as error:
            if not cannot_now(error):
                raise
            await asyncio.sleep(PAUSE_S)
