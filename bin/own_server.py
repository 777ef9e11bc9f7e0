"""An embedded PostgreSQL of a command's own: for load that nobody else should feel, and for crashes that nobody else should see.

It is as durable as any (`fsync` is on), lives in a folder that must not be used by anything else, and is gone with its data at the end.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bin.commands.migrate import prepare
from bin.postgres import Lease, borrow
from bin.postgres_programs import CannotRunPostgres
from bin.postgres_watcher import is_running, pid_of

STOP_S = 60.0


class OwnServer:
    """A running server. It stops with `close`, or with this process. keep: leave its data when `own_server` ends."""

    keep = False

    def __init__(self, folder: Path, bindir: Path | None = None) -> None:
        self._folder = folder
        self._bindir = bindir
        self._leases = [borrow(folder, bindir=bindir)]

    @property
    def dsn(self) -> str:
        """The same after each restart."""
        return self._lease.dsn

    @property
    def log(self) -> Path:
        return self._lease.home / "server.log"

    @property
    def _lease(self) -> Lease:
        return self._leases[-1]

    def crash(self) -> None:
        """What `pg_ctl stop -m immediate` does, no checkpoint and no goodbye to clients; then it is started again."""
        os.kill(pid_of(self._lease.home), signal.SIGQUIT)
        self._wait_until_gone()
        self._leases.append(borrow(self._folder, bindir=self._bindir))

    def revive(self) -> None:
        """Wait until it answers again after troubles of its own; start it if it has ended."""
        self._leases.append(borrow(self._folder, bindir=self._bindir))

    def close(self) -> None:
        for lease in self._leases:
            lease.close()
        self._wait_until_gone()

    def _wait_until_gone(self) -> None:
        """Raises CannotRunPostgres when it is still there after a minute: somebody else uses it too."""
        deadline = time.monotonic() + STOP_S
        while is_running(self._lease.home):
            if time.monotonic() > deadline:
                raise CannotRunPostgres(
                    f"the server in {self._lease.home} did not stop in {STOP_S:.0f} s; does anybody else use it?"
                )
            time.sleep(0.01)


@contextmanager
def own_server(folder: Path, bindir: Path | None = None) -> Iterator[OwnServer]:
    """A server with the whole schema for the length of the block. Nothing is left of it afterwards, unless it is to be kept."""
    folder.mkdir(parents=True)
    server = OwnServer(folder, bindir)
    try:
        prepare(server.dsn, only_default_recipe=True)
        yield server
    finally:
        server.close()
        if not server.keep:
            shutil.rmtree(folder)


def surroundings(dsn: str, state: Path) -> dict[str, str]:
    """The settings of a service that is all by itself: its database and folder, free ports, no rate limits, nothing live."""
    return {
        "DATABASE_URL": dsn,
        "STATE_DIR": str(state),
        "SIGNOFF_DIR": "",
        "LISTEN_HOST": "127.0.0.1",
        "PORT": "0",
        "ADMIN_PORT": "0",
        "INTENT_QUEUE_RATE_LIMIT_PER_PERIOD": "0",
        "SBX_QUEUE_RATE_LIMIT_PER_PERIOD": "0",
        "INTENT_QUEUE_PARTITION": "true",
        "OC_MODE": "replay",
        "SBX_MODE": "mock",
        "SCHEDULED_OPS": "false",
        "DBOS_ENABLE_OTLP": "false",
        "RANDOM_SEED": "",
    }
