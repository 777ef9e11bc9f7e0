"""DBOS's client starts workflows, and our workers run them as it said."""

from typing import Any

import pytest

from engine import Engine, workflow
from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL, add


@pytest.mark.parametrize(
    ("args", "result"),
    [([1, 2], 3), ([1], 11)],
)
async def test_arguments_reach_the_workflow_and_its_result_comes_back(
    shop: Workshop, dbos: Dbos, args: list[int], result: int
) -> None:
    await shop.worker(*ALL)
    id = await dbos.enqueue("add", *args)
    assert await dbos.result(id) == result
    assert await shop.engine.result(id) == result


async def test_values_of_every_kind_survive_the_way_there_and_back(shop: Workshop, dbos: Dbos) -> None:
    values: list[Any] = ["ü – 漢字 🙂", -1.5, 2**40, True, None, {"a": [{}, []]}, "", '\\ " \n']
    await shop.worker(*ALL)
    named = {"workflow_name": "echo", "queue_name": "default", "serialization_type": "portable"}
    id = (await dbos.call("enqueue", named, *values, x={"y": None}))["workflow_id"]
    assert await dbos.result(id) == [values, {"x": {"y": None}}]
    status = await dbos.call("get_status", id)
    assert (status["input"], status["output"]) == ({"args": values, "kwargs": {"x": {"y": None}}}, [values, {"x": {"y": None}}])


