"""The schema is applied once, by one migrator at a time, and every refusal is one sentence without a password."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin import database
from bin.database import (
    SCHEMA_VERSION,
    DatabaseUnusable,
    connect,
    create_if_missing,
    migrate,
    require_schema,
    version_of,
    where,
)
from bin.sql_files import read_parts, statements

SCHEMA = """
-- what it is
-- part: engine
create schema engine;
create table engine.schema_version (version int primary key, applied_at timestamptz not null default now(), works_with int not null);
insert into engine.schema_version (version, works_with) values (1, 1);
create table engine.thing (a int);
-- part: app
create schema app;
create table app.thing (b int default 1);
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.sql").write_text(SCHEMA)
    leave_upgrade(tmp_path, "002_colour", "alter table app.thing add colour text; insert into app.thing (colour) values ('red');")
    leave_upgrade(tmp_path, "003_shape", "alter table app.thing add shape text;")
    return tmp_path


def leave_upgrade(files: Path, name: str, app: str, *, works_with: int = 1) -> None:
    recorded = f"insert into engine.schema_version (version, works_with) values ({int(name[:3])}, {works_with});"  # noqa: S608
    (files / f"{name}.sql").write_text(f"-- part: engine\n{recorded}\n-- part: app\n{app}\n")


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
    leave_upgrade(files, "003_shape", "alter table app.thing add shape text; select no_such_column from app.thing;")
    with pytest.raises(DatabaseUnusable, match="no_such_column"):
        to(conn, files, 3)
    assert version_of(conn) == 2
    assert conn.execute("select * from app.thing").fetchall() == [(1, "red")]


