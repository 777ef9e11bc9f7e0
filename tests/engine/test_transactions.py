"""A transaction's statements and its journal record are one commit, whatever happens around it."""

import asyncio
from typing import Any

import psycopg
import pytest

from engine import (
    Connection,
    MisplacedCall,
    StepFailed,
    TerminalError,
    gather,
    ride,
    step,
    step_info,
    transaction,
    workflow,
)
from tests.engine.workshop import Brake, Ledger, Trace, Workshop


@transaction
async def write(conn: Connection, text: str) -> str:
    await conn.execute(Ledger.WRITE, (text,))
    return f"wrote {text}"


async def test_statements_and_record_are_one_commit(shop: Workshop, ledger: Ledger) -> None:
    xids: list[str] = []

    @transaction
    async def write_and_look(conn: Connection) -> int:
        await conn.execute(Ledger.WRITE, ("a",))
        row = await (await conn.execute("select pg_current_xact_id()::text, count(*) from ledger")).fetchone()
        assert row is not None
        xids.append(row[0])
        assert await ledger.entries() == []  # others see nothing yet
        return int(row[1])

    @workflow(name="w")
    async def once() -> int:
        return await write_and_look()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 1
    assert await shop.journal("w") == [(1, "1", write_and_look.name, 1)]
    xid = await shop.value("select xmin::text from dbos.operation_outputs where workflow_uuid = 'w'")
    assert [xid] == xids == [await shop.value("select xmin::text from ledger")]


async def test_a_recorded_transaction_is_not_run_again(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def after() -> None:
        pass

    @workflow(name="w")
    async def once() -> str:
        result = await write("a")
        await after()
        return result

    first = await shop.worker(once)
    brake = Brake(first, 1, after=False)  # the step after it
    await shop.engine.enqueue(once, id="w")
    await brake.reached.wait()
    await shop.crash(first)
    await shop.worker(once)
    assert await shop.result("w") == "wrote a"
    assert await ledger.entries() == ["a"]


async def test_an_error_undoes_the_statements_and_is_recorded(shop: Workshop, ledger: Ledger) -> None:
    seen: list[str] = []

    @transaction
    async def half(conn: Connection) -> None:
        await conn.execute(Ledger.WRITE, ("half",))
        raise TerminalError("overdrawn", name="OVERDRAWN")

    @workflow(name="w")
    async def once() -> None:
        try:
            await half()
        except StepFailed as failed:
            seen.append(str(failed))
        await write("after")

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 2)
    await handle.result(10)
    assert seen == ["OVERDRAWN: overdrawn"] * 2
    assert await ledger.entries() == ["after", "after"]  # rewinding is asking for it again


async def test_a_statement_that_the_database_refuses_fails_the_transaction(shop: Workshop, ledger: Ledger, trace: Trace) -> None:
    @transaction
    async def refused(conn: Connection) -> None:
        trace("refused")
        await conn.execute(Ledger.WRITE, ("half",))
        await conn.execute("select 1 / 0")

    @workflow(name="w")
    async def once() -> str:
        try:
            await refused()
        except StepFailed as failed:
            return failed.name
        return ""

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == "DivisionByZero"
    assert (trace.calls, await ledger.entries()) == (["refused"], [])


async def test_a_run_that_was_lost_meanwhile_undoes_its_statements(shop: Workshop, ledger: Ledger) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    @transaction
    async def slow(conn: Connection) -> None:
        await conn.execute(Ledger.WRITE, ("zombie",))
        inside.set()
        await go.wait()

    @workflow(name="w")
    async def once() -> None:
        await slow()

    worker = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await inside.wait()
    await shop.run(
        "update dbos.workflow_status set status = 'CANCELLED', owner_xid = null where workflow_uuid = 'w'"
    )  # as SQL may
    go.set()
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "the zombie is gone")
    assert worker.ended == {"lost": 1}
    assert (await ledger.entries(), await shop.names("w"), await shop.status("w")) == ([], [], "CANCELLED")


async def test_serialization_failures_and_deadlocks_are_tried_again(shop: Workshop, ledger: Ledger, trace: Trace) -> None:
    class Deadlock(psycopg.errors.DeadlockDetected):
        sqlstate = "40P01"

    @transaction
    async def contended(conn: Connection) -> int:
        attempt = trace(step_info().attempt)
        await conn.execute(Ledger.WRITE, (f"attempt {attempt}",))
        if attempt == 1:
            await conn.execute("do $$ begin raise exception 'race' using errcode = '40001'; end $$")
        if attempt == 2:
            raise Deadlock
        return attempt

    @workflow(name="w")
    async def once() -> int:
        return await contended()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 3
    assert (trace.calls, await ledger.entries()) == ([1, 2, 3], ["attempt 3"])


async def test_transactions_run_beside_other_branches(shop: Workshop, ledger: Ledger) -> None:
    @step
    async def note(text: str) -> str:
        return text

    async def both(n: int) -> list[str]:
        return [await note(f"{n}"), await write(f"{n}"), await note(f"{n}")]

    @workflow(name="w")
    async def once() -> Any:
        return await gather(*(both(n) for n in range(8)))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [[f"{n}", f"wrote {n}", f"{n}"] for n in range(8)]
    assert await ledger.entries() == [f"{n}" for n in range(8)]
    assert sorted(r[0] for r in await shop.journal("w")) == list(range(1, 25))


async def test_a_slow_transaction_does_not_hold_up_the_journal(shop: Workshop, ledger: Ledger) -> None:
    noted = asyncio.Event()

    @transaction
    async def slow(conn: Connection) -> None:
        await conn.execute(Ledger.WRITE, ("slow",))
        await asyncio.wait_for(noted.wait(), 5)

    @step
    async def note() -> None:
        pass

    async def quick() -> None:
        await note()
        await note()
        noted.set()

    @workflow(name="w")
    async def once() -> None:
        await gather(slow(), quick())

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await shop.names("w") == [note.name, note.name, slow.name]


async def test_rows_ride_with_a_transaction(shop: Workshop, ledger: Ledger) -> None:
    @transaction
    async def ridden(conn: Connection) -> None:
        ride(Ledger.RIDER, {"entry": "in the transaction"})

    @workflow(name="w")
    async def once() -> None:
        ride(Ledger.RIDER, {"entry": "before it"})
        await ridden()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert await ledger.entries() == ["before it", "in the transaction"]


async def test_a_cancellation_inside_a_transaction_fails_the_transaction_and_not_the_run(shop: Workshop, ledger: Ledger) -> None:
    @transaction
    async def awaits_a_cancelled_task(conn: Connection) -> None:
        await conn.execute(Ledger.WRITE, ("undone",))
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    @workflow(name="w")
    async def once() -> str:
        try:
            await awaits_a_cancelled_task()
        except StepFailed as failed:
            return failed.name
        return "no failure"

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == "CancelledError"
    assert await ledger.entries() == []


async def test_a_transaction_needs_a_workflow(shop: Workshop) -> None:
    with pytest.raises(MisplacedCall, match="only inside a workflow"):
        await write("a")
