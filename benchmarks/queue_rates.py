"""Claims and finishes a second: Holdfast's fair claim beside plain SKIP LOCKED, on one server, in turns.

Both sides have a database of their own with more queued than they can take, and bare claim and finish loops (`claimant`) that wait beside
it. The sides work in turns, a quarter of a second each, so that a stranger's load meets both; ratios are made inside a round.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import orjson

from benchmarks import backlog, holdfast, plain_queue
from benchmarks.claimant import NAME, SIDES, Side, Tally
from benchmarks.processes import Measured, module
from benchmarks.report import Report, Table, Verdict, percentile
from benchmarks.server import Database, Server
from benchmarks.stretch import Wrong
from benchmarks.workloads import QUEUE

Say = Callable[[str], None]
SCHEMAS: dict[Side, bytes] = {"holdfast": holdfast.SCHEMA, "plain": plain_queue.SCHEMA}
CAP = 10

CAPPED: LiteralString = """
insert into dbos.queues (name, partition_concurrency) values (%s, %s)
    on conflict (name) do update set partition_concurrency = excluded.partition_concurrency
"""
EMPTY: LiteralString = "truncate dbos.workflow_status, engine.queue_partition, engine.nudge, engine.worker cascade"
LEFT: LiteralString = "select count(*) from (select from dbos.workflow_status where status = 'ENQUEUED' limit 1) w"


@dataclass(frozen=True)
class Size:
    rounds: int = 3
    turns: int = 8  # of each side a round, after one to warm up
    turn_s: float = 0.25
    rows: int = 100_000


QUICK = Size(rounds=1, turns=1, turn_s=0.1, rows=20_000)


@dataclass(frozen=True)
class Case:
    partitions: int
    claimants: int
    cap: int | None
    least: float | None  # the promised share of plain SKIP LOCKED

    @property
    def title(self) -> str:
        partitions = "1 hot partition" if self.partitions == 1 else f"{self.partitions:,} partitions"
        return f"{partitions}{'' if self.cap is None else f', cap {self.cap} each'}, {self.claimants} claiming"


CASES = (
    *(Case(partitions, claimants, CAP, 0.75) for partitions in (100, 10_000) for claimants in (1, 2, 4)),
    Case(100, 4, None, None),
    Case(10_000, 4, None, None),
    Case(50_000, 2, CAP, None),  # two runs each: a claim has to go through many
    Case(1, 1, None, None),
    Case(1, 4, None, 0.8),
)


@dataclass
class Stretch:
    """What the loops of one side did in a round."""

    server_ms: float = 0  # the backends' processor time for a thousand rows; 0 when the server is elsewhere
    tallies: list[Tally] = field(default_factory=list[Tally])

    @property
    def rows(self) -> int:
        return sum(tally.rows for tally in self.tallies)


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    report = Report("queues")
    found: dict[Case, list[dict[Side, Stretch]]] = {case: [] for case in CASES}
    databases: dict[Side, Database] = {side: server.fresh(f"bench_claims_{side}", SCHEMAS[side]) for side in SIDES}
    try:
        for number in range(size.rounds):
            for case in CASES:
                found[case].append(_round(databases, case, size, state_dir / "logs"))
                ours, plain = (found[case][-1][side].rows / size.turns / size.turn_s for side in SIDES)
                say(f"round {number + 1}/{size.rounds} {case.title}: {ours:,.0f} rows/s, plain {plain:,.0f}, {ours / plain:.2f}")
    finally:
        for database in databases.values():
            database.close()
    _tabulate(report, size, found)
    return report


def _round(databases: dict[Side, Database], case: Case, size: Size, logs: Path) -> dict[Side, Stretch]:
    with ExitStack() as stack:
        loops: dict[Side, list[Measured]] = {}
        for side, database in databases.items():
            _refill(database, side, case, size.rows)
            argv = module("claimant", side, "--dsn", database.dsn, "--seconds", str(size.turn_s))
            loops[side] = [stack.enter_context(Measured(f"{side}-claimant-{n}", argv, logs)) for n in range(case.claimants)]
        for loop in (loop for each in loops.values() for loop in each):
            loop.await_ready()
        stretches: dict[Side, Stretch] = {side: Stretch() for side in SIDES}
        used_s = {side: database.server_cpu_s() for side, database in databases.items()}
        warm: dict[Side, int] = {}
        for turn in range(-1, size.turns):
            for side in SIDES if turn % 2 else reversed(SIDES):
                tallies = _turn(loops[side])
                if turn < 0:
                    warm[side] = sum(tally.rows for tally in tallies)
                else:
                    stretches[side].tallies += tallies
        for side, stretch in stretches.items():
            before_s, after_s = used_s[side], databases[side].server_cpu_s()
            if before_s is not None and after_s is not None:
                stretch.server_ms = (after_s - before_s) / (stretch.rows + warm[side]) * 1e6
            if not databases[side].number(LEFT):
                raise Wrong(f"{size.rows:,} rows were too few for {case.title}")
    return stretches


def _refill(database: Database, side: Side, case: Case, rows: int) -> None:
    database.connection.execute(EMPTY)
    if side == "holdfast":
        database.connection.execute(CAPPED, (QUEUE, case.cap))
    backlog.fill(database, rows, case.partitions, name=NAME)
    backlog.settle(database)


def _turn(loops: list[Measured]) -> list[Tally]:
    for loop in loops:
        loop.go()
    return [Tally(**orjson.loads(loop.line(timeout_s=60))) for loop in loops]


def _tabulate(report: Report, size: Size, found: dict[Case, list[dict[Side, Stretch]]]) -> None:
    rows: list[list[str]] = []
    for case, rounds in found.items():
        ratios = [stretches["holdfast"].rows / stretches["plain"].rows for stretches in rounds]
        ratio = statistics.median(ratios)
        for side in SIDES:
            name = f"{case.title}: {'holdfast' if side == 'holdfast' else 'plain SKIP LOCKED'}"
            rates = [stretches[side].rows / size.turns / size.turn_s for stretches in rounds]
            rows.append(_row(name, rates, [stretches[side] for stretches in rounds], ratios if side == "holdfast" else None))
            report.bars[name] = statistics.median(rates)
        report.figures[f"{case.title}: share of plain"] = ratios
        if case.least is not None:
            promise = f"{case.title}: at least {case.least:g} of plain SKIP LOCKED"
            report.verdicts.append(Verdict(promise, f"{ratio:.2f}", ratio >= case.least))
    title = (
        f"claims of {plain_queue.BATCH}, a commit each, and finishes of what was claimed, a commit each; {size.rows:,} queued, "
        f"{size.turns} turns of {size.turn_s:g} s, median of {size.rounds}"
    )
    columns = [
        "",
        "rows/s",
        "range",
        "of plain",
        "range",
        "claim ms p50",
        "p99",
        "finish ms p50",
        "rows/claim",
        "empty",
        "PG ms/1,000",
    ]
    report.tables.append(Table(title, columns, rows))


def _row(name: str, rates: list[float], stretches: list[Stretch], ratios: list[float] | None) -> list[str]:
    tallies = [tally for stretch in stretches for tally in stretch.tallies]
    claims = [ms for tally in tallies for ms in tally.claim_ms]
    finishes = [ms for tally in tallies for ms in tally.finish_ms]
    empty = sum(tally.empty for tally in tallies)
    return [
        name,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}-{max(rates):,.0f}",
        "" if ratios is None else f"{statistics.median(ratios):.2f}",
        "" if ratios is None else f"{min(ratios):.2f}-{max(ratios):.2f}",
        f"{percentile(claims, 0.5):.2f}",
        f"{percentile(claims, 0.99):.2f}",
        f"{percentile(finishes, 0.5):.2f}",
        f"{sum(tally.rows for tally in tallies) / len(claims):.0f}",
        f"{empty / (empty + len(claims)):.0%}",
        f"{statistics.median(s.server_ms for s in stretches):.1f}",
    ]
