"""Faults that a service must come through. Each is made under load, lasts a while, and is taken away; then all must end, and rightly.

A fault is a function of the drill that makes it, lets time pass (`drill.watch`) and takes it away. It raises SoakFailed when it
could not be made, so that no drill passes in which nothing happened.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import psycopg

from bin.failover_clients import Clients
from bin.own_server import OwnServer
from bin.service import ServiceProcess
from bin.soaks import fault_worker, small_disk
from bin.soaks.silent_proxy import Silence, SilentProxy
from bin.soaks.small_disk import SmallDisk
from bin.soaks.stage import SoakFailed, Stage, in_background
from engine import connection_string

WORKERS = 2
LOOK_S = 0.1
FAULTY = "bin.soaks.fault_worker"
LEASE_LOST = "lease was lost"
ENDED_OF: LiteralString = """
    select count(*) from app.runs where workflow_id = any(%s) and status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
"""


@dataclass
class Drill:
    """A service under load. switch: the file that tells a faulty worker to block. disk: what the database is on, where that is small."""

    stage: Stage
    server: OwnServer
    clients: Clients
    seconds: float
    switch: Path
    proxy: SilentProxy | None = None
    disk: SmallDisk | None = None
    api: ServiceProcess | None = None
    workers: list[ServiceProcess] = field(default_factory=list[ServiceProcess])

    def watch(self, seconds: float) -> None:
        """Let it go on for so long."""
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            self.stage.require_alive()
            time.sleep(min(LOOK_S, left_s))

    def learn_ends(self, over: threading.Event) -> None:
        """Tell the clients what has ended, all the time. The database may be away."""
        while not over.wait(LOOK_S):
            with suppress(psycopg.OperationalError), psycopg.connect(connection_string(self.stage.dsn), autocommit=True) as conn:
                self.clients.learn_ends(conn)

    def execute(self, *statements: LiteralString) -> None:
        with psycopg.connect(connection_string(self.stage.dsn), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    def logged(self, words: str) -> int:
        """How often the workers have said so."""
        logs = {process.log for process in self.stage.processes if process.command == "worker"}
        return sum(log.read_text(errors="replace").count(words) for log in logs)


@dataclass(frozen=True, slots=True)
class Fault:
    """does: for people. make: see above. seconds: how long it lasts unless somebody says so. worker: the arguments of the faulty worker,
    None for the ordinary one. environ: of the worker of this number. obstacle: why it can't be made here.
    """

    does: str
    make: Callable[[Drill], None]
    seconds: float
    worker: tuple[str, ...] | None = None
    environ: Callable[[Path, int], Mapping[str, str]] = lambda folder, number: {}
    proxied: bool = False
    small_disk: bool = False
    obstacle: Callable[[], str | None] = lambda: None


def begin_service(drill: Drill, fault: Fault, **settings: str) -> None:
    """An API and workers, to which the load turns."""
    stage = drill.stage
    drill.api = stage.begin("api", **settings)
    if fault.worker is None:
        more = [stage.begin("worker", **settings, **fault.environ(stage.folder, number)) for number in range(WORKERS)]
    else:
        words = [*fault.worker, "--switch", str(drill.switch)]
        more = [stage.begin_another("worker", FAULTY, *words) for _ in range(WORKERS)]
    stage.wait_for_workers(more)
    drill.workers = more
    drill.clients.client.turn_to(drill.api.url())


# -- of the database ----------------------------------------------------------------------------------------------------------------


GROW: LiteralString = """
    create table if not exists public.more (i int); insert into public.more select generate_series(1, 10000)
