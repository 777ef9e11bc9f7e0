"""Who lost a run writes nothing more, in whatever order the two owners' statements meet."""

import asyncio
from typing import Any, LiteralString

import psycopg
import pytest

from engine import RunLost, claims, entries, leases, queues, step, workflow
from engine.entries import FENCE, Owner
from tests.engine import claimant
from tests.engine.workshop import Brake, Ledger, Trace, Workshop

HOLD: LiteralString = "select 1 from dbos.workflow_status where workflow_uuid = %s for no key update"

# What the fence must not be: the guard is checked in the snapshot, and nothing is locked.
NAIVE: LiteralString = """
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, serialization)
select s.workflow_uuid, 1, '1', 'zombie', '1', 'portable_json' from dbos.workflow_status s
 where s.workflow_uuid = %s and s.owner_xid = %s and s.status = 'PENDING'
"""


def every_kind(owner: Owner) -> list[entries.Entry]:
    return [
        claimant.step(owner, entry="zombie"),
        entries.Timer(owner, "2", "DBOS.sleep", 1000),
        entries.Receive(owner, "3", "go", None),
        entries.Park(owner, ["t:other"], [], None),
        entries.Finish(owner, "SUCCESS", "1", None, None),
        entries.Said(owner, entries.Chunk("log", "1")),
    ]


async def state(shop: Workshop, id: str) -> tuple[Any, ...]:
    row = await shop.row(id)
    return row["status"], row["owner_xid"], len(await shop.journal(id))


@pytest.mark.parametrize("kind", range(6), ids=["step", "timer", "receive", "park", "finish", "said"])
async def test_a_former_owner_writes_nothing_of_any_kind(shop: Workshop, ledger: Ledger, kind: int) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "w")
    await shop.engine.send("w", "message", "go")
    await claimant.take_over(shop, "w")
    async with claimant.journal(shop) as journal:
        with pytest.raises(RunLost):
            await journal.add(every_kind(owned["w"])[kind])
    assert await state(shop, "w") == ("PENDING", "new w", 0)
    assert (await ledger.entries(), (await shop.engine.messages("w"))[0].consumed_by) == ([], None)
    assert await shop.engine.stream("w", "log") == []


async def test_the_writer_first_and_the_rescue_passes_over_and_comes_again(shop: Workshop) -> None:
    worker_id, owned = await claimant.enqueue_and_claim(shop, "w")
    async with await shop.connect() as writer, await shop.connect() as rescuer:
        async with writer.transaction():
            await claimant.write(writer, claimant.step(owned["w"]))
            await rescuer.execute("update engine.worker set lease_until_ms = 0 where id = %s", (worker_id,))
            assert await leases.rescue(rescuer) == 0
            assert await shop.status("w") == "PENDING"
        assert await leases.rescue(rescuer) == 1
        again = await claimant.claim(rescuer, await claimant.register(shop))
        assert list(again) == ["w"]
        assert [r[1].output for r in (await claims.histories(rescuer, ["w"]))["w"]] == ['"1"']


async def test_the_rescue_first_and_the_writer_hears_that_it_lost(shop: Workshop) -> None:
    worker_id, owned = await claimant.enqueue_and_claim(shop, "w")
    async with await shop.connect() as rescuer, claimant.journal(shop) as journal:
        async with rescuer.transaction():
            await rescuer.execute(leases.RESCUE, {"dead": [worker_id], "most_ms": 0})
            written = asyncio.ensure_future(journal.add(claimant.step(owned["w"])))
            await shop.blocked()
        with pytest.raises(RunLost):
            await written
    assert await state(shop, "w") == ("ENQUEUED", None, 0)


async def test_a_token_checked_without_a_lock_would_let_the_former_owner_write(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "naive", "ours")
    async with await shop.connect() as holder, await shop.connect() as zombie, claimant.journal(shop) as journal:
        async with holder.transaction():
            for id in ("naive", "ours"):
                await holder.execute(HOLD, (id,))
            async with zombie.transaction():
                await zombie.execute(NAIVE, ("naive", owned["naive"].token))  # does not even wait
                written = asyncio.ensure_future(journal.add(claimant.step(owned["ours"])))
                await shop.blocked()
                await holder.execute("update dbos.workflow_status set owner_xid = 'new ' || workflow_uuid")
        with pytest.raises(RunLost):
            await written
    assert await state(shop, "naive") == ("PENDING", "new naive", 1)
    assert await state(shop, "ours") == ("PENDING", "new ours", 0)


