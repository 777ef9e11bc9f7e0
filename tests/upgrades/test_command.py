"""bin/migrate says what is due, and what it would do, without doing it; a process whose schema became too new for it drains."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from bin import schema_watch
from bin.commands import migrate as command
from bin.database import SCHEMA_VERSION, DatabaseUnusable, connect, migrate, version_of
from bin.schema_watch import watch_schema
from bin.serving import Stopping
from bin.settings import read_settings
from bin.sql_files import statements
from engine import Engine
from tests.upgrades.catalog import Catalog, catalog, contents, difference

Conn = psycopg.Connection[Any]

RECORD: LiteralString = "insert into engine.schema_version (version, works_with) values (%s, %s)"


@pytest.fixture
def old(old_database: str) -> Iterator[Conn]:
    with connect(old_database, autocommit=True) as conn:
        yield conn


def test_a_check_says_what_is_due_and_writes_nothing(old: Conn, capsys: pytest.CaptureFixture[str]) -> None:
    before = catalog(old), contents(old)
    assert command.check(old) == 1
    assert capsys.readouterr().out.endswith(
        f": schema version 1 is there, this code is of version {SCHEMA_VERSION}: run bin/migrate\n"
    )
    assert (catalog(old), contents(old)) == before
    migrate(old)
    assert command.check(old) == 0
    assert capsys.readouterr().out.endswith(
        f": schema version {SCHEMA_VERSION} is there, this code is of version {SCHEMA_VERSION}: nothing to do\n"
    )


def test_a_check_of_an_empty_database_finds_that_all_is_due(empty_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(empty_database, autocommit=True) as conn:
        assert command.check(conn) == 1
        assert "no schema is there" in capsys.readouterr().out
        assert version_of(conn) == 0


def test_a_check_refuses_a_schema_that_is_too_new(database: str) -> None:
    with connect(database, autocommit=True) as conn:
        conn.execute(RECORD, (SCHEMA_VERSION + 2, SCHEMA_VERSION))
        assert command.check(conn) == 0
        conn.execute(RECORD, (SCHEMA_VERSION + 3, SCHEMA_VERSION + 1))
        with pytest.raises(DatabaseUnusable, match="run newer code"):
            command.check(conn)


@pytest.mark.parametrize("option", ["--check", "--plan"])
def test_whoever_only_asks_makes_no_database(server: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "test nobody made this"
    monkeypatch.setattr(sys, "argv", ["bin/migrate", option])
    with pytest.raises(DatabaseUnusable, match="does not exist"):
        command.main(read_settings({"DATABASE_URL": make_conninfo(server, dbname=name)}))
    with connect(server) as conn:
        assert conn.execute("select 1 from pg_database where datname = %s", (name,)).fetchone() is None


def test_the_plan_is_what_would_run(old: Conn, new_catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    before = catalog(old)
    assert command.plan(old) == 0
    assert difference(before, catalog(old)) == []
    for statement in statements(capsys.readouterr().out):
        old.execute(statement.encode())
    assert difference(new_catalog, catalog(old)) == []
    assert command.plan(old) == 0
    assert capsys.readouterr().out == ""


def test_the_plan_for_an_empty_database_is_the_whole_schema(
    empty_database: str, new_catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(empty_database, autocommit=True) as conn:
        assert command.plan(conn) == 0
        conn.execute(capsys.readouterr().out.encode())
        assert difference(new_catalog, catalog(conn)) == []


async def test_a_process_drains_when_the_schema_no_longer_works_with_its_code(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_watch, "LOOK_S", 0.01)
    stopping = Stopping()
    async with Engine.connect(database, pool_size=1) as engine:
        watching = asyncio.create_task(watch_schema(engine, stopping))
        async with engine.transaction() as conn:
            await conn.execute(RECORD, (SCHEMA_VERSION + 1, SCHEMA_VERSION))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stopping.draining.wait(), 0.3)
        async with engine.transaction() as conn:
            await conn.execute(RECORD, (SCHEMA_VERSION + 2, SCHEMA_VERSION + 1))
        await asyncio.wait_for(watching, 30)
    assert stopping.draining.is_set()
    assert not stopping.hard.is_set()
