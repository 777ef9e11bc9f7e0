"""What a step says in a stream while it runs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine import MisplacedCall, close_stream, export_history, gather, replay, step, transaction, workflow, write_stream
from engine.entries import Connection
from tests.engine.workshop import Workshop

gate: asyncio.Event


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    global gate
    gate = asyncio.Event()
    yield
    gate.set()


@step
async def chatter(word: str) -> str:
    for n in range(3):
        await write_stream("log", f"{word} {n}")
    await gate.wait()
    await write_stream("log", f"{word} end")
    return word


@step
async def silent() -> None: ...


@workflow(name="chat")
async def chat() -> str:
    await silent()
    await write_stream("log", "begin")
    said = await chatter("a")
    await write_stream("log", "over")
    await close_stream("log")
    return said


@workflow(name="chorus")
async def chorus() -> list[str]:
    async def aside() -> str:
        await write_stream("log", "aside")
        return "aside"

    return list(await gather(chatter("a"), aside()))


async def heard(shop: Workshop, count: int) -> list[str]:
    """The stream's values, once there are as many."""

    async def enough() -> list[str]:
        values = await shop.engine.stream("w", "log")
        return values if len(values) >= count else []

    return await shop.until(enough, f"{count} values")


async def test_readers_see_what_a_step_says_while_it_runs_and_it_is_no_record(shop: Workshop) -> None:
    await shop.worker(chat)
    await shop.engine.enqueue(chat, id="w")
    assert await heard(shop, 4) == ["begin", "a 0", "a 1", "a 2"]
    assert await shop.names("w") == ["silent", "DBOS.writeStream"]
    gate.set()
    assert await shop.result("w") == "a"
    assert await shop.engine.stream("w", "log") == ["begin", "a 0", "a 1", "a 2", "a end", "over", "__DBOS_STREAM_CLOSED__"]
    assert [(n, path) for n, path, _, _ in await shop.journal("w")] == [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5")]


async def test_a_step_that_runs_again_says_it_again_and_one_that_was_recorded_does_not(shop: Workshop) -> None:
    first = await shop.worker(chat)
    await shop.engine.enqueue(chat, id="w")
    await heard(shop, 4)
    await shop.crash(first)
    gate.set()
    await shop.worker(chat)
    assert await shop.result("w") == "a"
    said = await shop.engine.stream("w", "log")
    assert said[:8] == ["begin", "a 0", "a 1", "a 2", "a 0", "a 1", "a 2", "a end"]
    await shop.engine.fork("w", 4, new_id="copy")
    assert await shop.result("copy") == "a"
    assert await shop.engine.stream("copy", "log") == said


async def test_a_fork_from_a_step_leaves_out_what_that_step_said(shop: Workshop) -> None:
    gate.set()
    await shop.worker(chat)
    await shop.engine.enqueue(chat, id="w")
    await shop.result("w")
    await shop.engine.fork("w", 3, new_id="copy")
    assert await shop.result("copy") == "a"
    assert await shop.engine.stream("copy", "log") == await shop.engine.stream("w", "log")


async def test_a_history_with_such_values_replays_offline_even_where_a_record_has_the_same_number(shop: Workshop) -> None:
    await shop.worker(chorus)
    await shop.engine.enqueue(chorus, id="w")
    await heard(shop, 4)
    gate.set()
    await shop.result("w")
    rows = await shop.rows("select function_id from dbos.streams where value = '\"aside\"' or value = '\"a 0\"'")
    assert [row["function_id"] for row in rows] == [1, 1]
    async with shop.engine.transaction() as conn:
        history = await export_history(conn, ["w"])
    assert (await replay(chorus, history, "w")).difference is None
    (changed,) = [row for row in history["streams"] if row["value"] == '"aside"']
    changed["value"] = '"other"'
    difference = (await replay(chorus, history, "w")).difference
    assert difference is not None
    assert "'log'" in str(difference)


@transaction
async def told(conn: Connection) -> None:
    await write_stream("log", "in a transaction")
    await conn.execute("select 1")


@step
async def closing() -> None:
    await close_stream("log")


@workflow(name="odd")
async def odd() -> str:
    await told()
    try:
        await closing()
    except Exception as error:
        return str(error)
    return "closed"


async def test_a_transaction_may_say_something_too_but_only_the_workflow_closes_a_stream(shop: Workshop) -> None:
    await shop.worker(odd)
    await shop.engine.enqueue(odd, id="w")
    assert "is not allowed inside a step" in await shop.result("w")
    assert await shop.engine.stream("w", "log") == ["in a transaction"]


async def test_outside_of_a_workflow_there_is_no_stream(shop: Workshop) -> None:
    with pytest.raises(MisplacedCall):
        await write_stream("log", 1)
