"""A service that was observed from outside while it did one run: its lines, its metrics, and what it sent to two collectors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from bin.commands.demo import drive
from bin.commands.otlp_smoke import STORED, environment
from bin.otlp_receiver import Receiver
from bin.service import ServiceProcess
from tests.conftest import new_database
from tests.ports import free_port

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(frozen=True)
class Observed:
    """lines and metrics by role. stored: (step, trace id, span id) of the run's rows."""

    wid: str
    lines: dict[str, list[dict[str, Any]]]
    metrics: dict[str, str]
    collectors: tuple[Receiver, Receiver]
    stored: list[tuple[Any, ...]]


@pytest.fixture(scope="session")
def observed(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    with new_database(server, template) as dsn, Receiver() as one, Receiver() as other:
        yield observe(dsn, (one, other), folder)


def observe(dsn: str, collectors: tuple[Receiver, Receiver], folder: Path) -> Observed:
    ports = {role: free_port() for role in ("api", "worker")}
    processes: dict[str, ServiceProcess] = {}
    try:
        for role, port in ports.items():
            own = {"ADMIN_PORT": str(port), "STATE_DIR": str(folder / "state"), "PYTHONDONTWRITEBYTECODE": ""}
            processes[role] = ServiceProcess(role, folder / f"{role}.log", environment(dsn, collectors) | own)
            processes[role].start()
        with httpx.Client(base_url=processes["api"].url(), timeout=30) as http:
            wid, _ = drive(http, replay=False)
            assert http.get(f"/api/runs/{wid}", headers={"traceparent": CALLER, "x-request-id": "mine"}).status_code == 200
            assert http.post("/api/run", content=b"no json", headers={"x-request-id": "a bad name"}).status_code == 400
            assert http.get("/nowhere").status_code == 404
        metrics = {role: httpx.get(f"http://127.0.0.1:{port}/metrics").text for role, port in ports.items()}
    finally:
        for process in processes.values():
            process.stop()
    with psycopg.connect(dsn) as conn:
        stored = conn.execute(STORED, (wid,)).fetchall()
    lines = {role: read_lines(process.log) for role, process in processes.items()}
    return Observed(wid, lines, metrics, collectors, stored)


def read_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
