"""The commands as a person meets them: real processes, real signals, exit codes and one-line refusals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from psycopg.conninfo import conninfo_to_dict

from bin.database import connect
from bin.settings import ROOT
from tests.ports import free_port

Start = Callable[..., "Process"]

#: Nothing of the caller's, ports that are free; and compiled modules are kept, or every start would take seconds.
CLEAN = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "LISTEN_HOST": "127.0.0.1", "PORT": "0", "ADMIN_PORT": "0"}


class Process:
    """A running command, its output line by line, killed at the end of the test."""

    def __init__(self, command: Sequence[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command],
            env={**os.environ, **CLEAN, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def log_until(self, event: str) -> dict[str, object]:
        """The first line of the log about this event."""
        assert self.process.stderr
        seen: list[str] = []
        for text in self.process.stderr:
            seen.append(text)
            if text.startswith("{") and event in (line := json.loads(text))["event"]:
                return line
        raise AssertionError(f"never logged {event!r}: {''.join(seen)}")

    def swallow_log(self) -> None:
        """For a command that says more than a pipe holds: the first start tells of every fixture of its recipes."""
        assert self.process.stderr
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(timeout=30)

    def rest(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Process] = []

    def begin(command: str, *arguments: str, **environ: str) -> Process:
        running.append(Process([f"bin.commands.{command}", *arguments], environ))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=30)


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urlopen(Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def eventually(url: str, status: int, within_s: float = 30) -> str:
    deadline = time.monotonic() + within_s
    while True:
        try:
            code, body = get(url)
            if code == status:
                return body
        except (URLError, ConnectionError) as error:
            code, body = 0, str(error)
        assert time.monotonic() < deadline, f"{url} answers {code} {body}"
        time.sleep(0.02)


def addresses(line: str) -> tuple[str, str]:
    """Front door and side door, from what a command says when it is up."""
    door, admin = (word.rstrip(",;") for word in line.split() if word.startswith("http://"))
    return door, admin


# -- refusals --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["api", "worker", "start", "migrate", "psql_app"])
def test_a_malformed_setting_stops_any_command_with_one_line(start: Start, command: str) -> None:
    code, out, err = start(command, PORT="many").rest()
    assert (code, out, err) == (2, "", "holdfast: PORT: invalid integer env value: many\n")


def test_an_unknown_setting_of_ours_stops_the_start_with_one_line(start: Start) -> None:
    code, _, err = start("worker", SBX_QUEUE_CONCURENCY="3").rest()
    assert (code, err) == (2, "holdfast: SBX_QUEUE_CONCURENCY: no such setting; is it SBX_QUEUE_CONCURRENCY?\n")


def test_an_unreachable_database_is_told_in_one_line_without_its_password(start: Start) -> None:
    code, _, err = start("api", DATABASE_URL="postgresql://me:s3cret@127.0.0.1:1/shop").rest()
    assert code == 1
    assert err.startswith("holdfast: cannot reach the database at 127.0.0.1:1/shop")
    assert err.count("\n") == 1
    assert "s3cret" not in err


def test_a_taken_port_is_told_before_anything_begins(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = start("start", PORT=port, STATE_DIR=str(tmp_path / "state")).rest()
    assert code == 2
    assert err.startswith(f"holdfast: PORT: cannot listen on 127.0.0.1:{port}")
    assert not (tmp_path / "state").exists()


def test_api_and_worker_want_the_schema_first(start: Start, empty_database: str) -> None:
    for command in ("api", "worker"):
        code, _, err = start(command, DATABASE_URL=empty_database).rest()
        assert code == 1
        assert "run bin/migrate" in err


def test_a_count_of_processes_that_is_none_is_refused(start: Start) -> None:
    code, _, err = start("worker", "--processes", "0").rest()
    assert code == 2
    assert "0 is not a number from 1 to 256" in err


def test_a_sandbox_that_cannot_be_had_stops_the_worker_with_one_line(start: Start, database: str) -> None:
    code, _, err = start("worker", DATABASE_URL=database, SBX_MODE="live", SBX_PROVIDER="microsandbox").rest()
    assert code == 1
    assert err == "holdfast: worker ends: SBX_PROVIDER=microsandbox needs SBX_ALT_PROVIDER_ENABLED=true\n"


# -- databases -------------------------------------------------------------------------------------------------------------------


def test_migrate_says_what_it_did_and_that_there_is_nothing_left_to_do(start: Start, empty_database: str) -> None:
    assert "now (it was missing)" in start("migrate", DATABASE_URL=empty_database).rest()[1]
    assert "nothing to do" in start("migrate", DATABASE_URL=empty_database).rest()[1]


@pytest.mark.parametrize("command", ["psql_app", "psql_sys"])
def test_psql_passes_flags_and_exit_code_through(start: Start, database: str, command: str) -> None:
    name = conninfo_to_dict(database)["dbname"]
    assert start(command, "-t", "-A", "-c", "select current_database()", DATABASE_URL=database).rest()[:2] == (0, f"{name}\n")
    assert start(command, "-Atc", "select 1 + 1", DATABASE_URL=database).rest()[:2] == (0, "2\n")
    code, _, err = start(command, "-c", "select nonsense", DATABASE_URL=database).rest()
    assert code == 1
    assert "nonsense" in err


def test_psql_keeps_the_embedded_server_up_while_it_runs(start: Start, tmp_path: Path) -> None:
    settings = {"STATE_DIR": str(tmp_path / "state")}
    assert start("psql_app", "-Atc", "select 1; select pg_sleep(0.3)", "-c", "select 2", **settings).rest()[1] == "1\n\n2\n"


# -- serving ---------------------------------------------------------------------------------------------------------------------


def test_start_brings_up_everything_on_a_machine_with_nothing_and_drains_on_ctrl_c(start: Start, tmp_path: Path) -> None:
    app = start("start", STATE_DIR=str(tmp_path / "state"))
    app.swallow_log()
    door, admin = addresses(app.line())
    assert json.loads(get(f"{door}/healthz")[1]) == {"ok": True}
    assert json.loads(get(f"{admin}/readyz")[1]) == {"ready": True, "role": "start", "reason": None}
    assert "holdfast_runs_running 0.0" in get(f"{admin}/metrics")[1]
    assert json.loads(get(f"{door}/api/recipes")[1])
    app.signal(signal.SIGINT)
    assert app.end() == 0


def test_api_and_worker_started_with_the_same_ports_get_along(start: Start, database: str) -> None:
    shared = {"DATABASE_URL": database, "ADMIN_PORT": str(free_port())}
    api = start("api", **shared)
    door, admin = addresses(api.line())
    assert admin.endswith(shared["ADMIN_PORT"])
    worker = start("worker", PORT=door.rsplit(":", 1)[1], **shared)
    elsewhere = worker.log_until("ADMIN_PORT is taken")["port"]
    assert json.loads(eventually(f"http://127.0.0.1:{elsewhere}/readyz", 200))["role"] == "worker"
    for process in (api, worker):
        process.signal(signal.SIGTERM)
        assert process.end() == 0


def test_a_drain_over_http_ends_the_worker(start: Start, database: str) -> None:
    port = free_port()
    worker = start("worker", DATABASE_URL=database, ADMIN_PORT=str(port))
    eventually(f"http://127.0.0.1:{port}/readyz", 200)
    assert get(f"http://127.0.0.1:{port}/drain")[0] == 405
    assert get(f"http://127.0.0.1:{port}/drain", "POST")[0] == 202
    assert worker.end() == 0


def test_every_process_of_a_worker_serves_its_own_side_door_and_term_drains_them_all(start: Start, database: str) -> None:
    worker = start("worker", "--processes", "2", DATABASE_URL=database)
    ids = {worker.log_until("worker started")["worker"] for _ in range(2)}
    assert len(ids) == 2
    worker.signal(signal.SIGTERM)
    code, _, err = worker.rest()
    assert code == 0
    assert err.count('"worker stopped"') == 2


def test_the_processes_of_a_worker_end_when_their_parent_is_killed(start: Start, database: str) -> None:
    worker = start("worker", "--processes", "2", DATABASE_URL=database)
    for _ in range(2):
        worker.log_until("worker started")
    worker.signal(signal.SIGKILL)
    for _ in range(2):
        worker.log_until("worker stopped")


def test_a_worker_whose_connections_are_cut_is_ready_again_without_a_restart(start: Start, database: str, server: str) -> None:
    port = free_port()
    worker = start("worker", DATABASE_URL=database, ADMIN_PORT=str(port))
    eventually(f"http://127.0.0.1:{port}/readyz", 200)
    name = conninfo_to_dict(database)["dbname"]
    with connect(server, autocommit=True) as conn:
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
    eventually(f"http://127.0.0.1:{port}/readyz", 200)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
