"""Requests in, responses out: the few rules that hold for every route.

A handler is a function of the door (what the process holds) and the request. Bodies are JSON of bounded size;
an empty one stands for {}. Responses are JSON.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.config import Config
from api.waiting import EventWaits
from engine import Connection, Engine

JSON_TYPE = "application/json"
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

Json: TypeAlias = Any  # what JSON gave: None, bool, int, float, str, list or dict


@dataclass(frozen=True, slots=True)
class Door:
    """What one API process holds: the engine's client side, its settings, and the clients that wait."""

    engine: Engine
    config: Config
    waits: EventWaits

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection to read with. Each statement stands alone, which spares two round trips a request."""
        async with self.engine.pool.connection() as conn:
            yield conn


Handler: TypeAlias = Callable[[Door, Request], Awaitable[Response]]


class BadRequest(Exception):
    """The request cannot be used; the message is one sentence for the client."""


async def read_json(door: Door, request: Request) -> Json:
    """The body as JSON value. Raises BadRequest for what is too large or not JSON."""
    body = await read_body(request, door.config.max_body_bytes)
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("invalid json") from None


async def read_body(request: Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise BadRequest(f"the request body is larger than {max_bytes} bytes; send less")
        parts.append(part)
    return b"".join(parts)


def json_response(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type=JSON_TYPE)


def query_of(request: Request, only: Iterable[str] | None = None) -> dict[str, str]:
    """The query as a dict, the last of repeated keys; only some keys, where the others are to be ignored."""
    query = dict(request.query_params)
    return query if only is None else {name: query[name] for name in only if name in query}


def numbers_in_query(query: dict[str, str]) -> dict[str, Json]:
    """The query with numbers as numbers, read as JavaScript does ('' is 0, '3.0' is 3); others stay."""
    return {name: number_or_text(value) for name, value in query.items()}


def query_with_numbers(request: Request, *numeric: str) -> dict[str, Json]:
    """The query; the named parameters as numbers, if they are."""
    query = query_of(request)
    return query | numbers_in_query({name: query[name] for name in numeric if name in query})


def number_or_text(text: str) -> Json:
    if not text.strip():
        return 0
    if not NUMBER.fullmatch(text.strip()):
        return text
    number = float(text)
    return int(number) if number.is_integer() else number


@asynccontextmanager
async def noticing_departure(request: Request, flag: asyncio.Event) -> AsyncIterator[asyncio.Task[None]]:
    """A task that ends, and raises the flag, when the client hangs up."""
    task = asyncio.create_task(departure(request))
    task.add_done_callback(lambda _: flag.set())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])  # unlike awaiting it, this does not swallow a cancellation of our own


async def departure(request: Request) -> None:
    with suppress(ClientDisconnect):
        await request.body()
        while (await request.receive())["type"] != "http.disconnect":
            pass