async def test_a_client_that_is_set_to_portable_json_needs_no_option(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    named = {"workflow_name": "receive", "queue_name": "default", "workflow_id": "w"}
    await dbos.call("enqueue", named, "go", client={"portable": True})
    await dbos.call("send", "w", "hello", "go", client={"portable": True})
    assert await dbos.result("w") == "hello"


async def test_a_pickled_argument_is_never_loaded_and_ends_the_run_with_a_typed_error(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    id = await dbos.enqueue("add", 1, serialization_type=None)
    with pytest.raises(ForeignError) as failed:
        await dbos.result(id)
    assert (failed.value.type, failed.value.name) == ("PortableWorkflowError", "UnreadablePayload")
    assert failed.value.message == "a payload is stored as py_pickle; send and enqueue with portable_json"


async def test_an_id_is_one_workflow(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    for n in (1, 2):
        assert await dbos.enqueue("add", n, workflow_id="w") == "w"
    assert await dbos.result("w") == 11
    with pytest.raises(ForeignError, match="DBOSConflictingWorkflowError"):
        await dbos.enqueue("echo", workflow_id="w")
    with pytest.raises(ForeignError, match="DBOSWorkflowIDInUseError"):
        await dbos.enqueue("add", 1, workflow_id="w", workflow_id_reuse_policy="reject")
    await shop.engine.enqueue(add, 5, id="ours")
    assert await dbos.enqueue("add", 6, workflow_id="ours") == "ours"
    assert await dbos.result("ours") == 15


@pytest.mark.parametrize("id", ["a\x1fb", "a\nb", "a\x7f"])
async def test_an_id_with_a_control_character_is_refused_and_nothing_is_written(shop: Workshop, dbos: Dbos, id: str) -> None:
    with pytest.raises(ForeignError, match="workflow_ids_hold_no_control_characters"):
        await dbos.enqueue("add", 1, workflow_id=id)
    assert await dbos.listed() == []


async def test_a_deduplication_id_is_held_until_the_end(shop: Workshop, dbos: Dbos) -> None:
    held = await dbos.enqueue("add", 1, deduplication_id="d")
    with pytest.raises(ForeignError, match="DBOSQueueDeduplicatedError"):
        await dbos.enqueue("add", 2, deduplication_id="d")
    again = await dbos.enqueue("add", 3, deduplication_id="d", duplication_policy="return-existing")
    assert again == held
    await shop.worker(*ALL)
    assert await dbos.result(held) == 11
    later = await dbos.enqueue("add", 4, deduplication_id="d")
    assert await dbos.result(later) == 14


async def test_lower_priorities_start_first(shop: Workshop, dbos: Dbos) -> None:
    for priority in (5, 1, 3):
        await dbos.enqueue("add", priority, workflow_id=f"p{priority}", priority=priority)
    await shop.worker(*ALL, queues={"default": 1})
    await shop.ended("p1", "p3", "p5")
    started = {one["workflow_id"]: one["dequeued_at"] for one in await dbos.call("list_workflows")}
    assert sorted(started, key=lambda id: started[id]) == ["p1", "p3", "p5"]


async def test_what_else_an_enqueue_says_is_kept(shop: Workshop, dbos: Dbos) -> None:
    said: dict[str, Any] = {
        "queue_partition_key": "tenant",
        "authenticated_user": "ada",
        "authenticated_roles": ["admin"],
        "class_name": "Shop",
        "attributes": {"color": "blue"},
        "application_name": "shop",
    }
    await dbos.enqueue("add", 1, workflow_id="w", instance_name="i", **said)
    worker = await shop.worker(*ALL)
    assert await dbos.result("w") == 11
    status = await dbos.call("get_status", "w")
    assert {key: status[key] for key in said} == said
    assert status["config_name"] == "i"
    assert await dbos.listed(user="ada", executor_id=worker.id, application_name="shop") == ["w"]


async def test_only_workers_of_its_version_take_it(shop: Workshop, dbos: Dbos) -> None:
    await dbos.enqueue("add", 1, workflow_id="new", app_version="v2")
    await dbos.enqueue("add", 1, workflow_id="any")
    await shop.worker(*ALL, version="v1")
    assert await dbos.result("any") == 11
    assert await shop.status("new") == "ENQUEUED"
    await shop.worker(*ALL, version="v2")
    assert await dbos.result("new") == 11


async def test_a_delayed_start_waits_and_its_delay_can_be_changed(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("add", 1, workflow_id="w", delay_seconds=3600)
    await dbos.enqueue("add", 2, workflow_id="soon", delay_seconds=0.05)
    assert await dbos.result("soon") == 12
    assert (await dbos.call("get_status", "w"))["status"] == "DELAYED"
    await dbos.call("set_workflow_delay", "w", delay_seconds=0)
    assert await dbos.result("w") == 11


async def test_a_timeout_cancels(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    id = await dbos.enqueue("long", workflow_timeout=0.1)
    with pytest.raises(ForeignError, match="DBOSAwaitedWorkflowCancelledError"):
        await dbos.result(id)


@pytest.mark.parametrize("commit", [True, False])
async def test_a_start_and_a_message_are_part_of_a_transaction_of_the_caller(shop: Workshop, dbos: Dbos, commit: bool) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("receive", "go", workflow_id="r")
    await shop.parked("r")
    options = {"workflow_name": "add", "queue_name": "default", "serialization_type": "portable", "workflow_id": "w"}
    await dbos.call("in_transaction", dbos.url, options, "r", commit=commit)
    if commit:
        assert (await dbos.result("w"), await dbos.result("r")) == (11, "sent")
    else:
        assert (await shop.status("w"), await shop.engine.messages("r")) == (None, [])


async def test_debounced_starts_are_one_with_the_last_arguments(shop: Workshop, dbos: Dbos) -> None:
    options = {"workflow_name": "add", "queue_name": "default", "serialization_type": "portable"}
    ids = {
        (await dbos.call("debounce", options, "key", period_s, n))["workflow_id"] for n, period_s in ((1, 60), (2, 60), (3, 0.05))
    }
    assert len(ids) == 1
    await shop.worker(*ALL)
    assert await dbos.result(ids.pop()) == 13


async def test_the_asynchronous_calls_do_the_same(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    options = {"workflow_name": "receive", "queue_name": "default", "serialization_type": "portable", "workflow_id": "w"}
    assert (await dbos.call("enqueue_async", options, "go"))["workflow_id"] == "w"
    await dbos.call("send_async", "w", 1, "go", serialization_type="portable")
    assert await dbos.result("w") == 1
    assert [one["status"] for one in await dbos.call("list_workflows_async")] == ["SUCCESS"]


async def test_a_client_of_a_named_application_sees_our_workflows_and_its_own_run(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await shop.engine.enqueue(add, 1, id="ours")
    id = await dbos.enqueue("add", 2, client={"application_name": "shop"})
    assert await dbos.result(id) == 12
    listed = await dbos.call("list_workflows", client={"application_name": "shop"})
    assert {(one["workflow_id"], one["application_name"]) for one in listed} == {("ours", None), (id, "shop")}


async def test_our_own_client_finds_what_that_one_started(shop: Workshop, shop_database: str, dbos: Dbos) -> None:
    @workflow(name="greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    await shop.worker(greet)
    await dbos.enqueue("greet", "Ada", workflow_id="w")
    async with Engine.connect(shop_database, pool_size=1) as engine:
        handle = await engine.enqueue(greet, "Bob", id="w")
        assert (handle.fresh, await handle.result()) == (False, "hello Ada")
