"""The database server dies under load, twice, without a goodbye: workers and clients come back by themselves and nothing is lost."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from bin.database import connect, migrate
from bin.postgres import Lease, borrow
from bin.postgres_watcher import is_running, pid_of
from engine import Engine
from tests.crash import subject
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, LEFTOVERS

CLIENTS = 4
STEPS = 4
RESTARTS = 2

STATUSES: LiteralString = "select status, count(*)::int from dbos.workflow_status group by status"
HALF_DONE: LiteralString = "select count(*)::int from dbos.workflow_status where status = 'PENDING'"
JOURNALS: LiteralString = "select workflow_uuid from dbos.operation_outputs group by workflow_uuid having count(*) <> %s"
RIDERS: LiteralString = "select count(*)::int, count(distinct (workflow_id, path))::int from ridden"
IDS: LiteralString = "select workflow_uuid from dbos.workflow_status"


class OwnServer:
    """A durable server of this test's own."""

    def __init__(self, folder: Path) -> None:
        bindir = os.environ.get("PG_BINDIR")
        self._folder = folder
        self._bindir = Path(bindir) if bindir else None
        self._leases: list[Lease] = []
        self.start()

    @property
    def lease(self) -> Lease:
        return self._leases[-1]

    def start(self) -> None:
        self._leases.append(borrow(self._folder, bindir=self._bindir))

    def die(self) -> None:
        """What `pg_ctl stop -m immediate` does: no checkpoint, no goodbye to clients."""
        os.kill(pid_of(self.lease.home), signal.SIGQUIT)

    async def restart(self) -> None:
        self.die()
        await until(lambda: not is_running(self.lease.home), "the server to be gone")
        await asyncio.to_thread(self.start)

    async def close(self) -> None:
        for lease in self._leases:
            lease.close()
        await until(lambda: not is_running(self.lease.home), "the server to stop")


@pytest.fixture
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path_factory.mktemp("pg"))
    yield server
    await server.close()


class Client:
    """Enqueues run after run and tries again until each is accepted, as a client with an idempotency key does."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.accepted: list[str] = []
        self.refusals = 0

    async def work(self) -> None:
        while True:
            id = f"{self.name}-{len(self.accepted)}"
            try:
                await self.engine.enqueue(subject.errand, STEPS, 0.05, False, id=id)
                self.accepted.append(id)
            except (psycopg.Error, PoolTimeout, OSError):
                self.refusals += 1
            await asyncio.sleep(0.02)


async def test_workers_and_clients_survive_two_crashes_of_the_server(own_server: OwnServer, tmp_path: Path) -> None:
    dsn = own_server.lease.dsn
    with connect(dsn, autocommit=True) as conn:
        assert conn.execute("show fsync").fetchall() == [("on",)]
        migrate(conn, parts=["engine"])
        conn.execute(subject.TABLES)
    async with Engine.connect(dsn, pool_size=CLIENTS) as engine:
        clients = [Client(engine, f"client-{number}") for number in range(CLIENTS)]
        with workers(Job(dsn, tmp_path, lease_s=3.0)) as begin:
            fleet = [begin(), begin()]
            tasks = [asyncio.create_task(client.work()) for client in clients]
            for round_ in range(1, RESTARTS + 1):
                await until(lambda n=round_: min(len(client.accepted) for client in clients) > 15 * n, "some load")
                with connect(dsn) as conn:
                    assert conn.execute(HALF_DONE).fetchone() != (0,), "nothing is under way, the crash would prove nothing"
                await own_server.restart()
            await until(lambda: min(len(client.accepted) for client in clients) > 50, "the clients to go on")
            for task in tasks:
                task.cancel()
            accepted = {id for client in clients for id in client.accepted}
            with connect(dsn, autocommit=True) as conn:
                await until(lambda: [row[0] for row in conn.execute(STATUSES).fetchall()] == ["SUCCESS"], "all to succeed", 60)
                await until(lambda: conn.execute(LEFTOVERS).fetchall() == [], "nothing to be left over")
            assert [worker.exit_code for worker in fleet] == [None, None], "a worker gave up"
            for worker in fleet:
                await worker.drain()
    with connect(dsn) as conn:
        found = {row[0] for row in conn.execute(IDS).fetchall()}
        assert accepted <= found, f"accepted and lost: {accepted - found}"
        assert len(found - accepted) <= CLIENTS  # enqueued by a call that was cancelled at the end
        assert conn.execute(GAPS).fetchall() == []
        assert conn.execute(JOURNALS, (STEPS,)).fetchall() == []
        assert conn.execute(RIDERS).fetchone() == (STEPS * len(found), STEPS * len(found))
    crashes = (own_server.lease.home / "server.log").read_text().count("not properly shut down")
    assert crashes == RESTARTS
    assert sum(client.refusals for client in clients) > 0
