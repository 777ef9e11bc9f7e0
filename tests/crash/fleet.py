"""Worker processes for tests to kill, freeze and restart.

They are forked from a server process that has imported everything already (multiprocessing's forkserver), so that one is at work some
ten milliseconds after it was asked for. Each writes its log and its ledger into the drill's folder.
"""

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from engine import Engine, Workflow
from tests.crash import subject
from tests.crash.points import Points

WAIT_S = 30.0
LEASE_S = 1.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Job:
    """What a worker process is to do. `cast`: whose workflows it runs, 'engine' (subject.py) or 'product'. `files`: its points are
    system calls at files.
    """

    dsn: str
    folder: Path
    cast: str = "engine"
    root: str = ""
    point: str | None = None
    number: signal.Signals = signal.SIGKILL
    trace: bool = False
    lease_s: float = LEASE_S
    slots: int = 64
    files: bool = False

    @property
    def trace_file(self) -> Path:
        return self.folder / "trace"


class WorkerProcess:
    """One worker process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.log = job.folder / f"worker-{next(_numbers)}.log"
        self._process = _context().Process(target=_main, args=(job, self.log), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; -9 after a kill."""
        return self._process.exitcode

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def is_stopped(self) -> bool:
        """Whether SIGSTOP has taken effect."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WAIT_S)

    async def drain(self) -> None:
        """TERM, and wait until it has ended by itself."""
        self.signal(signal.SIGTERM)
        await until(lambda: self.exit_code is not None, "the worker to drain")
        assert self.exit_code == 0, self.log.read_text()


@contextmanager
def workers(job: Job) -> Iterator[Callable[..., WorkerProcess]]:
    """A function that starts workers; those that are left are killed at the end."""
    started: list[WorkerProcess] = []

    def begin(**changes: Any) -> WorkerProcess:
        started.append(WorkerProcess(replace(job, **changes)))
        return started[-1]

    try:
        yield begin
    finally:
        for one in started:
            one.kill()


async def until(look: Callable[[], object | Awaitable[object]], what: str, timeout_s: float = WAIT_S) -> None:
    """Look again and again until there is something true. Fails after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        found = look()
        if await found if isinstance(found, Awaitable) else found:
            return
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        await asyncio.sleep(0.02)


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "steps.worker", "pytest"])
    return context


def _main(job: Job, log: Path) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
    os.dup2(1, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    subject.ledger = job.folder / "ledger"
    Points(job.root, job.point, job.number, job.trace_file if job.trace else None, files=job.files).install()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(job))


async def _work(job: Job) -> None:
    async with Engine.connect(job.dsn, pool_size=4) as engine:
        workflows, queues = _cast(job, engine)
        await engine.run_worker(workflows, queues=queues, slots=job.slots, lease_s=job.lease_s, poll_s=0.2)


def _cast(job: Job, engine: Engine) -> tuple[list[Workflow[Any, Any]], dict[str, int]]:
    if job.cast == "engine":
        return list(subject.WORKFLOWS), {"default": job.slots}
    from steps.opencode import ReplayOpenCode
    from steps.sandbox import MockSandbox
    from steps.worker import QUEUES, Ports, configure, workflows

    workspace = job.folder / "workspace"
    workspace.mkdir(exist_ok=True)
    configure(Ports(engine.pool, ReplayOpenCode(), MockSandbox(), workspace))
    return workflows(), dict(QUEUES)
