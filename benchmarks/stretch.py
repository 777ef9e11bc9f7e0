"""One stretch of work: a fresh database, real worker processes, workflows through a queue, and proof that each ran exactly as it should.

Every peer is measured by this one function, and timed by the server's clock: a live stretch from the first enqueue to the last
completion, a drain from the commit that makes the whole backlog visible to the last completion.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, LiteralString

from benchmarks.processes import Measured, ProcessFailed
from benchmarks.server import Database, Server

STEPS_EACH = 4
RIDER_TABLE = b"""
create schema bench;
create table bench.rider (workflow_uuid text not null, step int not null, note text not null, primary key (workflow_uuid, step));
"""

UNFINISHED: LiteralString = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
SUCCEEDED: LiteralString = "select count(*) from dbos.workflow_status where status = 'SUCCESS'"
WHOLE: LiteralString = """
select count(*) from (
    select workflow_uuid from dbos.operation_outputs group by workflow_uuid
    having count(*) = %s and min(function_id) = 1 and max(function_id) = %s and count(error) = 0) whole
"""
STEP_ROWS: LiteralString = "select count(*) from dbos.operation_outputs"
RIDER_ROWS: LiteralString = "select count(*) from bench.rider"
RIDERS_OF_STEPS: LiteralString = """
select count(*) from bench.rider r join dbos.operation_outputs o on o.workflow_uuid = r.workflow_uuid and o.function_id = r.step
"""
FIRST_MS: LiteralString = "select min(created_at) from dbos.workflow_status"
LAST_MS: LiteralString = "select max(completed_at) from dbos.workflow_status"

Mode = Literal["live", "shared", "drain"]


class Wrong(Exception):
    """A stretch ended with rows other than those its workflows must leave."""


@dataclass(frozen=True)
class Peer:
    """How to set up and drive one system: command lines for its worker, its enqueuing client and its one-commit backlog."""

    name: str
    database: str
    schema: bytes
    worker: Callable[[str, int, bool], list[str]]  # dsn, which worker process, with riders
    enqueue: Callable[[str, int, bool], list[str]]  # dsn, count, with riders
    backlog: Callable[[str, int, bool], list[str]]
    enqueue_shared: Callable[[str, int, bool], list[str]] | None = None  # a client whose concurrent calls share commits
    prepare: Callable[[str], None] = lambda dsn: None


@dataclass(frozen=True)
class Stretch:
    """What one stretch took."""

    peer: str
    mode: Mode
    workers: int
    rider: bool
    workflows: int
    seconds: float
    commits: int
    wal_bytes: int
    worker_cpu_s: float
    server_cpu_s: float | None  # None: the server is on another machine
    load: float

    @property
    def rate(self) -> float:
        """Workflows a second."""
        return self.workflows / self.seconds


def run(server: Server, peer: Peer, mode: Mode, count: int, log_dir: Path, workers: int = 1, rider: bool = False) -> Stretch:
    """Run `count` workflows and return what it took; raises Wrong when any of them left other rows than it must."""
    load = os.getloadavg()[0]
    database = server.fresh(peer.database, peer.schema + (RIDER_TABLE if rider else b""))
    try:
        peer.prepare(database.dsn)
        with ExitStack() as stack:
            started = [
                stack.enter_context(Measured(f"{peer.name}-worker-{n}", peer.worker(database.dsn, n, rider), log_dir))
                for n in range(workers)
            ]
            for worker in started:
                worker.await_ready()
            argv = _client(peer, mode)(database.dsn, count, rider)
            client = stack.enter_context(Measured(f"{peer.name}-client", argv, log_dir))
            client.await_ready()
            time.sleep(0.3)
            cpu_s, server_cpu_s = sum(worker.cpu_s() for worker in started), database.server_cpu_s()
            before = database.counters(settled=False)
            client.go()
            said = client.line(timeout_s=300).split()
            _await_end(database, count, started)
            cpu_s = sum(worker.cpu_s() for worker in started) - cpu_s
            server_after_s = database.server_cpu_s()
        after = database.counters(settled=True)
        first_ms = int(said[1]) if mode == "drain" else database.number(FIRST_MS)
        seconds = (database.number(LAST_MS) - first_ms) / 1000
        check(database, count, rider)
    finally:
        database.close()
    commits, wal_bytes = after.commits - before.commits, after.wal_bytes - before.wal_bytes
    used_s = None if server_cpu_s is None or server_after_s is None else server_after_s - server_cpu_s
    return Stretch(peer.name, mode, workers, rider, count, seconds, commits, wal_bytes, cpu_s, used_s, load)


def _client(peer: Peer, mode: Mode) -> Callable[[str, int, bool], list[str]]:
    if mode == "shared":
        assert peer.enqueue_shared is not None
        return peer.enqueue_shared
    return peer.enqueue if mode == "live" else peer.backlog


def _await_end(database: Database, count: int, workers: list[Measured], patience_s: float = 60) -> None:
    """Wait until every workflow ended; looks seldom, because looking costs the server work."""
    left, deadline = -1, time.monotonic() + patience_s
    while (now_left := database.number(UNFINISHED)) or database.number(SUCCEEDED) < count:
        for worker in workers:
            worker.check_alive()
        if now_left != left:
            left, deadline = now_left, time.monotonic() + patience_s
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{now_left} of {count} workflows made no progress for {patience_s:g} s")
        time.sleep(0.1)


def check(database: Database, count: int, rider: bool) -> None:
    """Raise Wrong unless all succeeded, each with step rows 1..4 and no others, and (if asked) one rider for each step row."""
    found = {
        "successes": (database.number(SUCCEEDED), count),
        "whole histories": (database.number(WHOLE, STEPS_EACH, STEPS_EACH), count),
        "step rows": (database.number(STEP_ROWS), count * STEPS_EACH),
    }
    if rider:
        found["riders"] = (database.number(RIDER_ROWS), count * STEPS_EACH)
        found["riders of a step row"] = (database.number(RIDERS_OF_STEPS), count * STEPS_EACH)
    for what, (seen, expected) in found.items():
        if seen != expected:
            raise Wrong(f"{what}: {seen} where {expected} belong")
