"""How long one workflow takes when nothing else runs, and how long a parked one takes to wake.

The bare group commit has no client that waits, so it is compared by the rows' own times, from creation to end. All ends are
`completed_at`, which is stamped just before the commit that makes it durable.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import orjson

from benchmarks import ceiling, holdfast
from benchmarks.processes import Measured
from benchmarks.report import Report, Table, Verdict, percentile
from benchmarks.server import Database, Server
from benchmarks.stretch import Peer, Wrong
from benchmarks.throughput import Say


@dataclass(frozen=True)
class Size:
    tries: int = 200


QUICK = Size(tries=50)
PARKED: LiteralString = (
    "select count(*) from dbos.workflow_status where status = 'PENDING' and owner_xid is null and name = 'gated'"
)
UNSUCCESSFUL: LiteralString = "select count(*) from dbos.workflow_status where status <> 'SUCCESS'"
BY_ITS_ROW: LiteralString = "select completed_at - created_at from dbos.workflow_status where name = 'four_steps'"
ENDED: LiteralString = "select completed_at from dbos.workflow_status where name = 'four_steps' order by created_at"


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    report = Report("latency")
    rows: list[list[str]] = []
    bare = _bare(server, state_dir, size)
    rows.append(_row("ceiling: enqueue to finish, by the row's own times", bare))
    say(f"ceiling: p50 {statistics.median(bare):.1f} ms")
    finishes, results, by_row, wakes = _ours(server, state_dir, size)
    rows.append(_row("holdfast: enqueue to finish, by the row's own times", by_row))
    rows.append(_row("holdfast: call of enqueue() to finish", finishes))
    rows.append(_row("holdfast: call of enqueue() to the result in the client's hands", results))
    rows.append(_row("holdfast: send to the woken run's result in the client's hands", wakes))
    report.tables.append(Table(f"idle latency, {size.tries} tries one after the other", ["ms", "p50", "p99", "max"], rows))
    p50 = statistics.median(finishes)
    report.verdicts.append(Verdict("idle start to finish, p50: at most 10 ms", f"{p50:.1f} ms", p50 <= 10))
    report.figures |= {"ceiling_ms": bare, "row_ms": by_row, "finish_ms": finishes, "result_ms": results, "wake_ms": wakes}
    report.bars |= {f"{name}: {p}": percentile(v, s) for name, v in (("ceiling", bare), ("holdfast", finishes), ("wake", wakes))
                    for p, s in (("p50", 0.5), ("p99", 0.99))}  # fmt: skip
    say(f"holdfast: p50 {p50:.1f} ms, wake p50 {statistics.median(wakes):.1f} ms")
    return report


def _row(title: str, values: list[float]) -> list[str]:
    return [title, f"{percentile(values, 0.5):.1f}", f"{percentile(values, 0.99):.1f}", f"{max(values):.1f}"]


def _bare(server: Server, state_dir: Path, size: Size) -> list[float]:
    database = server.fresh("bench_ceiling", holdfast.SCHEMA)
    try:
        peer: Peer = ceiling.ceiling()
        with Measured("ceiling-worker-0", peer.worker(database.dsn, 0, False), state_dir / "logs") as worker:
            worker.await_ready()
            argv = [*peer.enqueue(database.dsn, size.tries, False), "--flight", "1", "--pause-s", "0.03"]
            with Measured("ceiling-client", argv, state_dir / "logs") as client:
                client.await_ready()
                client.go()
                client.line(timeout_s=120)
            database.wait_for(UNSUCCESSFUL, 0, timeout_s=30)
        return [float(row[0]) for row in database.connection.execute(BY_ITS_ROW)]
    finally:
        database.close()


def _ours(server: Server, state_dir: Path, size: Size) -> tuple[list[float], list[float], list[float], list[float]]:
    database = server.fresh("bench_holdfast", holdfast.SCHEMA)
    logs = state_dir / "logs"
    try:
        with Measured("holdfast-worker-0", holdfast.run("worker", database.dsn), logs) as worker:
            worker.await_ready()
            told: list[tuple[float, float]] = ask(
                Measured("holdfast-client", holdfast.run("latency", database.dsn, count=size.tries), logs)
            )
            ended_ms = [float(row[0]) for row in database.connection.execute(ENDED)]
            finishes = [end - began for end, (began, _) in zip(ended_ms, told, strict=True)]
            by_row = [float(row[0]) for row in database.connection.execute(BY_ITS_ROW)]
            wakes = _woken(database, logs, size)
        if database.number(UNSUCCESSFUL):
            raise Wrong("not every workflow of the latency benchmark succeeded")
    finally:
        database.close()
    return finishes, [result for _, result in told], by_row, wakes


def _woken(database: Database, logs: Path, size: Size) -> list[float]:
    filling = Measured("holdfast-client", holdfast.run("backlog", database.dsn, count=size.tries, name="gated", prefix="g"), logs)
    with filling:
        filling.await_ready()
        filling.go()
        filling.line(timeout_s=120)
    database.wait_for(PARKED, size.tries, timeout_s=60)
    return ask(
        Measured("holdfast-client", holdfast.run("wake", database.dsn, count=size.tries, parked=size.tries, prefix="g"), logs)
    )


def ask(client: Measured) -> list[Any]:
    """Let a client of holdfast_process measure, and return what it says it found."""
    with client:
        client.await_ready()
        client.go()
        found: list[Any] = orjson.loads(client.line(timeout_s=600).partition(" ")[2])
        return found
