"""Each interval of a schedule starts one workflow: not two, with however many workers, and not none, after however long a pause."""

import asyncio
import base64
import pickle
from datetime import UTC, datetime
from typing import Any, LiteralString

import pytest
from structlog.testing import capture_logs

from engine import WorkflowFailed, schedules, workflow
from tests.engine.workshop import NOON_MS, Workshop

FOREIGN: LiteralString = """
insert into dbos.workflow_schedules (schedule_name, workflow_name, schedule, context, last_fired_at, automatic_backfill, queue_name)
values (%s, 'tick', %s, %s, '2026-01-01T12:00:00+00:00', true, 'default')
"""


@workflow(name="tick")
async def tick(at: datetime, context: Any) -> list[Any]:
    return [at.isoformat(), context]


async def started(shop: Workshop) -> list[str]:
    """The times that have been started, oldest first."""
    rows = await shop.rows("select inputs from dbos.workflow_status order by inputs")
    return [row["inputs"].split('"')[3] for row in rows]


async def fire(shop: Workshop) -> None:
    async with await shop.connect() as conn:
        await schedules.fire(conn, lambda: None)


@pytest.fixture(autouse=True)
async def noon(shop: Workshop) -> None:
    await shop.set_clock()


async def test_a_worker_starts_the_workflow_with_its_time_and_context(shop: Workshop) -> None:
    await shop.engine.schedule("every minute", tick, "* * * * *", context={"n": 1})
    await shop.worker(tick)
    await shop.pass_time(60)
    id = "sched-every minute-2026-01-01T12:01:00+00:00"
    await shop.until(lambda: shop.status(id), "it is started")
    assert await shop.result(id) == ["2026-01-01T12:01:00+00:00", {"n": 1}]
    assert (await shop.row(id))["schedule_name"] == "every minute"


async def test_nothing_is_started_before_its_time(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "* * * * *")
    await fire(shop)
    await shop.pass_time(59.999)
    await fire(shop)
    assert await started(shop) == []
    await shop.pass_time(0.001)
    await fire(shop)
    assert await started(shop) == ["2026-01-01T12:01:00+00:00"]


async def test_an_interval_is_started_once_by_many_workers(shop: Workshop) -> None:
    for n in range(5):
        await shop.engine.schedule(f"s{n}", tick, "*/5 * * * *")
    await shop.pass_time(1800)
    await asyncio.gather(*(fire(shop) for _ in range(4)))
    await fire(shop)
    times = [f"2026-01-01T12:{minute:02}:00+00:00" for minute in range(5, 31, 5)]
    assert await started(shop) == sorted(times * 5)


async def test_an_interval_is_started_once_even_if_both_have_seen_that_it_is_due(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "* * * * *")
    await shop.pass_time(60)
    async with await shop.connect() as first, await shop.connect() as second:
        async with first.transaction():
            await schedules.fire(first, lambda: None)
            await schedules.fire(second, lambda: None)  # passes over what the first holds
        await schedules.fire(second, lambda: None)
    assert await started(shop) == ["2026-01-01T12:01:00+00:00"]


async def test_a_firing_that_is_undone_happens_later(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "* * * * *")
    await shop.pass_time(60)
    async with await shop.connect() as conn:
        async with conn.transaction(force_rollback=True):
            await schedules.fire(conn, lambda: None)
    assert await started(shop) == []
    await fire(shop)
    assert await started(shop) == ["2026-01-01T12:01:00+00:00"]


async def test_after_a_pause_every_missed_interval_is_started_with_backfill(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "0 * * * *", backfill=True)
    await shop.pass_time(4 * 3600 + 5)
    await fire(shop)
    await fire(shop)
    assert await started(shop) == [f"2026-01-01T{hour}:00:00+00:00" for hour in (13, 14, 15, 16)]


async def test_a_long_pause_is_caught_up_with_in_several_passes(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "* * * * *", backfill=True)
    await shop.pass_time(60 * (schedules.CATCH_UP + 10))
    await fire(shop)
    assert len(await started(shop)) == schedules.CATCH_UP
    await fire(shop)
    await fire(shop)
    assert len(set(await started(shop))) == len(await started(shop)) == schedules.CATCH_UP + 10


