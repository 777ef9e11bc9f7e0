"""NOTIFY as a hint: something may be there, look now instead of at the next poll.

A commit that notifies takes a lock over the whole cluster, so nothing here notifies inside a transaction that writes. What
is to be told is collected in memory and sent by a statement of its own, at once when quiet and then at most every few milliseconds.
A hint that gets lost costs a poll interval, never a run.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import LiteralString

import psycopg
import structlog
from psycopg import sql

from engine.connections import PrimaryConnection
from engine.entries import FIELD, Connection

log = structlog.get_logger("engine.hints")

#: Payloads on the engine's channel: WORK (queued runs), WAKE (wake-ups to take out), 'x:<workflow>' (it was cancelled or resumed).
CHANNEL = "holdfast"
WORK = "work"
WAKE = "wake"
#: What DBOS's clients listen to: '<workflow>::<key>' after an event was set, and after a message was sent.
EVENTS_CHANNEL = "dbos_workflow_events_channel"
MAIL_CHANNEL = "dbos_notifications_channel"
STREAMS_CHANNEL = "dbos_streams_channel"

GAP_S = 0.005
#: So long a listener listens before it asks whether the server is still there, and so long it waits for the answer: a way that swallows
#: everything sounds like a quiet one.
LISTEN_S = 10.0
ANSWER_S = 3.0

NOTIFY: LiteralString = r"""
select pg_notify(n.channel, n.payload)
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as n (channel, payload)
"""

Acquire = Callable[[], contextlib.AbstractAsyncContextManager[Connection]]


class Notifier:
    """Collects hints and sends them, coalesced."""

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire
        self._pending: set[tuple[str, str]] = set()
        self._sender: asyncio.Task[None] | None = None

    def tell(self, channel: str, payload: str) -> None:
        """Send this hint soon."""
        self._pending.add((channel, payload[:7000]))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name="notifier")

    async def close(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=1)

    async def _send(self) -> None:
        try:
            while self._pending:
                batch, self._pending = list(self._pending), set()
                try:
                    async with self._acquire() as conn:
                        await conn.execute(NOTIFY, (FIELD.join([b[0] for b in batch]), FIELD.join([b[1] for b in batch])))
                except (psycopg.Error, TimeoutError) as error:
                    log.debug("hints were not sent", error=str(error))
                await asyncio.sleep(GAP_S)
        finally:
            self._sender = None


class Listener:
    """Hears hints on a connection of its own and hands each to `heard(channel, payload)`; reconnects by itself."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[PrimaryConnection]],
        channels: tuple[LiteralString, ...],
        heard: Callable[[str, str], None],
    ) -> None:
        self._connect = connect
        self._channels = channels
        self._heard = heard
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen(), name="listener")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._open() as conn:
                    for channel in self._channels:
                        await conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                    self.connected = True
                    for channel in self._channels:
                        self._heard(channel, "")  # something may have been said before
                    while True:
                        async for notice in conn.notifies(timeout=LISTEN_S):
                            self._heard(notice.channel, notice.payload)
                        await conn.execute("select 1")
            except psycopg.Error as error:
                log.debug("listener has no database", error=str(error))
            self.connected = False
            await asyncio.sleep(0.5)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncGenerator[PrimaryConnection]:
        conn = await self._connect()
        conn.answer_s = ANSWER_S
        try:
            yield conn
        finally:
            await conn.close()
