"""What a process tells Prometheus about itself: a worker's runs and journal, a front door's requests, and the connection pool."""

import time
from collections.abc import Iterator

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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine import Engine, Worker

BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


def new_registry(engine: Engine) -> CollectorRegistry:
    disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_PoolMetrics(engine))
    return registry


class _PoolMetrics(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.pool.get_stats()
        for name, text in (
            ("pool_size", "Connections in the pool"),
            ("pool_available", "Connections nobody uses"),
            ("requests_waiting", "Callers waiting for a connection"),
        ):
            yield GaugeMetricFamily(f"holdfast_{name}", text, value=stats.get(name, 0))


class WorkerMetrics(Collector):
    """Read from the worker when asked; nothing is counted twice."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        worker = self._worker
        yield GaugeMetricFamily("holdfast_runs_running", "Runs this worker holds", value=len(worker.running))
        ended = CounterMetricFamily("holdfast_runs_ended", "Runs that left this worker, by how", labels=["how"])
        for how, count in sorted(worker.ended.items()):
            ended.add_metric([how], count)
        yield ended
        yield CounterMetricFamily("holdfast_journal_commits", "Commits of the journal", value=worker.journal.flushes)
        yield CounterMetricFamily("holdfast_journal_records", "Records committed by the journal", value=worker.journal.records)


class CountedRequests:
    """Wraps an application and counts its requests by method and status, with their durations."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter("holdfast_http_requests", "Requests answered", ["method", "status"], registry=registry)
        self._seconds = Histogram("holdfast_http_request_seconds", "Time to answer", registry=registry, buckets=BUCKETS_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(scope["method"], str(message["status"])).inc()
                self._seconds.observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, observed)
