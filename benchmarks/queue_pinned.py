"""Claims while a long transaction keeps vacuum from removing what is dead, as a backup or a forgotten session does.

Both sides work in turns at one pace: claim and finish BATCH rows, enqueue as many, in a database of their own. After a while without, a
REPEATABLE READ transaction with a snapshot is open in both databases; then it ends, both tables are vacuumed, and they go on.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg

from benchmarks import backlog
from benchmarks.claimant import NAME, SIDES, Claimant, Side
from benchmarks.plain_queue import BATCH
from benchmarks.queue_rates import SCHEMAS, Say
from benchmarks.report import Report, Table, Verdict, percentile
from benchmarks.server import Database, Server

PARTITIONS = 100
TURN_S = 0.1  # so BATCH / TURN_S rows a second on each side
SNAPSHOT: LiteralString = "select count(*) from engine.queue"


@dataclass(frozen=True)
class Size:
    before_s: float = 10
    pinned_s: float = 120
    after_s: float = 10
    bucket_s: float = 10
    standing: int = 5000  # rows queued at any time


QUICK = Size(before_s=2, pinned_s=10, after_s=2, bucket_s=2, standing=1000)


@dataclass(frozen=True)
class Stage:
    """A stretch of time and each side's claims in it, in milliseconds."""

    name: str
    ms: dict[Side, list[float]]

    def p50(self, side: Side) -> float:
        return statistics.median(self.ms[side])


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    databases: dict[Side, Database] = {side: server.fresh(f"bench_pinned_{side}", SCHEMAS[side]) for side in SIDES}
    try:
        for database in databases.values():
            backlog.fill(database, size.standing, PARTITIONS, name=NAME)
            backlog.settle(database)
        stages = asyncio.run(_stages(databases, size, say))
    finally:
        for database in databases.values():
            database.close()
    return _report(size, stages)


async def _stages(databases: dict[Side, Database], size: Size, say: Say) -> list[Stage]:
    flow = Flow(databases, {side: await Claimant.open(side, database.dsn) for side, database in databases.items()}, say)
    await flow.go("", 1)  # warms up
    stages = [await flow.go("before", size.before_s)]
    pins = [psycopg.connect(database.dsn) for database in databases.values()]
    for pin in pins:
        pin.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        pin.execute(SNAPSHOT)
    for n in range(round(size.pinned_s / size.bucket_s)):
        stages.append(await flow.go(f"pinned, {n * size.bucket_s:g}-{(n + 1) * size.bucket_s:g} s", size.bucket_s))
    for pin in pins:
        pin.close()
    for database in databases.values():
        backlog.settle(database)
    stages.append(await flow.go("after its end and a vacuum", size.after_s))
    for claimant in flow.claimants.values():
        await claimant.conn.close()
    return stages


class Flow:
    """Work that keeps flowing on both sides."""

    def __init__(self, databases: dict[Side, Database], claimants: dict[Side, Claimant], say: Say) -> None:
        self.databases = databases
        self.claimants = claimants
        self._say = say
        self._made = 0

    async def go(self, name: str, seconds: float) -> Stage:
        starts = {side: len(claimant.tally.claim_ms) for side, claimant in self.claimants.items()}
        begun = time.monotonic()
        for n in range(round(seconds / TURN_S)):
            await asyncio.sleep(max(0.0, begun + n * TURN_S - time.monotonic()))
            self._made += 1
            for side in SIDES if n % 2 else reversed(SIDES):
                await self.claimants[side].turn()
                backlog.fill(self.databases[side], BATCH, PARTITIONS, name=NAME, prefix=f"n{self._made}-")
        stage = Stage(name, {side: claimant.tally.claim_ms[starts[side] :] for side, claimant in self.claimants.items()})
        if name:
            self._say(f"{name}: holdfast {stage.p50('holdfast'):.2f} ms, plain {stage.p50('plain'):.2f} ms")
        return stage


def _report(size: Size, stages: Sequence[Stage]) -> Report:
    report = Report("pinned horizon")
    rows: list[list[str]] = []
    for stage in stages:
        ours, plain = stage.p50("holdfast"), stage.p50("plain")
        p99s = [f"{percentile(stage.ms[side], 0.99):.2f}" for side in SIDES]
        rows.append([stage.name, f"{ours:.2f}", p99s[0], f"{plain:.2f}", p99s[1], f"{ours / plain:.2f}"])
        report.bars |= {f"holdfast, {stage.name}": ours, f"plain, {stage.name}": plain}
    columns = ["", "holdfast ms p50", "p99", "plain ms p50", "p99", "holdfast / plain"]
    title = f"claims of {BATCH} while a snapshot is held for {size.pinned_s:g} s; {BATCH / TURN_S:g} rows a second, {PARTITIONS} partitions"
    report.tables.append(Table(title, columns, rows))
    before, last, after = stages[0], stages[-2], stages[-1]
    against = last.p50("holdfast") / last.p50("plain")
    report.verdicts.append(
        Verdict("at the end of the snapshot a claim takes at most 1.5 times plain's", f"{against:.2f}", against <= 1.5)
    )
    again = after.p50("holdfast") / before.p50("holdfast")
    report.verdicts.append(
        Verdict("after it and a vacuum a claim takes at most 1.5 times as long as before", f"{again:.2f}", again <= 1.5)
    )
    report.figures["stages"] = [{"name": stage.name, "ms": stage.ms} for stage in stages]
    return report
