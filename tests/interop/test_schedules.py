"""Schedules, application versions and queues as DBOS's client makes and lists them."""

from datetime import UTC, datetime
from typing import Any, LiteralString

import pytest

from engine import schedules
from tests.engine.workshop import NOON_MS, Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
PORTABLE = {"portable": True}
IDS: LiteralString = "select workflow_uuid from dbos.workflow_status where schedule_name = %s order by workflow_uuid"


async def create(dbos: Dbos, name: str, cron: str, *, client: dict[str, Any] | None = None, **options: Any) -> None:
    options = {"schedule_name": name, "workflow_name": "tick", "schedule": cron, **options}
    await dbos.call("create_schedule", client=client, **options)


async def fire(shop: Workshop) -> None:
    async with await shop.connect() as conn:
        await schedules.fire(conn, lambda: None)


async def started(shop: Workshop, name: str) -> list[str]:
    return [row["workflow_uuid"] for row in await shop.rows(IDS, name)]


@pytest.fixture
async def noon(shop: Workshop) -> None:
    await shop.set_clock()


@pytest.mark.usefixtures("noon")
@pytest.mark.parametrize(
    ("client", "options", "queue"),
    [
        ({}, {}, "_dbos_internal_queue"),
        ({}, {"queue_name": "default"}, "default"),
        (PORTABLE, {"context": {"n": 1}, "automatic_backfill": True}, "_dbos_internal_queue"),
    ],
)
async def test_a_schedule_of_that_client_starts_our_workflow(
    shop: Workshop, dbos: Dbos, client: dict[str, Any], options: dict[str, Any], queue: str
) -> None:
    await create(dbos, "s", "* * * * *", client=client, **options)
    await fire(shop)  # it counts from when a worker first sees it
    await shop.pass_time(60)
    await shop.worker(*ALL)
    id = "sched-s-2026-01-01T12:01:00+00:00"
    await shop.until(lambda: shop.status(id), "it is started")
    assert await dbos.result(id) == ["2026-01-01T12:01:00+00:00", options.get("context")]
    status = await dbos.call("get_status", id)
    assert (status["schedule_name"], status["queue_name"]) == ("s", queue)
    assert await dbos.listed(schedule_name="s") == [id]


@pytest.mark.usefixtures("noon")
async def test_a_pickled_context_is_never_loaded_and_ends_each_run_with_a_typed_error(shop: Workshop, dbos: Dbos) -> None:
    await create(dbos, "s", "* * * * *", context={"n": 1})
    await fire(shop)
    await shop.pass_time(60)
    await shop.worker(*ALL)
    id = "sched-s-2026-01-01T12:01:00+00:00"
    await shop.until(lambda: shop.status(id), "it is started")
    with pytest.raises(ForeignError) as failed:
        await dbos.result(id)
    assert failed.value.name == "UnreadablePayload"


@pytest.mark.usefixtures("noon")
async def test_six_fields_begin_with_seconds(shop: Workshop, dbos: Dbos) -> None:
    await create(dbos, "s", "*/20 * * * * *", automatic_backfill=True)
    await fire(shop)
    await shop.pass_time(60)
    await fire(shop)
    assert await started(shop, "s") == [
        f"sched-s-2026-01-01T12:{moment}+00:00" for moment in ("00:20", "00:40", "01:00")
    ]  # fmt: skip


@pytest.mark.usefixtures("noon")
async def test_a_paused_schedule_starts_nothing_until_it_is_resumed(shop: Workshop, dbos: Dbos) -> None:
    await create(dbos, "s", "* * * * *")
    await fire(shop)
    await dbos.call("pause_schedule", "s")
    await shop.pass_time(60)
    await fire(shop)
    assert await started(shop, "s") == []
    await dbos.call("resume_schedule", "s")
    await fire(shop)
    assert await started(shop, "s") == ["sched-s-2026-01-01T12:01:00+00:00"]


