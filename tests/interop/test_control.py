"""What operators do with DBOS's client to workflows of ours: cancel, resume, fork, rewind, delete."""

from typing import Any

import pytest
from psycopg import sql

from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL, doubled


async def ready(shop: Workshop, dbos: Dbos, *ids: str, workflow: str = "receive") -> None:
    """Workflows that wait for a message."""
    await shop.worker(*ALL)
    for id in ids:
        await dbos.enqueue(workflow, "go", workflow_id=id)
    await shop.parked(*ids)


async def test_cancel_ends_queued_parked_and_running_ones(shop: Workshop, dbos: Dbos) -> None:
    worker = await shop.worker(*ALL)
    await dbos.enqueue("receive", workflow_id="parked")
    await dbos.enqueue("add", 1, workflow_id="queued", queue_name="nobody's")
    await dbos.enqueue("long", workflow_id="running")
    await shop.parked("parked")
    assert await dbos.call("get_event", "running", "at", 10) == "work"
    await dbos.call("cancel_workflow", "parked")
    await dbos.call("cancel_workflows", ["queued", "running"])
    assert await shop.ended("parked", "queued", "running") == ["CANCELLED"] * 3
    await shop.until(lambda: _none(worker.running), "the running one is gone from the worker")
    with pytest.raises(ForeignError, match="DBOSAwaitedWorkflowCancelledError"):
        await dbos.result("running")


async def _none(running: object) -> bool:
    return not running


async def test_cancel_takes_children_along_only_if_told_to(shop: Workshop, dbos: Dbos) -> None:
    await ready(shop, dbos, "one", "all", workflow="parent")
    await shop.parked("one-1", "all-1")
    await dbos.call("cancel_workflow", "one")
    await dbos.call("cancel_workflow", "all", cancel_children=True)
    assert [await shop.status(id) for id in ("one", "one-1", "all", "all-1")] == [
        "CANCELLED",
        "PENDING",
        "CANCELLED",
        "CANCELLED",
    ]


async def test_a_cancelled_child_fails_its_parent(shop: Workshop, dbos: Dbos) -> None:
    await ready(shop, dbos, "p", workflow="parent")
    await shop.parked("p-1")
    await dbos.call("cancel_workflow", "p-1")
    with pytest.raises(ForeignError) as failed:
        await dbos.result("p")
    assert (failed.value.type, failed.value.name) == ("PortableWorkflowError", "Cancelled")


async def test_resume_lets_cancelled_and_parked_ones_go_on(shop: Workshop, dbos: Dbos) -> None:
    await ready(shop, dbos, "a", "b", "c")
    await dbos.call("cancel_workflows", ["a", "b"])
    assert (await dbos.call("resume_workflow", "a"))["workflow_id"] == "a"
    assert [one["workflow_id"] for one in await dbos.call("resume_workflows", ["b", "c"])] == ["b", "c"]
    await shop.until(
        lambda: shop.value("select count(*) = 3 from dbos.workflow_status where claims = 2"), "all were claimed again"
    )
    for id in ("a", "b", "c"):
        await dbos.send(id, id, "go")
        assert await dbos.result(id) == id


async def test_resume_to_a_queue_and_of_what_is_not_there(shop: Workshop, dbos: Dbos) -> None:
    await dbos.enqueue("add", 1, workflow_id="w", queue_name="nobody's")
    await shop.worker(*ALL)
    await dbos.call("resume_workflow", "w", queue_name="default")
    assert await dbos.result("w") == 11
    await dbos.call("resume_workflow", "w")
    assert await shop.status("w") == "SUCCESS", "what has ended well stays so"
    with pytest.raises(ForeignError, match="DBOSNonExistentWorkflowError"):
        await dbos.call("resume_workflow", "nobody")


async def toured(shop: Workshop, dbos: Dbos) -> None:
    """A workflow `w` that has a record of each kind, and has ended."""
    await shop.worker(*ALL)
    await dbos.enqueue("tour", 2, workflow_id="w")
    await dbos.send("w", "first", "answer")
    assert await dbos.result("w") == {"sum": 5, "answer": "first"}
    assert [step["function_name"] for step in await dbos.call("list_workflow_steps", "w")] == [
        "double", "DBOS.setEvent", "DBOS.writeStream", "DBOS.sleep", "add", "DBOS.getResult", "DBOS.writeStream", "DBOS.closeStream",
        "DBOS.recv", "DBOS.setEvent",
    ]  # fmt: skip
    doubled.clear()


