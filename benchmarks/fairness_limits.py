"""Caps and rates under load while workers are killed: no cap may ever be exceeded, at any instant, and no rate in any window.

Three books are kept of what was at work when, and each is judged by itself:

- *owned*: a trigger of the benchmark's notes, in the commit itself, when a run gets an owner and when it loses it. The stamps are taken
  after a claim has counted and before a finish commits, so intervals of runs that were allowed beside each other never overlap by error;
- *executing*: each step notes in a file when it began and ended; for one that was killed the end is the moment its process was gone;
- *rows*: `started_at_epoch_ms` and `completed_at` of the runs that succeeded, as anybody may compute it.

A rate counts the starts, by the stamp that the claim gave, of every claim that was not a going-on, killed ones too.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

from benchmarks import backlog, holdfast
from benchmarks.processes import Measured
from benchmarks.report import Report, Table, Verdict
from benchmarks.server import Database, Server
from benchmarks.shares import most_at_once, most_in_window
from benchmarks.stretch import Wrong
from benchmarks.workloads import QUEUE

Say = Callable[[str], None]
WORKERS, WORKER_CAP, LEASE_S = 4, 8, 2.0
QUEUE_CAP, PARTITION_CAP = 20, 3
QUEUE_RATE, PARTITION_RATE, PERIOD_S = 200, 20, 2.0
CAP_PARTITIONS, RATE_PARTITIONS = 7, 10  # so many that the queue's limit and the partitions' hold back at the same time
SEED = 11

BOOKS = b"""
create schema bench;
create table bench.owned (
    workflow_uuid text, token text, executor text, partition text, started_ms bigint, goes_on boolean, began_us bigint, ended_us bigint,
    primary key (workflow_uuid, token));
create function bench.note_owner() returns trigger language plpgsql as $$
declare
    now_us constant bigint := extract(epoch from clock_timestamp()) * 1000000;
begin
    if old.owner_xid is not null then
        update bench.owned set ended_us = now_us where workflow_uuid = old.workflow_uuid and token = old.owner_xid;
    end if;
    if new.owner_xid is not null then
        insert into bench.owned (workflow_uuid, token, executor, partition, started_ms, goes_on, began_us)
        values (new.workflow_uuid, new.owner_xid, new.executor_id, new.queue_partition_key, new.started_at_epoch_ms,
                old.started_at_epoch_ms is not null, now_us);
    end if;
    return null;
end
$$;
create trigger note_owner after update of owner_xid on dbos.workflow_status
    for each row when (new.owner_xid is distinct from old.owner_xid) execute function bench.note_owner();
"""
LIMIT: LiteralString = """
insert into dbos.queues (name, concurrency, partition_concurrency, rate_limit_max, rate_limit_period_sec, partition_rate_limit_max,
                         partition_rate_limit_period_sec)
values (%s, %s, %s, %s, %s, %s, %s)
"""
OWNED: LiteralString = """
select partition, executor, started_ms, goes_on, began_us,
       coalesce(ended_us, (extract(epoch from clock_timestamp()) * 1000000)::bigint) from bench.owned order by began_us
