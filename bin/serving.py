"""What a serving process is made of: listeners, HTTP servers on them, and one way to stop.

The first TERM or INT drains: no new work is taken, what runs may end. The second stops hard. Everything that serves waits on the same
`Stopping`, so that a drain over HTTP and one by signal are the same.
"""

import asyncio
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from bin.bounded_http import BoundedHttp
from bin.variables import BadSetting

log = structlog.get_logger("bin.serving")

GRACE_S = 15  # how long a drain waits for open requests; the longest long poll is shorter


class Stopping:
    """Whether this process is to end, and how."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.hard = asyncio.Event()

    def drain(self) -> None:
        self.draining.set()

    def on_signal(self) -> None:
        if self.draining.is_set():
            self.hard.set()
        else:
            log.info("draining; another signal stops at once")
            self.draining.set()

    def take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.on_signal)


def listen(variable: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises BadSetting, naming the variable, when the port can't be had."""
    try:
        return _listener(host, port)
    except OSError as error:
        raise BadSetting(f"{variable}: cannot listen on {host}:{port}: {error.strerror or error}; choose another port") from None


def listen_nearby(host: str, port: int) -> socket.socket:
    """Like `listen`, for a port that may belong to another process of ours on this machine: then a free one is taken."""
    try:
        return _listener(host, port)
    except OSError as error:
        listener = _listener(host, 0)
        log.warning("ADMIN_PORT is taken, another one serves instead", wanted=port, port=port_of(listener), reason=error.strerror)
        return listener


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def address_of(listener: socket.socket) -> str:
    host = str(listener.getsockname()[0])
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(listener)}"


class _Server(uvicorn.Server):
    """A server that leaves the signals to `Stopping`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: ASGIApp, listener: socket.socket, stopping: Stopping, *, root_path: str = "", proxies: Sequence[str] = ()
) -> None:
    """Serves until told to stop. proxies: the addresses or networks whose word on who the client is counts (x-forwarded-for, -proto)."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedHttp,
        root_path=root_path.rstrip("/"),
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)

    async def obey() -> None:
        await stopping.draining.wait()
        server.should_exit = True
        await stopping.hard.wait()
        server.force_exit = True

    obeying = asyncio.create_task(obey())
    try:
        await server.serve(sockets=[listener])
    finally:
        obeying.cancel()
        stopping.drain()  # a server that ended by itself ends the process