async def test_in_a_mixed_batch_only_the_lost_runs_are_told_so(shop: Workshop, ledger: Ledger) -> None:
    ids = [f"w{n:02}" for n in range(50)]
    gone = ids[::3]
    _, owned = await claimant.enqueue_and_claim(shop, *ids)
    async with await shop.connect() as holder, claimant.journal(shop) as journal:
        async with holder.transaction():  # so that the loss comes while the batch is on its way
            await holder.execute(HOLD, ("w00",))
            written = [journal.add(claimant.step(owned[id], path, entry=f"{id} {path}")) for id in ids for path in ("1", "2")]
            await shop.blocked()
            await holder.execute("update dbos.workflow_status set owner_xid = 'new' where workflow_uuid = any (%s)", (gone,))
        outcomes = await asyncio.gather(*written, return_exceptions=True)
    assert journal.flushes == 1
    lost = [
        id for id, outcome in zip([id for id in ids for _ in range(2)], outcomes, strict=True) if isinstance(outcome, RunLost)
    ]
    assert sorted(set(lost)) == gone
    assert len(lost) == 2 * len(gone)
    kept = [f"{id} {path}" for id in ids if id not in gone for path in ("1", "2")]
    assert await ledger.entries() == kept
    rows = await shop.rows("select workflow_uuid, function_id, call_path from dbos.operation_outputs order by 1, 2")
    assert [tuple(r.values()) for r in rows] == [(id, n, str(n)) for id in ids if id not in gone for n in (1, 2)]


