"""Freezes a version when it is released: python -m tests.upgrades.freeze [CHECKOUT]

The service of the checkout (this one by default) works on a database of its own, as it would for people: runs that ended well and badly,
one that waits at its gate, one in its queue, one that was cancelled, a worker that died in a step and left a sleeping workflow, ticks of
a schedule, a paused queue. What is then in the database is written down, with the schema.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import httpx
import psycopg

from bin.commands.demo import poll, publish
from bin.own_server import surroundings
from bin.postgres import borrow
from bin.service import ServiceProcess
from bin.soaks.chaos import kinds
from bin.soaks.stage import Client
from engine import connection_string
from tests.upgrades.frozen import ROOT, freeze_rows, freeze_schema

PATIENCE_S = 60.0
BY = {"actor": "ops", "reason": "to be frozen"}
IN_MID_AIR: LiteralString = """
select count(*) = 2 from dbos.workflow_status s
 where s.status = 'PENDING' and (s.workflow_uuid = 'slow' and s.owner_xid is not null
                                 and exists (select from dbos.operation_outputs o where o.workflow_uuid = s.workflow_uuid)
                                 or s.workflow_uuid = 'asleep' and s.owner_xid is null and s.wake_at_ms is not null)
"""
TICKED: LiteralString = "select count(*) > 0 from app.artifacts where step_id = 'ScheduledTick'"
PREPARE = "import sys; from bin.commands.migrate import prepare; prepare(sys.argv[1], only_default_recipe=True)"
VERSION: LiteralString = "select max(version) from engine.schema_version"


def main(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lease = borrow(folder / "db")
        try:
            settings = surroundings(lease.dsn, folder / "state") | {
                "PYTHONPATH": str(checkout), "SCHEDULED_OPS": "true", "RETENTION_DAYS": "30", "WF_SLEEP_MS": "3000",
            }  # fmt: skip
            subprocess.run(
                [sys.executable, "-P", "-c", PREPARE, lease.dsn], env={**os.environ, **settings}, cwd=folder, check=True
            )
            with psycopg.connect(connection_string(lease.dsn), autocommit=True) as conn:
                with processes(folder, settings) as (api, worker):
                    play(conn, api, worker)
                row = conn.execute(VERSION).fetchone()
                assert row is not None
                conn.execute("update engine.worker set lease_until_ms = 0")
                freeze_schema(checkout, row[0])
                freeze_rows(conn, row[0])
        finally:
            lease.close()


@contextmanager
def processes(folder: Path, settings: dict[str, str]) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    api, worker = (ServiceProcess(command, folder / f"{command}.log", settings) for command in ("api", "worker"))
    try:
        api.start()
        worker.start()
        yield api, worker
    finally:
        worker.stop()
        api.stop()


def play(conn: psycopg.Connection[tuple[object, ...]], api: ServiceProcess, worker: ServiceProcess) -> None:
    client = Client(api.url())
    with httpx.Client(base_url=api.url(), timeout=60) as http:
        publish(http)
        started = [client.start(f"{kinds(n)[0]} {n}", f"tenant-{n % 2}", dict(kinds(n)[1])) for n in range(6)]
        waits, cancelled = (client.start(f"plain {n}", "tenant-0") for n in (10, 11))
        until(lambda: {*started, waits, cancelled} <= {*dict(client.inbox())})
        gates = dict(client.inbox())
        for wid in started:
            client.reply(wid, gates[wid], "no" if started.index(wid) == 5 else "yes")
        for wid in started:
            poll(http, wid, lambda run: run["status"] in ("SUCCESS", "ERROR"))
        client.ask("POST", f"/api/ops/wf/{cancelled}/cancel", BY).raise_for_status()
        until(lambda: found(conn, TICKED))
        client.ask("POST", "/crashdemo?wf=asleep").raise_for_status()
        client.ask("POST", "/slowstep?wf=slow&sleep=2000").raise_for_status()
        until(lambda: found(conn, IN_MID_AIR))
        worker.kill()
        client.start("plain 12", "tenant-1")
        client.ask("POST", "/api/ops/queues/compileQ/pause", BY).raise_for_status()
    client.close()


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def found(conn: psycopg.Connection[tuple[object, ...]], query: LiteralString) -> bool:
    row = conn.execute(query).fetchone()
    return row is not None and row[0] is True


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
