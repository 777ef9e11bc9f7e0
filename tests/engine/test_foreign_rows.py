"""Rows that another client writes into these tables, as DBOS's own client does, are honoured; what only it can read is refused.

The statements here are written from the meaning of the tables, with the columns that such a client sets and leaves out.
"""

import asyncio
import json
from typing import Any, LiteralString

import pytest

from engine import WorkflowFailed, recv, set_event, step, workflow, write_stream
from tests.engine.workshop import Trace, Workshop

ENQUEUE_STATUS: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization, creator_xid, priority,
                                  application_version, queue_partition_key, attributes)
values (%s, 'ENQUEUED', %s, null, %s, %s, gen_random_uuid()::text, 0, null, null, 'null'::jsonb)
on conflict (workflow_uuid) do update set creator_xid = workflow_status.creator_xid
"""
ENQUEUE_INPUT: LiteralString = "insert into dbos.workflow_input (workflow_uuid, inputs) values (%s, %s) on conflict do nothing"
CANCEL: LiteralString = """
update dbos.workflow_status
   set status = 'CANCELLED', owner_xid = null, queue_name = null, deduplication_id = null, started_at_epoch_ms = null,
       completed_at = (extract(epoch from now()) * 1000)::bigint
 where workflow_uuid = any (%s) and status not in ('SUCCESS', 'ERROR')
"""
RESUME: LiteralString = """
update dbos.workflow_status
   set status = 'ENQUEUED', owner_xid = null, queue_name = '_dbos_internal_queue', recovery_attempts = 0, deduplication_id = null,
       workflow_deadline_epoch_ms = null, started_at_epoch_ms = null, completed_at = null
 where workflow_uuid = any (%s) and status not in ('SUCCESS', 'ERROR')
"""
FORK_STATUS: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, config_name, queue_name, forked_from, serialization)
select %s, 'ENQUEUED', name, class_name, config_name, '_dbos_internal_queue', workflow_uuid, serialization
  from dbos.workflow_status where workflow_uuid = %s
"""
FORK_INPUT: LiteralString = """
insert into dbos.workflow_input (workflow_uuid, inputs)
select %s, coalesce(i.inputs, s.inputs) from dbos.workflow_status s left join dbos.workflow_input i using (workflow_uuid)
 where s.workflow_uuid = %s
"""
FORK_STEPS: LiteralString = """
insert into dbos.operation_outputs (workflow_uuid, function_id, output, error, function_name, child_workflow_id, started_at_epoch_ms,
                                    completed_at_epoch_ms, serialization)
select %s, function_id, output, error, function_name, child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization
  from dbos.operation_outputs where workflow_uuid = %s and function_id < %s
"""
SEND: LiteralString = """
insert into dbos.notifications (destination_uuid, topic, message, message_uuid, serialization) values (%s, %s, %s, %s, %s)
on conflict do nothing
"""


@workflow(name="add")
async def add(a: int, b: int = 10) -> int:
    return a + b


@workflow(name="receive")
async def receive(topic: str | None = None) -> Any:
    return await recv(topic)


async def enqueue(
    shop: Workshop, id: str, name: str, inputs: str, *, queue: str = "default", serialization: str | None = "portable_json"
) -> None:
    async with shop.engine.transaction() as conn:
        await conn.execute(ENQUEUE_STATUS, (id, name, queue, serialization))
        await conn.execute(ENQUEUE_INPUT, (id, inputs))


@pytest.mark.parametrize(
    ("inputs", "result"),
    [
        ('{"positionalArgs":[1,2],"namedArgs":{}}', 3),
        ('{"positionalArgs":[1],"namedArgs":{"b":5}}', 6),
        ('{"namedArgs":{"a":1,"b":1}}', 2),
        ('{"positionalArgs":[1]}', 11),
    ],
)
async def test_an_enqueued_row_with_its_input_beside_it_runs(shop: Workshop, inputs: str, result: int) -> None:
    await shop.worker(add)
    await enqueue(shop, "w", "add", inputs)
    assert await shop.result("w") == result
    status = await shop.engine.handle("w").status()
    assert (status.status, status.input, status.output) == ("SUCCESS", json.loads(inputs), result)


