"""What DBOS's client shows of workflows of ours."""

from typing import Any

import pytest

from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL, add, fail, parent, receive, tour


async def test_the_steps_of_a_workflow_are_listed_with_their_results(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await shop.engine.enqueue(tour, 2, id="w")
    await shop.engine.send("w", {"yes": True}, "answer")
    await shop.result("w")
    steps = await dbos.call("list_workflow_steps", "w")
    assert [(s["function_id"], s["function_name"], s["child_workflow_id"]) for s in steps] == [
        (1, "double", None),
        (2, "DBOS.setEvent", None),
        (3, "DBOS.writeStream", None),
        (4, "DBOS.sleep", None),
        (5, "add", "w-5"),
        (6, "DBOS.getResult", "w-5"),
        (7, "DBOS.writeStream", None),
        (8, "DBOS.closeStream", None),
        (9, "DBOS.recv", None),
        (10, "DBOS.setEvent", None),
    ]
    assert [steps[n]["output"] for n in (0, 5, 8)] == [4, 5, {"yes": True}]
    assert all(s["started_at_epoch_ms"] <= s["completed_at_epoch_ms"] for s in steps)
    page = await dbos.call("list_workflow_steps", "w", limit=2, offset=8, load_output=False)
    assert [(s["function_id"], s["output"]) for s in page] == [(9, None), (10, None)]
    assert await dbos.call("list_workflow_steps", "nobody") == []


async def test_a_failed_step_and_a_failed_workflow_show_their_error(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await shop.engine.enqueue(fail, id="w")
    with pytest.raises(ForeignError) as failed:
        await dbos.result("w")
    assert (failed.value.type, failed.value.name, failed.value.message) == (
        "PortableWorkflowError",
        "ValueError",
        "no, thank you",
    )
    (step,) = await dbos.call("list_workflow_steps", "w")
    assert (step["function_name"], step["output"], step["error"]["name"]) == ("refuse", None, "ValueError")
    status = await dbos.call("get_status", "w")
    assert (status["status"], status["error"]["message"]) == ("ERROR", "no, thank you")


async def test_one_that_kept_killing_its_workers_is_shown_as_such(shop: Workshop, dbos: Dbos) -> None:
    await dbos.enqueue("add", 1, workflow_id="w")
    await shop.run("update dbos.workflow_status set recovery_attempts = 1000")
    await shop.worker(*ALL)
    with pytest.raises(ForeignError, match="DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded"):
        await dbos.result("w")


async def test_a_workflow_that_is_not_there(shop: Workshop, dbos: Dbos) -> None:
    with pytest.raises(ForeignError, match="DBOSNonExistentWorkflowError"):
        await dbos.call("retrieve_workflow", "nobody")


async def test_the_first_of_several_to_end_is_told(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await shop.engine.enqueue(receive, "go", id="slow")
    await shop.engine.enqueue(add, 1, id="quick")
    assert (await dbos.call("wait_first", "slow", "quick"))["workflow_id"] == "quick"


@pytest.fixture
async def crowd(shop: Workshop) -> None:
    """An ended one, a failed one, a parked one with a parked child, and a queued one; their times of making are 1 to 5 seconds."""
    await shop.worker(*ALL, version="v1")
    await shop.engine.enqueue(add, 1, id="c-add", version="v1")
    await shop.engine.enqueue(fail, id="c-fail")
    await shop.ended("c-add", "c-fail")
    await shop.engine.enqueue(parent, "go", id="d-parent", partition="tenant")
    await shop.parked("d-parent", "d-parent-1")
    await shop.engine.enqueue(add, 2, id="e-queued", queue="other", attributes={"color": "blue"})
    for n, id in enumerate(("c-add", "c-fail", "d-parent", "d-parent-1", "e-queued"), start=1):
        await shop.run("update dbos.workflow_status set created_at = %s where workflow_uuid = %s", n * 1000, id)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["c-add", "c-fail", "d-parent", "d-parent-1", "e-queued"]),
        ({"sort_desc": True, "limit": 2}, ["e-queued", "d-parent-1"]),
        ({"limit": 2, "offset": 1}, ["c-fail", "d-parent"]),
        ({"workflow_ids": ["c-add", "e-queued", "nobody"]}, ["c-add", "e-queued"]),
        ({"workflow_id_prefix": "d-"}, ["d-parent", "d-parent-1"]),
        ({"status": "SUCCESS"}, ["c-add"]),
        ({"status": ["ERROR", "ENQUEUED"]}, ["c-fail", "e-queued"]),
        ({"name": "add"}, ["c-add", "e-queued"]),
        ({"name": ["fail", "parent"]}, ["c-fail", "d-parent"]),
        ({"queue_name": "other"}, ["e-queued"]),
        ({"app_version": "v1"}, ["c-add"]),
        ({"parent_workflow_id": "d-parent"}, ["d-parent-1"]),
        ({"has_parent": False, "name": "receive"}, []),
        ({"is_fork": True}, []),
        ({"start_time": "1970-01-01T00:00:02Z", "end_time": "1970-01-01T00:00:03.5Z"}, ["c-fail", "d-parent"]),
        ({"completed_before": "1970-01-02T00:00:00Z"}, []),
        ({"completed_after": "1970-01-02T00:00:00Z"}, ["c-add", "c-fail"]),
        ({"dequeued_after": "1970-01-02T00:00:00Z", "status": "PENDING"}, ["d-parent", "d-parent-1"]),
        ({"executor_id": "nobody"}, []),
        ({"attributes": {"color": "blue"}}, ["e-queued"]),
        ({"user": "ada"}, []),
        ({"queues_only": True}, ["d-parent", "d-parent-1", "e-queued"]),
    ],
)
@pytest.mark.usefixtures("crowd")
async def test_workflows_are_listed_by_what_they_are(dbos: Dbos, filters: dict[str, Any], ids: list[str]) -> None:
    assert await dbos.listed(**filters) == ids


@pytest.mark.usefixtures("crowd")
async def test_a_listing_can_leave_out_what_is_large(dbos: Dbos) -> None:
    (row,) = await dbos.call("list_workflows", workflow_ids=["c-add"])
    assert (row["input"], row["output"]) == ({"args": [1], "kwargs": {}}, 11)
    (row,) = await dbos.call("list_workflows", workflow_ids=["c-add"], load_input=False, load_output=False)
    assert (row["input"], row["output"]) == (None, None)


@pytest.mark.usefixtures("crowd")
async def test_what_is_queued_or_at_work_is_listed(dbos: Dbos) -> None:
    async def queued(**filters: Any) -> list[str]:
        return [one["workflow_id"] for one in await dbos.call("list_queued_workflows", **filters)]

    assert await queued() == ["d-parent", "d-parent-1", "e-queued"]
    assert await queued(status="ENQUEUED") == ["e-queued"]
    assert await queued(queue_name="default", limit=1) == ["d-parent"]
