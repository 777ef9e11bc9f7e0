"""What a server does with clients that say too much, or too slowly, or nothing at all."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import http
from api.errors import refusal
from api.http import json_response, read_body
from bin import bounded_http
from bin.bounded_http import MOST_HEAD_BYTES, MOST_HEADERS
from bin.serving import Stopping, serve

PATIENCE_S = 10.0


async def echo(request: Request) -> Response:
    try:
        return Response(await read_body(request, 100_000))
    except Exception as error:
        return refusal(request, error)


async def whose(request: Request) -> Response:
    assert request.client
    return json_response([request.client.host, request.url.scheme, request.scope["root_path"], request.url.path])


class Server:
    def __init__(self, port: int) -> None:
        self.port = port

    async def say(self, *parts: bytes, finish: bool = True) -> bytes:
        """Everything that is answered to this, until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionError):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    return await reader.read()
                return b""
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def served(**options: object) -> AsyncIterator[Server]:
    listener, stopping = socket.create_server(("127.0.0.1", 0)), Stopping()
    app = Starlette(routes=[Route("/", echo, methods=["POST"]), Route("/whose", whose)])
    serving = asyncio.create_task(serve(app, listener, stopping, **options))  # type: ignore[arg-type]
    try:
        yield Server(int(listener.getsockname()[1]))
    finally:
        stopping.drain()
        await serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with served() as it:
        yield it


def head(*headers: bytes, path: bytes = b"/whose", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"host: x", b"connection: close", *headers, b"", b""])


async def test_a_head_within_the_bounds_is_read(server: Server) -> None:
    many = [b"x-%d: y" % n for n in range(MOST_HEADERS - 2)]
    assert (await server.say(head(*many))).startswith(b"HTTP/1.1 200")
    assert (await server.say(head(b"x: " + b"y" * (MOST_HEAD_BYTES - 1000)))).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "said",
    [
        head(*[b"x-%d: y" % n for n in range(MOST_HEADERS)]),
        head(b"x: " + b"y" * MOST_HEAD_BYTES),
        head(path=b"/" + b"y" * MOST_HEAD_BYTES),
        b"GET /whose HTTP/1.1\r\nx: " + b"y" * 10 * MOST_HEAD_BYTES,  # and never ends
        b"GET /" + b"y" * 10 * MOST_HEAD_BYTES,
        b"y" * 10 * MOST_HEAD_BYTES,
    ],
    ids=["many headers", "long header", "long path", "endless header", "endless path", "noise"],
)
async def test_a_head_that_is_too_large_is_refused_and_not_kept(server: Server, said: bytes) -> None:
    pieces = [said[start : start + 4096] for start in range(0, len(said), 4096)]
    answer = await server.say(*pieces)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")  # the answer may be lost where more was on its way


@pytest.mark.parametrize("said", [b"", b"GET /whose HTT", b"GET /whose HTTP/1.1\r\nhost: x\r\n"])
async def test_who_does_not_finish_a_head_is_hung_up_on(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_S", 0.2)
    async with served() as server:
        assert await server.say(said) == b""


async def test_a_body_that_does_not_come_is_refused_and_the_client_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.2)
    slow = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345"
    answer = await server.say(slow)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"the request body did not come within 0.2 s" in answer


async def test_a_connection_is_used_for_several_requests(server: Server) -> None:
    first = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none"
    answer = await server.say(first * 30, head())
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"one")) == (31, 30)


async def test_only_a_proxy_that_is_trusted_says_who_the_client_is() -> None:
    said = head(b"x-forwarded-for: 203.0.113.7", b"x-forwarded-proto: https")
    async with served() as server:
        assert b'["127.0.0.1","http","","/whose"]' in await server.say(said)
    async with served(proxies=["10.0.0.0/8"]) as server:
        assert b'["127.0.0.1","http","","/whose"]' in await server.say(said)
    async with served(proxies=["127.0.0.1"], root_path="/flows/") as server:
        assert b'["203.0.113.7","https","/flows","/flows/whose"]' in await server.say(said)
