"""A transaction whose connection is lost, even at its commit, happens once, and holds up nobody."""

import asyncio
from typing import Any, LiteralString

import psycopg
import pytest

from engine import Connection, Engine, gather, ride, step, transaction, workflow
from tests.engine.workshop import LEASE_S, Ledger, Trace, Workshop

KILL: LiteralString = "select pg_terminate_backend(%s)"


async def test_a_connection_lost_in_the_middle_is_no_failure(shop: Workshop, ledger: Ledger, trace: Trace) -> None:
    @transaction
    async def unlucky(conn: Connection) -> None:
        await conn.execute(Ledger.WRITE, (f"attempt {trace('attempt')}",))
        if len(trace.calls) == 1:
            row = await (await conn.execute("select pg_backend_pid()")).fetchone()
            assert row is not None
            await shop.run(KILL, row[0])
            await conn.execute("select 1")

    @workflow(name="w")
    async def once() -> None:
        ride(Ledger.RIDER, {"entry": "rides"})
        await unlucky()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await ledger.entries() == ["attempt 2", "rides"]


class LostAtCommit:
    """A connection class whose first COMMIT is cut off: before the server has it, or after it is done and before the answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
        real = psycopg.AsyncConnection.commit
        self.cut = False

        async def commit(conn: psycopg.AsyncConnection[Any]) -> None:
            if self.cut or asyncio.current_task() is None or not conn.info.transaction_status:
                return await real(conn)
            self.cut = True
            if committed:
                await real(conn)
            conn.pgconn.finish()
            raise psycopg.OperationalError("the connection was lost")

        monkeypatch.setattr(psycopg.AsyncConnection, "commit", commit)


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another branch"])
async def test_a_connection_lost_at_commit_neither_loses_nor_doubles(
    shop: Workshop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, committed: bool, beside: bool
) -> None:
    inside = asyncio.Event()

    @transaction
    async def unlucky(conn: Connection) -> str:
        await conn.execute(Ledger.WRITE, ("once",))
        if not inside.is_set():
            LostAtCommit(monkeypatch, committed=committed)
        inside.set()
        return "done"

    @step
    async def note(n: int) -> int:
        return n

    async def notes() -> int:
        await inside.wait()
        return sum([await note(n) for n in range(20)])

    @workflow(name="w")
    async def once() -> Any:
        ride(Ledger.RIDER, {"entry": "rides"})
        return await gather(unlucky(), notes()) if beside else await unlucky()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == (["done", 190] if beside else "done")
    assert await ledger.entries() == ["once", "rides"]
    assert [r[0] for r in await shop.journal("w")] == list(range(1, 22 if beside else 2))


async def test_a_commit_in_doubt_is_settled_even_with_a_single_connection(
    shop: Workshop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    @transaction
    async def unlucky(conn: Connection) -> str:
        await conn.execute(Ledger.WRITE, ("once",))
        LostAtCommit(monkeypatch, committed=True)
        return "done"

    @workflow(name="w")
    async def once() -> str:
        return await unlucky()

    async with Engine.connect(shop.dsn, pool_size=1) as small:
        worker = small.worker([once], poll_s=0.02, lease_s=LEASE_S)
        working = asyncio.create_task(worker.run())
        try:
            await shop.engine.enqueue(once, id="w")
            assert await shop.result("w") == "done"
        finally:
            worker.stop()
            await working
    assert await ledger.entries() == ["once"]
