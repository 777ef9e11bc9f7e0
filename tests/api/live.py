"""A real server for what is written as things happen, and a client that reads it so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import uvicorn
from starlette.applications import Starlette

SOON_S = 15.0


@dataclass(frozen=True, slots=True)
class Told:
    """One server-sent event; the id is the client's place after it."""

    name: str
    data: Any
    id: str | None


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """The app behind a real server on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(SOON_S):
        while not server.started:
            await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def followed(url: str, **headers: str) -> AsyncIterator[AsyncIterator[Told]]:
    """The events at this address, as they come. Ends with the server's stream."""
    async with httpx.AsyncClient(timeout=SOON_S) as client, client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_in(response, headers.get("last-event-id"))


async def events_in(response: httpx.Response, place: str | None) -> AsyncIterator[Told]:
    """As a browser reads them: the place that it came with stays until it is told another."""
    name, data = "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            place = value
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line and name:
            yield Told(name, orjson.loads(data), place)
            name = ""


async def text_at(url: str) -> str:
    """The whole answer, once it is written."""
    async with httpx.AsyncClient(timeout=SOON_S) as client:
        return (await client.get(url)).text


async def all_events(url: str, **headers: str) -> list[Told]:
    async with followed(url, **headers) as events:
        return [told async for told in events]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.005)
