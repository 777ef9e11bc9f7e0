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

from api.access import Caller, Doorkeeper
from api.config import Config
from api.waiting import EventWaits
from engine import Connection, Engine

JSON_TYPE = "application/json"
BODY_S = 30.0
NO_GUESSING = {"x-content-type-options": "nosniff"}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

Json: TypeAlias = Any  # what JSON gave: None, bool, int, float, str, list or dict


@dataclass(frozen=True, slots=True)
class Door:
    """What one API process holds: the engine's client side, its settings, the clients that wait, and who may come in."""

    engine: Engine
    config: Config
    waits: EventWaits
    keeper: Doorkeeper

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection to read with. Each statement stands alone, which spares two round trips a request."""
        async with self.engine.pool.connection() as conn:
            yield conn


Handler: TypeAlias = Callable[[Door, Request], Awaitable[Response]]


class BadRequest(Exception):
    """The request cannot be used; the message is one sentence for the client."""


class TooSlow(BadRequest):
    """The request's body does not come."""


async def read_json(door: Door, request: Request) -> Json:
    """The body as JSON value. Raises BadRequest for what is too large or not JSON."""
    return json_of(await read_body(request, door.config.max_body_bytes))


def json_of(body: bytes) -> Json:
    """A body as JSON value. Raises BadRequest for what is not JSON."""
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("invalid json") from None


async def read_signed(door: Door, request: Request) -> Json:
    """The body of a request that says who acts, with the one who really does as its actor. As read_json."""
    body = await read_json(door, request)
    return caller_of(request).signed(body) if isinstance(body, dict) else body


def caller_of(request: Request) -> Caller:
    """Who asks; the door has let them in."""
    caller: Caller = request.state.caller
    return caller


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises BadRequest for one that is larger, TooSlow for one that is not here within BODY_S."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise BadRequest(f"the request body is larger than {max_bytes} bytes; send less")
                parts.append(part)
    except TimeoutError:
        raise TooSlow(f"the request body did not come within {BODY_S:g} s") from None
    return b"".join(parts)


def json_response(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type=JSON_TYPE, headers=NO_GUESSING)


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