@pytest.mark.parametrize("cut_off", [True, False])
async def test_a_frozen_worker_that_comes_back_finds_every_write_refused(
    shop: Workshop, ledger: Ledger, trace: Trace, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    @step
    async def note() -> str:
        trace("note")
        return "noted"

    @workflow(name="w")
    async def once() -> list[str]:
        return [await note(), await note()]

    if not cut_off:  # as for a role that may not end other sessions
        monkeypatch.setattr(leases, "CUT_OFF", "select %s::text[]")
    frozen = await shop.worker(once)
    brake = Brake(frozen, 2, after=False)
    await shop.engine.enqueue(once, id="w")
    await brake.reached.wait()
    await shop.rescue(frozen.id)
    other = await shop.worker(once)
    assert await shop.result("w") == ["noted", "noted"]
    before = await shop.rows("select xmin::text, * from dbos.operation_outputs order by function_id")
    brake.released.set()
    await shop.until(
        lambda: asyncio.sleep(0, not frozen.running and not other.running), "the zombie is gone, and the end counted"
    )
    assert (frozen.ended, other.ended) == ({"lost": 1}, {"SUCCESS": 1})
    assert await shop.rows("select xmin::text, * from dbos.operation_outputs order by function_id") == before
    assert trace.calls == ["note"] * 3


async def test_a_worker_that_was_taken_for_dead_starts_over_as_somebody_new(shop: Workshop, trace: Trace) -> None:
    go = asyncio.Event()

    @step
    async def wait() -> None:
        trace("wait")
        await go.wait()

    @workflow(name="w")
    async def once() -> None:
        await wait()

    worker = await shop.worker(once, lease_s=0.4)
    was = worker.id
    await shop.engine.enqueue(once, id="w")
    await shop.until(lambda: asyncio.sleep(0, trace.calls), "it runs")
    await shop.run("update engine.worker set dead = true where id = %s", was)
    await shop.until(
        lambda: shop.value("select count(*) = 1 from engine.worker where id = %s and not dead", worker.id), "it is somebody new"
    )
    go.set()
    await shop.result("w")
    await shop.until(lambda: asyncio.sleep(0, worker.ended.total() > 1), "the worker has counted its end, a moment later")
    assert (worker.id != was, worker.ended, trace.calls) == (True, {"lost": 1, "SUCCESS": 1}, ["wait", "wait"])
    await shop.until(lambda: shop.value("select count(*) = 0 from engine.worker where id = %s", was), "the old one is buried")


# Claiming against burying -----------------------------------------------------------------------------------------------


async def test_a_worker_that_is_claiming_is_not_buried(shop: Workshop) -> None:
    worker_id = await claimant.register(shop)
    await shop.engine.enqueue_many(claimant.NAME, [("w", [])])
    async with await shop.connect() as claiming, await shop.connect() as rescuer:
        async with claiming.transaction():
            assert list(await claimant.claim(claiming, worker_id)) == ["w"]
            await rescuer.execute("update engine.worker set lease_until_ms = 0 where id = %s", (worker_id,))
            assert await leases.rescue(rescuer) == 0
            assert await shop.value("select count(*) from engine.worker") == 1
        assert await leases.rescue(rescuer) == 1
        assert await leases.rescue(rescuer) == 0
    assert await shop.value("select count(*) from engine.worker") == 0
    assert await state(shop, "w") == ("ENQUEUED", None, 0)


async def test_a_worker_that_is_being_buried_claims_nothing(shop: Workshop) -> None:
    worker_id = await claimant.register(shop)
    await shop.engine.enqueue_many(claimant.NAME, [("w", [])])
    await shop.run("update engine.worker set dead = true")
    await shop.run("update engine.worker set dead = false where id = %s", worker_id)
    async with await shop.connect() as claiming, await shop.connect() as rescuer:
        async with rescuer.transaction():
            await rescuer.execute("update engine.worker set dead = true where id = %s", (worker_id,))
            await rescuer.execute(leases.LOCK_GRAVES, ([worker_id],))
            claim = asyncio.create_task(claimant.claim(claiming, worker_id))
            await shop.blocked()
            await rescuer.execute(leases.BURY, ([worker_id],))
        assert await claim == {}
    assert await state(shop, "w") == ("ENQUEUED", None, 0)


async def test_a_dead_worker_claims_nothing(shop: Workshop) -> None:
    worker_id = await claimant.register(shop)
    await shop.engine.enqueue_many(claimant.NAME, [("w", [])])
    await shop.run("update engine.worker set dead = true")
    async with await shop.connect() as conn:
        assert await claimant.claim(conn, worker_id) == {}


async def test_two_claimers_never_take_the_same_run(shop: Workshop) -> None:
    first, second = await claimant.register(shop), await claimant.register(shop)
    await shop.engine.enqueue_many(claimant.NAME, [(f"w{n}", []) for n in range(6)])
    async with await shop.connect() as a, await shop.connect() as b:
        await queues.look_again(a)
        async with a.transaction():
            mine = await claimant.claim(a, first, room=4)
            theirs = await claimant.claim(b, second)  # does not wait
    assert (len(mine), len(theirs), set(mine) & set(theirs)) == (4, 2, set())


async def test_a_claim_whose_answer_was_lost_is_given_back(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow(name="w")
    async def once() -> int:
        return 1

    real = claims.claim
    taken: list[str] = []

    async def cut(*args: Any) -> Any:
        claimed = await real(*args)
        if claimed and not taken:
            taken.extend(c.id for c in claimed)
            raise psycopg.OperationalError("the connection is lost")
        return claimed

    monkeypatch.setattr(claims, "claim", cut)
    worker = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 1
    await shop.drain(worker)
    assert (taken, worker.ended) == (["w"], {"SUCCESS": 1})


# Steering against running ------------------------------------------------------------------------------------------------


async def test_a_finish_beats_the_cancel_that_waits_for_it(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "w")
    async with await shop.connect() as writer:
        async with writer.transaction():
            await claimant.write(writer, entries.Finish(owned["w"], "SUCCESS", "1", None, None))
            cancel = asyncio.create_task(shop.engine.cancel("w"))
            await shop.blocked()
        assert await cancel == []
    assert await shop.status("w") == "SUCCESS"


@pytest.mark.parametrize("call", ["cancel", "resume", "rewind"])
async def test_steering_beats_the_write_that_waits_for_it(shop: Workshop, call: str) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "w")
    async with claimant.journal(shop) as journal:
        async with shop.engine.transaction() as conn:
            await getattr(shop.engine, call)("w", *([1] if call == "rewind" else []), conn=conn)
            written = asyncio.ensure_future(journal.add(entries.Finish(owned["w"], "SUCCESS", "1", None, None)))
            await shop.blocked()
        with pytest.raises(RunLost):
            await written
    assert await state(shop, "w") == ("CANCELLED" if call == "cancel" else "ENQUEUED", None, 0)


async def test_overlapping_batches_lock_in_one_order(shop: Workshop) -> None:
    ids = [f"w{n:03}" for n in range(60)]
    _, owned = await claimant.enqueue_and_claim(shop, *ids)

    async def lock(order: list[str]) -> None:
        async with await shop.connect() as conn:
            for _ in range(15):
                async with conn.transaction():
                    await claimant.fence(conn, *(owned[id] for id in order))

    await asyncio.gather(*(lock(order) for order in (ids, ids[::-1], ids[20:] + ids[:20], ids[::2] + ids[1::2])))


async def test_the_fence_fails_if_one_of_many_is_missing(shop: Workshop) -> None:
    _, owned = await claimant.enqueue_and_claim(shop, "a", "b")
    async with await shop.connect() as conn:
        await claimant.fence(conn, *owned.values())
        with pytest.raises(psycopg.Error) as refused:
            await conn.execute(FENCE, ("a\x1fb", f"{owned['a'].token}\x1fwrong", "2"))
    assert refused.value.sqlstate == "HF001"
