"""A worker for drills, whose sandbox brings trouble: `python -m bin.soaks.fault_worker [--lease S] [--switch FILE]`.

A command with the word OUT_OF_MEMORY asks for more memory than there is, one with KILL_WORKER ends as the kernel ends a process that has
used up the machine's: by SIGKILL, without a word. The switch is a file of two words, how and for how many seconds, and means once: the next
command that a worker gets takes it away and blocks the event loop, either like code that waits (`sleep`: other threads go on), or like
code that computes in C (`hold`: no other thread gets its turn).
"""

import argparse
import ctypes
import os
import signal
import time
from pathlib import Path

from bin.roles import Role, serve_until_stopped
from bin.serving import listen_nearby
from bin.settings import Settings
from bin.wiring import migrated_database, run
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.sandbox import MockSandbox, OnOutput

OUT_OF_MEMORY = "OUT_OF_MEMORY"
KILL_WORKER = "KILL_WORKER"
TOO_MUCH = 1 << 62


class FaultySandbox(MockSandbox):
    def __init__(self, switch: Path | None) -> None:
        self._switch = switch

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        words = request.cmd.split()
        if OUT_OF_MEMORY in words:
            bytearray(TOO_MUCH)
        if KILL_WORKER in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._switch is not None and (told := taken(self._switch)):
            how, seconds = told.split()
            block(float(seconds), hold=how == "hold")
        return await super().run(request, attempt=attempt, key=key, on_output=on_output)


def taken(switch: Path) -> str:
    """What the switch says, for one of all that look."""
    mine = switch.with_suffix(f".{os.getpid()}")
    try:
        switch.rename(mine)
    except FileNotFoundError:
        return ""
    return mine.read_text()


def block(seconds: float, *, hold: bool) -> None:
    if hold:
        ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))  # a PyDLL keeps the interpreter's lock
    else:
        time.sleep(seconds)


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(description="A worker for drills.")
    parser.add_argument("--lease", type=float, default=Role.lease_s)
    parser.add_argument("--switch", type=Path)
    asked = parser.parse_args()
    dsn = migrated_database(settings)
    admin = listen_nearby(settings.admin_host, settings.admin_port)
    role = Role("worker", admin, works=True, sandbox=FaultySandbox(asked.switch), lease_s=asked.lease)
    return serve_until_stopped(settings, dsn, role)


if __name__ == "__main__":
    run(main)
