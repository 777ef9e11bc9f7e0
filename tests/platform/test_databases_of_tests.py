"""A test finds a database as its template is, whatever a test before it did there."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.databases import Databases


@pytest.fixture
def ours(server: str) -> Iterator[Databases]:
    databases = Databases(server)
    yield databases
    databases.drop_spare()


def do(server: str, name: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(make_conninfo(server, dbname=name), autocommit=True) as conn:
        *before, last = statements
        for statement in before:
            conn.execute(statement.encode())
        cursor = conn.execute(last.encode())
        return cursor.fetchall() if cursor.description else []


def used(ours: Databases, server: str, template: str, *statements: str) -> str:
    """The identity of a database in which these were executed."""
    with ours.like(template) as name:
        do(server, name, *statements)
        return identity(server, name)


def identity(server: str, name: str) -> str:
    return str(do(server, name, "select oid from pg_database where datname = current_database()")[0][0])


NUDGE = "insert into engine.nudge (queue, key) values ('q', '') returning id"


def test_rows_sequences_and_statistics_of_the_last_test_are_gone(ours: Databases, server: str, template: str) -> None:
    before = used(ours, server, template, NUDGE, "analyze engine.nudge")
    with ours.like(template) as name:
        assert identity(server, name) == before
        assert do(server, name, "select count(*) from pg_statistic where starelid = 'engine.nudge'::regclass") == [(0,)]
        assert do(server, name, "select reltuples from pg_class where oid = 'engine.nudge'::regclass") == [(-1,)]
        assert do(server, name, NUDGE) == [(1,)]


def test_a_database_has_another_name_when_it_is_used_again(ours: Databases, server: str, template: str) -> None:
    with ours.like(template) as first:
        pass
    with ours.like(template) as second:
        assert first != second
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            do(server, first, "select 1")


@pytest.mark.parametrize(
    "change",
    [
        "create table app.mine (n int)",
        "create or replace function engine.now_ms() returns bigint language sql as 'select 1::bigint'",
        "alter table app.artifacts disable trigger user",
        "alter table app.artifacts alter column kind set default 'x'",
        "create index on app.artifacts (kind)",
        "grant select on app.artifacts to public",
        "update engine.schema_version set version = version + 1",
        "delete from engine.schema_version",
    ],
)
def test_what_was_changed_beside_rows_is_not_used_again(ours: Databases, server: str, template: str, change: str) -> None:
    before = used(ours, server, template, change)
    assert used(ours, server, template, "select 1") != before


def test_who_still_is_connected_is_cut_off(ours: Databases, server: str, template: str) -> None:
    with ours.like(template) as name:
        left = psycopg.connect(make_conninfo(server, dbname=name), autocommit=True)
    with pytest.raises(psycopg.OperationalError):
        left.execute("select 1")
    left.close()
