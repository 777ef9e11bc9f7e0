"""What tests share: a real PostgreSQL, and a fresh database for each test that asks for one.

TEST_DATABASE_URL names a server on which we may create databases (its own databases are left alone). Without it an embedded server
runs for the session, with the settings that only tests may have. The schema is applied once, to a template that the databases are
cloned from. `async def` tests and fixtures run by anyio's plugin on one asyncio loop.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bin.database import PARTS, connect, migrate
from bin.postgres import borrow
from bin.postgres_watcher import is_running

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """DSN of a database from which others can be created and dropped."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    bindir = os.environ.get("PG_BINDIR")
    lease = borrow(folder, bindir=Path(bindir) if bindir else None, settings=NOT_DURABLE)
    yield lease.dsn
    lease.close()
    deadline = time.monotonic() + 30
    while is_running(lease.home) and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """Name of a database with the whole schema. Nobody may connect to it, or it can't be cloned."""
    with _template(server, PARTS) as name:
        yield name


@pytest.fixture(scope="session")
def engine_template(server: str) -> Iterator[str]:
    with _template(server, ["engine"]) as name:
        yield name


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """DSN of a fresh database with the whole schema."""
    with new_database(server, template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def shared_database(server: str, template: str) -> Iterator[str]:
    """Like `database`, one for all tests of a module."""
    with new_database(server, template) as dsn:
        yield dsn


@pytest.fixture
def engine_database(server: str, engine_template: str) -> Iterator[str]:
    """DSN of a fresh database with only the engine's part of the schema."""
    with new_database(server, engine_template) as dsn:
        yield dsn


@pytest.fixture
def empty_database(server: str) -> Iterator[str]:
    with new_database(server, "template1") as dsn:
        yield dsn


@contextmanager
def new_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield make_conninfo(server, dbname=name)
    finally:
        with connect(server, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def _template(server: str, parts: Sequence[str]) -> Iterator[str]:
    with new_database(server, "template1") as dsn:
        with connect(dsn, autocommit=True) as conn:
            migrate(conn, parts=parts)
            name = conn.info.dbname
        yield name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests without a database first: the fastest news is the best."""
    items.sort(key=lambda item: "server" in getattr(item, "fixturenames", ()))