@pytest.mark.parametrize(("start_step", "called", "progress"), [(1, [2], None), (2, [], None), (9, [], {"twice": 4})])
async def test_a_fork_repeats_nothing_before_its_step(
    shop: Workshop, dbos: Dbos, start_step: int, called: list[int], progress: object
) -> None:
    await toured(shop, dbos)
    await shop.stop_all()
    assert (await dbos.call("fork_workflow", "w", start_step, new_id="copy"))["workflow_id"] == "copy"
    assert await dbos.call("get_event", "copy", "progress", 0) == progress, "only what was set before the step is copied"
    await shop.worker(*ALL)
    await shop.parked("copy")
    await dbos.send("copy", "second", "answer")
    assert await dbos.result("copy") == {"sum": 5, "answer": "second"}
    assert doubled == called
    assert (await dbos.result("w"))["answer"] == "first"
    assert await dbos.call("read_stream", "copy", "log") == ["first", {"sum": 5}]
    assert [await dbos.listed(forked_from="w"), await dbos.listed(was_forked_from=True)] == [["copy"], ["w"]]


async def test_a_fork_behind_the_last_step_only_gives_the_result_again(shop: Workshop, dbos: Dbos) -> None:
    await toured(shop, dbos)
    copy = (await dbos.call("fork_workflow", "w", 11))["workflow_id"]
    assert await dbos.result(copy) == {"sum": 5, "answer": "first"}
    assert doubled == []


async def test_a_fork_goes_to_the_queue_and_version_that_it_names(shop: Workshop, dbos: Dbos) -> None:
    await toured(shop, dbos)
    options: dict[str, Any] = {
        "queue_name": "default",
        "application_version": "v2",
        "queue_partition_key": "tenant",
        "timeout_seconds": 60,
    }
    await dbos.call("fork_workflow", "w", 11, new_id="copy", **options)
    assert await shop.status("copy") == "ENQUEUED"
    await shop.worker(*ALL, version="v2")
    assert (await dbos.result("copy"))["answer"] == "first"
    status = await dbos.call("get_status", "copy")
    assert (status["queue_name"], status["app_version"], status["queue_partition_key"]) == ("default", "v2", "tenant")
    assert status["workflow_deadline_epoch_ms"] - status["dequeued_at"] == 60_000


async def test_a_fork_can_take_another_childs_result(shop: Workshop, dbos: Dbos) -> None:
    await toured(shop, dbos)
    await dbos.enqueue("add", 100, workflow_id="other")
    await dbos.result("other")
    await dbos.call("fork_workflow", "w", 6, new_id="copy", replacement_children={"w-5": "other"})
    await shop.parked("copy")
    await dbos.send("copy", None, "answer")
    assert (await dbos.result("copy"))["sum"] == 110


@pytest.mark.parametrize(("start_step", "called"), [(None, [2]), (9, [])])
async def test_rewind_runs_an_ended_one_again_from_a_step(
    shop: Workshop, dbos: Dbos, start_step: int | None, called: list[int]
) -> None:
    await toured(shop, dbos)
    await dbos.call("rewind_workflow", "w", start_step=start_step)
    await shop.parked("w")
    await dbos.send("w", "second", "answer")
    assert await dbos.result("w") == {"sum": 5, "answer": "second"}
    assert doubled == called
    await dbos.enqueue("receive", workflow_id="waiting")
    with pytest.raises(ForeignError, match="only a workflow in a terminal state can be rewound"):
        await dbos.call("rewind_workflow", "waiting")


async def test_delete_leaves_nothing_of_a_workflow(shop: Workshop, dbos: Dbos) -> None:
    await toured(shop, dbos)
    await dbos.enqueue("receive", workflow_id="parked")
    await shop.parked("parked")
    await dbos.call("delete_workflow", "w", delete_children=True)
    await dbos.call("delete_workflows", ["parked"])
    for table in ("workflow_status", "workflow_input", "operation_outputs", "notifications", "workflow_events", "streams"):
        async with await shop.connect() as conn:
            query = sql.SQL("select count(*) from dbos.{}").format(sql.Identifier(table))
            assert await (await conn.execute(query)).fetchone() == (0,), table
    await dbos.enqueue("add", 1, workflow_id="parked")
    assert await dbos.result("parked") == 11, "the id can be used again"


async def test_attributes_are_replaced_merged_and_searched_for(shop: Workshop, dbos: Dbos) -> None:
    await ready(shop, dbos, "a", "b")
    await dbos.call("update_workflow_attributes", "a", {"color": "red", "size": 1})
    await dbos.call("update_workflow_attributes", "a", {"color": "blue"}, merge=True)
    assert await dbos.listed(attributes={"color": "blue", "size": 1}) == ["a"]
    await dbos.call("update_workflow_attributes", "a", None)
    assert await dbos.listed(attributes={"color": "blue"}) == []
