"""A sleep that a restart interrupts, a slow step that is cancelled, and a tick for every half minute, on a clock that the tests own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import pytest
from psycopg.rows import dict_row

from engine import Engine
from steps import ops
from steps.contracts.ops import CancelWorkflowRequest, ResumeWorkflowRequest
from steps.identity import run_id
from steps.policy import CONTROL_QUEUE
from steps.timers import linger, set_schedule, slow_step, time_workflow
from steps.worker import QUEUES, workflows

SOON_S = 15.0
NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
WHO = {"actor": "ada", "reason": "drill"}


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with Engine.connect(database) as engine:
        yield engine


@asynccontextmanager
async def working(engine: Engine) -> AsyncIterator[None]:
    """A worker that outlives every jump of the clock."""
    worker = engine.worker(workflows(), queues=QUEUES, poll_s=0.02, lease_s=1_000_000_000)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running


async def rows(engine: Engine, query: LiteralString, *values: object) -> list[dict[str, Any]]:
    async with engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query, values)).fetchall()


async def set_clock(engine: Engine, now_ms: int) -> None:
    async with engine.transaction() as conn:
        await conn.execute("delete from engine.clock")
        await conn.execute("insert into engine.clock (now_ms) values (%s)", (now_ms,))


async def until(held: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await held():
            await asyncio.sleep(0.01)


# Sleeps --------------------------------------------------------------------------------------------------------------------


async def asleep(engine: Engine, id: str) -> bool:
    status = await engine.status(id)
    return status is not None and status.wake_at_ms is not None


async def artifacts(engine: Engine, id: str) -> list[dict[str, Any]]:
    return await rows(
        engine,
        "select step_id, task_key, uri, inline #>> '{json,at}' as at from app.artifacts"
        " where run_id = %s and step_id like 'sleep-%%' order by 4",
        run_id(id),
    )


async def test_a_sleep_goes_on_after_a_restart_and_leaves_a_note_before_and_after(engine: Engine) -> None:
    await set_clock(engine, NOON_MS)
    await engine.enqueue(time_workflow, 3600.0, id="nap", queue=CONTROL_QUEUE)
    async with working(engine):
        await until(lambda: asleep(engine, "nap"))
    [run] = await rows(engine, "select id, intent_id, status from app.runs")
    assert run == {"id": run_id("nap"), "intent_id": "it-ops-nap", "status": "running"}
    assert [note["step_id"] for note in await artifacts(engine, "nap")] == ["sleep-before-sleep"]
    await set_clock(engine, NOON_MS + 3_600_000)
    async with working(engine):
        assert await engine.result("nap", timeout_s=SOON_S) == "slept"
    assert await artifacts(engine, "nap") == [
        {
            "step_id": name,
            "task_key": name,
            "uri": f"artifact://run/{run_id('nap')}/step/{name}/task/{name}/{name}.json",
            "at": at,
        }
        for name, at in (
            ("sleep-before-sleep", "2026-01-01T12:00:00+00:00"),
            ("sleep-after-sleep", "2026-01-01T13:00:00+00:00"),
        )
    ]
    assert await rows(engine, "select status from app.runs") == [{"status": "succeeded"}]


async def test_a_sleep_that_was_cancelled_and_resumed_succeeds(engine: Engine) -> None:
    await set_clock(engine, NOON_MS)
    await engine.enqueue(time_workflow, 60.0, id="nap", queue=CONTROL_QUEUE)
    async with working(engine):
        await until(lambda: asleep(engine, "nap"))
        await ops.cancel(engine, "nap", CancelWorkflowRequest(**WHO))
        assert await rows(engine, "select status from app.runs") == [{"status": "canceled"}]
        await ops.resume(engine, "nap", ResumeWorkflowRequest(**WHO))
        await set_clock(engine, NOON_MS + 60_000)
        await engine.result("nap", timeout_s=SOON_S)
    assert await rows(engine, "select status from app.runs") == [{"status": "succeeded"}]
    assert len(await artifacts(engine, "nap")) == 2


# A slow step ---------------------------------------------------------------------------------------------------------------


async def marks(engine: Engine, id: str) -> list[str]:
    return [row["step"] for row in await rows(engine, "select step from app.marks where run_id = %s order by step", id)]


async def test_a_cancel_cuts_a_slow_step_off_and_a_resume_takes_it_up_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, cut_off = asyncio.Event(), asyncio.Event()

    async def held(sleep_s: float) -> None:
        began.set()
        try:
            await asyncio.sleep(sleep_s)
        except asyncio.CancelledError:
            cut_off.set()
            raise

    monkeypatch.setattr(linger, "function", held)
    async with working(engine), asyncio.timeout(SOON_S):
        await engine.enqueue(slow_step, "slow-1", 3600.0, id="slow-1", queue=CONTROL_QUEUE)
        await began.wait()
        await ops.cancel(engine, "slow-1", CancelWorkflowRequest(**WHO))
        await cut_off.wait()
        assert await marks(engine, "slow-1") == ["s1"]

        async def done(sleep_s: float) -> None:
            pass

        monkeypatch.setattr(linger, "function", done)
        await ops.resume(engine, "slow-1", ResumeWorkflowRequest(**WHO))
        assert await engine.result("slow-1") == "marked"
    assert await marks(engine, "slow-1") == ["s1", "s2"]
    assert [record.name for record in await engine.steps("slow-1")] == ["mark", "linger", "mark"]


async def test_a_slow_step_ends_by_itself(engine: Engine) -> None:
    async with working(engine):
        handle = await engine.enqueue(slow_step, "slow-2", 0.01, id="slow-2", queue=CONTROL_QUEUE)
        assert await handle.result(SOON_S) == "marked"


# Ticks ---------------------------------------------------------------------------------------------------------------------


async def ticks(engine: Engine) -> list[str]:
    """The times of day of all ticks."""
    found = await rows(engine, "select inline #>> '{json,scheduledAt}' as at from app.artifacts where step_id = 'ScheduledTick'")
    return sorted(row["at"][11:19] for row in found)


async def test_every_half_minute_ticks_once_and_a_pause_of_the_service_is_caught_up_with(engine: Engine) -> None:
    await set_clock(engine, NOON_MS)
    await set_schedule(engine, on=True)
    async with working(engine), working(engine):
        await set_clock(engine, NOON_MS + 30_000)
        await until(lambda: have_ticked(engine, 1))
    await set_clock(engine, NOON_MS + 125_000)
    await set_schedule(engine, on=True)
    async with working(engine), working(engine):
        await until(lambda: have_ticked(engine, 4))
    assert await ticks(engine) == ["12:00:30", "12:01:00", "12:01:30", "12:02:00"]
    runs = await rows(
        engine,
        "select r.intent_id, r.status, s.name from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id",
    )
    assert runs == [{"intent_id": "scheduled-ops", "status": "succeeded", "name": "ScheduledOps"}] * 4
    assert len(await rows(engine, "select 1 from app.intents")) == 1


async def have_ticked(engine: Engine, count: int) -> bool:
    return len(await ticks(engine)) >= count and all(
        row["status"] == "SUCCESS" for row in await rows(engine, "select status from dbos.workflow_status")
    )


async def test_a_schedule_that_was_switched_off_ticks_no_more_and_forgets_the_time_between(engine: Engine) -> None:
    await set_schedule(engine, on=False)
    await set_clock(engine, NOON_MS)
    await set_schedule(engine, on=True)
    await set_schedule(engine, on=False)
    await set_clock(engine, NOON_MS + 600_000)
    async with working(engine):
        await set_schedule(engine, on=True)
        await until(lambda: has_begun_anew(engine))
        await set_clock(engine, NOON_MS + 630_000)
        await until(lambda: have_ticked(engine, 1))
    assert await ticks(engine) == ["12:10:30"]


async def has_begun_anew(engine: Engine) -> bool:
    [row] = await rows(engine, "select last_fired_at from dbos.workflow_schedules")
    return row["last_fired_at"] is not None
