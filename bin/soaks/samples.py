"""What a long soak looks at every few seconds, and what it makes of that in the end: does anything grow?

A process that is started again begins anew, so that memory and open files are judged of those that live as long as the soak. What
grows is told from what goes up and down by a robust line (Theil and Sen: the median of the slopes between all pairs) through the
medians of minutes, behind a warm-up.
"""

import json
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from resource import getpagesize
from typing import Any, LiteralString

import psycopg

from bin.service import ServiceProcess
from engine import connection_string

MB = 1024 * 1024
MINUTE_S = 60.0
#: A soak that is shorter shows its figures and judges none of them.
LONG_ENOUGH_S = 20 * MINUTE_S
WARM_SHARE = 0.2
#: Whatever is kept of each of ten thousand runs an hour, a small record with its strings, is more than that.
MOST_MB_AN_HOUR = 8.0
MOST_FILES_MORE = 8
#: How much more than in the first half a table may take in the second: sizes grow by pages, and the moments of vacuums vary.
MOST_GROWTH = 1.2
SPARE_BYTES = MB
SPARE_DEAD = 5000

HOT = (
    *(
        "dbos.workflow_status",
        "dbos.operation_outputs",
        "dbos.workflow_events",
        "dbos.workflow_events_history",
        "dbos.notifications",
    ),
    *("dbos.streams", "engine.wake", "engine.nudge", "engine.queue_partition", "engine.worker"),
    *("app.runs", "app.run_steps", "app.artifacts", "app.human_gates", "app.sbx_runs"),
)
TABLES: LiteralString = """
    select s.schemaname || '.' || s.relname, pg_total_relation_size(s.relid), s.n_live_tup, s.n_dead_tup,
           extract(epoch from s.last_autovacuum)::float8
      from pg_stat_user_tables s where s.schemaname || '.' || s.relname = any (%s) order by 1
"""
WHOLE: LiteralString = "select sum(pg_total_relation_size(s.relid))::bigint from pg_stat_user_tables s"
CONNECTIONS: LiteralString = "select count(*) from pg_stat_activity a where a.backend_type = 'client backend'"


@dataclass(frozen=True, slots=True)
class Process:
    """Resident memory in bytes, and open files."""

    memory: int
    files: int


@dataclass(frozen=True, slots=True)
class Table:
    bytes: int
    live: int
    dead: int
    vacuumed_at: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """at_s: since the beginning. Rates and times are of the clients since the last sample; without a database there are no tables."""

    at_s: float
    processes: Mapping[str, Process]
    accepted_per_s: float
    ended_per_s: float
    post_p99_ms: float | None
    silence_s: float
    connections: int | None = None
    bytes: int | None = None
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])


class Clients:
    """What clients hear, from any thread. statuses: of all answers; the rest is taken out with each sample."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self._posts: list[float] = []
        self._accepted = self._ended = 0
        self._last = time.monotonic()
        self._silence_s = 0.0
        self._lock = threading.Lock()

    def heard(self, method: str, status: int, seconds: float) -> None:
        with self._lock:
            self.statuses[status] += 1
            if method == "POST":
                self._posts.append(seconds)

    def accepted(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._accepted += 1
            self._silence_s = max(self._silence_s, now - self._last)
            self._last = now

    def ended(self, count: int) -> None:
        with self._lock:
            self._ended += count

    def rests(self) -> None:
        """No run is started now, on purpose."""
        self._last = time.monotonic()

    def take(self, seconds: float) -> dict[str, Any]:
        with self._lock:
            posts = sorted(self._posts)
            taken = {
                "accepted_per_s": round(self._accepted / seconds, 2),
                "ended_per_s": round(self._ended / seconds, 2),
                "post_p99_ms": round(1000 * posts[min(len(posts) - 1, int(len(posts) * 0.99))], 1) if posts else None,
                "silence_s": round(self._silence_s, 2),
            }
            self._posts, self._accepted, self._ended, self._silence_s = [], 0, 0, 0.0
        return taken


class Watch:
    """Takes samples and keeps them, also as lines of JSON in a file. lasting: the processes that are never stopped, by name."""

    def __init__(
        self, dsn: str, file: Path, processes: Mapping[str, ServiceProcess], lasting: Sequence[str], gap_s: float
    ) -> None:
        self.clients = Clients()
        self.samples: list[Sample] = []
        self.lasting = lasting
        self.began = time.monotonic()
        self._dsn, self._file, self._processes, self._gap_s = dsn, file, processes, gap_s

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began

    def go_on(self, over: threading.Event) -> None:
        last = time.monotonic()
        while not over.wait(self._gap_s):
            now = time.monotonic()
            self._keep(self._sample(now - last))
            last = now

    def _sample(self, seconds: float) -> Sample:
        processes = {name: found for name, one in self._processes.items() if (found := look_at(one.pid))}
        heard = self.clients.take(seconds)
        with suppress(psycopg.Error), psycopg.connect(connection_string(self._dsn), autocommit=True) as conn:
            tables = {name: Table(*row) for name, *row in conn.execute(TABLES, (list(HOT),)).fetchall()}
            whole, connections = (conn.execute(query).fetchall()[0][0] for query in (WHOLE, CONNECTIONS))
            return Sample(round(self.now_s, 1), processes, **heard, connections=connections, bytes=whole, tables=tables)
        return Sample(round(self.now_s, 1), processes, **heard)

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")


def look_at(pid: int) -> Process | None:
    """None when there is no such process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Process(pages * getpagesize(), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())) if pid else None
    except OSError:
        return None


