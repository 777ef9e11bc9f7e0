"""Real processes under measurement: started, heard when they are ready, told to go, and always stopped.

A measured program prints `ready` once it could start and then waits for a line on its standard input. The end of its input means stop.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessFailed(Exception):
    """A measured process ended or stayed silent where it should have spoken."""


class Measured:
    """One child process, with its standard error kept in a file for the report of a failure."""

    def __init__(self, name: str, argv: list[str], log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._log = log_dir / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout_s: float) -> str:
        """The next line it prints; raises ProcessFailed when none comes in time."""
        assert self._process.stdout is not None
        heard = b""
        deadline = time.monotonic() + timeout_s
        while not heard.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise ProcessFailed(f"{self.name} said nothing for {timeout_s:g} s: {self._tail()}")
            byte = os.read(self._process.stdout.fileno(), 1)
            if not byte:
                raise ProcessFailed(f"{self.name} ended early: {self._tail()}")
            heard += byte
        return heard.decode().strip()

    def await_ready(self, timeout_s: float = 60) -> None:
        while self.line(timeout_s) != "ready":
            pass

    def go(self, words: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")
        self._process.stdin.flush()

    def check_alive(self) -> None:
        """Raise ProcessFailed, with the end of its log, when it is gone."""
        if self._process.poll() is not None:
            raise ProcessFailed(f"{self.name} ended with {self._process.returncode}: {self._tail()}")

    def cpu_s(self) -> float:
        """Processor seconds used so far, in user and kernel mode."""
        used = cpu_s(self.pid)
        if used is None:
            raise ProcessFailed(f"{self.name} is gone: {self._tail()}")
        return used

    def rss_mb(self) -> float:
        return self._memory_mb("VmRSS:")

    def peak_rss_mb(self) -> float:
        return self._memory_mb("VmHWM:")

    def _memory_mb(self, field: str) -> float:
        for row in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if row.startswith(field):
                return int(row.split()[1]) / 1024
        raise ProcessFailed(f"{self.name} has no memory to read: {self._tail()}")

    def kill(self) -> None:
        """SIGKILL, as a crash is."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Close its input, then TERM, then KILL, whichever it heeds first."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                self._process.send_signal(sign)
            try:
                self._process.wait(8)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-1500:].strip() or "(its log is empty)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def cpu_s(pid: int, program: str | None = None) -> float | None:
    """Processor seconds a process has used; None when there is none of this number, or it runs another program."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except FileNotFoundError:
        return None
    if program is not None and name.partition("(")[2] != program:
        return None
    fields = rest.split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package with this interpreter."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]
