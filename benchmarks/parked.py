"""What 100,000 runs that wait at a gate cost: the worker's memory, and the time until one of them goes on after its message."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from benchmarks import holdfast
from benchmarks.latency import PARKED, ask
from benchmarks.processes import Measured
from benchmarks.report import Report, Table, Verdict, percentile
from benchmarks.server import Database, Server
from benchmarks.stretch import SUCCEEDED, Wrong
from benchmarks.throughput import Say


@dataclass(frozen=True)
class Size:
    runs: int = 100_000
    wakes: int = 200


QUICK = Size(runs=5000, wakes=50)
FILL: LiteralString = """
select count(dbos.enqueue_workflow('gated', 'bench', array[to_json(n)], workflow_id => 'g-' || n)) from generate_series(0, %s - 1) n
"""
PARKED_BYTES: LiteralString = "select pg_total_relation_size('dbos.workflow_status')"
SETTLE_S = 3


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    report = Report("parked")
    logs = state_dir / "logs"
    database = server.fresh("bench_holdfast", holdfast.SCHEMA)
    try:
        with Measured("holdfast-worker-0", holdfast.run("worker", database.dsn), logs) as worker:
            worker.await_ready()
            time.sleep(SETTLE_S)
            before_mb = worker.rss_mb()
            took_s = _park(database, size.runs, say)
            time.sleep(SETTLE_S)
            after_mb, peak_mb = worker.rss_mb(), worker.peak_rss_mb()
            row_bytes = database.number(PARKED_BYTES) / size.runs
            say(f"worker: {before_mb:.1f} MB before, {after_mb:.1f} MB with {size.runs:,} parked")
            wake = holdfast.run("wake", database.dsn, count=size.wakes, parked=size.runs, prefix="g")
            wakes = ask(Measured("holdfast-client", wake, logs))
            woken_mb = worker.rss_mb()
            if database.number(SUCCEEDED) != size.wakes or database.number(PARKED) != size.runs - size.wakes:
                raise Wrong("other runs than those that were sent to went on")
    finally:
        database.close()
    added_mb, p99 = after_mb - before_mb, percentile(wakes, 0.99)
    memory = [["idle, nothing parked", f"{before_mb:.1f}"], [f"idle, {size.runs:,} parked", f"{after_mb:.1f}"]]
    memory += [["highest while they parked", f"{peak_mb:.1f}"], [f"after {size.wakes} wake-ups", f"{woken_mb:.1f}"]]
    report.tables.append(Table("a worker's resident memory, MB", ["", "MB"], memory))
    wake_row = [f"{size.runs:,}", *(f"{percentile(wakes, share):.1f}" for share in (0.5, 0.99)), f"{max(wakes):.1f}"]
    title = f"from send() to the woken run's result in the client's hands, {size.wakes} at random, one after the other"
    report.tables.append(Table(title, ["parked", "p50 ms", "p99 ms", "max ms"], [wake_row]))
    report.verdicts.append(Verdict(f"{size.runs:,} parked runs add at most 30 MB", f"{added_mb:.1f} MB", added_mb <= 30))
    report.verdicts.append(Verdict("a parked run wakes in under 100 ms (p99)", f"{p99:.1f} ms", p99 < 100))
    report.notes.append(f"{size.runs / took_s:,.0f} runs a second went from queued to parked")
    report.notes.append(f"a parked run takes {row_bytes:,.0f} bytes of dbos.workflow_status and its indexes")
    report.figures |= {"before_mb": before_mb, "after_mb": after_mb, "peak_mb": peak_mb, "wake_ms": wakes, "park_s": took_s}
    report.bars |= {"worker MB, nothing parked": before_mb, f"worker MB, {size.runs:,} parked": after_mb}
    return report


def _park(database: Database, runs: int, say: Say) -> float:
    """Queue the runs in one commit and return the seconds until all are parked."""
    database.connection.execute(FILL, (runs,))
    began = time.monotonic()
    while (parked := database.number(PARKED)) < runs:
        if time.monotonic() - began > 1200:
            raise Wrong(f"only {parked:,} of {runs:,} runs were parked after 20 minutes")
        time.sleep(0.5)
    took_s = time.monotonic() - began
    say(f"{runs:,} parked in {took_s:.0f} s")
    return took_s
