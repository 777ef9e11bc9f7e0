"""Who gets served when there is more work than there are slots, with real workers: skewed tenants, many keys, weights, priorities, limits.

Each cell has a database and worker processes of its own, which run workflows of one step that sleeps about STEP_MS; so slots are scarce
and the processor is not. All that is judged is computed afterwards from the rows: a run waits from `created_at` to `started_at_epoch_ms`.
What contended service and a fair share of it are is told in `shares`; limits under kills are in `fairness_limits`.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from benchmarks import backlog, fairness_limits, holdfast
from benchmarks.processes import Measured
from benchmarks.report import Plot, Report, Table, Verdict, percentile
from benchmarks.server import CLOCK_MS, Database, Server
from benchmarks.shares import Queued, Service, contended
from benchmarks.workloads import QUEUE
from engine import Engine

Say = Callable[[str], None]
STEP_MS = 50
WORKERS, SLOTS = 2, 32
LIGHT = 99
SEED = 7

RUNS: LiteralString = """
select coalesce(queue_partition_key, ''), created_at, started_at_epoch_ms, priority, workflow_uuid
  from dbos.workflow_status order by created_at, workflow_uuid
"""


@dataclass(frozen=True)
class Size:
    """Seconds of the phases, and how much is queued."""

    phase_s: float = 20
    contend_s: float = 12
    heavy: int = 100_000
    burst: int = 100  # of each light tenant
    rate: float = 100  # arrivals of all light tenants together a second


QUICK = Size(phase_s=1.5, contend_s=3, heavy=10_000, burst=30, rate=60)


@dataclass(frozen=True)
class Row:
    partition: str
    created_ms: int
    started_ms: int | None
    priority: int
    id: str

    @property
    def wait_ms(self) -> int | None:
        return None if self.started_ms is None else self.started_ms - self.created_ms


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    """All cells."""
    report = Report("fairness")
    for cell in (skewed, many_keys, weights, priorities):
        part = cell(Bench(server, state_dir / "logs", size))
        say(f"{part.name}: " + "; ".join(f"{v.promise}: {v.measured}" for v in part.verdicts))
        if size == QUICK and cell is skewed:
            part.verdicts.clear()  # too few for ratios
        report.add(part)
    limits = fairness_limits.QUICK if size == QUICK else fairness_limits.Size()
    report.add(fairness_limits.measure(server, state_dir, limits, say))
    return report


class Bench:
    """A cell's database and workers. schema: what is measured; another one for tests that want to see a promise missed."""

    def __init__(self, server: Server, logs: Path, size: Size, schema: bytes = holdfast.SCHEMA) -> None:
        self.server = server
        self.logs = logs
        self.size = size
        self.schema = schema

    def __enter__(self) -> "Bench":
        self.database: Database = self.server.fresh("bench_fairness", self.schema)
        self._stack = ExitStack()
        self._stack.callback(self.database.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def work(self, workers: int = WORKERS, slots: int = SLOTS) -> None:
        """Start workers; they stop with the cell."""
        argv = holdfast.run("worker", self.database.dsn, concurrency=slots)
        for n in range(workers):
            self._stack.enter_context(Measured(f"fairness-worker-{n}", argv, self.logs)).await_ready()

    def fill(self, count: int, partitions: int, key: str, priority: int = 0) -> None:
        """Queue runs in one go, over key0, key1 …"""
        prefix = f"{key}-{priority}-{self.now_ms()}-"
        argument = str(STEP_MS)
        backlog.fill(self.database, count, partitions, name="timed", prefix=prefix, key=key, priority=priority, argument=argument)

    def arrive(self, prefix: str, tenants: int, key: str, seconds: float, priority: int = 0) -> None:
        """Let single runs come in at random moments for so long, for tenants key0, key1 … at random."""
        options = {"prefix": prefix, "tenants": tenants, "key": key, "seconds": seconds, "priority": priority}
        argv = holdfast.run("arrivals", self.database.dsn, rate=self.size.rate, seed=SEED, step_ms=STEP_MS, **options)
        with Measured("fairness-client", argv, self.logs) as client:
            client.await_ready()
            client.go()
            client.line(timeout_s=seconds + 30)

    def now_ms(self) -> int:
        return self.database.number(CLOCK_MS)

    def rows(self) -> list[Row]:
        return [Row(*row) for row in self.database.connection.execute(RUNS)]

    def weigh(self, weights: Mapping[str, float]) -> None:
        async def tune() -> None:
            async with Engine.connect(self.database.dsn) as engine:
                for key, weight in weights.items():
                    await engine.queues.tune(QUEUE, key, weight=weight)

        asyncio.run(tune())


def queued(rows: Iterable[Row]) -> list[Queued]:
    return [Queued(row.partition, row.created_ms, row.started_ms) for row in rows]


def waits(rows: Iterable[Row], prefix: str) -> list[float]:
    """How long the runs of this name had to wait, in ms; those that still wait as long as all together."""
    return [float(row.wait_ms) if row.wait_ms is not None else float("inf") for row in rows if row.id.startswith(prefix)]


def _times(title: str, found: list[float], empty: list[float] | None = None) -> list[str]:
    p50, p99 = percentile(found, 0.5), percentile(found, 0.99)
    times = "" if empty is None else f"{p99 / percentile(empty, 0.99):.2f}"
    return [title, f"{len(found):,}", f"{p50:.0f}", f"{p99:.0f}", f"{max(found):.0f}", times]


TIMES = ["", "runs", "wait ms p50", "p99", "max", "p99 x empty"]


def skewed(bench: Bench) -> Report:
    """One tenant with a huge backlog, 99 with a trickle; then the 99 have a backlog too, so that all contend."""
    size = bench.size
    with bench:
        bench.work()
        bench.arrive("empty", LIGHT, "light", size.phase_s)
        bench.fill(size.heavy, 1, "heavy")
        time.sleep(1)
        bench.arrive("beside", LIGHT, "light", size.phase_s)
        bench.fill(LIGHT * size.burst, LIGHT, "light")
        time.sleep(size.contend_s)
        end_ms = bench.now_ms()
        rows = bench.rows()
    return _skewed(bench.size, rows, contended(queued(rows), end_ms))


def _skewed(size: Size, rows: list[Row], found: dict[str, Service]) -> Report:
    report = Report("skewed tenants")
    empty, beside = waits(rows, "empty"), waits(rows, "beside")
    title = f"light tenants' waits: {LIGHT} tenants, {size.rate:g} runs a second together, {WORKERS} workers of {SLOTS} slots"
    table = [_times("empty system", empty), _times(f"beside a tenant with {size.heavy:,} queued", beside, empty)]
    report.tables.append(Table(title, TIMES, table))
    light = sorted((service.share, name) for name, service in found.items() if name.startswith("light") and service.owed >= 1)
    worst, heavy = light[0][0], found["heavy0"]
    cells = [("worst light tenant", worst), ("median", statistics.median(s for s, _ in light)), ("best", light[-1][0])]
    cells.append(("the heavy tenant", heavy.share))
    rows_ = [[name, f"{share:.3f}"] for name, share in cells]
    started = sum(service.got for service in found.values())
    title = f"share of contended service by fair share: {len(found)} tenants contend, {started:,} starts"
    report.tables.append(Table(title, ["", "got / owed"], rows_))
    report.verdicts.append(Verdict("the worst tenant gets at least 0.95 of its fair share", f"{worst:.3f}", worst >= 0.95))
    times = percentile(beside, 0.99) / percentile(empty, 0.99)
    report.verdicts.append(
        Verdict("light tenants wait at most 2 times as long as in an empty system (p99)", f"{times:.2f}", times <= 2)
    )
    report.figures |= {"empty_ms": empty, "beside_ms": beside, "shares": {name: s.share for name, s in found.items()}}
    percent = {f"holdfast: {name}": share * 100 for name, share in cells}
    report.plots.append(
        Plot("fairness-shares", "Share of contended service, fair = 100 %", "%", {**percent, "a fair share": 100})
    )
    bars = {f"holdfast: {what}, {p}": percentile(values, share) for what, values in (("empty system", empty), ("beside 100,000", beside))
            for p, share in (("p50", 0.5), ("p99", 0.99))}  # fmt: skip
    report.plots.append(Plot("fairness-waits", "How long a light tenant's run waits", "ms", bars))
    return report


def many_keys(bench: Bench) -> Report:
    """One of ten tenants spreads its work over 100 partition keys; then the same with the tenant as the key."""
    rows: list[list[str]] = []
    report = Report("a tenant with many keys")
    for title, keys in (("a key of its own for each of its 100 jobs", 100), ("its one key, like the others", 1)):
        with bench:
            each = max(bench.size.heavy // 1000, 20) * 10
            bench.fill(each * keys if keys > 1 else each * 10, keys, "many")
            bench.fill(each * 9 if keys > 1 else each * 90, 9, "honest")
            bench.work()
            time.sleep(bench.size.contend_s / 3)
            found = contended(queued(bench.rows()), bench.now_ms())
        got = {name: sum(s.got for key, s in found.items() if key.startswith(name)) for name in ("many", "honest")}
        total = sum(got.values())
        honest = [s.got / total for key, s in found.items() if key.startswith("honest")]
        rows.append([title, f"{got['many'] / total:.3f}", f"{min(honest):.4f}", f"{max(honest):.4f}", f"{1 / len(found):.4f}"])
        report.figures[title] = got
    columns = ["the tenant uses", "its share", "least of 9 honest", "most", "fair by keys"]
    report.tables.append(Table("one tenant against nine, all with a backlog", columns, rows))
    report.notes.append(
        "the partition key is the unit of fairness and the service chooses it: a tenant that may choose its keys takes what it likes. "
        "The product's key is the tenant's, so that nobody can"
    )
    return report


def weights(bench: Bench) -> Report:
    """Three tenants with weights 1, 2 and 4, all with a backlog."""
    report = Report("weights")
    given = {"one0": 1.0, "two0": 2.0, "four0": 4.0}
    with bench:
        bench.weigh(given)
        for key in given:
            bench.fill(bench.size.heavy // 5, 1, key.removesuffix("0"))
        bench.work()
        time.sleep(bench.size.contend_s / 2)
        end_ms = bench.now_ms()
        found = contended(queued(bench.rows()), end_ms, given)
    total = sum(service.got for service in found.values())
    rows = [[f"weight {weight:g}", f"{found[key].got:,}", f"{found[key].got / total:.4f}", f"{weight / 7:.4f}", f"{found[key].share:.3f}"]
            for key, weight in given.items()]  # fmt: skip
    report.tables.append(Table("three tenants with a backlog", ["", "starts", "share", "by weight", "got / owed"], rows))
    worst = max(abs(service.share - 1) for service in found.values())
    report.verdicts.append(
        Verdict("weights 1:2:4 under backlog: shares within 5 % of the weights", f"{worst:.1%}", worst <= 0.05)
    )
    report.figures["got"] = {key: service.got for key, service in found.items()}
    return report


def priorities(bench: Bench) -> Report:
    """Interactive runs beside an endless backlog of batch runs; then both endless."""
    report, size, tenants = Report("priorities"), bench.size, 10
    with bench:
        bench.work()
        bench.arrive("empty", tenants, "tenant", size.phase_s / 2, priority=1)
        bench.fill(size.heavy // 2, tenants, "tenant", priority=9)
        time.sleep(1)
        bench.arrive("beside", tenants, "tenant", size.phase_s / 2, priority=1)
        bench.fill(size.heavy // 2, tenants, "tenant", priority=1)
        time.sleep(1)
        from_ms = bench.now_ms()
        time.sleep(size.contend_s / 2)
        rows = bench.rows()
    empty, beside = waits(rows, "empty"), waits(rows, "beside")
    title = f"interactive runs (priority 1), {size.rate:g} a second of {tenants} tenants"
    lines = [
        _times("empty system", empty),
        _times(f"beside {size.heavy // 2:,} batch runs (priority 9) of theirs", beside, empty),
    ]
    report.tables.append(Table(title, TIMES, lines))
    started = [row.priority for row in rows if row.started_ms is not None and row.started_ms >= from_ms]
    share = started.count(9) / len(started)
    title = f"both endless: the batch class of {len(started):,} starts"
    report.tables.append(Table(title, ["", "starts", "share"], [["batch", f"{started.count(9):,}", f"{share:.4f}"]]))
    promise = "an endless backlog leaves the less urgent class 1 start in 17 or more"
    report.verdicts.append(Verdict(promise, f"{share:.4f}", share >= 1 / 17))
    report.figures |= {"empty_ms": empty, "beside_ms": beside, "batch_share": share}
    return report
