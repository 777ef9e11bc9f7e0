"""The command `dbos` on a database of ours."""

import asyncio

import pytest

from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL, doubled


@pytest.fixture
async def scene(shop: Workshop, dbos: Dbos) -> None:
    """One that has ended, one that waits, one that is queued for nobody."""
    await shop.worker(*ALL)
    await dbos.enqueue("tour", 2, workflow_id="done")
    await dbos.send("done", "yes", "answer")
    await dbos.result("done")
    await dbos.enqueue("receive", "go", workflow_id="waits")
    await dbos.enqueue("add", 1, workflow_id="queued", queue_name="nobody's", app_version="v2")
    await shop.parked("waits")
    doubled.clear()


@pytest.mark.usefixtures("scene")
async def test_workflows_their_steps_and_the_queue_are_shown(dbos: Dbos) -> None:
    everything, filtered, one, steps, queued, at_work = await asyncio.gather(
        dbos.workflow("list"),
        dbos.workflow("list", "--name", "add", "--status", "ENQUEUED", "--application-version", "v2", "--limit", "1"),
        dbos.workflow("get", "done"),
        dbos.workflow("steps", "done"),
        dbos.workflow("queue", "list"),
        dbos.workflow("queue", "list", "--queue-name", "default", "--status", "PENDING"),
    )
    assert [row["workflow_id"] for row in everything] == ["done", "done-5", "waits", "queued"]
    assert [row["workflow_id"] for row in filtered] == ["queued"]
    assert (one["status"], one["input"]["args"], one["output"]) == ("SUCCESS", [2], {"sum": 5, "answer": "yes"})
    assert [(row["function_id"], row["function_name"]) for row in steps][:2] == [(1, "double"), (2, "DBOS.setEvent")]
    assert [row["workflow_id"] for row in queued] == ["waits", "queued"]
    assert [row["workflow_id"] for row in at_work] == ["waits"]


@pytest.mark.usefixtures("scene")
async def test_workflows_are_cancelled_resumed_and_forked(shop: Workshop, dbos: Dbos) -> None:
    await asyncio.gather(dbos.workflow("cancel", "waits"), dbos.workflow("cancel", "queued"))
    assert [await shop.status(id) for id in ("waits", "queued")] == ["CANCELLED", "CANCELLED"]
    _, forked = await asyncio.gather(
        dbos.workflow("resume", "waits"),
        dbos.workflow("fork", "done", "--step", "2", "--forked-workflow-id", "copy"),
    )
    assert (forked["workflow_id"], forked["forked_from"]) == ("copy", "done")
    await shop.parked("waits", "copy")
    await shop.engine.send("waits", "after all", "go")
    await shop.engine.send("copy", "second", "answer")
    assert await shop.result("waits") == "after all"
    assert await shop.result("copy") == {"sum": 5, "answer": "second"}
    assert doubled == []


async def test_a_workflow_that_is_not_there_is_an_error(dbos: Dbos) -> None:
    with pytest.raises(ForeignError, match="Non-existent target workflow ID: nobody"):
        await dbos.workflow("get", "nobody")


async def test_renaming_the_application_touches_no_run(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("receive", "go", workflow_id="w")
    await shop.parked("w")
    await dbos.command("rename-application", "--yes", "--to", "shop", "--adopt-unclaimed-rows")
    assert (await dbos.call("get_status", "w"))["application_name"] == "shop"
    await dbos.send("w", 1, "go")
    assert await dbos.result("w") == 1
