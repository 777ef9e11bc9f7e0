"""uvicorn's HTTP protocol, with bounds on what comes before a request's body: how large it is, and how long a client takes to say it.

The parser keeps a header that does not end in memory of its own, so bytes are counted as they come. Bodies are bounded where they are
read (api.http).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 32 * 1024  # the request line and all headers
MOST_HEADERS = 100
HEAD_S = 10.0


class TooLarge(Exception):
    """Ends the parsing, and so the connection, with 400."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 to a head that is too large, and hangs up on a client that does not finish one in time, or says nothing at all."""

    _late: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_longer_late()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request line and its headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._no_longer_late()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MOST_HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            raise TooLarge
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0  # of the next one; until it begins, keep-alive has its own time

    def _expect_head(self) -> None:
        self._in_head = True
        self._no_longer_late()
        self._late = self.loop.call_later(HEAD_S, self._hang_up)

    def _no_longer_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _hang_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()
