"""Behind a proxy that gives the console a folder of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

from tests.console.browser.conftest import Visit
from tests.console.browser.stage import Stage
from tests.console.browser.visitor import connected, settled

PREFIX = "/tools/holdfast"


@asynccontextmanager
async def proxied(base: str) -> AsyncIterator[str]:
    """An address below which the service answers, a connection for each request, and nothing else does."""
    upstream = urlsplit(base)
    under_way: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(passed_on(upstream, reader, writer))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PREFIX}"
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def passed_on(upstream: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, and its answer until that ends."""
    try:
        method, _, target = (await reader.readline()).decode().partition(" ")
        if not target.startswith(PREFIX + "/"):
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        there, to = await asyncio.open_connection(upstream.hostname, upstream.port)
        to.write(f"{method} {target.removeprefix(PREFIX)}x-forwarded-prefix: {PREFIX}\r\nconnection: close\r\n".encode())
        while (header := await reader.readline()).strip():
            if not header.lower().startswith(b"connection:"):
                to.write(header)
        to.write(b"\r\n")
        forth = asyncio.create_task(pump(reader, to))
        try:
            await pump(there, writer)
        finally:
            forth.cancel()
            await asyncio.gather(forth, return_exceptions=True)
            to.close()
    except ConnectionError:
        pass  # either side has left
    finally:
        writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


async def test_every_address_stays_below_the_prefix(visit: Visit, stage: Stage) -> None:
    async with proxied(stage.base) as base:
        visitor = await visit(base=base)
        page = await visitor.open(f"/?wid={stage.shown.waiting}&board=run&tab=gate")
        await connected(page, "live")
        for link in ("Inbox", "Ops", "Throughput", "Recipes", "Sign-off"):
            await page.get_by_role("navigation", name="Boards").get_by_role("link", name=link).click()
            await settled(page)
            assert page.url.startswith(base + "/?")
        await page.close()