async def test_schedules_are_listed_changed_and_deleted(shop: Workshop, dbos: Dbos) -> None:
    await create(dbos, "ours", "* * * * *")
    with pytest.raises(ForeignError, match="already exists"):
        await create(dbos, "ours", "* * * * *")
    wanted = [{"schedule_name": name, "workflow_name": "tick", "schedule": "0 3 * * *"} for name in ("ours", "other")]
    await dbos.call("apply_schedules", wanted)
    await shop.engine.schedule("engine's", "tick", "0 4 * * *", context={"n": 1})
    listed = await dbos.call("list_schedules", client=PORTABLE)
    assert sorted((one["schedule_name"], one["schedule"]) for one in listed) == [
        ("engine's", "0 4 * * *"), ("other", "0 3 * * *"), ("ours", "0 3 * * *"),
    ]  # fmt: skip
    assert (await dbos.call("get_schedule", "engine's", client=PORTABLE))["context"] == {"n": 1}
    await dbos.call("delete_schedule", "other")
    assert await dbos.call("get_schedule", "other") is None


async def test_a_schedule_is_triggered_and_filled_in_by_a_portable_client(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL, version="v1")
    await shop.until(lambda: shop.value("select 1 from dbos.application_versions"), "the worker is there")
    await create(dbos, "s", "0 3 1 1 *", client=PORTABLE, context="north")
    id = (await dbos.call("trigger_schedule", "s", client=PORTABLE))["workflow_id"]
    assert (await dbos.result(id))[1] == "north"
    window = ("2024-12-31T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    made = await dbos.call("backfill_schedule", "s", *window, client=PORTABLE)
    ids = [one["workflow_id"] for one in made]
    assert ids == ["sched-s-2025-01-01T03:00:00+00:00", "sched-s-2026-01-01T03:00:00+00:00"]
    assert [await dbos.result(id) for id in ids] == [[f"{year}-01-01T03:00:00+00:00", "north"] for year in (2025, 2026)]


async def test_a_schedule_that_a_pickling_client_triggers_ends_with_a_typed_error(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL, version="v1")
    await shop.until(lambda: shop.value("select 1 from dbos.application_versions"), "the worker is there")
    await create(dbos, "s", "0 3 1 1 *")
    id = (await dbos.call("trigger_schedule", "s"))["workflow_id"]
    with pytest.raises(ForeignError) as failed:
        await dbos.result(id)
    assert failed.value.name == "UnreadablePayload"


@pytest.mark.usefixtures("noon")
async def test_filling_in_starts_nothing_that_was_started_in_its_time_zone(shop: Workshop, dbos: Dbos) -> None:
    await shop.run("insert into dbos.application_versions (version_name) values ('v1') on conflict do nothing")
    await create(dbos, "s", "0 14 * * *", client=PORTABLE, cron_timezone="Europe/Berlin")
    await fire(shop)
    await shop.pass_time(3600)
    await fire(shop)
    window = (NOON.isoformat(), NOON.replace(hour=18).isoformat())
    made = await dbos.call("backfill_schedule", "s", *window, client=PORTABLE)
    assert await started(shop, "s") == [one["workflow_id"] for one in made] == ["sched-s-2026-01-01T14:00:00+01:00"]


async def test_the_versions_of_our_workers_are_listed_and_one_can_be_made_the_latest(shop: Workshop, dbos: Dbos) -> None:
    await shop.run("delete from dbos.application_versions")
    with pytest.raises(ForeignError, match="No application versions found"):
        await dbos.call("get_latest_application_version")
    for version in ("v1", "v2", "v2", None):
        await shop.worker(*ALL, version=version)
        await shop.stop_all()
    assert sorted(one["version_name"] for one in await dbos.call("list_application_versions")) == ["v1", "v2"]
    await shop.run("update dbos.application_versions set version_timestamp = 0")
    await dbos.call("set_latest_application_version", "v1")
    assert (await dbos.call("get_latest_application_version"))["version_name"] == "v1"


async def test_the_limits_that_client_gives_a_queue_hold_for_our_workers(shop: Workshop, dbos: Dbos) -> None:
    await dbos.call("register_queue", "default", global_concurrency=1, worker_concurrency=1)
    assert [one["name"] for one in await dbos.call("list_queues")] == ["default"]
    assert (await dbos.call("retrieve_queue", "default"))["name"] == "default"
    await shop.worker(*ALL)
    for id in ("a", "b"):
        await dbos.enqueue("long", workflow_id=id)
    assert await dbos.call("get_event", "a", "at", 10) == "work"
    assert await shop.status("b") == "ENQUEUED"
    await dbos.call("delete_queue", "default")
    assert await dbos.call("list_queues") == []
    assert await dbos.call("get_event", "b", "at", 10) == "work", "nothing holds it back any more"