"""
ENDED: LiteralString = """
select queue_partition_key, started_at_epoch_ms, completed_at from dbos.workflow_status where status = 'SUCCESS' order by 2
"""
RESCUED: LiteralString = "select count(*) from (select workflow_uuid from bench.owned group by 1 having count(*) > 1) again"


@dataclass(frozen=True)
class Size:
    seconds: float = 25
    rows: int = 20_000


QUICK = Size(seconds=8, rows=5000)


@dataclass
class Books:
    """Who was at work when. Times in microseconds, of `rows` in milliseconds."""

    owned: list[tuple[str, str, int, int]] = field(
        default_factory=list[tuple[str, str, int, int]]
    )  # partition, worker, begin, end
    executing: list[tuple[str, str, int, int]] = field(default_factory=list[tuple[str, str, int, int]])
    rows: list[tuple[str, str, int, int]] = field(default_factory=list[tuple[str, str, int, int]])
    starts: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])  # partition, milliseconds
    kills: int = 0
    rescued: int = 0


def measure(server: Server, state_dir: Path, size: Size, say: Say, schema: bytes = holdfast.SCHEMA) -> Report:
    report = Report("limits")
    rows: list[list[str]] = []
    worst = 0
    cases: list[tuple[str, int, tuple[object, ...]]] = [
        ("caps", CAP_PARTITIONS, (QUEUE_CAP, PARTITION_CAP, None, None, None, None)),
        ("rates", RATE_PARTITIONS, (None, None, QUEUE_RATE, PERIOD_S, PARTITION_RATE, PERIOD_S)),
    ]
    for what, partitions, limits in cases:
        books = _run(server, state_dir, size, partitions, limits, schema)
        found = list(_caps(books) if what == "caps" else _rates(books))
        for name, most, limit, over in found:
            rows.append([name, str(limit), str(most), str(over)])
            worst += over
        report.notes.append(
            f"{what}: {books.kills} workers killed -9, {books.rescued} runs claimed again, {len(books.owned):,} claims"
        )
        report.figures[what] = {"found": found, "kills": books.kills, "rescued": books.rescued, "claims": len(books.owned)}
        say(f"{what}: {books.kills} kills, {len(books.owned):,} claims, {sum(f[3] for f in found)} violations")
    title = f"{WORKERS} workers of {WORKER_CAP} slots, lease {LEASE_S:g} s, {size.seconds:g} s each"
    report.tables.append(Table(title, ["", "limit", "maximum seen", "over it"], rows))
    promise = "caps never exceeded at any instant, rates in no window, under kill -9"
    report.verdicts.append(Verdict(promise, f"{worst} violations", worst == 0))
    return report


def _run(server: Server, state_dir: Path, size: Size, partitions: int, limits: tuple[object, ...], schema: bytes) -> Books:
    ledger = state_dir / "limits-ledger"
    ledger.unlink(missing_ok=True)
    database = server.fresh("bench_limits", schema + BOOKS)
    try:
        database.connection.execute(LIMIT, (QUEUE, *limits))
        argument = f'"{ledger}"'
        backlog.fill(database, size.rows, partitions, name="timed_noted", key="t", argument=argument)
        gone = _work_and_kill(database, state_dir / "logs", size.seconds)
        return _read(database, ledger, gone)
    finally:
        database.close()


def _work_and_kill(database: Database, logs: Path, seconds: float) -> dict[int, int]:
    """Let workers work; kill one at random every 0.4 to 1.6 s and start another. Microseconds at which each killed process was gone."""
    chance = random.Random(SEED)
    argv = holdfast.run("worker", database.dsn, concurrency=WORKER_CAP, lease_s=LEASE_S)
    gone: dict[int, int] = {}
    end, made = time.monotonic() + seconds, 0
    with ExitStack() as stack:
        alive: list[Measured] = []
        while time.monotonic() < end:
            fresh = [stack.enter_context(Measured(f"limits-worker-{made + n}", argv, logs)) for n in range(WORKERS - len(alive))]
            for worker in fresh:
                worker.await_ready()
            alive += fresh
            made += len(fresh)
            time.sleep(chance.uniform(0.4, 1.6))
            _kill([alive.pop(chance.randrange(len(alive)))], gone)
        _kill(alive, gone)  # too, because a step that is stopped does not note its end
    return gone


def _kill(workers: list[Measured], gone: dict[int, int]) -> None:
    for worker in workers:
        worker.kill()
        gone[worker.pid] = time.time_ns() // 1000


def _read(database: Database, ledger: Path, gone: dict[int, int]) -> Books:
    books = Books(kills=len(gone), rescued=database.number(RESCUED))
    for partition, executor, started_ms, goes_on, began_us, ended_us in database.connection.execute(OWNED):
        books.owned.append((partition, executor, began_us, ended_us))
        if not goes_on:
            books.starts.append((partition, started_ms))
    books.rows = [(partition, "", started_ms, ended_ms) for partition, started_ms, ended_ms in database.connection.execute(ENDED)]
    if not books.rows or not books.rescued:
        raise Wrong("no run was rescued from a killed worker: the limits were not put to the test")
    partitions = dict(
        database.connection.execute("select workflow_uuid, queue_partition_key from dbos.workflow_status").fetchall()
    )
    begun: dict[tuple[int, str], int] = {}
    for line in ledger.read_text().splitlines():
        what, pid, name, at_us = line.split()
        if what == "began":
            begun[int(pid), name] = int(at_us)
        else:
            books.executing.append((partitions[name], pid, begun.pop((int(pid), name)), int(at_us)))
    now_us = time.time_ns() // 1000
    books.executing += [(partitions[name], str(pid), at_us, gone.get(pid, now_us)) for (pid, name), at_us in begun.items()]
    return books


Found = tuple[str, int, int, int]  # what, the most seen, the limit, by how many times it was exceeded


def _caps(books: Books) -> Iterator[Found]:
    for book, held in (("owned", books.owned), ("executing", books.executing), ("rows", books.rows)):
        yield _judged(f"queue, {book}", [most_at_once((begin, end) for _, _, begin, end in held)], QUEUE_CAP)
        yield _judged(f"worst partition, {book}", [most_at_once(spans) for spans in _grouped(held, 0)], PARTITION_CAP)
        if book != "rows":
            yield _judged(f"worst worker, {book}", [most_at_once(spans) for spans in _grouped(held, 1)], WORKER_CAP)


def _rates(books: Books) -> Iterator[Found]:
    length = int(PERIOD_S * 1000)
    by_partition: dict[str, list[int]] = defaultdict(list)
    for partition, at_ms in books.starts:
        by_partition[partition].append(at_ms)
    yield _judged(f"queue, starts in any {PERIOD_S:g} s", [most_in_window((at for _, at in books.starts), length)], QUEUE_RATE)
    worst = [most_in_window(times, length) for times in by_partition.values()]
    yield _judged(f"worst partition, starts in any {PERIOD_S:g} s", worst, PARTITION_RATE)


def _judged(name: str, most: list[int], limit: int) -> Found:
    return name, max(most), limit, sum(m > limit for m in most)


def _grouped(held: Iterable[tuple[str, str, int, int]], by: int) -> list[list[tuple[int, int]]]:
    groups: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in held:
        groups[str(row[by])].append((row[2], row[3]))
    return list(groups.values())
