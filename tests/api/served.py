"""The front door as a real server on a real port, in a thread with a loop of its own, and a watch over what is written behind it."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import uvicorn
import uvloop
from psycopg import sql

from api.app import create_app
from api.config import Config
from engine import Engine

PATIENCE_S = 20.0

TABLES: LiteralString = """
    select schemaname, tablename from pg_tables where schemaname in ('app', 'dbos', 'engine') order by 1, 2
"""
#: The next transaction id: one that wrote, or only locked a row, took its own.
NEXT_XID: LiteralString = "select pg_snapshot_xmax(pg_current_snapshot())::text"


@contextmanager
def served(database: str, **options: Any) -> Iterator[str]:
    """The base URL of a server over this database. It is told at once that it will stop, so that what would wait answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=lambda: run(serve()), daemon=True)
    up = threading.Event()
    stop = threading.Event()

    async def serve() -> None:
        draining = asyncio.Event()
        async with Engine.connect(database, pool_size=4) as engine:
            app = create_app(engine, Config(database_url=database, app_version="test", **options), draining=draining)
            inner = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
            serving = asyncio.create_task(inner.serve([listener]))
            draining.set()
            while not inner.started and not serving.done():
                await asyncio.sleep(0.01)
            up.set()
            await asyncio.to_thread(stop.wait)
            inner.should_exit = True
            await serving

    server.start()
    assert up.wait(PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        server.join(PATIENCE_S)


def run(serving: Coroutine[Any, Any, None]) -> None:
    """As bin runs it: asyncio's own loop would hold small answers back for 40 ms."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


class Contents:
    """What all tables hold, as one value a table; taken only if anything may have been written since."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        tables = conn.execute(TABLES).fetchall()
        digests = [
            sql.SQL("select {}, count(*), md5(coalesce(string_agg(t::text, ' ' order by t::text), '')) from {}.{} t").format(
                sql.Literal(f"{schema}.{table}"), sql.Identifier(schema), sql.Identifier(table)
            )
            for schema, table in tables
        ]
        self._query = sql.SQL(" union all ").join(digests)
        self._xid = ""
        self._found: dict[str, tuple[int, str]] = {}
        self.look()

    def look(self) -> dict[str, tuple[int, str]]:
        """(rows, digest) by table."""
        xid = self._next_xid()
        if xid != self._xid:
            self._found = {table: (count, digest) for table, count, digest in self._conn.execute(self._query).fetchall()}
            self._xid = xid
        return self._found

    def _next_xid(self) -> str:
        row = self._conn.execute(NEXT_XID).fetchone()
        assert row is not None
        return row[0]
