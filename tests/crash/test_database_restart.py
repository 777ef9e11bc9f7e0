"""The database server dies under load, twice, without a goodbye: workers and clients come back by themselves and nothing is lost."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from bin.database import connect, migrate
from bin.own_server import OwnServer
from engine import Engine
from steps.identity import intent_hash, workflow_id
from steps.opencode import ReplayOpenCode
from steps.sandbox import MockSandbox
from tests.crash import subject
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, LEFTOVERS
from tests.steps.product import Product, patch, replay

CLIENTS = 4
STEPS = 4
RESTARTS = 2

UNENDED: LiteralString = "select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') limit 1"
FAILED: LiteralString = "select workflow_uuid, status, error from dbos.workflow_status where status <> 'SUCCESS'"
HALF_DONE: LiteralString = "select count(*)::int from dbos.workflow_status where status = 'PENDING'"
OPEN_GATES: LiteralString = """
select workflow_uuid, substr(waits[1], 3) from dbos.workflow_status where owner_xid is null and waits[1] like 't:human:%' limit 50
"""
JOURNALS: LiteralString = "select workflow_uuid from dbos.operation_outputs group by workflow_uuid having count(*) <> %s"
RIDERS: LiteralString = "select count(*)::int, count(distinct (workflow_id, path))::int from ridden"
IDS: LiteralString = "select workflow_uuid from dbos.workflow_status"


@pytest.fixture
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnServer]:
    """A durable server of this test's own."""
    bindir = os.environ.get("PG_BINDIR")
    server = await asyncio.to_thread(OwnServer, tmp_path_factory.mktemp("pg"), Path(bindir) if bindir else None)
    yield server
    await asyncio.to_thread(server.close)


#: Starts a run of this name, once; its workflow id.
Start = Callable[[Engine, str], Awaitable[str]]


class Client:
    """Enqueues run after run and tries again until each is accepted, as a client with an idempotency key does."""

    def __init__(self, engine: Engine, name: str, start: Start) -> None:
        self.engine = engine
        self.name = name
        self.start = start
        self.accepted: list[str] = []

    async def work(self) -> None:
        while True:
            name = f"{self.name}-{len(self.accepted)}"
            try:
                self.accepted.append(await self.start(self.engine, name))
            except (psycopg.Error, PoolTimeout, OSError):
                pass  # again, under the same name
            await asyncio.sleep(0.02)


async def start_errand(engine: Engine, name: str) -> str:
    await engine.enqueue(subject.errand, STEPS, 0.05, False, id=name)
    return name


def is_half_done(job: Job) -> bool:
    with connect(job.dsn, autocommit=True) as conn:
        return conn.execute(HALF_DONE).fetchone() != (0,)


async def crash_twice(server: OwnServer, job: Job, start: Start) -> set[str]:
    """Load, a crash, load, a crash, load; then all that was accepted has to succeed. Its workflow ids."""
    async with Engine.connect(job.dsn, pool_size=CLIENTS) as engine:
        clients = [Client(engine, f"client-{number}", start) for number in range(CLIENTS)]
        with workers(job) as begin:
            fleet = [begin(), begin()]
            tasks = [asyncio.create_task(client.work()) for client in clients]
            for round_ in range(1, RESTARTS + 1):
                await until(lambda n=round_: min(len(client.accepted) for client in clients) > 15 * n, "some load")
                await until(lambda: is_half_done(job), "work under way, without which the crash would prove nothing")
                await asyncio.to_thread(server.crash)
            await until(lambda: min(len(client.accepted) for client in clients) > 50, "the clients to go on")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with connect(job.dsn, autocommit=True) as conn:
                await until(lambda: conn.execute(UNENDED).fetchall() == [], "all to end", 60)
                assert conn.execute(FAILED).fetchall() == []
                await until(lambda: conn.execute(LEFTOVERS).fetchall() == [], "nothing to be left over")
            assert [worker.exit_code for worker in fleet] == [None, None], "a worker gave up"
            for worker in fleet:
                await worker.drain()
    crashes = server.log.read_text().count("not properly shut down")
    assert crashes == RESTARTS
    return {id for client in clients for id in client.accepted}


async def test_workers_and_clients_survive_two_crashes_of_the_server(own_server: OwnServer, tmp_path: Path) -> None:
    dsn = own_server.dsn
    with connect(dsn, autocommit=True) as conn:
        assert conn.execute("show fsync").fetchall() == [("on",)]
        migrate(conn, parts=["engine"])
        conn.execute(subject.TABLES)
    accepted = await crash_twice(own_server, Job(dsn, tmp_path, lease_s=3.0), start_errand)
    with connect(dsn) as conn:
        found = {row[0] for row in conn.execute(IDS).fetchall()}
        assert accepted <= found, f"accepted and lost: {accepted - found}"
        assert len(found - accepted) <= CLIENTS, "more than the calls that were cancelled at the end"
        assert conn.execute(GAPS).fetchall() == []
        assert conn.execute(JOURNALS, (STEPS,)).fetchall() == []
        assert conn.execute(RIDERS).fetchone() == (STEPS * len(found), STEPS * len(found))


async def start_run(engine: Engine, name: str) -> str:
    """A run that changes a file of its own."""
    constraints = replay(plan={"patchPlan": [patch(f"{name}.txt", name)]})
    with contextlib.suppress(psycopg.errors.UniqueViolation):  # an earlier try was committed, only its answer was lost
        await Product(engine, Path(), ReplayOpenCode(), MockSandbox()).start(name, constraints)
    return workflow_id(intent_hash({"goal": name, "inputs": {}, "constraints": constraints}))


async def approve_all(dsn: str) -> None:
    async with Engine.connect(dsn, pool_size=1) as engine:
        while True:
            with contextlib.suppress(psycopg.Error, PoolTimeout):
                async with engine.pool.connection() as conn:
                    found = await (await conn.execute(OPEN_GATES)).fetchall()
                for id, topic in found:
                    await engine.send(id, {"choice": "yes"}, topic, key="yes")
            await asyncio.sleep(0.05)


async def test_runs_of_the_product_survive_two_crashes_of_the_server(own_server: OwnServer, tmp_path: Path) -> None:
    dsn = own_server.dsn
    with connect(dsn, autocommit=True) as conn:
        migrate(conn)
    answering = asyncio.create_task(approve_all(dsn))
    try:
        accepted = await crash_twice(own_server, Job(dsn, tmp_path, "product", lease_s=3.0), start_run)
    finally:
        answering.cancel()
    with connect(dsn) as conn:
        found = {row[0] for row in conn.execute("select workflow_id from app.runs").fetchall()}
        assert accepted <= found, f"accepted and lost: {accepted - found}"
        assert conn.execute("select distinct status from app.runs").fetchall() == [("succeeded",)]
        assert conn.execute(GAPS).fetchall() == []
        assert conn.execute("select count(*)::int from app.run_steps").fetchone() == (4 * len(found),)
        assert conn.execute("select count(*) from app.mock_receipts where seen_count > 1").fetchone() == (0,)
        goals = {row[0] for row in conn.execute("select goal from app.intents").fetchall()}
    assert {file.name: file.read_text() for file in (tmp_path / "workspace").iterdir()} == {f"{goal}.txt": goal for goal in goals}