"""


def disk_full(drill: Drill) -> None:
    """Tables cannot grow, and then the log cannot: the server panics, recovers as far as it can, and may end by itself."""
    assert drill.disk is not None
    refused = away = 0
    begun = time.monotonic()
    while (passed_s := time.monotonic() - begun) < drill.seconds:
        drill.disk.fill()
        drill.watch(0.5)
        try:
            if passed_s < drill.seconds / 2:
                drill.execute(GROW)
            else:
                drill.execute("select pg_switch_wal()")  # the next file of the log has no room
        except psycopg.errors.DiskFull:
            refused += 1
        except psycopg.OperationalError:
            away += 1
    drill.disk.clear()
    if not refused or not away:
        raise SoakFailed(f"the disk was not full: {refused} statements refused, {away} found no server")
    drill.server.revive()
    drill.execute("drop table if exists public.more")
    drill.stage.notes.append(
        f"of {refused + away} statements of our own {refused} were refused for want of room, {away} found no server; "
        f"the workers' journals were refused {drill.logged('53100')} times"
    )


LOCKS: tuple[LiteralString, ...] = (
    "select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') limit 20 for update",
    "select from engine.worker for update",
    "select from app.runs order by created_at desc limit 20 for update",
    "lock table dbos.operation_outputs in share row exclusive mode",
    "lock table app.run_steps in share row exclusive mode",
    "lock table engine.queue_partition in share row exclusive mode",
)


def statement_timeout(drill: Drill) -> None:
    """Every session of the service may take 50 ms for a statement, while a rival holds locks for longer."""

    def rival(over: threading.Event) -> None:
        while not over.wait(drill.stage.dice.uniform(0.02, 0.1)):
            with psycopg.connect(drill.stage.dsn) as conn:
                conn.execute(drill.stage.dice.choice(LOCKS))
                over.wait(drill.stage.dice.uniform(0.05, 0.4))
                conn.rollback()

    drill.execute("alter system set statement_timeout = '50ms'", "select pg_reload_conf()")
    with in_background(rival):
        drill.watch(drill.seconds)
    drill.execute("alter system reset statement_timeout", "select pg_reload_conf()")
    cancelled = drill.server.log.read_text(errors="replace").count("due to statement timeout")
    if not cancelled:
        raise SoakFailed("no statement was cancelled")
    drill.stage.notes.append(f"{cancelled} statements were cancelled after 50 ms")


def pool_of_one(drill: Drill) -> None:
    """API and workers are replaced by others with one connection in the pool, and these by ordinary ones."""
    replace(drill, DB_POOL_SIZE="1")
    drill.watch(drill.seconds)
    replace(drill)


def replace(drill: Drill, **settings: str) -> None:
    before = [drill.api, *drill.workers]
    begin_service(drill, FAULTS["pool-of-one"], **settings)
    for process in before:
        if process is not None:
            process.stop()


# -- of clocks ----------------------------------------------------------------------------------------------------------------------

LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
OTHER_TIMES: LiteralString = """
    select s.workflow_uuid from dbos.workflow_status s, lateral (values
           (s.created_at), (s.updated_at), (s.started_at_epoch_ms), (s.completed_at)) t (at_ms)
     where abs(t.at_ms - engine.now_ms()) > 1200000
    union all
    select o.workflow_uuid from dbos.operation_outputs o, lateral (values (o.started_at_epoch_ms), (o.completed_at_epoch_ms)) t (at_ms)
     where abs(t.at_ms - engine.now_ms()) > 1200000 and o.function_name <> 'DBOS.sleep'  -- which says when it will be over
    union all
    select w.id from engine.worker w where abs(w.lease_until_ms - engine.now_ms()) > 1200000