def test_a_missing_upgrade_is_named(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    to(conn, files, 3)
    with pytest.raises(DatabaseUnusable, match="004_"):
        to(conn, files, 4)


def test_a_failing_schema_leaves_nothing(conn: psycopg.Connection, files: Path) -> None:
    (files / "schema.sql").write_text(SCHEMA + "create table app.thing (twice int);")
    with pytest.raises(DatabaseUnusable, match="already exists"):
        to(conn, files, 1)
    assert value(conn, "select count(*) from pg_namespace where nspname in ('engine', 'app')") == 0


def test_an_upgrade_that_does_not_record_its_version_is_undone(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    (files / "002_colour.sql").write_text("-- part: app\nalter table app.thing add colour text;")
    with pytest.raises(DatabaseUnusable, match=r"002_colour\.sql records version 1 and not 2"):
        to(conn, files, 2)
    assert conn.execute("select * from app.thing").fetchall() == []
    assert value(conn, "select count(*) from pg_attribute where attrelid = 'app.thing'::regclass and attnum > 0") == 1


@pytest.mark.parametrize(("begin_at", "version"), [(0, 1), (1, 3)])
def test_migrators_at_once_take_turns(empty_database: str, files: Path, begin_at: int, version: int) -> None:
    said: list[str] = []

    def run() -> None:
        with connect(empty_database, autocommit=True) as conn:
            said.append(to(conn, files, version))

    with connect(empty_database, autocommit=True) as conn:
        if begin_at:
            to(conn, files, begin_at)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    already = f"schema is at version {version} already, nothing to do"
    it_was = f"at {begin_at}" if begin_at else "missing"
    assert sorted(said) == [*[already] * 3, f"schema is at version {version} now (it was {it_was})"]


# -- locks, and indexes ----------------------------------------------------------------------------------------------------------


def test_an_upgrade_steps_back_from_a_lock_and_tries_again(
    conn: psycopg.Connection, empty_database: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes behind it in the queue for the lock goes on after a second at most."""
    monkeypatch.setattr(database, "PAUSE_S", 0.01)
    to(conn, files, 1)
    told: list[str] = []
    with connect(empty_database) as reader, connect(empty_database) as behind:
        reader.execute("set idle_in_transaction_session_timeout = '30 s'; select * from app.thing")

        def tell(text: str) -> None:
            told.append(text)
            behind.execute("select * from app.thing")
            behind.rollback()
            reader.rollback()

        migrate(conn, schema_file=files / "schema.sql", upgrades=files, version=2, tell=tell)
    assert told == ["version 2 waits for a lock that somebody holds: canceling statement due to lock timeout"]
    assert version_of(conn) == 2


def test_an_upgrade_that_never_gets_its_locks_says_so_and_changes_nothing(
    conn: psycopg.Connection, empty_database: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PAUSE_S", 0.01)
    monkeypatch.setattr(database, "TRIES", 2)
    monkeypatch.setattr(database, "WAIT_SHORTLY", "set local lock_timeout = 20")
    to(conn, files, 1)
    with connect(empty_database) as reader:
        reader.execute("select * from app.thing")
        with pytest.raises(DatabaseUnusable, match="in 2 tries its locks were not to be had; end long transactions"):
            to(conn, files, 2)
    assert version_of(conn) == 1
    assert to(conn, files, 2) == "schema is at version 2 now (it was at 1)"


def test_an_index_is_built_while_others_write_and_another_migrator_waits(
    conn: psycopg.Connection, empty_database: str, files: Path
) -> None:
    """A migrator that waited in a transaction would be waited for by the index: neither would come to an end."""
    to(conn, files, 1)
    to(conn, files, 3)
    leave_upgrade(files, "004_index", "create index concurrently if not exists thing_by_b on app.thing (b);")
    with connect(empty_database) as writer:
        writer.execute("insert into app.thing (b) values (7)")  # the index waits for the end of this transaction
        said: list[str] = []

        def run() -> None:
            with connect(empty_database, autocommit=True) as conn:
                said.append(to(conn, files, 4))

        threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: value(conn, HALF_BUILT) == 1)
        with connect(empty_database) as another:
            another.execute("insert into app.thing (b) values (8)")
        assert said == []
    for thread in threads:
        thread.join(30)
    assert sorted(said) == ["schema is at version 4 already, nothing to do", "schema is at version 4 now (it was at 3)"]
    assert value(conn, "select indisvalid from pg_index where indexrelid = 'app.thing_by_b'::regclass") is True


def test_an_interrupted_build_of_an_index_is_begun_anew(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    to(conn, files, 3)
    conn.execute("insert into app.thing (b) values (7), (7)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create unique index concurrently thing_by_b on app.thing (b)")
    assert value(conn, HALF_BUILT) == 1
    conn.execute("delete from app.thing")
    leave_upgrade(files, "004_index", "create unique index concurrently if not exists thing_by_b on app.thing (b);")
    to(conn, files, 4)
    assert value(conn, HALF_BUILT) == 0
    assert value(conn, "select to_regclass('app.thing_by_b')") == "app.thing_by_b"


HALF_BUILT: LiteralString = "select count(*)::int from pg_index where not indisvalid"


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- too old, too new -------------------------------------------------------------------------------------------------------------


def test_code_of_an_older_version_goes_on_where_the_schema_says_so(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    to(conn, files, 3)
    require_schema(conn, 1)
    assert to(conn, files, 1) == "schema is at version 3, which works with this code of version 1, nothing to do"


def test_code_that_is_too_old_for_the_schema_is_refused(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    leave_upgrade(files, "003_shape", "alter table app.thing drop b;", works_with=2)
    to(conn, files, 3)
    refusal = "has schema version 3, which works with code of version 2 and newer, and this code is of version 1: run newer code$"
    with pytest.raises(DatabaseUnusable, match=refusal):
        to(conn, files, 1)
    with pytest.raises(DatabaseUnusable, match=refusal):
        require_schema(conn, 1)
    require_schema(conn, 2)


def test_a_schema_that_is_too_old_is_refused_with_the_command_to_run(conn: psycopg.Connection, files: Path) -> None:
    to(conn, files, 1)
    with pytest.raises(DatabaseUnusable, match=r"has schema version 1, and this code needs version 2: run bin/migrate$"):
        require_schema(conn, 2)


def test_a_database_without_schema_is_refused_by_those_who_only_use_it(conn: psycopg.Connection) -> None:
    with pytest.raises(DatabaseUnusable, match=f"has no schema, and this code needs version {SCHEMA_VERSION}: run bin/migrate$"):
        require_schema(conn)


def test_the_engines_part_stands_alone(conn: psycopg.Connection, files: Path) -> None:
    migrate(conn, parts=["engine"], schema_file=files / "schema.sql", version=1)
    assert value(conn, "select to_regclass('engine.thing')") == "engine.thing"
    assert value(conn, "select to_regclass('app.thing')") is None
    migrate(conn, parts=["engine"], upgrades=files, version=3)
    assert version_of(conn) == 3
    assert value(conn, "select to_regclass('app.thing')") is None


def test_the_engines_part_of_the_real_schema_stands_alone(conn: psycopg.Connection) -> None:
    migrate(conn, parts=["engine"])
    assert value(conn, "select to_regclass('dbos.workflow_status')") == "dbos.workflow_status"
    assert value(conn, "select count(*) from pg_namespace where nspname = 'app'") == 0


def test_a_part_ends_where_the_next_begins(files: Path) -> None:
    engine, app = (read_parts(files / "schema.sql", [part]) for part in ("engine", "app"))
    assert "engine.thing" in engine
    assert "app.thing" not in engine
    assert "app.thing" in app
    assert "engine.thing" not in app


def test_a_script_is_taken_apart_at_the_semicolons_that_end_a_statement() -> None:
    script = """
    -- one; two
    insert into t values ('a;''b', 1 - 2); create function f() returns int language plpgsql as $$
    begin -- here;
        return 1;
    end $$; select "odd;name" -- last;
    ;
    select $1
    """
    assert list(statements(script)) == [
        "insert into t values ('a;''b', 1 - 2)",
        "create function f() returns int language plpgsql as $$\n    begin -- here;\n        return 1;\n    end $$",
        'select "odd;name"',
        "select $1",
    ]


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