async def test_an_enqueue_that_is_repeated_is_one_workflow(shop: Workshop, trace: Trace) -> None:
    @workflow(name="note")
    async def note(n: int) -> None:
        trace(n)

    for n in (1, 2):
        await enqueue(shop, "w", "note", f'{{"positionalArgs":[{n}]}}')
    await shop.worker(note)
    await shop.ended("w")
    await enqueue(shop, "w", "note", '{"positionalArgs":[3]}')
    await shop.engine.enqueue("note", 4, id="marker")
    await shop.ended("marker")
    assert trace.calls == [1, 4]


@pytest.mark.parametrize(("serialization", "named"), [("py_pickle", "py_pickle"), (None, "the default of another client")])
async def test_a_pickled_input_ends_as_an_error_that_says_what_to_do(
    shop: Workshop, serialization: str | None, named: str
) -> None:
    await shop.worker(add)
    await enqueue(shop, "w", "add", "gASVDgAAAAAAAAB9lIwBYZRLAXMu", serialization=serialization)
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result("w")
    assert failed.value.message == f"a payload is stored as {named}; send and enqueue with portable_json"
    assert await shop.status("w") == "ERROR"


@pytest.mark.parametrize("inputs", ["{", "[]", "5", "null", '{"positionalArgs":5}', '{"positionalArgs":[1,2,3,4]}', "{}"])
async def test_inputs_that_make_no_sense_end_as_an_error(shop: Workshop, inputs: str) -> None:
    await shop.worker(add)
    await enqueue(shop, "w", "add", inputs)
    await enqueue(shop, "good", "add", '{"positionalArgs":[1]}')
    assert await shop.ended("w", "good") == ["ERROR", "SUCCESS"]


async def test_a_row_without_any_input_calls_the_workflow_without_arguments(shop: Workshop) -> None:
    await shop.worker(receive)
    await shop.run(ENQUEUE_STATUS, "w", "receive", "default", "portable_json")
    await shop.parked("w")
    await shop.run(SEND, "w", "__null__topic__", '"hello"', "m", "portable_json")
    assert await shop.result("w") == "hello"


async def test_a_pickled_message_is_taken_and_fails_the_receive(shop: Workshop) -> None:
    @workflow(name="w")
    async def twice() -> list[Any]:
        heard: list[Any] = []
        for _ in range(2):
            try:
                heard.append(await recv("go"))
            except Exception as error:
                heard.append(type(error).__name__)
        await recv("end")
        return heard

    await shop.worker(twice)
    await shop.engine.enqueue(twice, id="w")
    await shop.run(SEND, "w", "go", "gASVBQAAAAAAAABLAS4=", "m1", "py_pickle")
    await shop.run(SEND, "w", "go", "2", "m2", "portable_json")
    await shop.parked("w")
    await shop.engine.send("w", None, "end")
    assert await shop.result("w") == ["UnreadablePayload", 2]


async def test_a_foreign_cancel_reaches_queued_parked_and_running(shop: Workshop) -> None:
    inside = asyncio.Event()

    @step
    async def long() -> None:
        inside.set()
        await asyncio.Event().wait()

    @workflow(name="long")
    async def running() -> None:
        await long()

    await shop.engine.enqueue(add, 1, id="queued", queue="nobody's")
    worker = await shop.worker(running, receive)
    await shop.engine.enqueue(receive, "go", id="parked")
    await shop.engine.enqueue(running, id="running")
    await shop.parked("parked")
    await inside.wait()
    ids = ["queued", "parked", "running"]
    await shop.run(CANCEL, ids)
    await shop.until(lambda: asyncio.sleep(0, not worker.running), "the running one is gone")
    await shop.engine.send("parked", 1, "go")
    assert await shop.ended(*ids) == ["CANCELLED"] * 3
    assert (await shop.row("running"))["output"] is None


