"""bin/otlp-smoke: show that what this version sends by OTLP arrives, and is one trace a run.

    bin/otlp-smoke

Listens as two collectors of its own, makes a database of its own on the server of the settings (the embedded one without any), starts an
API and a worker that send to both collectors, runs one workflow to its end, and looks at what arrived. Exit code 1 means that something
was not as it should be. The database is dropped at the end.
"""

import argparse
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bin.commands.demo import Deviation, drive
from bin.database import connect, create_if_missing, migrate
from bin.otlp_receiver import ReceivedLog, ReceivedSpan, Receiver
from bin.service import ServiceFailed, ServiceProcess
from bin.settings import Settings
from bin.wiring import FAILED, complain, database_of, run
from steps import tracing

SERVICE = "holdfast-smoke"
STEPS = ("CompileST", "ApplyPatchST", "DecideST", "ExecuteST")
STORED: LiteralString = """
    select s.step_id, s.trace_id, s.span_id from app.run_steps s join app.runs r on r.id = s.run_id where r.workflow_id = %s
"""


def main(settings: Settings) -> int:
    argparse.ArgumentParser(prog="bin/otlp-smoke", description="Shows that what is sent by OTLP arrives.").parse_args()
    logs = settings.state_dir.absolute() / "drills"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with Receiver() as one, Receiver() as other, own_database(settings) as dsn:
            wid = run_once(dsn, (one, other), logs)
            with connect(dsn) as conn:
                stored = conn.execute(STORED, (wid,)).fetchall()
    except (Deviation, ServiceFailed, httpx.HTTPError, psycopg.Error) as error:
        complain(error)
        return FAILED
    if settings.trace_base_url:
        print(f"· its page would be {tracing.trace_link(settings.trace_base_url, tracing.trace_id(wid))}")
    return verdict(wid, stored, one, other)


@contextmanager
def own_database(settings: Settings) -> Iterator[str]:
    server = database_of(settings)
    name = f"otlp_smoke_{secrets.token_hex(6)}"
    dsn = make_conninfo(server, dbname=name)
    create_if_missing(dsn, maintenance_database=settings.system_db_name)
    try:
        with connect(dsn, autocommit=True) as conn:
            migrate(conn)
        yield dsn
    finally:
        with connect(server, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def run_once(dsn: str, collectors: tuple[Receiver, Receiver], logs: Path) -> str:
    """One run from recipe to result, by processes that send to the collectors and have ended since; its workflow id."""
    mark, environ = secrets.token_hex(4), environment(dsn, collectors)
    with ExitStack() as processes:
        api, worker = (ServiceProcess(name, logs / f"otlp-{mark}-{name}.log", environ) for name in ("api", "worker"))
        for one in (api, worker):
            one.start()
            processes.callback(one.stop)
        print(f"· started an API and a worker, logs in {logs}/otlp-{mark}-*.log", flush=True)
        with httpx.Client(base_url=api.url(), timeout=60) as http:
            wid, _ = drive(http, replay=False)
    return wid


def environment(dsn: str, collectors: tuple[Receiver, Receiver]) -> dict[str, str]:
    """Settings of a process that sends to the collectors: traces by their own list, logs by the list for both."""
    return {
        "DATABASE_URL": dsn,
        "PORT": "0",
        "ADMIN_PORT": "0",
        "DBOS_ENABLE_OTLP": "true",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=smoke",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ",".join(f"{one.url}/v1/traces" for one in collectors),
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": ",".join(one.url for one in collectors),
    }


# -- what arrived -----------------------------------------------------------------------------------------------------------------


@dataclass
class Arrived:
    """What one collector has of the run, by kind."""

    wid: str
    spans: list[ReceivedSpan]
    logs: list[ReceivedLog]

    @property
    def trace_id(self) -> str:
        return tracing.trace_id(self.wid)

    @property
    def of_run(self) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.trace_id == self.trace_id]

    @property
    def executions(self) -> list[ReceivedSpan]:
        return [span for span in self.of_run if "holdfast.execution" in span.attributes]

    @property
    def steps(self) -> list[ReceivedSpan]:
        return [span for span in self.of_run if "holdfast.call" in span.attributes]

    @property
    def root(self) -> str:
        return tracing.execution_span(self.wid, 1)


def verdict(wid: str, stored: list[tuple[Any, ...]], one: Receiver, other: Receiver) -> int:
    """Print what arrived and what holds of it; the exit code."""
    print(f"\ntrace {tracing.trace_id(wid)}")
    for span in Arrived(wid, one.spans, one.logs).of_run:
        print(f"  {span.parent_id or '-' * 16} > {span.span_id} {span.name}")
    for number, collector in enumerate((one, other), 1):
        counts = Counter(log.service.get("holdfast.role") for log in collector.logs)
        print(f"collector {number}: {len(collector.spans)} spans, {len(collector.logs)} log records {dict(counts)}")
    print()
    proofs = dict(checked(wid, stored, one, other))
    for text, holds in proofs.items():
        print(f"{'holds' if holds else 'FAILS'}  {text}")
    print(f"\n{sum(proofs.values())} of {len(proofs)} proofs hold for run {wid}", flush=True)
    return 0 if all(proofs.values()) else FAILED


def places(arrived: Iterable[ReceivedSpan | ReceivedLog]) -> Counter[tuple[str, str]]:
    return Counter((each.trace_id, each.span_id) for each in arrived)


def checked(wid: str, stored: list[tuple[Any, ...]], one: Receiver, other: Receiver) -> Iterator[tuple[str, bool]]:
    yield "both collectors have the same spans", places(one.spans) == places(other.spans) != Counter()
    yield "both collectors have the same log records", places(one.logs) == places(other.logs) != Counter()
    arrived = Arrived(wid, one.spans, one.logs)
    executions = {span.span_id: span for span in arrived.executions}
    root = executions.get(arrived.root)
    yield "the run's first execution is the root", root is not None and not root.parent_id
    later = [span for span in executions.values() if span.span_id != arrived.root]
    yield "later executions and children hang below it", bool(later) and all(span.parent_id == arrived.root for span in later)
    yield "a child's execution is among them", any(span.attributes["holdfast.workflow.id"] != wid for span in later)
    workflow_of = {span.span_id: span.attributes["holdfast.workflow.id"] for span in (*arrived.executions, *arrived.steps)}
    fits = [workflow_of.get(step.parent_id) == workflow_of[step.span_id] for step in arrived.steps]
    yield "every step hangs below an execution of its workflow", bool(fits) and all(fits)
    sent = {(step.name, step.trace_id, step.span_id) for step in arrived.steps}
    yield "the four steps' rows name their spans", {row[0] for row in stored} == set(STEPS) and set(stored) <= sent
    request = next((span for span in arrived.spans if span.name == "POST /api/run"), None)
    asked = None if request is None else (request.trace_id, request.span_id)
    yield "the run is linked to the request that started it", root is not None and root.links == (asked,)
    about = [log for log in arrived.logs if log.attributes.get("workflow") == wid]
    yield "log records of the run carry its trace", {log.trace_id for log in about} == {arrived.trace_id}
    yield "log records of requests carry theirs", asked is not None and asked in places(arrived.logs)
    everything = [*arrived.spans, *arrived.logs]
    yield "all of it says who sent it", {each.service.get("service.name") for each in everything} == {SERVICE}


if __name__ == "__main__":
    run(main)
