"""A connection that is lost around a commit costs time: nothing is doubled, nothing is lost, whichever side of the commit it was."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from engine import RunLost, entries, gather, recv, ride, send, set_event, step, workflow, write_stream
from engine.entries import Owner
from engine.journal import Journal
from tests.engine import claimant
from tests.engine.proxy import Proxy, proxy_to
from tests.engine.workshop import Ledger, Trace, Workshop


def one_of_each(owned: dict[str, Owner]) -> dict[str, entries.Entry]:
    """A batch with every kind of entry and effect."""
    child = json.dumps({"id": "child", "name": "n", "inputs": "{}", "queue": "q", "priority": 0, "parent": "a"})
    return {
        "step": claimant.step(owned["a"], "1", entry="a"),
        "event": claimant.step(owned["a"], "2", effect=entries.Event("key", "1"), entry="event"),
        "mail": claimant.step(owned["a"], "3", effect=entries.Mail("d", "other", "2", "a:3::d")),
        "child": claimant.step(owned["a"], "4", effect=entries.Child(child)),
        "chunk": claimant.step(owned["b"], "1", effect=entries.Chunk("log", "3")),
        "timer": entries.Timer(owned["b"], "2", "DBOS.sleep", 1000),
        "receive": entries.Receive(owned["c"], "1", "go", None),
        "nothing to receive": entries.Receive(owned["b"], "3", "go", None),
        "park": entries.Park(owned["d"], ["t:go"], [], None),
        "finish": entries.Finish(owned["e"], "SUCCESS", "5", None, None),
    }


async def written_once(shop: Workshop, ledger: Ledger) -> None:
    assert await ledger.entries() == ["a", "event"]
    rows = await shop.rows("select workflow_uuid, function_id, call_path from dbos.operation_outputs order by 1, 2")
    assert [tuple(r.values()) for r in rows] == [
        ("a", 1, "1"), ("a", 2, "2"), ("a", 3, "3"), ("a", 4, "4"), ("b", 1, "1"), ("b", 2, "2"), ("c", 1, "1"),
    ]  # fmt: skip
    assert await shop.engine.events("a") == {"key": 1}
    assert await shop.engine.stream("b", "log") == [3]
    assert [(m.value, m.consumed_by) for m in await shop.engine.messages("c")] == [("hello", 1), ("second", None)]
    assert [m.value for m in await shop.engine.messages("d")] == [2]
    assert await shop.status("child") == "ENQUEUED"
    assert (await shop.row("d"))["waits"] == ["t:go"]
    assert (await shop.status("e"), await shop.engine.result("e")) == ("SUCCESS", 5)


async def outcomes(batch: dict[str, entries.Entry]) -> dict[str, Any]:
    done = await asyncio.wait_for(asyncio.gather(*(x.done for x in batch.values()), return_exceptions=True), 10)
    return dict(zip(batch, done, strict=True))


@pytest.fixture
async def owned(shop: Workshop) -> dict[str, Owner]:
    await shop.set_clock()
    _, owned = await claimant.enqueue_and_claim(shop, "a", "b", "c", "d", "e")
    for message in ("hello", "second"):
        await shop.engine.send("c", message, "go")
    return owned


async def prime(journal: Journal, owner: Owner) -> None:
    """Let the journal open its connection; writes nothing."""
    assert await journal.add(entries.Receive(owner, "9", "nothing", None)) is None


@pytest.mark.parametrize("loss", ["request", "answer", "answer while the commit waits for a lock"])
async def test_every_kind_of_entry_survives_the_loss_of_a_flush(
    shop: Workshop, ledger: Ledger, owned: dict[str, Owner], loss: str
) -> None:
    batch = one_of_each(owned)
    async with proxy_to(shop.dsn, prepare=shop.engine.own_sessions) as proxy, claimant.journal(shop, proxy.connect) as journal:
        await prime(journal, owned["a"])
        if loss == "request":
            proxy.lose_next_request = True
        if loss == "answer":
            proxy.lose_next_answer = True
        if loss.endswith("lock"):
            async with await shop.connect() as holder, holder.transaction():
                await holder.execute("select 1 from dbos.workflow_status where workflow_uuid = 'a' for update")
                for entry in batch.values():
                    journal.add(entry)
                await shop.blocked()
                proxy.cut()
                await shop.blocked(2)  # the new connection waits behind the old commit
        else:
            for entry in batch.values():
                journal.add(entry)
        told = await outcomes(batch)
    await written_once(shop, ledger)
    happened = await shop.value(
        "select completed_at_epoch_ms from dbos.operation_outputs where call_path = '2' and workflow_uuid = 'b'"
    )
    assert {k: told[k] for k in ("step", "event", "mail", "child", "chunk", "timer", "receive", "nothing to receive")} == {
        "step": None, "event": None, "mail": None, "child": None, "chunk": None,
        "timer": happened, "receive": ('"hello"', "portable_json"), "nothing to receive": None,
    }  # fmt: skip
    if loss == "request":
        assert (told["park"], told["finish"]) == (True, None)
    else:  # the owner let go of these by the commit that it did not hear of
        assert isinstance(told["park"], RunLost)
        assert isinstance(told["finish"], RunLost)


async def test_the_numbers_of_records_go_on_after_a_loss(shop: Workshop, owned: dict[str, Owner]) -> None:
    async with proxy_to(shop.dsn, prepare=shop.engine.own_sessions) as proxy, claimant.journal(shop, proxy.connect) as journal:
        await prime(journal, owned["a"])
        for n in range(1, 9):
            proxy.lose_next_answer = n % 2 == 0
            await asyncio.gather(*(journal.add(claimant.step(owned["a"], f"{n}.{i}")) for i in (1, 2, 3)))
    assert [r[0] for r in await shop.journal("a")] == list(range(1, 25))


async def test_a_loss_in_the_middle_of_a_takeover_is_a_loss(shop: Workshop, ledger: Ledger, owned: dict[str, Owner]) -> None:
    async with proxy_to(shop.dsn, prepare=shop.engine.own_sessions) as proxy, claimant.journal(shop, proxy.connect) as journal:
        await prime(journal, owned["a"])
        proxy.lose_next_request = True
        await claimant.take_over(shop, "a")
        lost, kept = claimant.step(owned["a"], entry="lost"), claimant.step(owned["b"], entry="kept")
        told = await asyncio.gather(journal.add(lost), journal.add(kept), return_exceptions=True)
    assert isinstance(told[0], RunLost)
    assert told[1] is None
    assert await ledger.entries() == ["kept"]


async def test_the_journal_waits_for_a_database_that_is_away(shop: Workshop, owned: dict[str, Owner]) -> None:
    tries = 0

    async def connect() -> psycopg.AsyncConnection[Any]:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise psycopg.OperationalError("connection refused")
        return await shop.connect()

    async with claimant.journal(shop, connect) as journal:
        await journal.add(claimant.step(owned["a"]))
    assert (tries, len(await shop.journal("a"))) == (5, 1)


async def lossy(proxy: Proxy) -> None:
    """Lose an answer, then a request, and so on, at ever other distances; a new connection takes about five requests."""
    turn = 0
    while True:
        turn += 1
        at = proxy.requests + 8 + turn % 5
        while proxy.requests < at:
            await asyncio.sleep(0.001)
        if turn % 2:
            proxy.lose_next_answer = True
        else:
            proxy.lose_next_request = True


async def test_workflows_come_through_a_network_that_keeps_losing_commits(shop: Workshop, ledger: Ledger, trace: Trace) -> None:
    @step
    async def note(text: str) -> str:
        trace(text)
        ride(Ledger.RIDER, {"entry": text})
        return text

    async def branch(id: str, n: int) -> str:
        return await note(f"{id}.{n}") + await note(f"{id}.{n}+")

    @workflow(name="w")
    async def once(id: str) -> Any:
        await send(id, id, "self")
        pair = await gather(branch(id, 1), branch(id, 2))
        await set_event("at", 1)
        await write_stream("log", id)
        return [await recv("self"), pair]

    ids = [f"w{n:02}" for n in range(40)]
    async with proxy_to(shop.dsn, prepare=shop.engine.own_sessions) as proxy:
        worker = await shop.worker(once, slots=8)
        worker.journal._connect = proxy.connect
        worker.journal._retry_s = 0.001
        losing = asyncio.create_task(lossy(proxy))
        try:
            await shop.engine.enqueue_many(once, [(id, [id]) for id in ids])
            assert await shop.ended(*ids) == ["SUCCESS"] * len(ids)
        finally:
            losing.cancel()
            await shop.stop(worker)
    assert proxy.losses > 5
    for id in ids:
        assert await shop.engine.result(id) == [id, [f"{id}.1{id}.1+", f"{id}.2{id}.2+"]]
        assert [r[0] for r in await shop.journal(id)] == list(range(1, 9))
        assert await shop.engine.stream(id, "log") == [id]
    expected = sorted(f"{id}.{n}{plus}" for id in ids for n in (1, 2) for plus in ("", "+"))
    assert await ledger.entries() == expected
    assert sorted(trace.calls) == expected  # the worker did not crash, so no step ran twice either
