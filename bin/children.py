"""A command run to its end, or stopped decently with everything that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bin.settings import ROOT

STILL_S = 60.0
STOP_S = 30.0


def run_module(
    words: Sequence[str],
    log: Path | None,
    environ: Mapping[str, str],
    *,
    cwd: Path = ROOT,
    timeout_s: float = 3600.0,
    still: Callable[[float], None] = lambda seconds: None,
) -> int | None:
    """Run a Python module with arguments; its exit code, or None when it was stopped because its time was over.

    log: where its output goes, at the end of what is there; None for ours. environ: what is added to our environment. still: called
    once a minute with the seconds so far. The command has a session of its own, so that nobody but we stop it: Ctrl-C, and then a kill
    of all of it.
    """
    with ExitStack() as open_things:
        output = open_things.enter_context(log.open("ab")) if log else None
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *words],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            return _wait(process, timeout_s, still)
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float, still: Callable[[float], None]) -> int | None:
    began = time.monotonic()
    while (left_s := began + timeout_s - time.monotonic()) > 0:
        try:
            return process.wait(min(STILL_S, left_s))
        except subprocess.TimeoutExpired:
            still(time.monotonic() - began)
    return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def stopping_on_term() -> Iterator[None]:
    """TERM means the same as Ctrl-C, also where the shell that started us has Ctrl-C ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
