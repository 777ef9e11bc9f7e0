"""A database of version 1 that was upgraded is the same as a new one, and what was in it still is."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from bin.database import PARTS, SCHEMA_FILE, SCHEMA_VERSION, UPGRADES, DatabaseUnusable, connect, migrate, planned
from bin.sql_files import read_parts
from tests.conftest import new_database
from tests.upgrades import last_release
from tests.upgrades.catalog import Catalog, catalog, contents, difference
from tests.upgrades.frozen import make, schema_of

MOMENTS = ("created_at", "updated_at", "applied_at")
HINT = "schema.sql was changed without bin/upgrades/, or the other way round"

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def fresh(server: str, template: str) -> Iterator[Conn]:
    """A connection to a new database."""
    with new_database(server, template, direct=True) as dsn, connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def old(old_database: str) -> Iterator[Conn]:
    with connect(old_database, autocommit=True) as conn:
        yield conn


# -- equal ------------------------------------------------------------------------------------------------------------------------


def test_an_old_database_upgraded_is_a_new_one(old: Conn, new_catalog: Catalog) -> None:
    assert str(migrate(old)) == f"schema is at version {SCHEMA_VERSION} now (it was at 1)"
    assert difference(new_catalog, catalog(old)) == [], HINT


def test_a_new_database_of_the_first_version_upgraded_has_the_rows_of_a_new_one(bare_old_database: str, fresh: Conn) -> None:
    with connect(bare_old_database, autocommit=True) as conn:
        migrate(conn)
        assert difference(contents(fresh, without=MOMENTS), contents(conn, without=MOMENTS)) == [], HINT
        assert conn.execute(NEWEST).fetchone() == fresh.execute(NEWEST).fetchone()


NEWEST: LiteralString = "select version, works_with from engine.schema_version order by version desc limit 1"


def test_the_engines_part_alone_is_upgraded_to_a_new_one_too(
    server: str, engine_template: str, empty_database: str, tmp_path: Path
) -> None:
    with new_database(server, engine_template, direct=True) as dsn, connect(dsn, autocommit=True) as conn:
        new = catalog(conn)
    with connect(empty_database, autocommit=True) as conn:
        make(conn, 1, tmp_path, parts=("engine",))
        migrate(conn, parts=["engine"])
        assert difference(new, catalog(conn)) == [], HINT


def test_what_old_rows_said_they_still_say(old: Conn) -> None:
    before = contents(old)
    migrate(old)
    assert difference(before, contents(old, without=sorted(NEW_COLUMNS))) == []


#: Of old tables. A column that an upgrade takes away, or fills anew, would have to be named as well.
NEW_COLUMNS: set[str] = set()


def test_a_second_upgrade_changes_nothing(old: Conn) -> None:
    migrate(old)
    before = catalog(old), contents(old)
    assert "nothing to do" in str(migrate(old))
    assert (catalog(old), contents(old)) == before


# -- the proof fails when it should ------------------------------------------------------------------------------------------------


def test_no_statement_of_an_upgrade_can_be_left_out(server: str, old_template: str, new_catalog: Catalog, tmp_path: Path) -> None:
    unnoticed: list[str] = []
    for upgrade in planned(1):
        for statement in (*upgrade.ahead, *upgrade.together):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            shutil.copytree(UPGRADES, folder)
            leave_out(folder / upgrade.file.name, statement)
            with new_database(server, old_template) as dsn, connect(dsn, autocommit=True) as conn:
                if not is_noticed(conn, folder, new_catalog):
                    unnoticed.append(statement)
    assert unnoticed == []


def leave_out(file: Path, statement: str) -> None:
    text = file.read_text()
    assert text.count(f"{statement};") == 1, f"{file.name}: a comment stands inside of: {statement}"
    file.write_text(text.replace(f"{statement};", ""))


def is_noticed(conn: Conn, upgrades: Path, new_catalog: Catalog) -> bool:
    try:
        migrate(conn, upgrades=upgrades)
    except DatabaseUnusable:
        return True
    return difference(new_catalog, catalog(conn)) != []


CHANGES: tuple[LiteralString, ...] = (
    "alter table app.runs add more int",
    "alter table app.runs drop error",
    "alter table app.runs rename error to mistake",
    "alter table app.eval_results alter reason type varchar(9)",
    "alter table app.runs alter retry_count set default 1",
    "alter table app.runs alter retry_count drop not null",
    "alter table app.runs alter error set storage external",
    'alter table app.runs alter error type text collate "C"',
    "alter table app.runs drop constraint runs_status_check",
    "alter table app.runs add check (retry_count >= 0) not valid",
    "alter table app.runs set (fillfactor = 50)",
    "alter table app.sbx_runs set unlogged",
    "alter table app.runs enable row level security",
    "alter table app.runs disable trigger runs_go_last",
    "alter table app.human_gates drop constraint human_gates_run_id_fkey",
    "alter table dbos.notifications alter seq set generated by default",
    "drop index app.runs_by_intent",
    "create index more on app.runs (error)",
    "drop index dbos.workflow_status_queued; create index workflow_status_queued on dbos.workflow_status (queue_name, priority)",
    "update pg_index set indisvalid = false where indexrelid = 'app.runs_by_intent'::regclass",
    "create table app.more (a int)",
    "create view app.more as select 1 as a",
    "create or replace view app.v_ops_slow_steps as select o.workflow_uuid, o.function_id, o.function_name, o.started_at_epoch_ms,"
    " o.completed_at_epoch_ms, o.completed_at_epoch_ms - o.started_at_epoch_ms as duration_ms, o.error from dbos.operation_outputs o",
    "create or replace function engine.now_ms() returns bigint language plpgsql stable as $$begin return 1; end$$",
    "alter function engine.now_ms() volatile",
    "alter function app.follow_engine() security invoker",
    "create function app.more() returns int language sql as 'select 1'",
    "create aggregate app.more (int) (sfunc = int4pl, stype = int)",
    "create operator app.=== (procedure = int4eq, leftarg = int, rightarg = int)",
    "drop trigger runs_go_last on app.runs",
    "create rule more as on delete to app.marks do instead nothing",
    "create policy more on app.runs",
    "create sequence app.more",
    "alter sequence app.op_seq cache 20",
    "alter sequence app.op_seq owned by app.runs.retry_count",
    "create type app.more as enum ('a')",
    "create domain app.more as int check (value > 0)",
    "alter type engine.claimed add attribute more int",
    "create statistics app.more on status, purpose from app.runs",
    "grant select on app.runs to public",
    "grant select (id) on app.runs to public",
    "grant usage on schema app to public",
    "revoke execute on function engine.now_ms() from public",
    "alter default privileges in schema app grant select on tables to public",
    "comment on table app.runs is 'more'",
    "comment on column app.runs.id is 'more'",
    "comment on schema app is 'more'",
    "create publication more for table app.runs",
)


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_difference_is_seen(fresh: Conn, new_catalog: Catalog, change: LiteralString) -> None:
    with fresh.transaction(force_rollback=True):
        fresh.execute(change)
        assert difference(new_catalog, catalog(fresh)) != []


# -- rules for authors ------------------------------------------------------------------------------------------------------------

FILES: LiteralString = """
select c.oid::regclass::text, c.relfilenode from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname in ('dbos', 'engine', 'app') and c.relkind in ('r', 'i') order by 1
"""
RECORDED = re.compile(
    r"insert into engine\.schema_version \(version, works_with\) values \((?P<version>\d+), (?P<works_with>\d+)\)"
)
TAKES_AWAY = re.compile(r"^drop (?!index concurrently )|\b(drop (column )?(?!default|not null|identity)\w+|rename)\b|\btype\b")
BLOCKS = re.compile(r"^create (unique )?index (?!concurrently if not exists )\w+ on (?P<table>[\w.]+)|\block table\b")


def test_an_upgrade_rewrites_no_table_and_no_index(old: Conn) -> None:
    before = old.execute(FILES).fetchall()
    migrate(old)
    after = dict(old.execute(FILES).fetchall())
    assert [name for name, file in before if after.get(name, file) != file] == []


def test_every_upgrade_says_whose_code_goes_on_and_takes_nothing_away_from_it() -> None:
    told: list[tuple[int, int]] = []
    for upgrade in planned(1):
        [recorded] = [found for s in upgrade.together if (found := RECORDED.fullmatch(s))]
        told.append((int(recorded["version"]), int(recorded["works_with"])))
        if told[-1][0] > told[-1][1]:
            assert [s for s in upgrade.together if taking_away(s)] == []
    assert [version for version, _ in told] == list(range(2, SCHEMA_VERSION + 1))
    assert [works_with for _, works_with in told] == sorted(works_with for _, works_with in told)


def taking_away(statement: str) -> bool:
    is_ddl = statement.lower().startswith(("drop", "alter"))
    return is_ddl and TAKES_AWAY.search(statement.lower()) is not None


def test_an_upgrade_builds_indexes_of_tables_that_were_there_concurrently() -> None:
    old_tables = set(re.findall(r"^create table ([\w.]+)", schema_of(1).decode(), re.MULTILINE))
    blocking = [found for u in planned(1) for s in u.together if (found := BLOCKS.search(s.lower()))]
    assert [found[0] for found in blocking if not found["table"] or found["table"] in old_tables] == []


@pytest.mark.parametrize("file", ["schema.sql", *sorted(p.name for p in UPGRADES.glob("*.sql"))])
def test_what_was_released_never_changes(file: str) -> None:
    if file == "schema.sql":
        assert schema_of(last_release.VERSION) == last_release.file(file)
    elif int(file[:3]) <= last_release.VERSION:
        assert (UPGRADES / file).read_bytes() == last_release.file(f"bin/upgrades/{file}")


def test_the_parts_of_every_file_are_those_that_are_applied() -> None:
    for file in (SCHEMA_FILE, *UPGRADES.glob("*.sql")):
        assert set(re.findall(r"^-- part: (.*)$", file.read_text(), re.MULTILINE)) <= set(PARTS), file
        ahead_of_parts = file.read_text().partition("-- part: ")[0]
        assert all(line.startswith("--") or not line for line in ahead_of_parts.splitlines()), file
        assert read_parts(file, PARTS)
