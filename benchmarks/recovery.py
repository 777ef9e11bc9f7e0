"""How long runs stay behind when their worker is killed: 200 in flight in one worker, kill -9, another worker alive.

There is no bare counterpart that recovers, so the yardstick is the lease: nobody may take a run before its owner's lease is out.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from benchmarks import holdfast
from benchmarks.processes import Measured
from benchmarks.report import Report, Table, Verdict
from benchmarks.server import CLOCK_MS, Database, Server
from benchmarks.stretch import SUCCEEDED, Wrong
from benchmarks.throughput import Say
from benchmarks.workloads import SLOW_STEP_S, SLOW_STEPS


@dataclass(frozen=True)
class Size:
    rounds: int = 3
    runs: int = 200


QUICK = Size(rounds=1)
OWNED: LiteralString = "select count(*) from dbos.workflow_status where status = 'PENDING' and owner_xid is not null"
RECORDED: LiteralString = "select count(*) from dbos.operation_outputs where function_id = 2"
LAST_CLAIM_MS: LiteralString = "select max(started_at_epoch_ms) from dbos.workflow_status"
LAST_END_MS: LiteralString = "select max(completed_at) from dbos.workflow_status"
RECLAIMED: LiteralString = "select count(*) from dbos.workflow_status where claims > 1"
STEP_ROWS: LiteralString = "select count(*) from dbos.operation_outputs"


@dataclass(frozen=True)
class Round:
    reclaimed_s: float  # from the kill to the last run's new claim
    done_s: float  # from the kill to the last success
    reclaimed: int
    repeated: int  # step executions beyond one each
    recorded: int  # step results that were in the journal at the kill


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    report = Report("recovery")
    rounds: list[Round] = []
    for number in range(size.rounds):
        rounds.append(_round(server, state_dir, size.runs))
        last = rounds[-1]
        say(f"round {number + 1}/{size.rounds}: all re-claimed after {last.reclaimed_s:.1f} s, done after {last.done_s:.1f} s")
    rows = [
        [str(n), str(r.reclaimed), f"{r.reclaimed_s:.2f}", f"{r.done_s:.2f}", f"{r.repeated} of {size.runs * SLOW_STEPS}"]
        for n, r in enumerate(rounds, 1)
    ]
    title = f"kill -9 with {size.runs} runs in flight ({SLOW_STEPS} steps of {SLOW_STEP_S:g} s), lease {holdfast.LEASE_S:g} s"
    report.tables.append(Table(title, ["round", "runs re-claimed", "all re-claimed s", "all done s", "steps run again"], rows))
    worst = max(r.reclaimed_s for r in rounds)
    promise = f"every run re-claimed within the lease ({holdfast.LEASE_S:g} s) plus 1 s"
    report.verdicts.append(Verdict(promise, f"{worst:.2f} s", worst <= holdfast.LEASE_S + 1))
    report.notes.append("a step runs again when the kill came between its effect and its commit; none that was recorded did")
    report.figures["rounds"] = [vars(r) for r in rounds]
    report.bars |= {f"round {n}: re-claimed": r.reclaimed_s for n, r in enumerate(rounds, 1)}
    return report


def _round(server: Server, state_dir: Path, runs: int) -> Round:
    logs, ledger = state_dir / "logs", state_dir / "ledger"
    ledger.unlink(missing_ok=True)
    database = server.fresh("bench_holdfast", holdfast.SCHEMA)
    try:
        with Measured("holdfast-worker-0", holdfast.run("worker", database.dsn), logs) as first:
            first.await_ready()
            _fill(database, runs, ledger, logs)
            database.wait_for(OWNED, runs, timeout_s=30, every_s=0.02)
            with Measured("holdfast-worker-1", holdfast.run("worker", database.dsn), logs) as second:
                second.await_ready()
                database.wait_for(RECORDED, runs, timeout_s=30, every_s=0.02)
                killed_ms = database.number(CLOCK_MS)
                first.kill()
                recorded = database.number(STEP_ROWS)
                database.wait_for(SUCCEEDED, runs, timeout_s=120)
        return _counted(database, runs, killed_ms, recorded, ledger)
    finally:
        database.close()


def _fill(database: Database, runs: int, ledger: Path, logs: Path) -> None:
    argv = holdfast.run("backlog", database.dsn, count=runs, name="slow_steps", ledger=ledger)
    with Measured("holdfast-client", argv, logs) as client:
        client.await_ready()
        client.go()
        client.line(timeout_s=60)


def _counted(database: Database, runs: int, killed_ms: int, recorded: int, ledger: Path) -> Round:
    times = Counter(ledger.read_text().splitlines())
    if len(times) != runs * SLOW_STEPS or database.number(STEP_ROWS) != runs * SLOW_STEPS:
        raise Wrong(f"{len(times)} different steps ran where {runs * SLOW_STEPS} should have")
    return Round(
        reclaimed_s=(database.number(LAST_CLAIM_MS) - killed_ms) / 1000,
        done_s=(database.number(LAST_END_MS) - killed_ms) / 1000,
        reclaimed=database.number(RECLAIMED),
        repeated=times.total() - len(times),
        recorded=recorded,
    )