# What grows ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slope:
    """A robust line: how steep, and between what it is in 95 of 100 cases."""

    slope: float
    low: float
    high: float


def slope_of(points: Sequence[tuple[float, float]]) -> Slope:
    """Of Theil and Sen, with Sen's interval. Needs two points at different x."""
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 != x1)
    count, n = len(slopes), len(points)
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = max(0, int((count - spread) / 2)), min(count - 1, math.ceil((count + spread) / 2))
    return Slope(statistics.median(slopes), slopes[low], slopes[high])


def by_minute(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> list[tuple[float, float]]:
    """(hour, median) of each minute that has a value."""
    minutes: dict[int, list[float]] = {}
    for sample in samples:
        if (found := value(sample)) is not None:
            minutes.setdefault(int(sample.at_s // MINUTE_S), []).append(found)
    return [((minute + 0.5) / 60, statistics.median(values)) for minute, values in sorted(minutes.items())]


@dataclass(frozen=True, slots=True)
class Findings:
    """lines: the figures, for people. Each of the others names what is too much, and is empty when all is well."""

    lines: Sequence[str]
    leaks: Sequence[str]
    bloat: Sequence[str]


def findings(watch: Watch, seconds: float) -> Findings:
    """What the samples show. Nothing is too much in a soak that was too short to tell."""
    samples = watch.samples
    warm = [sample for sample in samples if sample.at_s > seconds * WARM_SHARE]
    if len(warm) < 4:
        return Findings(["too few samples"], [], [])
    lines: list[str] = []
    leaks: list[str] = []
    bloat: list[str] = []
    for name in watch.lasting:
        line, trouble = judged_process(name, warm)
        lines.append(line)
        leaks += trouble
    for table in HOT:
        line, trouble = judged_table(table, samples, warm)
        lines.append(line)
        bloat += trouble
    connections = [sample.connections for sample in warm if sample.connections is not None]
    posts = [sample.post_p99_ms for sample in samples if sample.post_p99_ms is not None]
    sizes = [sample.bytes / MB for sample in warm if sample.bytes is not None]
    lines.append(
        f"connections: up to {max(connections, default=0)}; all tables: {min(sizes):.0f} to {max(sizes):.0f} MB behind the warm-up"
    )
    lines.append(
        f"POST: median of the p99 {statistics.median(posts):.0f} ms, worst {max(posts):.0f} ms; "
        f"longest silence {max(sample.silence_s for sample in samples):.1f} s"
    )
    return Findings(lines, leaks, bloat) if seconds >= LONG_ENOUGH_S else Findings(lines, [], [])


def judged_process(name: str, warm: Sequence[Sample]) -> tuple[str, list[str]]:
    memory = by_minute(warm, lambda sample: sample.processes[name].memory / MB if name in sample.processes else None)
    files = by_minute(warm, lambda sample: float(sample.processes[name].files) if name in sample.processes else None)
    if len(memory) < 2:
        return f"{name}: too few samples", [f"{name} was not seen"]
    found, first, last = slope_of(memory), memory[0][1], memory[-1][1]
    line = (
        f"{name}: {first:.1f} MB behind the warm-up, {last:.1f} MB at the end, "
        f"{found.slope:+.1f} MB/h ({found.low:+.1f} to {found.high:+.1f}); {files[0][1]:.0f} and {files[-1][1]:.0f} open files"
    )
    trouble = [f"{name} grows by {found.slope:.1f} MB/h"] if found.slope > MOST_MB_AN_HOUR else []
    quarter = max(1, len(files) // 4)
    before, after = (statistics.median(y for _, y in part) for part in (files[:quarter], files[-quarter:]))
    return line, trouble + (
        [f"{name} has {after:.0f} open files, and had {before:.0f}"] if after > before + MOST_FILES_MORE else []
    )


def judged_table(name: str, samples: Sequence[Sample], warm: Sequence[Sample]) -> tuple[str, list[str]]:
    """A failover forgets what the server has counted, so a vacuum is one that was seen in any sample."""
    vacuums = {sample.tables[name].vacuumed_at for sample in samples if name in sample.tables} - {None}
    halves = [warm[: len(warm) // 2], warm[len(warm) // 2 :]]
    sizes = [max((sample.tables[name].bytes for sample in half if name in sample.tables), default=0) for half in halves]
    dead = [max((sample.tables[name].dead for sample in half if name in sample.tables), default=0) for half in halves]
    line = (
        f"{name}: at most {sizes[0] / MB:.1f} MB in the first half, {sizes[1] / MB:.1f} in the second; "
        f"{dead[0]} and {dead[1]} dead rows; vacuumed {len(vacuums)} times"
    )
    trouble: list[str] = []
    if sizes[1] > sizes[0] * MOST_GROWTH + SPARE_BYTES:
        trouble.append(f"{name} has grown from {sizes[0] / MB:.1f} to {sizes[1] / MB:.1f} MB")
    live = max((sample.tables[name].live for sample in warm if name in sample.tables), default=0)
    if dead[1] > max(dead[0] * MOST_GROWTH, 2 * live) + SPARE_DEAD:  # what a lap deletes is as much as lives
        trouble.append(f"{name} has up to {dead[1]} dead rows, and had {dead[0]}")
    if not vacuums and max(dead) > SPARE_DEAD:
        trouble.append(f"{name} was never vacuumed")
    return line, trouble
