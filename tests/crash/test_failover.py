"""Failovers between two real servers: nobody is told where the new primary is, and who kept a history that it lacks finds that out.

`stall` is the moment from which on the standby hears nothing more; what is committed after it is lost with the primary.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from bin.database import connect, migrate
from bin.postgres_pair import Pair
from engine import (
    Connection,
    Engine,
    Observer,
    Worker,
    Workflow,
    connection_string,
    recv,
    step,
    step_info,
    transaction,
    workflow,
)
from tests.crash import subject
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, LEFTOVERS
from tests.crash.test_database_restart import FAILED, RIDERS, UNENDED, Client, start_errand

NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}  # a kill -9 leaves the machine's memory alone
RECORDS: LiteralString = (
    "select call_path, function_name from dbos.operation_outputs where workflow_uuid = %s order by function_id"
)
CLIENTS = 3

calls: list[tuple[str, str]] = []
gates: dict[str, asyncio.Event] = {}


@step
async def act(what: str) -> str:
    """Acts on the world, under the key that it is given."""
    calls.append((what, step_info().key))
    if what in gates:
        await gates[what].wait()
    return f"did {what}"


@transaction
async def book(conn: Connection, what: str) -> str:
    await conn.execute("insert into booked (workflow_id, amount) values (%s, 1)", (what,))
    return what


@workflow
async def errands(*whats: str) -> list[str]:
    return [await (book(what) if what == "book" else act(what)) for what in whats]


@workflow
async def hear() -> str:
    return str(await recv("word", timeout_s=600))


class Witness(Observer):
    def __init__(self) -> None:
        self.moves: list[bool] = []
        self.losses = 0

    def failed_over(self, went_back: bool) -> None:
        self.moves.append(went_back)

    def lease_lost(self) -> None:
        self.losses += 1


@asynccontextmanager
async def pair(folder: Path, *, synchronous: bool) -> AsyncIterator[Pair]:
    bindir = os.environ.get("PG_BINDIR")
    servers = Pair(folder, Path(bindir) if bindir else None, synchronous=synchronous, settings=NOT_DURABLE)
    try:
        await asyncio.to_thread(servers.start)
        with connect(servers.dsn, autocommit=True) as conn:
            migrate(conn, parts=["engine"])
            conn.execute(subject.TABLES)
        yield servers
    finally:
        await asyncio.to_thread(servers.close)


@pytest.fixture
async def synchronous(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair(tmp_path_factory.mktemp("pg"), synchronous=True) as servers:
        yield servers


@pytest.fixture
async def asynchronous(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair(tmp_path_factory.mktemp("pg"), synchronous=False) as servers:
        yield servers


async def fail_over(servers: Pair) -> None:
    await asyncio.to_thread(servers.kill_primary)
    await asyncio.to_thread(servers.promote)


@asynccontextmanager
async def working(engine: Engine, witness: Witness | None = None, **options: Any) -> AsyncIterator[Worker]:
    known: list[Workflow[Any, Any]] = [errands, hear]
    worker = engine.worker(known, observer=witness, poll_s=0.1, **options)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def caught_up(servers: Pair) -> None:
    """Until the standby has all there is."""

    def is_equal() -> bool:
        with servers.primary.connect() as conn:
            row = conn.execute("select bool_and(replay_lsn = pg_current_wal_lsn()) from pg_stat_replication").fetchone()
        return row == (True,)

    await until(is_equal, "the standby to catch up")


def records(servers: Pair, id: str) -> list[tuple[Any, ...]]:
    with connect(servers.dsn) as conn:
        return conn.execute(RECORDS, (id,)).fetchall()


async def status(engine: Engine, id: str) -> str | None:
    found = await engine.status(id)
    return found.status if found else None


async def test_nothing_that_was_acknowledged_is_lost_or_doubled_with_a_synchronous_standby(
    synchronous: Pair, tmp_path: Path
) -> None:
    job = Job(synchronous.dsn, tmp_path, lease_s=3.0)
    async with Engine.connect(synchronous.dsn, pool_size=CLIENTS) as engine:
        clients = [Client(engine, f"client-{number}", start_errand) for number in range(CLIENTS)]
        with workers(job) as begin:
            fleet = [begin(), begin()]
            tasks = [asyncio.create_task(client.work()) for client in clients]
            for round_ in (1, 2):
                await until(lambda n=round_: min(len(client.accepted) for client in clients) > 15 * n, "some load")
                await fail_over(synchronous)
                await asyncio.to_thread(synchronous.rebuild)
            await until(lambda: min(len(client.accepted) for client in clients) > 45, "the clients to go on")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with connect(job.dsn, autocommit=True) as conn:
                await until(lambda: conn.execute(UNENDED).fetchall() == [], "all to end", 60)
                await until(lambda: conn.execute(LEFTOVERS).fetchall() == [], "nothing to be left over")
                assert conn.execute(FAILED).fetchall() == []
                assert conn.execute(GAPS).fetchall() == []
                found = {row[0] for row in conn.execute("select workflow_uuid from dbos.workflow_status").fetchall()}
                assert conn.execute(RIDERS).fetchone() == (4 * len(found), 4 * len(found))
            assert [worker.exit_code for worker in fleet] == [None, None], "a worker gave up"
    accepted = {id for client in clients for id in client.accepted}
    assert accepted <= found, f"accepted and lost: {accepted - found}"


async def test_a_worker_whose_records_were_lost_builds_nothing_on_them(asynchronous: Pair) -> None:
    calls.clear()
    gates["b"], gates["c"] = asyncio.Event(), asyncio.Event()
    witness = Witness()
    async with Engine.connect(asynchronous.dsn) as engine, working(engine, witness):
        await engine.enqueue(errands, "a", "b", "c", "d", id="torn")
        await until(lambda: ("b", "torn:2") in calls, "the second step")
        await caught_up(asynchronous)
        asynchronous.stall()
        gates.pop("b").set()
        await until(lambda: ("c", "torn:3") in calls, "the third step, after a record that the standby will not have")
        await fail_over(asynchronous)
        await until(lambda: witness.moves, "the worker to look")
        gates.pop("c").set()
        assert await engine.result("torn", timeout_s=30) == ["did a", "did b", "did c", "did d"]
        assert witness.moves == [True]
    assert calls == [("a", "torn:1"), ("b", "torn:2"), ("c", "torn:3"), ("b", "torn:2"), ("c", "torn:3"), ("d", "torn:4")]
    with connect(asynchronous.dsn) as conn:
        assert conn.execute(GAPS).fetchall() == []
    assert [path for path, _ in records(asynchronous, "torn")] == ["1", "2", "3", "4"]


async def test_the_journal_looks_before_it_writes_even_if_nobody_else_has(
    asynchronous: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    gates["b"], gates["c"] = asyncio.Event(), asyncio.Event()
    witness = Witness()
    async with Engine.connect(asynchronous.dsn) as engine, working(engine, witness) as worker:
        await engine.enqueue(errands, "a", "b", "c", id="torn")
        await until(lambda: ("b", "torn:2") in calls, "the second step")
        await caught_up(asynchronous)
        asynchronous.stall()
        gates.pop("b").set()
        await until(lambda: ("c", "torn:3") in calls, "the third step")
        monkeypatch.setattr(worker, "_housekeeping", lambda: asyncio.sleep(0.05))
        await fail_over(asynchronous)
        assert witness.moves == []
        gates.pop("c").set()
        await until(lambda: witness.moves == [True], "the journal to find out")
        assert [path for path, _ in records(asynchronous, "torn")] == ["1"]
        monkeypatch.undo()
        assert await engine.result("torn", timeout_s=30) == ["did a", "did b", "did c"]


async def test_a_transaction_does_not_commit_over_a_lost_record(asynchronous: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    gates["b"] = asyncio.Event()
    witness = Witness()
    compared = asyncio.Event()

    async def nobody_looks(conn: Connection) -> None:
        compared.set()

    async with Engine.connect(asynchronous.dsn) as engine, working(engine, witness) as worker:
        await engine.enqueue(errands, "a", "b", "book", id="torn")
        await until(lambda: ("b", "torn:2") in calls, "the second step")
        await caught_up(asynchronous)
        asynchronous.stall()
        blocker = asynchronous.primary.connect()  # holds the transaction up until the failover
        blocker.execute("begin; lock table booked")
        gates.pop("b").set()
        await until(lambda: len(records(asynchronous, "torn")) == 2, "the record that the standby will not have")
        monkeypatch.setattr(worker.journal, "compare", nobody_looks)
        await fail_over(asynchronous)
        blocker.close()
        await until(lambda: witness.moves == [True], "the transaction to find out")
        monkeypatch.undo()
        assert await engine.result("torn", timeout_s=30) == ["did a", "did b", "book"]
    with connect(asynchronous.dsn) as conn:
        assert conn.execute("select count(*) from booked").fetchone() == (1,)
        assert conn.execute(GAPS).fetchall() == []


async def test_a_failover_that_lost_nothing_leaves_runs_where_they_are(synchronous: Pair) -> None:
    calls.clear()
    gates["b"] = asyncio.Event()
    witness = Witness()
    async with Engine.connect(synchronous.dsn) as engine, working(engine, witness):
        await engine.enqueue(hear, id="listener")
        await engine.enqueue(errands, "a", "b", "c", id="whole")
        await until(lambda: ("b", "whole:2") in calls, "the second step")
        await fail_over(synchronous)
        await until(lambda: witness.moves == [False], "the worker to look")
        await engine.send("listener", "still there", "word")
        gates.pop("b").set()
        assert await engine.result("whole", timeout_s=30) == ["did a", "did b", "did c"]
        assert await engine.result("listener", timeout_s=30) == "still there"
    assert calls == [("a", "whole:1"), ("b", "whole:2"), ("c", "whole:3")]


async def test_a_worker_that_the_new_primary_does_not_know_takes_a_new_identity(asynchronous: Pair) -> None:
    witness = Witness()
    async with Engine.connect(asynchronous.dsn) as engine:
        await caught_up(asynchronous)
        asynchronous.stall()
        async with working(engine, witness, lease_s=2.0) as worker:
            before = worker.id
            await until(lambda: worker._leased(), "the worker to be registered where the standby will not see it")
            await fail_over(asynchronous)
            await until(lambda: witness.losses == 1 and worker.id != before, "it to find its lease gone")
            await engine.enqueue(errands, "x", id="after")
            assert await engine.result("after", timeout_s=30) == ["did x"]


async def test_a_pool_gives_nobody_a_connection_of_the_dead_server(synchronous: Pair) -> None:
    async with Engine.connect(synchronous.dsn, pool_size=5) as engine:

        async def who(_: int) -> object:
            async with engine.pool.connection() as conn:
                await conn.execute("select pg_sleep(0.02)")
                return conn.info.host

        assert set(await asyncio.gather(*map(who, range(5)))) == {synchronous.primary.host}
        await fail_over(synchronous)
        assert set(await asyncio.gather(*map(who, range(20)))) == {synchronous.primary.host}


async def test_a_server_that_turned_read_only_is_waited_for(synchronous: Pair) -> None:
    def say(read_only: str) -> Callable[[], None]:
        def act() -> None:
            with synchronous.primary.connect() as conn:
                conn.execute("set default_transaction_read_only = off")
                conn.execute(f"alter system set default_transaction_read_only = {read_only}".encode())
                conn.execute("select pg_reload_conf()")

        return act

    async def is_refused() -> bool:
        try:
            conn = await psycopg.AsyncConnection.connect(connection_string(synchronous.dsn))
        except psycopg.OperationalError:
            return True
        await conn.close()
        return False

    calls.clear()
    gates["a"] = asyncio.Event()
    async with Engine.connect(synchronous.dsn) as engine, working(engine):
        await engine.enqueue(errands, "z", "a", "book", "c", id="patient")
        await until(lambda: ("a", "patient:2") in calls, "the second step, after a record")
        await asyncio.to_thread(say("on"))
        await until(is_refused, "the server to be read-only")
        gates.pop("a").set()
        asking = asyncio.create_task(engine.enqueue(errands, "late", id="late"))
        with pytest.raises((psycopg.Error, TimeoutError)):
            async with asyncio.timeout(0.5):
                await asyncio.shield(asking)
        asking.cancel()
        await asyncio.to_thread(say("off"))
        assert await engine.result("patient", timeout_s=30) == ["did z", "did a", "book", "did c"]
