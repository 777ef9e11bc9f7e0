"""bin/worker: executes workflows. Start as many as you like, on any machine that reaches the database.

`--processes N` runs N of them under one parent, which ends when they have ended. PORT is ignored; health, readiness, metrics and
drain are served on ADMIN_PORT (each further process takes the next port).
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from bin.roles import Role, serve_until_stopped
from bin.serving import listen_nearby
from bin.settings import Settings
from bin.wiring import FAILED, migrated_database, run


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/worker", description="Executes workflows until TERM; a second TERM stops at once.")
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="worker processes on this machine (1)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.processes > 1:
        return supervise(settings, arguments.processes)
    if arguments.child:
        end_with_the_parent()
    dsn = migrated_database(settings)
    role = Role("worker", listen_nearby(settings.admin_host, settings.admin_port), works=True)
    return serve_until_stopped(settings, dsn, role)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 256")
    return int(text)


def supervise(settings: Settings, count: int) -> int:
    """Passes TERM and INT on to every child, and gives the worst of their exit codes."""
    migrated_database(settings)  # refuse once what every child would refuse, and keep an embedded server between their starts
    children = [_child(settings, number) for number in range(count)]

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    return _worst([child.wait() for child in children])


def _child(settings: Settings, number: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a Ctrl-C reaches it once, through the parent."""
    port = settings.admin_port + number if settings.admin_port else 0
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bin.commands.worker", "--child"],
        env={**os.environ, "ADMIN_PORT": str(min(port, 65535))},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _worst(codes: Sequence[int]) -> int:
    return FAILED if any(codes) else 0


def end_with_the_parent() -> None:
    """Drains when the parent dies, of which the end of standard input tells, however it died."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be missed at exit
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


if __name__ == "__main__":
    run(main)
