"""Stopping a server: a drain lets open requests end, a second signal does not wait for them."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bin.serving import Stopping, address_of, listen, port_of, serve
from bin.variables import BadSetting


class Slow:
    """An application with one answer, which it gives when told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.told = asyncio.Event()
        self.app = Starlette(routes=[Route("/", self.answer)])

    async def answer(self, _: Request) -> Response:
        self.asked.set()
        await self.told.wait()
        return PlainTextResponse("at last")


async def test_a_drain_waits_for_open_requests_and_takes_no_new_ones() -> None:
    slow, stopping = Slow(), Stopping()
    listener = listen("PORT", "127.0.0.1", 0)
    address = address_of(listener)
    serving = asyncio.create_task(serve(slow.app, listener, stopping))
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(address))
        await slow.asked.wait()
        stopping.on_signal()
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.get(f"{address}/another", headers={"connection": "close"})
                except httpx.TransportError:
                    break
                await asyncio.sleep(0.01)
        assert not serving.done()
        slow.told.set()
        assert (await asking).text == "at last"
    async with asyncio.timeout(10):
        await serving


async def test_a_second_signal_stops_at_once() -> None:
    slow, stopping = Slow(), Stopping()
    listener = listen("PORT", "127.0.0.1", 0)
    serving = asyncio.create_task(serve(slow.app, listener, stopping))
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(address_of(listener)))
        await slow.asked.wait()
        stopping.on_signal()
        stopping.on_signal()
        async with asyncio.timeout(10):
            await serving
        assert not slow.told.is_set()
        slow.told.set()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_port_belongs_to_one() -> None:
    with listen("PORT", "127.0.0.1", 0) as taken, pytest.raises(BadSetting, match="PORT: cannot listen on"):
        listen("PORT", "127.0.0.1", port_of(taken))


async def test_an_address_of_version_six_is_written_in_brackets() -> None:
    try:
        listener = listen("PORT", "::1", 0)
    except BadSetting:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert address_of(listener) == f"http://[::1]:{port_of(listener)}"
