"""Clients in any language enqueue and send by calling two SQL functions."""

from typing import Any, LiteralString

import psycopg
import pytest

from engine import recv, workflow
from tests.engine.workshop import NOON_MS, Workshop


@workflow(name="add")
async def add(a: int, b: int = 10) -> int:
    return a + b


@workflow(name="receive")
async def receive(topic: str | None = None) -> Any:
    return await recv(topic)


async def test_the_sql_functions_enqueue_and_send(shop: Workshop) -> None:
    await shop.worker(add, receive)
    id = await shop.value("select dbos.enqueue_workflow('add', 'default', array['1', '2']::json[])")
    assert await shop.result(id) == 3
    id = await shop.value(
        "select dbos.enqueue_workflow(workflow_name => 'add', queue_name => 'default', named_args => '{\"a\": 5}', workflow_id => 'w')"
    )
    assert (id, await shop.result("w")) == ("w", 15)
    await shop.value("select dbos.enqueue_workflow('receive', 'default', array['\"go\"']::json[], workflow_id => 'r')")
    await shop.parked("r")
    await shop.run("select dbos.send_message('r', '{\"n\": 1}', 'go', 'key'), dbos.send_message('r', '{\"n\": 2}', 'go', 'key')")
    assert await shop.result("r") == {"n": 1}
    assert len(await shop.engine.messages("r")) == 1


async def test_workers_are_hinted_of_what_sql_enqueues_and_sends(shop: Workshop) -> None:
    async with await shop.own_session() as hearing, await shop.own_session() as other:
        await hearing.execute("listen holdfast")
        await other.execute("select dbos.enqueue_workflow('receive', 'default', workflow_id => 'r')")
        await other.execute("select dbos.send_message('r', '1')")
        assert [n.payload async for n in hearing.notifies(timeout=10, stop_after=2)] == ["work", "wake"]


async def test_the_sql_enqueue_takes_delay_priority_partition_and_deduplication(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.value(
        "select dbos.enqueue_workflow('add', 'default', array['1']::json[], workflow_id => 'w', delay_until_epoch_ms => %s, priority => 7,"
        " queue_partition_key => 't', deduplication_id => 'd', timeout_ms => 1000, app_version => 'v')",
        NOON_MS + 1000,
    )
    row = await shop.row("w")
    assert (row["status"], row["priority"], row["queue_partition_key"], row["deduplication_id"], row["workflow_timeout_ms"]) == (
        "DELAYED",
        7,
        "t",
        "d",
        1000,
    )
    await shop.worker(add, version="v")
    await shop.pass_time(1)
    assert await shop.result("w") == 11
    assert (await shop.row("w"))["workflow_deadline_epoch_ms"] == NOON_MS + 2000


REFUSED: list[LiteralString] = [
    "select dbos.enqueue_workflow('', 'q')",
    "select dbos.enqueue_workflow('add', '')",
    "select dbos.enqueue_workflow('add', 'q', workflow_id => '')",
    r"select dbos.enqueue_workflow('add', 'q', workflow_id => E'a\x1fb')",
    "select dbos.enqueue_workflow('add', 'q', named_args => '[1]')",
]


@pytest.mark.parametrize("call", REFUSED)
async def test_the_sql_enqueue_refuses_what_could_never_run(shop: Workshop, call: LiteralString) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        await shop.run(call)


async def test_a_send_to_nobody_is_a_foreign_key_violation(shop: Workshop) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await shop.run("select dbos.send_message('nobody', '1')")
