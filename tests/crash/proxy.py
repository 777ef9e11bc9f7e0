"""A PostgreSQL server's socket that loses connections at the worst moment: between a COMMIT and its answer.

It speaks just enough of the protocol to see where a message ends, which message makes the server commit (Sync, or a query), and when the
server has done so (ReadyForQuery). Whether a commit is dropped, and on which side of it, is drawn from `dice` by the plan.
"""

import asyncio
import contextlib
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

SYNC, QUERY, READY = b"S", b"Q", b"Z"

#: Given the application's name: 'before' or 'after' drops this commit on that side, None lets it pass.
Plan = Callable[[str], str | None]


class Proxy:
    """`dropped` counts the lost connections by application and side."""

    def __init__(self, dsn: str, plan: Plan) -> None:
        self._dsn = dsn
        self._plan = plan
        self.dropped: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The DSN through the proxy."""
        with tempfile.TemporaryDirectory(prefix="hf-") as folder:  # the system's, since a socket's path must be short
            server = await asyncio.start_unix_server(self._serve, Path(folder) / ".s.PGSQL.5432")
            async with server:
                yield make_conninfo(self._dsn, host=folder, port=5432)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream = await self._upstream()
            await Link(self, self._plan, (reader, writer), upstream).run()
        for end in (writer, upstream[1] if upstream else None):
            if end is not None:
                end.transport.abort()

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = conninfo_to_dict(self._dsn)
        host, port = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, plan: Plan, client: Ends, server: Ends) -> None:
        self.proxy = proxy
        self.plan = plan
        self.client = client
        self.server = server
        self.name = ""
        self.asked = 0  # messages that the server answers with ReadyForQuery
        self.answered = 0
        self.last: int | None = None  # the answer that never reaches the client

    async def run(self) -> None:
        """Until one side goes, or a commit is dropped."""
        ways = [asyncio.create_task(self.to_server()), asyncio.create_task(self.to_client())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def to_server(self) -> None:
        reader, (_, writer) = self.client[0], self.server
        (size,) = struct.unpack("!i", head := await reader.readexactly(4))
        startup = await reader.readexactly(size - 4)
        fields = startup[4:].split(b"\0")
        if b"application_name" in fields:
            self.name = fields[fields.index(b"application_name") + 1].decode()
        writer.write(head + startup)
        while True:
            kind, message = await read_message(reader)
            if kind in (SYNC, QUERY):
                drop = self.plan(self.name) if self.asked else None  # let them log in
                if drop is not None:
                    self.proxy.dropped[f"{drop} {self.name.split()[0]}"] += 1
                if drop == "before":
                    return
                self.asked += 1
                if drop == "after":
                    self.last = self.asked
            writer.write(message)
            await writer.drain()

    async def to_client(self) -> None:
        reader, (_, writer) = self.server[0], self.client
        while True:
            kind, message = await read_message(reader)
            if kind == READY and self.asked:
                self.answered += 1
                if self.answered == self.last:
                    return
            if self.last is None:
                writer.write(message)
                await writer.drain()


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (size,) = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(size - 4)