@pytest.mark.parametrize("minutes", [4, 1500, 5000])
async def test_after_a_pause_only_the_latest_interval_is_started_without_backfill(shop: Workshop, minutes: int) -> None:
    await shop.engine.schedule("s", tick, "* * * * *", backfill=False)
    await shop.pass_time(60 * minutes + 5)
    for _ in range(3):
        await fire(shop)
    latest = datetime.fromtimestamp(NOON_MS / 1000 + 60 * minutes, UTC)
    assert await started(shop) == [latest.isoformat()]


async def test_a_schedule_keeps_to_its_time_zone_and_its_summer(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "0 9 * * *", timezone="Europe/Berlin")
    await shop.pass_time(86_400)
    await fire(shop)
    await shop.set_clock(NOON_MS + 180 * 86_400_000)  # the end of June
    await shop.run("update dbos.workflow_schedules set last_fired_at = '2026-06-29T12:00:00+00:00'")
    await fire(shop)
    assert await started(shop) == ["2026-01-02T08:00:00+00:00", "2026-06-30T07:00:00+00:00"]


@pytest.mark.parametrize("cron", ["", "every minute", "61 * * * *", "* * *", "* * * * * * * *"])
async def test_a_bad_line_is_refused_with_a_sentence(shop: Workshop, cron: str) -> None:
    with pytest.raises(ValueError, match="is not a cron line; write five fields such as"):
        await shop.engine.schedule("s", tick, cron)
    assert await shop.value("select count(*) from dbos.workflow_schedules") == 0


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", ""])
async def test_a_bad_time_zone_is_refused_with_a_sentence(shop: Workshop, zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await shop.engine.schedule("s", tick, "* * * * *", timezone=zone)
    assert await shop.value("select count(*) from dbos.workflow_schedules") == 0


async def test_changing_a_schedule_does_not_start_its_past(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "0 0 1 1 *")
    await shop.pass_time(3600)
    await shop.engine.schedule("s", tick, "0 * * * *", context=2)
    await fire(shop)
    assert await started(shop) in ([], ["2026-01-01T13:00:00+00:00"])
    await shop.pass_time(3600)
    await fire(shop)
    assert "2026-01-01T14:00:00+00:00" in await started(shop)


async def test_a_paused_schedule_starts_nothing(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "* * * * *")
    await shop.run("update dbos.workflow_schedules set status = 'PAUSED'")
    await shop.pass_time(600)
    await fire(shop)
    assert await started(shop) == []


async def test_six_fields_begin_with_seconds(shop: Workshop) -> None:
    await shop.engine.schedule("s", tick, "*/20 * * * * *")
    await shop.pass_time(60)
    await fire(shop)
    assert await started(shop) == [f"2026-01-01T12:{moment}+00:00" for moment in ("00:20", "00:40", "01:00")]


@pytest.mark.parametrize("context", ["gASVCAAAAAAAAAB9lC4=", "{"], ids=["pickled", "broken"])
async def test_a_context_that_cannot_be_read_ends_each_run_with_a_typed_error(shop: Workshop, context: str) -> None:
    await shop.run(FOREIGN, "s", "* * * * *", context)
    await shop.worker(tick)
    await shop.pass_time(60)
    id = "sched-s-2026-01-01T12:01:00+00:00"
    await shop.until(lambda: shop.status(id), "it is started")
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result(id)
    assert failed.value.name == "UnreadablePayload"


async def test_no_context_of_a_client_that_pickles_is_none(shop: Workshop) -> None:
    await shop.run(FOREIGN, "s", "* * * * *", base64.b64encode(pickle.dumps(None)).decode())
    await shop.worker(tick)
    await shop.pass_time(60)
    id = "sched-s-2026-01-01T12:01:00+00:00"
    await shop.until(lambda: shop.status(id), "it is started")
    assert await shop.result(id) == ["2026-01-01T12:01:00+00:00", None]


@pytest.mark.parametrize("cron", ["nonsense", "0 0 31 2 *"], ids=["bad line", "a day that never comes"])
async def test_a_schedule_that_cannot_be_read_holds_up_no_other(shop: Workshop, cron: str) -> None:
    await shop.run(FOREIGN, "bad", cron, "null")
    for n in range(5):  # the order in which they are looked at is not ours
        await shop.engine.schedule(f"good {n}", tick, "* * * * *")
    await shop.pass_time(60)
    with capture_logs() as logs:
        await fire(shop)
    assert len(await shop.rows("select 1 from dbos.workflow_status where starts_with(schedule_name, 'good')")) == 5
    assert [entry["schedule"] for entry in logs if entry["log_level"] == "error"] == ["bad"]
