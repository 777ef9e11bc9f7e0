"""What a process tells Prometheus: its runs, steps and commits, its requests, its connection pool, and the state of the queues and gates,
which every process reads from the database and tells alike.

Names and labels are listed in docs/operating.md. Labels have few values: names from the code, route templates, never an id.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import LiteralString

import psycopg
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from engine import Engine, Worker
from steps.policy import QUEUES
from steps.queues import STANDINGS

log = structlog.get_logger("bin.metrics")

BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
BUCKETS_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def new_registry(engine: Engine) -> CollectorRegistry:
    disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(PoolMetrics(engine))
    return registry


class PoolMetrics(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.pool.get_stats()
        for name, stat, text in (
            ("size", "pool_size", "Connections in the pool"),
            ("available", "pool_available", "Connections nobody uses"),
            ("waiting", "requests_waiting", "Callers waiting for a connection"),
        ):
            yield GaugeMetricFamily(f"holdfast_pool_{name}", text, value=stats.get(stat, 0))


class RunMetrics:
    """Of a worker, counted as it goes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._claimed = Counter("holdfast_runs_claimed", "Runs taken from a queue", ["workflow"], registry=registry)
        self._ended = Counter("holdfast_runs_ended", "Runs that left this worker, by how", ["workflow", "how"], registry=registry)
        self._attempts = Histogram(
            "holdfast_step_attempt_seconds",
            "Attempts at steps, by outcome",
            ["step", "outcome"],
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._commits = Histogram(
            "holdfast_journal_commit_records", "Records in a commit of the journal", registry=registry, buckets=BUCKETS_RECORDS
        )
        self._leases = Counter("holdfast_lease_losses", "Times this worker was taken for dead", registry=registry)
        self._failovers = Counter(
            "holdfast_failovers", "Times the database was another server than before", ["history"], registry=registry
        )
        for history in ("kept", "went_back"):
            self._failovers.labels(history)

    def claimed(self, workflow: str) -> None:
        self._claimed.labels(workflow).inc()

    def ended(self, workflow: str, how: str) -> None:
        self._ended.labels(workflow, how).inc()

    def attempted(self, step: str, outcome: str, seconds: float) -> None:
        self._attempts.labels(step, outcome).observe(seconds)

    def committed(self, records: int) -> None:
        self._commits.observe(records)

    def lease_lost(self) -> None:
        self._leases.inc()

    def failed_over(self, went_back: bool) -> None:
        self._failovers.labels("went_back" if went_back else "kept").inc()


class WorkerMetrics(Collector):
    """What a worker holds, and what its checks of the queues' books have found."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("holdfast_runs_running", "Runs this worker holds", value=len(self._worker.running))
        found = self._worker.findings
        for name, count, text in (
            ("partitions_stranded", found.stranded, "Partitions found with work that nobody would have looked at"),
            ("caps_exceeded", found.exceeded, "Partitions found with more at work than their cap"),
            ("places_leaked", found.leaked, "Partitions found waiting for a place that was free"),
        ):
            yield CounterMetricFamily(f"holdfast_queue_{name}", text, value=count)


class RequestMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter("holdfast_http_requests", "Requests", ["method", "route", "status"], registry=registry)
        self._seconds = Histogram(
            "holdfast_http_request_seconds",
            "Time until the answer began",
            ["method", "route"],
            registry=registry,
            buckets=BUCKETS_S,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


#: Counting stops here, so that a scrape costs the same on any backlog.
MOST_COUNTED = 100_000

QUEUE_STATE: LiteralString = """
    select q.name, w.depth, coalesce(greatest((select engine.now_ms()) - w.since_ms, 0), 0) / 1000.0
      from unnest(%s::text[]) as q (name)
     cross join lateral (
           select count(*) as depth, min(s.updated_at) as since_ms
             from (select x.updated_at from dbos.workflow_status x
                    where x.status = 'ENQUEUED' and x.queue_name = q.name
                    order by x.priority, x.created_at
                    limit %s) s) w
     order by q.name
"""
PARTITION_STATE: LiteralString = """
    select p.queue, p.state, count(*)
      from unnest(%s::text[]) as n (name)
     cross join lateral (select x.queue, x.state from engine.queue_partition x where x.queue = n.name limit %s) p
     group by p.queue, p.state
"""
LIMIT_STATE: LiteralString = """
    select n.name, coalesce(q.paused, false),
           case when d.rate_limit_max is null then 0 else coalesce(greatest(q.opens_at_ms - (select engine.now_ms()), 0), 0) / 1000.0 end
      from unnest(%s::text[]) as n (name)
      left join engine.queue q on q.name = n.name
      left join dbos.queues d on d.name = n.name
     order by n.name
"""
GATE_STATE: LiteralString = """
    select count(*), coalesce(greatest((select engine.now_ms()) - extract(epoch from min(o.created_at)) * 1000, 0), 0) / 1000.0
      from (select g.created_at from app.human_gates g
             where g.resolved_at is null and g.dropped_at is null order by g.deadline_at, g.created_at limit %s) o
"""
WORKERS: LiteralString = "select count(*), count(*) filter (where w.paused) from engine.worker w where not w.dead"


@dataclass(frozen=True, slots=True)
class QueueState:
    """depth and oldest_s: of what waits; opens_s: until its rate allows a start again; partitions: how many, by where they stand."""

    depth: int
    oldest_s: float
    paused: bool
    opens_s: float
    partitions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServiceState:
    """As the database has it, queues by name."""

    queues: Mapping[str, QueueState]
    gates_open: int
    oldest_gate_s: float
    workers_alive: int
    workers_paused: int


class ServiceMetrics(Collector):
    """The state of the whole service, asked of the database at most once in `gap_s`, whoever scrapes how often."""

    def __init__(self, engine: Engine, *, gap_s: float = 5.0, within_s: float = 2.0) -> None:
        self._engine = engine
        self._gap_s = gap_s
        self._within_s = within_s
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self._state: ServiceState | None = None  # None: the database did not answer

    async def refresh(self) -> None:
        """To be called before a scrape is answered. Never fails."""
        async with self._asking:
            if self._asked_at is not None and time.monotonic() < self._asked_at + self._gap_s:
                return
            self._asked_at = time.monotonic()
            try:
                async with asyncio.timeout(self._within_s):
                    self._state = await self._ask()
            except (psycopg.Error, PoolTimeout, TimeoutError) as error:
                self._state = None
                log.warning("the state of the queues could not be read", error_type=type(error).__qualname__)

    async def _ask(self) -> ServiceState:
        async with self._engine.pool.connection() as conn:
            waiting = await (await conn.execute(QUEUE_STATE, (list(QUEUES), MOST_COUNTED))).fetchall()
            limits = await (await conn.execute(LIMIT_STATE, (list(QUEUES),))).fetchall()
            partitions = await (await conn.execute(PARTITION_STATE, (list(QUEUES), MOST_COUNTED))).fetchall()
            gates = await (await conn.execute(GATE_STATE, (MOST_COUNTED,))).fetchone()
            workers = await (await conn.execute(WORKERS)).fetchone()
        assert gates is not None
        assert workers is not None
        standings: dict[str, dict[str, int]] = {name: dict.fromkeys(STANDINGS.values(), 0) for name in QUEUES}
        for name, letter, count in partitions:
            standings[name][STANDINGS[letter]] = count
        queues = {
            name: QueueState(depth, float(oldest_s), paused, float(opens_s), standings[name])
            for (name, depth, oldest_s), (_, paused, opens_s) in zip(waiting, limits, strict=True)
        }
        return ServiceState(queues, gates[0], float(gates[1]), *workers)

    def collect(self) -> Iterator[Metric]:
        state = self._state
        yield GaugeMetricFamily("holdfast_database_up", "Whether the state below could be read", value=state is not None)
        if state is None:
            return
        depth = GaugeMetricFamily("holdfast_queue_depth", "Workflows waiting in a queue", labels=["queue"])
        oldest = GaugeMetricFamily("holdfast_queue_oldest_seconds", "How long the oldest of them waits", labels=["queue"])
        paused = GaugeMetricFamily("holdfast_queue_paused", "Whether a queue is paused", labels=["queue"])
        opens = GaugeMetricFamily("holdfast_queue_opens_seconds", "Until its rate allows a start again", labels=["queue"])
        partitions = GaugeMetricFamily("holdfast_queue_partitions", "Partitions, by where they stand", labels=["queue", "state"])
        for name, queue in state.queues.items():
            depth.add_metric([name], queue.depth)
            oldest.add_metric([name], queue.oldest_s)
            paused.add_metric([name], queue.paused)
            opens.add_metric([name], queue.opens_s)
            for standing, count in queue.partitions.items():
                partitions.add_metric([name, standing], count)
        yield from (depth, oldest, paused, opens, partitions)
        yield GaugeMetricFamily("holdfast_gates_open", "Gates that wait for an answer", value=state.gates_open)
        yield GaugeMetricFamily("holdfast_gate_oldest_seconds", "How long the oldest of them waits", value=state.oldest_gate_s)
        yield GaugeMetricFamily("holdfast_workers_alive", "Worker processes with a lease", value=state.workers_alive)
        yield GaugeMetricFamily("holdfast_workers_paused", "Of these, those that take nothing", value=state.workers_paused)
