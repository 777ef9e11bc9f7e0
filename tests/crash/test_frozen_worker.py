"""A worker that is frozen past its lease and thawed again: everybody else has gone on, and it writes nothing of what it held."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from engine import Engine
from tests.crash import subject
from tests.crash.fleet import LEASE_S, Job, WorkerProcess, until, workers
from tests.crash.history import GAPS

RUNS = [f"run-{number}" for number in range(8)]
STEPS = 6
UNENDED: LiteralString = "select workflow_uuid from dbos.workflow_status where status <> 'SUCCESS' and workflow_uuid = any (%s)"
#: Everything that the runs wrote, with the transaction that wrote it: a refused write leaves no other.
WRITTEN: LiteralString = """
select 'journal', o.xmin::text, to_jsonb(o)::text from dbos.operation_outputs o where o.workflow_uuid = any (%(runs)s)
union all select 'status', s.xmin::text, to_jsonb(s)::text from dbos.workflow_status s where s.workflow_uuid = any (%(runs)s)
union all select 'rider', r.xmin::text, to_jsonb(r)::text from ridden r where r.workflow_id = any (%(runs)s)
 order by 1, 2, 3
"""
BYSTANDER: LiteralString = """
create role {0};
grant usage on schema dbos, engine, public to {0};
grant all on all tables in schema dbos, engine, public to {0};
grant all on all sequences in schema dbos, engine, public to {0}
"""
RIDERS: LiteralString = "select workflow_id, path, count(*) from ridden group by 1, 2"
WORKERS: LiteralString = "select id from engine.worker where place like '%%:' || %s::text and not dead"
OWNERS: LiteralString = "select distinct executor_id from dbos.workflow_status where workflow_uuid = any (%s)"


class World:
    def __init__(self, dsn: str, folder: Path) -> None:
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.conn.execute(subject.TABLES)
        self.ledger = folder / "ledger"

    def rows(self, query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        return self.conn.execute(query, values).fetchall()

    def written(self) -> list[tuple[Any, ...]]:
        return self.conn.execute(WRITTEN, {"runs": RUNS}).fetchall()

    def executions(self) -> Counter[str]:
        return Counter(self.ledger.read_text().split() if self.ledger.exists() else [])

    def all_done(self, runs: list[str]) -> bool:
        return self.rows(UNENDED, runs) == []

    def id_of(self, worker: WorkerProcess) -> str | None:
        found = self.rows(WORKERS, worker.pid)
        return found[0][0] if found else None


@pytest.fixture
def world(engine_database: str, tmp_path: Path) -> Iterator[World]:
    one = World(engine_database, tmp_path)
    yield one
    one.conn.close()


async def enqueue(dsn: str, runs: list[str]) -> None:
    async with Engine.connect(dsn) as engine:
        for id in runs:
            await engine.enqueue(subject.errand, STEPS, 0.1, False, id=id)


@pytest.fixture
def bystander(engine_database: str) -> Iterator[str]:
    """The database as seen by a role that may do everything but end other people's connections."""
    role = f"bystander_{uuid4().hex}"
    with psycopg.connect(engine_database, autocommit=True) as conn:
        conn.execute(sql.SQL(BYSTANDER).format(sql.Identifier(role)))
        yield make_conninfo(engine_database, options=f"-c role={role}")
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(role)))


@pytest.mark.parametrize(
    ("point", "may_cut_off"),
    [
        pytest.param(None, True, id="in the middle of its steps"),
        pytest.param("before . Step 3 #1", True, id="with a commit half sent, holding its locks"),
        pytest.param("after . Step 3 #1", True, id="between a commit and its answer"),
        pytest.param("ready . Step 3 #1", True, id="just before a commit"),
        pytest.param("ready . Step 3 #1", False, id="just before a commit, and nobody may end its connection"),
    ],
)
async def test_a_thawed_worker_writes_nothing_and_lives_on_as_somebody_new(
    engine_database: str, world: World, bystander: str, tmp_path: Path, point: str | None, may_cut_off: bool
) -> None:
    await enqueue(engine_database, RUNS)
    with workers(Job(engine_database, tmp_path, root=RUNS[0], point=point, number=signal.SIGSTOP)) as begin:
        frozen = begin()
        if point is None:
            await until(lambda: world.executions().total() > 2 * len(RUNS), "some steps")
            frozen.signal(signal.SIGSTOP)
        await until(frozen.is_stopped, "the worker to freeze")
        former_id = world.id_of(frozen)
        other = begin(point=None, dsn=engine_database if may_cut_off else bystander)
        await until(lambda: world.all_done(RUNS), "another worker to finish everything")
        await other.drain()
        written, executions = world.written(), world.executions()

        frozen.signal(signal.SIGCONT)
        await until(lambda: world.id_of(frozen) not in (None, former_id), "the worker to come back as somebody new")
        news = ["news-1", "news-2"]
        await enqueue(engine_database, news)
        await until(lambda: world.all_done(news), "the thawed worker to take new work")
        assert world.rows(OWNERS, news) == [(world.id_of(frozen),)]
        await frozen.drain()
        assert f"lost={len(RUNS)}" in frozen.log.read_text()

    assert world.written() == written
    assert world.rows(GAPS) == []
    assert all(count == 1 for _, _, count in world.rows(RIDERS))
    assert len(world.rows(RIDERS)) == STEPS * len(RUNS + news)
    late = world.executions() - executions
    assert set(late) == {f"{id}:{number}" for id in news for number in range(1, STEPS + 1)}, "a task of the frozen worker went on"
    assert all(executions[f"{id}:{number}"] <= 2 for id in RUNS for number in range(1, STEPS + 1))
    assert (executions - Counter(set(executions))).total() <= len(RUNS), "at most the step under way ran twice"


async def test_a_short_freeze_costs_nothing(engine_database: str, world: World, tmp_path: Path) -> None:
    await enqueue(engine_database, RUNS)
    with workers(Job(engine_database, tmp_path, lease_s=LEASE_S * 20)) as begin:
        worker = begin()
        begin()
        await until(lambda: world.executions().total() > len(RUNS), "some steps")
        worker.signal(signal.SIGSTOP)
        await until(worker.is_stopped, "the worker to freeze")
        worker.signal(signal.SIGCONT)
        await until(lambda: world.all_done(RUNS), "the end of all")
    assert set(world.executions().values()) == {1}
