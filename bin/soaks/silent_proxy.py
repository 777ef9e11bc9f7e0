"""A way to the database on which single connections fall silent: no byte comes through any more, and nobody is told.

Two kinds of silence. Where packets vanish, the kernel of whoever sent them finds out by itself after a while: nothing is confirmed. Where
the way swallows them, everything is confirmed and nothing is answered, as by a machine between the two that has come to a stop.
"""

import ctypes
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Silence = Literal["vanish", "swallow"]

BUFFER = 1 << 16
LOOK_S = 0.2
#: By what it says once, a connection is known from then on.
KNOWN_BY = {
    b"insert into engine.worker": "heartbeat",
    b"update engine.worker set lease_until_ms": "heartbeat",
    b"listen ": "listener",
}

SO_ATTACH_FILTER = 26
TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # a program for the kernel's packet filter: return 0 bytes of each


class Way:
    """One connection through the proxy. kind: what it is for, once it has said so."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = {client: server, server: client}
        self._client = client
        self.kind = ""
        self.silent = threading.Event()
        threading.Thread(target=self._pump, daemon=True).start()

    def fall_silent(self, how: Silence) -> None:
        if how == "vanish":
            program = ctypes.create_string_buffer(TAKE_NOTHING)
            self._client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
        self.silent.set()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _pump(self) -> None:
        try:
            while not self.silent.is_set():
                for end in select.select(list(self._ends), (), (), LOOK_S)[0]:
                    data = end.recv(BUFFER)
                    if not data:
                        self.close()
                        return
                    if end is self._client and not self.kind:
                        self.kind = next((kind for words, kind in KNOWN_BY.items() if words in data), "")
                    if not self.silent.is_set():
                        self._ends[end].sendall(data)
        except (OSError, ValueError):  # ValueError: it was closed meanwhile
            self.close()


class SilentProxy:
    """dsn: the way to the server through this proxy."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = str(Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port') or 5432}")
        self._door = socket.create_server(("127.0.0.1", 0))
        port = self._door.getsockname()[1]
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        self._ways: list[Way] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def silence(self, kind: str, how: Silence) -> int:
        """Let every connection of this kind fall silent that is open now; how many."""
        victims = [way for way in list(self._ways) if way.kind == kind and not way.silent.is_set()]
        for way in victims:
            way.fall_silent(how)
        return len(victims)

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._door.close()
        for way in self._ways:
            way.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # it is away
                client.close()
                continue
            self._ways.append(Way(client, server))


@contextmanager
def silent_proxy(dsn: str) -> Iterator[SilentProxy]:
    """A proxy before a server that listens on a socket of the file system."""
    proxy = SilentProxy(dsn)
    try:
        yield proxy
    finally:
        proxy.close()
