"""DBOS's client talks to workflows of ours: messages to them, events and streams from them."""

import asyncio
from typing import Any

import pytest

from engine import recv, set_event, workflow, write_stream
from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignError
from tests.interop.subjects import ALL


@pytest.mark.parametrize("topic", [None, "go"])
async def test_a_message_reaches_the_workflow_that_waits(shop: Workshop, dbos: Dbos, topic: str | None) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("receive", topic, workflow_id="w")
    await shop.parked("w")
    await dbos.send("w", {"ü": [1, None]}, topic)
    assert await dbos.result("w") == {"ü": [1, None]}


async def test_a_key_makes_a_message_arrive_once(shop: Workshop, dbos: Dbos) -> None:
    await dbos.enqueue("receive", "go", workflow_id="w")
    for n in (1, 2):
        await dbos.send("w", n, "go", idempotency_key="k")
    assert not await shop.engine.send("w", 3, "go", key="k"), "our own client has the same keys"
    await dbos.send("w", 4, "go", idempotency_key="other")
    assert [message.value for message in await shop.engine.messages("w")] == [1, 4]


async def test_a_message_to_nobody_is_a_typed_error(shop: Workshop, dbos: Dbos) -> None:
    with pytest.raises(ForeignError, match="DBOSNonExistentWorkflowError"):
        await dbos.send("nobody", 1)


async def test_a_topic_with_a_control_character_is_refused_and_nothing_is_written(shop: Workshop, dbos: Dbos) -> None:
    await dbos.enqueue("receive", "go", workflow_id="w")
    with pytest.raises(ForeignError, match="a topic holds a control character"):
        await dbos.send("w", 1, "a\x1fb")
    assert await shop.engine.messages("w") == []


async def test_many_messages_are_sent_at_once_or_not_at_all(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    for id in ("a", "b"):
        await dbos.enqueue("receive", "go", workflow_id=id)
    await shop.parked("a", "b")

    async def send(*ids: str) -> None:
        messages = [{"destination_id": id, "message": id, "topic": "go"} for id in ids]
        await dbos.call("send_bulk", messages, serialization_type="portable")

    with pytest.raises(ForeignError, match="DBOSNonExistentWorkflowError"):
        await send("a", "nobody")
    assert await shop.engine.messages("a") == []
    await send("a", "b")
    assert (await dbos.result("a"), await dbos.result("b")) == ("a", "b")


async def test_a_message_goes_to_forks_too_if_told_to(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("receive", "go", workflow_id="w")
    await dbos.call("fork_workflow", "w", 1, new_id="copy")
    await shop.parked("w", "copy")
    await dbos.send("w", "both", "go", send_to_forks=True)
    assert (await dbos.result("w"), await dbos.result("copy")) == ("both", "both")


async def test_a_pickled_message_is_never_loaded_and_ends_the_run_with_a_typed_error(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL)
    await dbos.enqueue("receive", "go", workflow_id="w")
    await dbos.send("w", {"n": 1}, "go", serialization_type=None)
    with pytest.raises(ForeignError) as failed:
        await dbos.result("w")
    assert (failed.value.name, failed.value.message) == (
        "UnreadablePayload",
        "a payload is stored as py_pickle; send and enqueue with portable_json",
    )
    assert await shop.status("w") == "ERROR"


@workflow(name="announce")
async def announce() -> None:
    """Sets an event and appends to a stream each time it is told to."""
    while (word := await recv("word")) is not None:
        await set_event("word", word)
        await write_stream("words", word)


@pytest.mark.parametrize("listening", [False, True])
async def test_an_event_is_waited_for(shop: Workshop, dbos: Dbos, listening: bool) -> None:
    client = {"use_listen_notify": listening}
    await shop.worker(announce)
    await dbos.enqueue("announce", workflow_id="w")
    await shop.parked("w")
    assert await dbos.call("get_event", "w", "word", 0, client=client) is None
    waiting = asyncio.create_task(dbos.call("get_event", "w", "word", 60, client=client))
    await asyncio.sleep(0)
    await dbos.send("w", {"a": 1}, "word")
    assert await waiting == {"a": 1}
    assert await dbos.call("get_event_async", "w", "word", 0) == {"a": 1}


async def test_a_stream_is_read_while_it_is_written_and_ends_with_the_workflow(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(announce)
    await dbos.enqueue("announce", workflow_id="w")
    reading = asyncio.create_task(dbos.call("read_stream", "w", "words", polling_interval_sec=0.05))
    words: list[Any] = ["one", {"two": 2}, 3]
    for word in [*words, None]:
        await dbos.send("w", word, "word")
    assert await reading == words
    assert await dbos.call("read_stream", "w", "words", offset=1) == words[1:]
    assert await dbos.call("read_stream_offset", "w", "words", 2) == 3
    assert await dbos.call("read_stream_async", "w", "words") == words


async def test_a_listening_reader_of_a_stream_is_told_of_each_value(shop: Workshop, dbos: Dbos) -> None:
    client = {"use_listen_notify": True}
    await shop.worker(announce)
    await dbos.enqueue("announce", workflow_id="w")
    for offset in range(3):
        waiting = asyncio.create_task(
            dbos.call("read_stream_offset", "w", "words", offset, polling_interval_sec=60, client=client)
        )
        await dbos.send("w", offset, "word")
        assert await waiting == offset
    with pytest.raises(ForeignError, match="DBOSStreamTimeoutError"):
        await dbos.call("read_stream_offset", "w", "words", 3, timeout_seconds=0.05)
