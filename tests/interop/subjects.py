"""Workflows of ours, which clients of another make start, talk to and look at."""

import asyncio
from datetime import datetime
from typing import Any

from engine import Workflow, close_stream, recv, set_event, sleep, step, workflow, write_stream

#: What the step `double` was really called with; a journal must not let it be called again.
doubled: list[int] = []


@step(name="double")
async def double(n: int) -> int:
    doubled.append(n)
    return 2 * n


@step(name="refuse")
async def refuse() -> None:
    raise ValueError("no, thank you")


@step(name="endless")
async def endless() -> None:
    await asyncio.Event().wait()


@workflow(name="add")
async def add(a: int, b: int = 10) -> int:
    return a + b


@workflow(name="echo")
async def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@workflow(name="receive")
async def receive(topic: str | None = None) -> Any:
    return await recv(topic)


@workflow(name="fail")
async def fail() -> None:
    await refuse()


@workflow(name="long")
async def long() -> None:
    await set_event("at", "work")
    await endless()


@workflow(name="parent")
async def parent(topic: str) -> Any:
    return await receive(topic)


@workflow(name="tour")
async def tour(n: int) -> dict[str, Any]:
    """A bit of everything: a step, an event, a stream, a sleep, a child and a message."""
    twice = await double(n)
    await set_event("progress", {"twice": twice})
    await write_stream("log", "first")
    await sleep(0.001)
    summed = await add(twice, 1)
    await write_stream("log", {"sum": summed})
    await close_stream("log")
    answer = await recv("answer")
    await set_event("progress", "answered")
    return {"sum": summed, "answer": answer}


@workflow(name="tick")
async def tick(at: datetime, context: Any) -> list[Any]:
    return [at.isoformat(), context]


ALL: list[Workflow[Any, Any]] = [add, echo, receive, fail, long, parent, tour, tick]
