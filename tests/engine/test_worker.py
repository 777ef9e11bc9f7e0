"""What a worker takes, gives back and gives up: attempts, orderly stops, versions, and work that it does not know."""

import asyncio
import time
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from engine import WorkflowFailed, leases, recv, step, workflow, workflow_info
from tests.engine import claimant
from tests.engine.workshop import END_LEASE, NOON_MS, Brake, Trace, Workshop


@workflow(name="echo")
async def echo(value: Any) -> Any:
    return value


async def test_a_run_that_always_kills_its_worker_is_given_up(shop: Workshop, trace: Trace) -> None:
    @workflow(name="poison", max_recovery_attempts=2)
    async def poison() -> None:
        trace(workflow_info().attempt)
        await asyncio.Event().wait()

    await shop.engine.enqueue(poison, id="w")
    for attempt in (1, 2, 3):
        worker = await shop.worker(poison)
        await shop.until(lambda n=attempt: asyncio.sleep(0, len(trace.calls) == n), "it runs")
        await shop.crash(worker)
    await shop.worker(poison, echo)
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result("w")
    assert (failed.value.name, await shop.status("w")) == ("TooManyAttempts", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    assert trace.calls == [1, 2, 3]
    await shop.engine.enqueue(echo, 1, id="next")
    assert await shop.result("next") == 1


async def test_a_run_whose_workers_keep_dying_rests_before_it_is_taken_up_again(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> int:
        return trace("note")

    @workflow(name=claimant.NAME)
    async def once() -> int:
        return await note()

    await shop.set_clock()
    await shop.engine.enqueue(once, id="w")
    row: dict[str, Any] = {}
    async with await shop.connect() as conn:
        for deaths in (1, 2):
            worker_id = await claimant.register(shop)
            assert list(await claimant.claim(conn, worker_id)) == ["w"]
            await conn.execute(END_LEASE, ([worker_id],))
            assert await leases.rescue(conn, rest_s=64_000) == 1
            row = await shop.row("w")
            assert (row["owner_xid"], row["executor_id"], row["recovery_attempts"]) == (None, None, deaths)
            assert row["status"] == ("ENQUEUED" if deaths == 1 else "PENDING")
    assert NOON_MS < row["wake_at_ms"] <= NOON_MS + 1_000_000
    await shop.worker(once)
    await shop.pass_time(1_000)
    assert await shop.result("w") == 1


async def test_a_dead_run_can_be_resumed_with_attempts_counted_anew(shop: Workshop, trace: Trace) -> None:
    @workflow(name="poison", max_recovery_attempts=0)
    async def poison() -> str:
        if trace("ran") == 1:
            await asyncio.Event().wait()
        return "cured"

    await shop.engine.enqueue(poison, id="w")
    worker = await shop.worker(poison)
    await shop.until(lambda: asyncio.sleep(0, trace.calls), "it runs")
    await shop.crash(worker)
    await shop.worker(poison)
    assert await shop.ended("w") == ["MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
    assert await shop.engine.resume("w")
    assert await shop.result("w") == "cured"


async def test_the_runs_of_a_worker_whose_lease_ran_out_are_taken_over_by_the_others(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> int:
        return trace("note")

    @workflow(name="w")
    async def once() -> int:
        return await note()

    silent = await shop.worker(once)
    brake = Brake(silent, 1, after=False)
    await shop.engine.enqueue(once, id="w")
    await brake.reached.wait()
    await shop.worker(once, lease_s=0.4)
    await shop.run("update engine.worker set lease_until_ms = engine.now_ms() - 1 where id = %s", silent.id)
    assert await shop.result("w") == 2
    brake.released.set()


async def test_code_that_blocks_the_event_loop_does_not_cost_the_lease(shop: Workshop) -> None:
    def lease(conn: psycopg.Connection[Any]) -> int:
        row = conn.execute("select lease_until_ms from engine.worker").fetchone()
        assert row is not None
        return int(row[0])

    @step
    async def block() -> bool:
        end = time.monotonic() + 5
        with psycopg.connect(shop.dsn, autocommit=True, prepare_threshold=None) as conn:
            before = lease(conn)
            while lease(conn) == before and time.monotonic() < end:  # nobody else of this process gets a turn
                pass
            return lease(conn) > before

    @workflow(name="w")
    async def once() -> bool:
        return await block()

    await shop.worker(once, lease_s=0.4)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") is True


async def test_parking_and_orderly_stops_do_not_count_as_attempts(shop: Workshop) -> None:
    @workflow(name="patient", max_recovery_attempts=0)
    async def patient() -> list[Any]:
        return [await recv("go") for _ in range(5)]

    await shop.engine.enqueue(patient, id="w")
    for n in range(5):
        worker = await shop.worker(patient)
        await shop.until(lambda n=n: shop.value("select claims = %s from dbos.workflow_status", n + 1), "it is claimed")
        await shop.parked("w")
        await shop.stop(worker)
        await shop.engine.send("w", n, "go")
    await shop.worker(patient)
    assert await shop.result("w") == [0, 1, 2, 3, 4]


async def test_a_stopped_worker_gives_its_runs_to_the_next_at_once(shop: Workshop, trace: Trace) -> None:
    @step
    async def long() -> int:
        if trace("long") == 1:
            await asyncio.Event().wait()
        return 1

    @workflow(name="w", max_recovery_attempts=0)
    async def once() -> int:
        return await long()

    first = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.until(lambda: asyncio.sleep(0, trace.calls), "it runs")
    await shop.stop(first)
    row = await shop.row("w")
    assert (row["status"], row["owner_xid"], row["executor_id"], row["recovery_attempts"]) == ("ENQUEUED", None, None, 0)
    await shop.worker(once)
    assert await shop.result("w") == 1


async def test_a_draining_worker_finishes_what_it_has_and_takes_no_more(shop: Workshop) -> None:
    go = asyncio.Event()

    @step
    async def long() -> int:
        await go.wait()
        return 1

    @workflow(name="w")
    async def once() -> int:
        return await long()

    worker = await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.until(lambda: asyncio.sleep(0, worker.running), "it runs")
    draining = asyncio.create_task(shop.drain(worker))
    claiming = [task for task in asyncio.all_tasks() if task.get_name() == "claims"]
    await asyncio.wait(claiming)  # a claim that was under way is over
    await shop.engine.enqueue(once, id="late")
    go.set()
    await draining
    assert [await shop.status(id) for id in ("w", "late")] == ["SUCCESS", "ENQUEUED"]


async def test_a_run_for_another_version_is_left_to_workers_of_that_version(shop: Workshop, trace: Trace) -> None:
    @workflow(name="w")
    async def once() -> None:
        trace(workflow_info().id)

    for version in ("v1", "v2", None):
        await shop.engine.enqueue(once, id=f"for {version}", version=version)
    first = await shop.worker(once, version="v1")
    assert await shop.ended("for v1", "for None") == ["SUCCESS", "SUCCESS"]
    await shop.stop(first)
    assert await shop.status("for v2") == "ENQUEUED"
    await shop.worker(once)
    await shop.engine.enqueue(once, id="marker")
    await shop.ended("marker")
    assert await shop.status("for v2") == "ENQUEUED"
    await shop.worker(once, version="v2")
    await shop.ended("for v2")
    assert len(trace.calls) == 4


async def test_a_workflow_that_no_worker_knows_stays_queued_and_is_reported_once(shop: Workshop) -> None:
    await shop.engine.enqueue("mystery", id="m1")
    await shop.engine.enqueue("mystery", id="m2")
    with capture_logs() as logs:
        worker = await shop.worker(echo)
        await shop.engine.enqueue(echo, 1, id="w")
        await shop.result("w")
        async with await shop.connect() as conn:
            await worker._name_strangers(conn)
            await worker._name_strangers(conn)
    assert [await shop.status(id) for id in ("m1", "m2")] == ["ENQUEUED", "ENQUEUED"]
    (told,) = [entry for entry in logs if entry.get("workflow") == "mystery"]
    assert (told["log_level"], told["queue"], told["count"]) == ("error", "default", 2)


async def test_many_unknown_workflows_do_not_block_the_queue(shop: Workshop) -> None:
    await shop.engine.enqueue_many("mystery", [(f"m{n}", []) for n in range(500)])
    await shop.engine.enqueue(echo, 1, id="w")
    await shop.worker(echo, slots=2)
    assert await shop.result("w") == 1


async def test_two_workflows_of_one_name_are_refused(shop: Workshop) -> None:
    @workflow(name="echo")
    async def double() -> None: ...

    with pytest.raises(ValueError, match="same name"):
        shop.engine.worker([echo, double])
