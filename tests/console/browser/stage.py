"""What the console stands in front of here: a real API and worker, as processes, over a real database with something to show in it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg

from bin.own_server import surroundings
from bin.service import ServiceProcess
from bin.showcase import Maker, Shown, fill
from steps.identity import run_id

PATIENCE_S = 20.0

#: A run of %(calls)s calls, of which some failed, with %(children)s tasks side by side; it has ended. As a worker would have left it.
LONG_RUN: tuple[LiteralString, ...] = (
    "set local session_replication_role = replica",  # without triggers, which take a second for every thousand rows
    """insert into app.intents (id, goal, payload)
       values (%(wid)s, 'acme/archive · backfill', '{"goal": "backfill", "inputs": {}, "constraints": {}}')""",
    """insert into app.runs (id, intent_id, workflow_id, status, created_at, last_step, queue_partition_key)
       values (%(run)s, %(wid)s, %(wid)s, 'succeeded', to_timestamp(%(at)s / 1000.0), 'ExecuteST', 'acme')""",
    """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization, created_at, updated_at,
                                         started_at_epoch_ms, completed_at, application_version)
       values (%(wid)s, 'SUCCESS', 'RunIntent', 'IntentWorkflow', 'intentQ', 'portable_json', %(at)s, %(at)s + 600000, %(at)s,
               %(at)s + %(calls)s * 60, 'test')""",
    """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error, started_at_epoch_ms,
                                           completed_at_epoch_ms, serialization)
       select %(wid)s, n, 'page ' || n, case when n %% 997 = 0 then null else '{}' end,
              case when n %% 997 = 0 then '{"message": "the page was gone"}' end, %(at)s + n * 60, %(at)s + n * 60 + 20 + n %% 40,
              'portable_json'
         from generate_series(1, %(calls)s) n""",
    """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization, created_at, updated_at,
                                         started_at_epoch_ms, completed_at, parent_workflow_id, application_version)
       select %(wid)s || '-task-' || n, 'SUCCESS', 'ExecuteTask', 'IntentWorkflow', 'sbxQ', 'portable_json', %(at)s + 1000,
              %(at)s + 9000, %(at)s + 1000 + n * 10, %(at)s + 5000 + n * 20, %(wid)s, 'test'
         from generate_series(1, %(children)s) n""",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A service with something to show. `second` is another API process over the same database, which may be killed."""

    base: str
    dsn: str
    http: httpx.Client
    shown: Shown
    folder: Path

    @property
    def maker(self) -> Maker:
        return Maker(self.http)

    def long_run(self, name: str, calls: int, children: int = 0) -> str:
        """A run with so many rows, made in the database; its workflow id."""
        wid = f"long-{name}"
        given: dict[str, Any] = {"wid": wid, "run": run_id(wid), "calls": calls, "children": children, "at": 1_763_000_000_000}
        with psycopg.connect(self.dsn) as conn:
            for statement in LONG_RUN:
                conn.execute(statement, given)
        return wid


@contextmanager
def staged(dsn: str, folder: Path) -> Iterator[Stage]:
    """An API and a worker at work on the database, with everything in it that there is to show."""
    settings = settings_of(dsn, folder)
    with running("worker", settings, folder), running("api", settings, folder) as api:
        base = api.url()
        with httpx.Client(base_url=base, timeout=60) as http:
            yield Stage(base, dsn, http, fill(http), folder)


def settings_of(dsn: str, folder: Path) -> dict[str, str]:
    return surroundings(dsn, folder / "state") | {"DBOS__APPVERSION": "test", "HITL_PLAN_APPROVAL_TIMEOUT_S": "3600"}


@contextmanager
def running(command: str, settings: dict[str, str], folder: Path) -> Iterator[ServiceProcess]:
    """A process of the service, for the length of the block."""
    process = ServiceProcess(command, folder / f"{command}-{settings['PORT']}.log", settings)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def free_port() -> str:
    """A port that a process can have again after it was killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
