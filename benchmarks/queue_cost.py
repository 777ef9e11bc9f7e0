"""What one claim costs a server that holds much: milliseconds, shared buffers and index scans of a claim of BATCH rows.

Two databases are claimed from in turns: a small one with 100 partitions and no history, and a large one with 100,000 partitions that
all have work and two million runs that ended. A partition has equally much to give to one claim in both, and the server has in memory
what claims work on: the queued rows and their indexes, not the history. The plans are shown by what they
did: how often a claim went into each index, how many entries it read there, and whether any table was read from end to end.
"""

import asyncio
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

from benchmarks import backlog, holdfast
from benchmarks.claimant import NAME, Claimant
from benchmarks.plain_queue import BATCH
from benchmarks.queue_rates import CAPPED, Say
from benchmarks.report import Report, Table, Verdict, percentile
from benchmarks.server import Database, Server
from benchmarks.workloads import QUEUE
from engine import claims

CAP = 20
BETWEEN = 5  # claims before what they took is finished

EXPLAINED: LiteralString = "explain (analyze, buffers, timing off, format json) " + claims.CLAIM
# By index, because a scan of the table would not leave it in memory.
BY_INDEX: LiteralString = "select set_config(n, 'off', false) from unnest(array['enable_seqscan', 'enable_bitmapscan']) n"
WARM: tuple[LiteralString, ...] = (
    "select max(inputs) from dbos.workflow_status where status = 'ENQUEUED' and queue_name = 'bench'",
    "select count(workflow_uuid) from dbos.workflow_status where workflow_uuid > ''",
    "select count(created_at) from dbos.workflow_status where created_at > 0",
    "select max(vtime) from engine.queue_partition where key > ''",
)
FLUSH: LiteralString = "select pg_stat_force_next_flush()"
INDEXES: LiteralString = """
select i.indexrelname, i.idx_scan, i.idx_tup_read from pg_stat_user_indexes i where i.schemaname in ('dbos', 'engine')
union all
select 'whole of ' || t.relname, t.seq_scan, t.seq_tup_read from pg_stat_user_tables t where t.schemaname in ('dbos', 'engine')
"""


@dataclass(frozen=True)
class Size:
    claims: int = 100
    rows_each: int = 10  # queued in each partition of the large database
    partitions: int = 100_000
    finished: int = 2_000_000
    small_rows: int = 40_000


QUICK = Size(claims=10, partitions=2000, finished=10_000, small_rows=5000)
SMALL_PARTITIONS = 100


@dataclass
class Cost:
    """What the claims of one database took."""

    ms: list[float] = field(default_factory=list[float])
    buffers: list[int] = field(default_factory=list[int])
    reads: list[int] = field(default_factory=list[int])  # of these, not in shared buffers
    scans: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])  # a claim: times, entries read


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    report = Report("claim cost")
    titles = (
        f"{SMALL_PARTITIONS} partitions, nothing finished",
        f"{size.partitions:,} partitions, {size.finished:,} finished",
    )
    small = server.fresh("bench_cost_small", holdfast.SCHEMA)
    large = server.fresh("bench_cost_large", holdfast.SCHEMA)
    try:
        backlog.fill(small, size.small_rows, SMALL_PARTITIONS, name=NAME)
        backlog.finished(large, size.finished, size.partitions, name=NAME)
        say(f"{size.finished:,} finished")
        backlog.fill(large, size.rows_each * size.partitions, size.partitions, name=NAME)
        say(f"{size.partitions:,} partitions filled")
        for database in (small, large):
            backlog.settle(database)
            _warm(database)
        found: dict[str, tuple[Cost, Cost]] = {}
        for what, cap in (("no cap", None), (f"cap {CAP} each", CAP)):
            found[what] = asyncio.run(_claims((small, large), cap, size.claims))
            say(f"{what}: " + ", ".join(f"{statistics.median(c.ms):.2f} ms" for c in found[what]))
    finally:
        small.close()
        large.close()
    _tabulate(report, titles, found)
    return report


def _warm(database: Database) -> None:
    database.connection.execute(BY_INDEX)
    for query in WARM:
        database.connection.execute(query)