"""


def faketime() -> Path | None:
    return next((found for pattern in LIBRARIES for found in Path("/").glob(pattern[1:])), None)


def no_faketime() -> str | None:
    return None if faketime() else "libfaketime is not installed (the package faketime)"


def clock_file(folder: Path, number: int) -> Path:
    return folder / f"clock-{number}"


def other_clock(folder: Path, number: int) -> Mapping[str, str]:
    """What makes a process look at a clock that a file sets."""
    file = clock_file(folder, number)
    file.write_text("+0")
    return {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def clock(drill: Drill) -> None:
    """One worker's clock jumps ahead by an hour, the other's back by one; then the other way round."""
    seen: set[int] = set()
    for ahead in (0, 1):
        for number in range(WORKERS):
            clock_file(drill.stage.folder, number).write_text("+3600" if number == ahead else "-3600")
        drill.watch(drill.seconds / 2)
        seen |= {round(off_s / 3600) for worker in drill.workers if (off_s := clock_of(worker)) is not None}
    for number in range(WORKERS):
        clock_file(drill.stage.folder, number).write_text("+0")
    if not {-1, 1} <= seen:
        raise SoakFailed(f"the workers' clocks were off by {sorted(seen)} hours")
    if odd := drill.stage.rows(OTHER_TIMES):
        raise SoakFailed(f"{len(odd)} times in the database are of another clock, of {odd[0][0]} for one")
    drill.stage.notes.append("both clocks were an hour ahead and an hour behind; no time in the database is of either")


def clock_of(worker: ServiceProcess) -> float | None:
    """By how many seconds the last line of its log is off."""
    for line in reversed(worker.log.read_text(errors="replace").splitlines()):
        with suppress(ValueError, TypeError, KeyError):
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - time.time()
    return None


# -- of connections -----------------------------------------------------------------------------------------------------------------

EVERY_S = 8.0
SILENCES: tuple[Silence, ...] = ("vanish", "swallow")


def half_open(kind: str) -> Callable[[Drill], None]:
    def make(drill: Drill) -> None:
        assert drill.proxy is not None
        ways = itertools.cycle(SILENCES)
        silenced, lost = 0, drill.logged(LEASE_LOST)
        end = time.monotonic() + drill.seconds
        while (left_s := end - time.monotonic()) > 0:
            silenced += drill.proxy.silence(kind, next(ways))
            drill.watch(min(EVERY_S, left_s))
        if not silenced:
            raise SoakFailed(f"there was no connection of a {kind}")
        lost = drill.logged(LEASE_LOST) - lost
        drill.stage.notes.append(f"{silenced} connections of a {kind} fell silent; {lost} leases were lost")

    return make


# -- of steps -----------------------------------------------------------------------------------------------------------------------

BLOCKED_S = 13.0  # a lease is 10 s


def blocked_loop(drill: Drill) -> None:
    """One worker is blocked by code that waits, then one by code that computes and lets no thread run."""
    lost = drill.logged(LEASE_LOST)
    for how in ("sleep", "hold"):
        drill.switch.write_text(f"{how} {BLOCKED_S}")
        end = time.monotonic() + 30
        while drill.switch.exists():
            drill.watch(LOOK_S)
            if time.monotonic() > end:
                raise SoakFailed("no worker did what the switch says")
        drill.watch(max(BLOCKED_S, drill.seconds / 2))
    lost = drill.logged(LEASE_LOST) - lost
    drill.stage.notes.append(f"two steps blocked a worker for {BLOCKED_S:.0f} s; {lost} leases were lost")


DOOMED = (fault_worker.OUT_OF_MEMORY, fault_worker.OUT_OF_MEMORY, fault_worker.KILL_WORKER)


def out_of_memory(drill: Drill) -> None:
    """Some steps ask for more than there is; one gets its worker killed, each time it runs."""
    doomed: list[str] = []
    for number, word in enumerate(DOOMED):
        goal = f"doomed {number}"
        constraints = {"testHooks": {"replay": {"build": {"test_command": word}}}}
        wid = drill.clients.client.start(goal, f"doomed-{number}", constraints)
        drill.clients.accept(wid, goal)
        doomed.append(wid)
    end = time.monotonic() + max(drill.seconds, PATIENCE_S)
    while drill.stage.value(ENDED_OF, doomed) < len(doomed) and time.monotonic() < end:
        drill.watch(0.5)
    deaths = sum(worker.deaths for worker in drill.workers)
    if not deaths:
        raise SoakFailed("no worker was killed")
    drill.stage.notes.append(f"workers were killed {deaths} times, by a step that had it coming each time")


PATIENCE_S = 150.0

FAULTS: Mapping[str, Fault] = {
    "disk-full": Fault(
        "the database's disk is full: tables, then the log", disk_full, 12, small_disk=True, obstacle=small_disk.obstacle
    ),
    "statement-timeout": Fault("statements may take 50 ms, while a rival holds locks", statement_timeout, 15),
    "pool-of-one": Fault("every pool has one connection", pool_of_one, 10),
    "clock": Fault("the workers' clocks are an hour off, both ways", clock, 16, environ=other_clock, obstacle=no_faketime),
    "half-open-heartbeat": Fault("the lease's connection falls silent", half_open("heartbeat"), 24, proxied=True),
    "half-open-listener": Fault("the listening connection falls silent", half_open("listener"), 24, proxied=True),
    "blocked-loop": Fault("a step blocks the event loop for longer than a lease", blocked_loop, 26, worker=()),
    "out-of-memory": Fault("steps die of memory, and one takes its worker along", out_of_memory, 30, worker=("--lease", "1.5")),
}