async def test_a_foreign_cancel_of_a_child_wakes_its_parent(shop: Workshop) -> None:
    @workflow(name="parent")
    async def parent() -> str:
        try:
            return await receive("go")
        except WorkflowFailed as failed:
            return failed.name

    await shop.worker(parent, receive)
    await shop.engine.enqueue(parent, id="p")
    await shop.parked("p", "p-1")
    await shop.run(CANCEL, ["p-1"])
    assert await shop.result("p") == "Cancelled"


async def test_a_foreign_resume_lets_cancelled_and_parked_runs_go_on(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> None:
        trace("note")

    @workflow(name="w")
    async def once() -> Any:
        await note()
        return await recv("go")

    await shop.worker(once)
    for id in ("cancelled", "parked"):
        await shop.engine.enqueue(once, id=id)
    await shop.parked("cancelled", "parked")
    await shop.run(CANCEL, ["cancelled"])
    await shop.run(RESUME, ["cancelled", "parked"])
    await shop.until(
        lambda: shop.value("select count(*) = 2 from dbos.workflow_status where claims = 2"), "both were claimed again"
    )
    await shop.parked("cancelled", "parked")
    for id in ("cancelled", "parked"):
        await shop.engine.send(id, id, "go")
        assert await shop.result(id) == id
    assert trace.calls == ["note", "note"]


@pytest.mark.parametrize("start_step", [1, 2, 3, 4])
async def test_a_foreign_fork_replays_its_copied_rows(shop: Workshop, trace: Trace, start_step: int) -> None:
    @step
    async def note(n: int) -> int:
        trace(n)
        return n

    @workflow(name="w")
    async def once(n: int) -> list[Any]:
        await set_event("at", n)
        await write_stream("log", n)
        return [await note(n), await note(n + 1)]

    await shop.worker(once)
    await shop.engine.enqueue(once, 1, id="w")
    await shop.result("w")
    trace.calls.clear()
    async with shop.engine.transaction() as conn:
        await conn.execute(FORK_STATUS, ("copy", "w"))
        await conn.execute(FORK_INPUT, ("copy", "w"))
        if start_step > 1:
            await conn.execute(FORK_STEPS, ("copy", "w", start_step))
    assert await shop.result("copy") == [1, 2]
    assert trace.calls == ([1, 2] if start_step <= 3 else [2])
    assert [r[:2] for r in await shop.journal("copy")] == [(n, str(n)) for n in (1, 2, 3, 4)]


async def test_the_engine_wakes_listeners_of_events_and_messages(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> None:
        await set_event("key", 1)

    async with await shop.own_session() as conn:
        await conn.execute("listen dbos_workflow_events_channel")
        await conn.execute("listen dbos_notifications_channel")
        await shop.worker(once)
        await shop.engine.enqueue(once, id="w")
        await shop.result("w")
        await shop.engine.send("w", 1, "go")
        heard = {(n.channel, n.payload) async for n in conn.notifies(timeout=10, stop_after=2)}
    assert heard == {("dbos_workflow_events_channel", "w::key"), ("dbos_notifications_channel", "w::go")}


async def test_what_we_write_is_what_another_client_reads(shop: Workshop) -> None:
    @step(name="s")
    async def one() -> dict[str, str]:
        return {"a": "ü"}

    @workflow(name="w")
    async def once() -> Any:
        await set_event("k", [1])
        await one()
        raise ValueError("no")

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.ended("w")
    row = await shop.row("w")
    assert (row["serialization"], row["error"], row["recovery_attempts"]) == (
        "portable_json",
        '{"name":"ValueError","message":"no"}',
        1,
    )
    steps = await shop.rows("select function_id, function_name, output, serialization from dbos.operation_outputs order by 1")
    assert [tuple(s.values()) for s in steps] == [
        (1, "DBOS.setEvent", "null", "portable_json"),
        (2, "s", '{"a":"ü"}', "portable_json"),
    ]
    assert await shop.rows("select value, serialization from dbos.workflow_events") == [
        {"value": "[1]", "serialization": "portable_json"}
    ]