async def _claims(databases: tuple[Database, Database], cap: int | None, count: int) -> tuple[Cost, Cost]:
    claimants: list[Claimant] = []
    for database in databases:
        database.connection.execute(CAPPED, (QUEUE, cap))
        claimants.append(await Claimant.open("holdfast", database.dsn))
    costs = (Cost(), Cost())
    for number in range(-2, count // BETWEEN):  # the first two warm the caches
        for database, claimant, cost in zip(databases, claimants, costs, strict=True):
            await _some_claims(database, claimant, cost if number >= 0 else Cost())
    for claimant in claimants:
        await claimant.conn.close()
    for cost in costs:
        cost.scans = {name: (n / len(cost.ms), read / len(cost.ms)) for name, (n, read) in cost.scans.items()}
    return costs


async def _some_claims(database: Database, claimant: Claimant, cost: Cost) -> None:
    """A few claims in a row, then the finishes, so that the counters of indexes hear of claims only."""
    before = await _counters(database, claimant)
    for _ in range(BETWEEN):
        plan = await _explained(claimant)
        top = plan["Plan"]
        cost.ms.append(plan["Execution Time"])
        cost.buffers.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
        cost.reads.append(top["Shared Read Blocks"])
        if top["Actual Rows"] != BATCH:
            raise RuntimeError(f"a claim took {top['Actual Rows']} rows instead of {BATCH}")
    after = await _counters(database, claimant)
    for name, (n, read) in after.items():
        was_n, was_read = before[name]
        sum_n, sum_read = cost.scans.get(name, (0, 0))
        cost.scans[name] = (sum_n + n - was_n, sum_read + read - was_read)
    await claimant.finish_owned()


async def _explained(claimant: Claimant) -> dict[str, Any]:
    row = await (await claimant.conn.execute(EXPLAINED, claimant.asking())).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]
    return plan


async def _counters(database: Database, claimant: Claimant) -> dict[str, tuple[int, int]]:
    await claimant.conn.execute(FLUSH)
    return {row[0]: (row[1] or 0, row[2] or 0) for row in database.connection.execute(INDEXES)}


def _tabulate(report: Report, titles: tuple[str, str], found: dict[str, tuple[Cost, Cost]]) -> None:
    rows: list[list[str]] = []
    for what, costs in found.items():
        times = [statistics.median(c.ms) for c in costs]
        buffers = [statistics.median(c.buffers) for c in costs]
        for title, cost, ms, blocks in zip(titles, costs, times, buffers, strict=True):
            of_small = ["", ""] if cost is costs[0] else [f"{ms / times[0]:.2f}", f"{blocks / buffers[0]:.2f}"]
            rows.append(
                [
                    f"{title}, {what}",
                    f"{ms:.2f}",
                    f"{percentile(cost.ms, 0.9):.2f}",
                    f"{blocks:,.0f}",
                    f"{statistics.median(cost.reads):,.0f}",
                    *of_small,
                ]
            )
            report.bars[f"holdfast, {title}, {what}: ms"] = ms
        for name, values in (("milliseconds", times), ("shared buffers", buffers)):
            times_more = values[1] / values[0]
            promise = f"a claim from {titles[1]}, {what}: at most 1.5 times the {name} of {titles[0]}"
            report.verdicts.append(Verdict(promise, f"{times_more:.2f}", times_more <= 1.5))
        report.figures[what] = {title: vars(cost) for title, cost in zip(titles, costs, strict=True)}
    columns = ["", "ms p50", "p90", "shared buffers p50", "not in memory", "ms x small", "buffers x small"]
    report.tables.append(Table(f"one claim of {BATCH} rows, EXPLAIN (ANALYZE, BUFFERS) of the call", columns, rows))
    report.tables.append(_plans(titles, found))


def _plans(titles: tuple[str, str], found: dict[str, tuple[Cost, Cost]]) -> Table:
    rows: list[list[str]] = []
    for what, costs in found.items():
        for name in sorted({name for cost in costs for name, (n, _) in cost.scans.items() if n}):
            seen = [cost.scans.get(name, (0.0, 0.0)) for cost in costs]
            rows.append([f"{what}: {name}", *(f"{n:.1f} / {read:,.1f}" for n, read in seen)])
    return Table("what a claim reads: scans of an index / entries read there", ["index", *titles], rows)
