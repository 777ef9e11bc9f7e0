"""kill -9 of a migrator leaves the old version or the new one, never a mix; the next one finishes the work."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from bin.database import SCHEMA_VERSION, connect, migrate, planned, version_of
from tests.upgrades.catalog import Catalog, catalog, difference
from tests.upgrades.migrator import migrator

Conn = psycopg.Connection[Any]

WAITS_FOR: LiteralString = "select a.pid from pg_stat_activity a where %s = any (pg_blocking_pids(a.pid))"
ALIVE: LiteralString = "select count(*) from pg_stat_activity where pid = any (%s)"
PATIENCE_S = 30


@pytest.fixture
def old(old_database: str) -> Iterator[Conn]:
    with connect(old_database, autocommit=True) as conn:
        yield conn


def test_killed_after_any_statement_it_leaves_the_old_version(old: Conn, old_database: str, new_catalog: Catalog) -> None:
    before = catalog(old)
    [built_ahead] = [statement.split()[6] for upgrade in planned(1) for statement in upgrade.ahead]
    count = 0
    for count in itertools.count(1):
        process = migrator(old_database, dies_after=count)
        process.join(PATIENCE_S)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert version_of(old) == 1
        assert [line for line in difference(before, catalog(old)) if built_ahead not in line] == []
    assert count > sum(len(upgrade.together) + len(upgrade.ahead) for upgrade in planned(1))
    assert difference(new_catalog, catalog(old)) == []


def test_killed_as_it_builds_an_index_it_leaves_one_that_the_next_builds_anew(
    old: Conn, old_database: str, new_catalog: Catalog
) -> None:
    with connect(old_database) as holder:
        holder.execute("lock table app.mock_receipts in row exclusive mode")  # the index waits for whoever writes to its table
        process = migrator(old_database)
        until(lambda: old.execute(WAITS_FOR, (holder.info.backend_pid,)).fetchone())
        orphans = [row[0] for row in old.execute(WAITS_FOR, (holder.info.backend_pid,)).fetchall()]
        process.kill()
        process.join(PATIENCE_S)
        for orphan in orphans:
            old.execute("select pg_terminate_backend(%s)", (orphan,))  # as it ends when the server finds its client gone
    until(lambda: old.execute(ALIVE, (orphans,)).fetchone() == (0,))
    assert old.execute("select indexrelid::regclass::text from pg_index where not indisvalid").fetchall() == [
        ("app.mock_receipts_by_time",)
    ]
    assert version_of(old) == 1
    assert str(migrate(old)) == f"schema is at version {SCHEMA_VERSION} now (it was at 1)"
    assert difference(new_catalog, catalog(old)) == []


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)
