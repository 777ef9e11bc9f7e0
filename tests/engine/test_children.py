"""A child is started exactly once, goes on by itself, and its end comes back to whoever started it."""

from typing import Any

import pytest

from engine import InvalidName, MisplacedCall, TerminalError, WorkflowFailed, gather, recv, start, step, workflow, workflow_info
from tests.engine.workshop import NOON_MS, Brake, Trace, Workshop


@workflow(name="child")
async def child(n: int) -> int:
    return n * 10


@workflow(name="waiting child")
async def waiting_child() -> Any:
    return await recv("go")


@workflow(name="failing child")
async def failing_child() -> None:
    raise TerminalError("no luck", name="UNLUCKY", data={"n": 1})


async def test_calling_a_workflow_inside_a_workflow_runs_it_as_a_child(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> int:
        return await child(1) + await child(2)

    await shop.worker(parent, child)
    await shop.engine.enqueue(parent, id="p")
    assert await shop.result("p") == 30
    steps = await shop.engine.steps("p")
    assert [(s.path, s.name, s.child_id, s.output) for s in steps] == [
        ("1", "child", "p-1", None),
        ("2", "DBOS.getResult", "p-1", 10),
        ("3", "child", "p-3", None),
        ("4", "DBOS.getResult", "p-3", 20),
    ]
    assert [(await shop.row(id))["parent_workflow_id"] for id in ("p-1", "p-3")] == ["p", "p"]


async def test_start_returns_at_once_and_the_result_comes_later(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> list[Any]:
        handles = [await start(waiting_child), await start(child, 4), await start(child, 5, id="mine")]
        return [[h.id for h in handles], await handles[2].result(), await handles[1].result(), await handles[0].result()]

    await shop.worker(parent, child, waiting_child)
    await shop.engine.enqueue(parent, id="p")
    await shop.ended("mine", "p-2")
    await shop.parked("p-1", "p")
    await shop.engine.send("p-1", "late", "go")
    assert await shop.result("p") == [["p-1", "p-2", "mine"], 50, 40, "late"]


async def test_the_parent_is_parked_while_it_waits_for_a_child(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> Any:
        return await waiting_child()

    worker = await shop.worker(parent, waiting_child, slots=1)
    await shop.engine.enqueue(parent, id="p")
    await shop.parked("p", "p-1")
    assert (await shop.row("p"))["waits"] == ["c:p-1"]
    assert not worker.running
    await shop.engine.send("p-1", 7, "go")
    assert await shop.result("p") == 7


async def test_a_child_that_ended_before_it_was_asked_for_is_not_waited_for(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> int:
        handle = await start(child, 3)
        await recv("go")
        return await handle.result()

    await shop.worker(parent, child)
    await shop.engine.enqueue(parent, id="p")
    await shop.ended("p-1")
    await shop.engine.send("p", None, "go")
    assert await shop.result("p") == 30


@pytest.mark.parametrize("after", [False, True])
async def test_a_child_is_started_once_whatever_crashes(shop: Workshop, trace: Trace, after: bool) -> None:
    @step
    async def note(n: int) -> int:
        trace(n)
        return n

    @workflow(name="noting child")
    async def noting(n: int) -> int:
        return await note(n)

    @workflow(name="parent")
    async def parent() -> int:
        return await (await start(noting, 5)).result()

    first = await shop.worker(parent)
    brake = Brake(first, 1, after=after)
    await shop.engine.enqueue(parent, id="p")
    await brake.reached.wait()
    assert await shop.status("p-1") == ("ENQUEUED" if after else None)
    await shop.crash(first)
    await shop.worker(parent, noting)
    assert await shop.result("p") == 5
    assert trace.calls == [5]
    assert await shop.value("select count(*) from dbos.workflow_status") == 2


async def test_an_id_that_exists_is_attached_to(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> int:
        return await (await start(child, 999, id="shared")).result()

    await shop.worker(parent, child)
    await shop.engine.enqueue(child, 1, id="shared")
    await shop.result("shared")
    await shop.engine.enqueue(parent, id="p")
    assert await shop.result("p") == 10
    assert (await shop.row("shared"))["parent_workflow_id"] is None


async def test_a_childs_failure_is_raised_alike_on_the_first_run_and_on_replay(shop: Workshop) -> None:
    seen: list[Any] = []

    @workflow(name="parent")
    async def parent() -> None:
        try:
            await failing_child()
        except WorkflowFailed as failed:
            seen.append((failed.workflow_id, failed.name, failed.message, failed.data))
        await child(1)

    await shop.worker(parent, child, failing_child)
    handle = await shop.engine.enqueue(parent, id="p")
    await handle.result(10)
    await shop.engine.rewind("p", 3)
    await handle.result(10)
    assert set(map(str, seen)) == {"('p-1', 'UNLUCKY', 'no luck', {'n': 1})"}
    assert len(seen) >= 2


async def test_a_childs_failure_that_nobody_handles_ends_the_parent(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> None:
        await failing_child()

    await shop.worker(parent, failing_child)
    await shop.engine.enqueue(parent, id="p")
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result("p")
    assert failed.value.name == "UNLUCKY"
    assert failed.value.message == "workflow p-1 failed: UNLUCKY: no luck" or failed.value.message == "no luck"


async def test_cancelling_a_parked_child_wakes_its_parent(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> str:
        try:
            await waiting_child()
        except WorkflowFailed as failed:
            return failed.name
        return ""

    await shop.worker(parent, waiting_child)
    await shop.engine.enqueue(parent, id="p")
    await shop.parked("p", "p-1")
    await shop.engine.cancel("p-1")
    assert await shop.result("p") == "Cancelled"


async def test_cancelling_a_parent_leaves_its_children_alone_unless_asked(shop: Workshop) -> None:
    @workflow(name="grandparent")
    async def grandparent() -> Any:
        return await parent()

    @workflow(name="parent")
    async def parent() -> Any:
        return await gather(waiting_child(), waiting_child())

    await shop.worker(grandparent, parent, waiting_child)
    family = ["g", "g-1", "g-1-1.1.1", "g-1-1.2.1"]
    await shop.engine.enqueue(grandparent, id="g")
    await shop.engine.enqueue(grandparent, id="other")
    await shop.until(lambda: shop.value("select count(*) = 8 from dbos.workflow_status"), "both families are there")
    await shop.parked(*family, "other")
    assert await shop.engine.cancel("g") == ["g"]
    assert [await shop.status(id) for id in family] == ["CANCELLED", "PENDING", "PENDING", "PENDING"]
    assert sorted(await shop.engine.cancel("g", children=True)) == sorted(family[1:])
    assert [await shop.status(id) for id in family] == ["CANCELLED"] * 4
    assert await shop.status("other") == "PENDING"


async def test_a_child_inherits_queue_partition_priority_version_and_deadline(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> None:
        await start(waiting_child)
        await start(waiting_child, queue="q2", partition="t2", priority=9, timeout_s=5)
        info = workflow_info()
        assert (info.queue, info.partition, info.priority) == ("q1", "t1", 3)

    await shop.set_clock()
    await shop.worker(parent, queues={"q1": 5}, version="v1")
    await shop.engine.enqueue(parent, id="p", queue="q1", partition="t1", priority=3, version="v1", timeout_s=100)
    await shop.result("p")

    async def columns(id: str) -> list[Any]:
        row = await shop.row(id)
        names = (
            "queue_name",
            "queue_partition_key",
            "priority",
            "application_version",
            "workflow_deadline_epoch_ms",
            "workflow_timeout_ms",
        )
        return [row[name] for name in names]

    assert await columns("p-1") == ["q1", "t1", 3, "v1", NOON_MS + 100_000, None]
    assert (await columns("p-2"))[:4] == ["q2", "t2", 9, "v1"]


async def test_a_childs_own_timeout_counts_even_if_its_parent_has_a_later_deadline(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> str:
        handle = await start(waiting_child, timeout_s=5)
        try:
            await handle.result()
        except WorkflowFailed as failed:
            return failed.name
        return ""

    await shop.set_clock()
    await shop.worker(parent, waiting_child)
    await shop.engine.enqueue(parent, id="p", timeout_s=100)
    await shop.parked("p", "p-1")
    await shop.pass_time(6)
    assert await shop.result("p") == "Cancelled"


async def test_a_child_may_start_later(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> int:
        return await (await start(child, 2, delay_s=60)).result()

    await shop.set_clock()
    await shop.worker(parent, child)
    await shop.engine.enqueue(parent, id="p")
    await shop.parked("p")
    assert await shop.status("p-1") == "DELAYED"
    await shop.pass_time(60)
    assert await shop.result("p") == 20


async def test_a_child_id_must_be_a_name(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> None:
        await start(child, 1, id="two\nlines")

    await shop.worker(parent, child)
    await shop.engine.enqueue(parent, id="p")
    with pytest.raises(WorkflowFailed, match="control character"):
        await shop.result("p")
    assert await shop.value("select count(*) from dbos.workflow_status") == 1


async def test_a_child_is_not_started_inside_a_step(shop: Workshop) -> None:
    @step
    async def sneaky() -> int:
        return await child(1)

    @workflow(name="parent")
    async def parent() -> int:
        return await sneaky()

    await shop.worker(parent, child)
    await shop.engine.enqueue(parent, id="p")
    with pytest.raises(WorkflowFailed, match="not allowed inside a step"):
        await shop.result("p")


async def test_start_needs_a_workflow() -> None:
    async def plain() -> None: ...

    with pytest.raises(MisplacedCall, match="decorated with @workflow"):
        await start(plain)


async def test_an_empty_id_is_refused(shop: Workshop) -> None:
    with pytest.raises(InvalidName, match="workflow id is empty"):
        await shop.engine.enqueue(child, 1, id="")
