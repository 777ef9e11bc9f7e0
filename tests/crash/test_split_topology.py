"""API and worker apart do what both in one process do, and what one of them has said it still says after either was killed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bin.commands.demo import approve, drive, expect, poll, publish, the_gate
from bin.service import ServiceProcess
from tests.conftest import new_database

#: Times, and the span of the claim that a step was made in: whether a run parks before it is answered is a matter of moments.
MOMENTS = ("createdAt", "updatedAt", "startedAt", "endedAt", "deadlineAt", "at", "spanId")
START = {
    "recipeRef": {"id": "spec09.demo", "v": "1.0.0"},
    "formData": {"goal": "split", "accountId": "acct-split"},
    "opts": {"queuePartitionKey": "tenant-split"},
}

Launch = Callable[[str, str], ServiceProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a process of the service on a database, by its command."""
    running: list[ServiceProcess] = []

    def begin(command: str, dsn: str) -> ServiceProcess:
        own = {"PORT": "0", "ADMIN_PORT": "0", "DATABASE_URL": dsn, "STATE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
        running.append(ServiceProcess(command, tmp_path / f"{command}-{len(running)}.log", own))
        running[-1].start()
        return running[-1]

    yield begin
    for process in running:
        process.stop()


def without_moments(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: without_moments(value) for key, value in said.items() if key not in MOMENTS}
    return [without_moments(one) for one in said] if isinstance(said, list) else said


def readings(url: str, wid: str) -> dict[str, Any]:
    """Everything that a client can read about a run."""
    with httpx.Client(base_url=url, timeout=30) as http:
        said = {part: expect(http.get(f"/api/runs/{wid}{part}"), 200) for part in ("", "/steps", "/gates", "/interactions")}
        uris = [ref["id"] for step in said["/steps"] for ref in step["artifactRefs"]]
        return said | {uri: http.get(f"/api/artifacts/{uri}").raise_for_status().text for uri in uris}


def test_a_run_is_the_same_in_both_topologies(server: str, template: str, launch: Launch) -> None:
    told: list[Any] = []
    for commands in (("start",), ("api", "worker")):
        with new_database(server, template) as dsn:
            processes = [launch(command, dsn) for command in commands]
            url = processes[0].url()
            with httpx.Client(base_url=url, timeout=60) as http:
                wid, _ = drive(http, replay=True)
            told.append(without_moments(readings(url, wid)))
            for process in processes:
                process.stop()
    assert told[0] == told[1]
    assert len(told[0]) > 4 + 4, "every step left something to look at"


def test_what_was_said_stands_whoever_is_killed(database: str, launch: Launch) -> None:
    api, worker = launch("api", database), launch("worker", database)
    with httpx.Client(base_url=api.url(), timeout=60) as http:
        publish(http)
        wid = expect(http.post("/api/run", json=START), 201)["workflowID"]
        poll(http, wid, lambda run: run["nextAction"] == "APPROVE_PLAN")
        poll(http, wid, lambda _: bool(http.get(f"/api/runs/{wid}/gates").json()))
        waiting = readings(str(http.base_url), wid)

    api.kill()
    api = launch("api", database)
    assert readings(api.url(), wid) == waiting, "after the death of the API"
    worker.kill()
    assert readings(api.url(), wid) == waiting, "after the death of the worker"

    with httpx.Client(base_url=api.url(), timeout=60) as http:
        approve(http, wid, the_gate(http, wid)["gateKey"])
        worker = launch("worker", database)
        assert poll(http, wid, lambda run: run["status"] in ("SUCCESS", "ERROR"))["status"] == "SUCCESS"
    ended = readings(api.url(), wid)
    assert [step["stepID"] for step in ended["/steps"]] == ["CompileST", "ApplyPatchST", "DecideST", "ExecuteST"]
    assert [step["attempt"] for step in ended["/steps"]] == [1, 1, 1, 1]

    worker.kill()
    api.kill()
    api = launch("api", database)
    assert readings(api.url(), wid) == ended, "without any worker"
    with httpx.Client(base_url=api.url(), timeout=60) as http:
        assert expect(http.post("/api/run", json=START), 200)["workflowID"] == wid
