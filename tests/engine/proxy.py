"""A proxy between a client and PostgreSQL that loses things on demand, as networks do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

READY = b"Z\x00\x00\x00\x05I"  # the server's last words on a transaction


class Proxy:
    """Connections to it are connections to the server, until one is cut."""

    def __init__(self, dsn: str, *, prepare: bool) -> None:
        self._dsn = dsn
        self._prepare = prepare
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.lose_next_request = False
        self.lose_next_answer = False
        self.requests = 0
        self.losses = 0
        self._readers: set[asyncio.StreamReader] = set()
        self._swallowed: set[asyncio.StreamReader] = set()

    @property
    def dsn(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return make_conninfo(self._dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")

    async def connect(self, **_: Any) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, prepare_threshold=0 if self._prepare else None)

    def cut(self) -> None:
        """Cut every connection now."""
        for writer in list(self._open):
            writer.transport.abort()

    def swallow(self) -> None:
        """Every connection that is open falls silent: what is sent is confirmed by the network, and comes to nobody."""
        self._swallowed |= self._readers

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = conninfo_to_dict(self._dsn)
        host, port = str(parts.get("host") or "/var/run/postgresql"), int(parts.get("port") or 5432)
        if host.startswith("/"):
            up_reader, up_writer = await asyncio.open_unix_connection(str(Path(host) / f".s.PGSQL.{port}"))
        else:
            up_reader, up_writer = await asyncio.open_connection(host, port)
        pair = {writer, up_writer}
        self._open |= pair
        requests = self._pump(reader, up_writer, writer, up=True)
        answers = self._pump(up_reader, writer, up_writer, up=False)
        for pump in (requests, answers):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)
            task.add_done_callback(lambda _: [w.transport.abort() for w in pair])
            task.add_done_callback(lambda _: self._open.difference_update(pair))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter, *, up: bool
    ) -> None:
        try:
            self._readers.add(reader)
            while data := await reader.read(1 << 16):
                if reader in self._swallowed:
                    continue
                if up and self.lose_next_request:
                    self.lose_next_request = False
                    self.losses += 1
                    return
                if not up and self.lose_next_answer and READY in data:  # the server is done, and nobody hears of it
                    self.lose_next_answer = False
                    self.losses += 1
                    return
                if up:
                    self.requests += 1
                writer.write(data)
                await writer.drain()
        except OSError:
            pass


@asynccontextmanager
async def proxy_to(dsn: str, *, prepare: bool = True) -> AsyncIterator[Proxy]:
    """prepare: whether connections prepare statements, which a pooler knows nothing of."""
    proxy = Proxy(dsn, prepare=prepare)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
