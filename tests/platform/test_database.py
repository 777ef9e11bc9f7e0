"""The schema is applied once, by one migrator at a time, and every refusal is one sentence without a password."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.database import (
    SCHEMA_VERSION,
    DatabaseUnusable,
    connect,
    create_if_missing,
    migrate,
    read_schema,
    require_schema,
    version_of,
    where,
)

SCHEMA = """
-- what it is
-- part: engine
create schema engine;
create table engine.schema_version (version int primary key, applied_at timestamptz not null default now());
create table engine.thing (a int);
-- part: app
create schema app;
create table app.thing (b int default 1);
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.sql").write_text(SCHEMA)
    (tmp_path / "002_colour.sql").write_text(
        "alter table app.thing add colour text; insert into app.thing (colour) values ('red');"
    )
    (tmp_path / "003_shape.sql").write_text("alter table app.thing add shape text;")
    return tmp_path


@pytest.fixture
def conn(empty_database: str) -> Iterator[psycopg.Connection]:
    with connect(empty_database, autocommit=True) as conn:
        yield conn


def value(conn: psycopg.Connection, query: LiteralString) -> object:
    row = conn.execute(query).fetchone()
    return row[0] if row else None


def to(conn: psycopg.Connection, files: Path, version: int) -> str:
    return str(migrate(conn, schema_file=files / "schema.sql", upgrades=files, version=version))


def test_the_whole_schema_is_applied_to_an_empty_database(conn: psycopg.Connection) -> None:
    assert str(migrate(conn)) == f"schema is at version {SCHEMA_VERSION} now (it was missing)"
    assert version_of(conn) == SCHEMA_VERSION
    require_schema(conn)


def test_a_second_migration_changes_nothing_and_says_so(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    before = value(conn, "select pg_current_xact_id()::text::bigint")
    assert to(conn, files, 1) == "schema is at version 1 already, nothing to do"
    after = value(conn, "select pg_current_xact_id()::text::bigint")
    assert isinstance(before, int)
    assert after == before + 1


def test_upgrades_run_in_order_from_the_recorded_version(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    assert to(conn, files, 3) == "schema is at version 3 now (it was at 1)"
    assert conn.execute("select version from engine.schema_version order by version").fetchall() == [(1,), (2,), (3,)]
    assert conn.execute("select b, colour, shape from app.thing").fetchall() == [(1, "red", None)]


def test_a_failing_upgrade_leaves_its_version_out_and_those_before_it_in(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    (files / "003_shape.sql").write_text("alter table app.thing add shape text; select no_such_column from app.thing;")
    with pytest.raises(DatabaseUnusable, match="no_such_column"):
        to(conn, files, 3)
    assert version_of(conn) == 2
    assert conn.execute("select * from app.thing").fetchall() == [(1, "red")]


def test_a_missing_upgrade_is_named(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 3)
    with pytest.raises(DatabaseUnusable, match="004_"):
        to(conn, files, 4)


def test_a_failing_schema_leaves_nothing(conn: psycopg.Connection, files: Path) -> None:
    (files / "schema.sql").write_text(SCHEMA + "create table app.thing (twice int);")
    with pytest.raises(DatabaseUnusable, match="already exists"):
        to(conn, files, 1)
    assert value(conn, "select count(*) from pg_namespace where nspname in ('engine', 'app')") == 0


def test_two_migrators_at_once_take_turns(empty_database: str, files: Path) -> None:
    said: list[str] = []

    def run() -> None:
        with connect(empty_database, autocommit=True) as conn:
            said.append(to(conn, files, 1))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["schema is at version 1 already, nothing to do", "schema is at version 1 now (it was missing)"]


def test_a_newer_schema_is_refused(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    conn.execute("insert into engine.schema_version (version) values (9)")
    with pytest.raises(DatabaseUnusable, match="has schema version 9, and this code knows only 1: run newer code"):
        to(conn, files, 1)
    with pytest.raises(DatabaseUnusable, match="schema version 9, newer than this code"):
        require_schema(conn)


def test_a_database_without_schema_is_refused_by_those_who_only_use_it(conn: psycopg.Connection) -> None:
    with pytest.raises(DatabaseUnusable, match="run bin/migrate"):
        require_schema(conn)


def test_the_engines_part_stands_alone(conn: psycopg.Connection, files: Path) -> None:
    migrate(conn, parts=["engine"], schema_file=files / "schema.sql", version=1)
    assert value(conn, "select to_regclass('engine.thing')") == "engine.thing"
    assert value(conn, "select to_regclass('app.thing')") is None


def test_the_engines_part_of_the_real_schema_stands_alone(conn: psycopg.Connection) -> None:
    migrate(conn, parts=["engine"])
    assert value(conn, "select to_regclass('dbos.workflow_status')") == "dbos.workflow_status"
    assert value(conn, "select count(*) from pg_namespace where nspname = 'app'") == 0


def test_a_part_ends_where_the_next_begins(files: Path) -> None:
    engine, app = (read_schema(files / "schema.sql", [part]) for part in ("engine", "app"))
    assert b"engine.thing" in engine
    assert b"app.thing" not in engine
    assert b"app.thing" in app
    assert b"engine.thing" not in app


def test_an_unreachable_database_is_told_without_its_password() -> None:
    with pytest.raises(DatabaseUnusable) as told:
        connect("postgresql://me:s3cret@127.0.0.1:1/shop")
    assert str(told.value).startswith("cannot reach the database at 127.0.0.1:1/shop: ")
    assert "DATABASE_URL" in str(told.value)
    assert "s3cret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_database_is_made_once(server: str) -> None:
    dsn = make_conninfo(server, dbname="test made when missing")
    try:
        assert create_if_missing(dsn)
        assert not create_if_missing(dsn)
    finally:
        with connect(server, autocommit=True) as conn:
            conn.execute('drop database "test made when missing" with (force)')


def test_a_user_who_may_not_create_is_told_what_to_do(server: str, empty_database: str, files: Path) -> None:
    name = conninfo_to_dict(empty_database)["dbname"]
    with connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(str(name))))
    try:
        with connect(make_conninfo(empty_database, user=name), autocommit=True) as conn, \
                pytest.raises(DatabaseUnusable, match="grant it CREATE on the database"):  # fmt: skip
            to(conn, files, 1)
        with pytest.raises(DatabaseUnusable, match="may not create it"):
            create_if_missing(make_conninfo(empty_database, user=name, dbname="another"))
    finally:
        with connect(server, autocommit=True) as conn:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(str(name))))


def test_a_database_is_named_by_host_port_and_name() -> None:
    assert where("postgresql://me:s3cret@db.example:6000/shop") == "db.example:6000/shop"
    assert where("host=/run/pg user=me password=s3cret") == "/run/pg:5432/me"
