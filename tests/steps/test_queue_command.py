"""bin/queue: what holds queues up, and what operators change about it, from the shell."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from structlog.testing import capture_logs

from bin.commands import queue, workflow
from bin.settings import Settings
from bin.wiring import exit_code
from tests.api.conftest import WIPE

ROOT = Path(__file__).resolve().parents[2]
WHO = ("--actor", "ada", "--reason", "drill")
NOON_MS = 1_767_268_800_000

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def conn(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """The module's database, emptied, at noon."""
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(WIPE)
        conn.execute("insert into engine.clock (now_ms) values (%s) on conflict do nothing", (NOON_MS,))
        yield conn


@pytest.fixture
def run(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: its exit code, what it printed and what it complained about."""

    def command(*arguments: str, module: Any = queue, **settings: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bin/command", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with capture_logs():
            try:
                code = exit_code(lambda: module.main(Settings(database_url=conn.info.dsn, **settings)))
            except SystemExit as end:  # argparse
                code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def add(conn: psycopg.Connection[Any], id: str, status: str = "ENQUEUED", partition: str | None = "blue", **more: Any) -> None:
    conn.execute(
        """insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, executor_id, owner_xid)
           values (%s, %s, 'RunIntent', 'intentQ', %s, %s, %s)""",
        (id, status, partition, more.get("executor_id"), more.get("executor_id")),
    )


def add_worker(conn: psycopg.Connection[Any], id: str, *, lease_s: int = 60, dead: bool = False) -> None:
    conn.execute(
        """insert into engine.worker (id, lease_until_ms, started_at_ms, dead, version, place)
           values (%s, %s, %s, %s, 'v1', 'host:1')""",
        (id, NOON_MS + 1000 * lease_s, NOON_MS, dead),
    )


def one(conn: psycopg.Connection[Any], query: LiteralString) -> tuple[Any, ...]:
    found = conn.execute(query).fetchone()
    assert found is not None
    return found


def contents(conn: psycopg.Connection[Any]) -> list[Any]:
    return [
        conn.execute("select * from engine.queue order by 1").fetchall(),
        conn.execute("select * from engine.queue_partition order by 1, 2").fetchall(),
        conn.execute("select * from engine.worker order by 1").fetchall(),
    ]


# -- looking --------------------------------------------------------------------------------------------------------------


def test_queues_are_listed_with_what_waits_what_is_at_work_and_their_limits(conn: psycopg.Connection[Any], run: Run) -> None:
    conn.execute("insert into engine.queue (name, paused, opens_at_ms) values ('intentQ', true, %s)", (NOON_MS + 5000,))
    conn.execute(
        """insert into dbos.queues (name, partition_concurrency, rate_limit_max, rate_limit_period_sec)
           values ('intentQ', 50, 100, 60)"""
    )
    conn.execute(
        "insert into engine.queue_partition (queue, key, state) values ('intentQ', 'blue', 'r'), ('intentQ', 'red', 'g')"
    )
    add(conn, "a")
    add(conn, "b", "PENDING", executor_id="w")
    add(conn, "parked", "PENDING")
    code, out, _ = run("list")
    assert (code, out.splitlines()) == (
        0,
        [
            "QUEUE     PAUSED  QUEUED  AT WORK  CAP  RATE    OPENS                 EACH CAP  EACH RATE  PARTITIONS",
            "compileQ  no      0       0        -    -       -                     -         -          -",
            "controlQ  no      0       0        -    -       -                     -         -          -",
            "intentQ   yes     1       1        -    100/60  2026-01-01T12:00:05Z  50        -          1 ready, 1 capped",
            "sbxQ      no      0       0        -    -       -                     -         -          -",
        ],
    )
    intents = json.loads(run("list", "--json")[1])[2]
    assert intents == {
        "queueName": "intentQ",
        "paused": True,
        "queued": 1,
        "atWork": 1,
        "rate": {"starts": 100, "periodS": 60.0},
        "opensAt": NOON_MS + 5000,
        "partitionConcurrency": 50,
        "partitions": {"ready": 1, "empty": 0, "capped": 1, "rate-limited": 0, "other-workers": 0, "paused": 0},
    }


def test_partitions_are_listed_by_key_in_parts(conn: psycopg.Connection[Any], run: Run) -> None:
    conn.execute(
        """insert into engine.queue_partition (queue, key, state, due_at_ms, weight, concurrency, rate_limit_max, rate_limit_period_sec)
           values ('intentQ', '', 'r', null, 1, null, null, null), ('intentQ', 'blue', 't', %s, 0.5, 3, 2, 0.5),
                  ('intentQ', 'red', 's', null, 1, null, null, null), ('sbxQ', 'blue', 'e', null, 1, null, null, null)""",
        (NOON_MS + 1000,),
    )
    add(conn, "a", partition=None)
    add(conn, "b")
    add(conn, "c", "PENDING", executor_id="w")
    code, out, _ = run("partitions", "intentQ")
    assert (code, out.splitlines()) == (
        0,
        [
            "PARTITION  STATE          UNTIL                 QUEUED  AT WORK  WEIGHT  CAP  RATE",
            "-          ready          -                     1       0        1       -    -",
            "blue       rate-limited   2026-01-01T12:00:01Z  1       1        0.5     3    2/0.5",
            "red        other-workers  -                     0       0        1       -    -",
        ],
    )
    (blue,) = json.loads(run("partitions", "intentQ", "--after", "", "--limit", "1", "--json")[1])
    assert blue == {
        "queueName": "intentQ",
        "partitionKey": "blue",
        "state": "rate-limited",
        "until": NOON_MS + 1000,
        "queued": 1,
        "atWork": 1,
        "weight": 0.5,
        "concurrency": 3,
        "rate": {"starts": 2, "periodS": 0.5},
    }


def test_workers_that_are_alive_are_listed(conn: psycopg.Connection[Any], run: Run) -> None:
    add_worker(conn, "w1")
    add_worker(conn, "late", lease_s=-1)
    add_worker(conn, "dead", dead=True)
    add(conn, "a", "PENDING", executor_id="w1")
    assert run("workers")[1].splitlines() == [
        "WORKER  PLACE   VERSION  PAUSED  AT WORK  STARTED               LEASED",
        "w1      host:1  v1       no      1        2026-01-01T12:00:00Z  2026-01-01T12:01:00Z",
    ]


# -- acting ---------------------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed_and_the_workflow_says_so(conn: psycopg.Connection[Any], run: Run) -> None:
    add(conn, "a")
    add_worker(conn, "w1")
    code, out, _ = run("pause", "intentQ", *WHO)
    assert (code, out.splitlines()[1].split()[:2]) == (0, ["intentQ", "yes"])
    assert one(conn, "select name, paused from engine.queue") == ("intentQ", True)
    shown = run("get", "a", module=workflow)[1].split("\n\n")[1].splitlines()
    assert shown[0].split() == ["NOT", "AT", "WORK", "SINCE", "UNTIL", "BECAUSE"]
    assert re.fullmatch(r"paused +\S+Z +- +intentQ is paused; resume it", shown[1])
    assert json.loads(run("get", "a", "--json", module=workflow)[1])["reason"]["code"] == "paused"
    assert run("resume", "intentQ", *WHO)[0] == 0
    assert json.loads(run("get", "a", "--json", module=workflow)[1])["reason"]["code"] == "queued"
    assert run("resume", "intentQ", *WHO) == (1, "", "holdfast: intentQ is not paused\n")


def test_a_partition_is_paused_and_resumed(conn: psycopg.Connection[Any], run: Run) -> None:
    assert run("pause", "intentQ", "blue", *WHO)[1].splitlines()[1].split()[:2] == ["blue", "paused"]
    assert one(conn, "select queue, key, state from engine.queue_partition") == ("intentQ", "blue", "p")
    assert json.loads(run("resume", "intentQ", "blue", *WHO, "--json")[1])["state"] == "ready"
    assert run("resume", "intentQ", "blue", *WHO) == (1, "", "holdfast: partition blue of intentQ is not paused\n")
    assert run("resume", "intentQ", "green", *WHO) == (1, "", "holdfast: partition not found: green of intentQ\n")


def test_weights_and_limits_of_a_partition_are_set_one_by_one_and_lifted(conn: psycopg.Connection[Any], run: Run) -> None:
    own: LiteralString = "select weight, concurrency, rate_limit_max, rate_limit_period_sec from engine.queue_partition"
    assert run("limit", "intentQ", "blue", "--concurrency", "2", *WHO)[0] == 0
    assert run("limit", "intentQ", "blue", "--rate", "5/0.5", *WHO)[0] == 0
    assert run("weight", "intentQ", "blue", "2.5", *WHO)[1].splitlines()[1].split()[-3:] == ["2.5", "2", "5/0.5"]
    assert one(conn, own) == (2.5, 2, 5, 0.5)
    assert run("limit", "intentQ", "blue", "--concurrency", "0", *WHO)[0] == 0
    assert one(conn, own) == (2.5, None, 5, 0.5)
    assert run("limit", "intentQ", "blue", "--rate", "0", *WHO)[0] == 0
    assert one(conn, own) == (2.5, None, None, None)


def test_a_worker_is_paused_and_resumed(conn: psycopg.Connection[Any], run: Run) -> None:
    add_worker(conn, "w1")
    assert json.loads(run("pause-worker", "w1", *WHO, "--json")[1])["paused"] is True
    assert run("resume-worker", "w1", *WHO)[1].splitlines()[1].split()[3] == "no"
    assert run("pause-worker", "w2", *WHO) == (1, "", "holdfast: no worker w2 is alive\n")


def test_what_was_done_by_whom_and_why_is_a_line_of_the_log(shared_database: str, conn: psycopg.Connection[Any]) -> None:
    done = command(shared_database, "limit", "sbxQ", "blue", "--rate", "1/60", OPS_ACTOR="ada", OPS_REASON="too\nloud")
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert done.returncode == 0
    assert (said["level"], said["event"], said["op"]) == ("info", "an operator changed a queue", "limit")
    assert (said["queueName"], said["partitionKey"], said["rate"], said["actor"]) == ("sbxQ", "blue", [1, 60], "ada")
    assert said["reason"] == "too"


def test_looking_leaves_no_line(shared_database: str, conn: psycopg.Connection[Any]) -> None:
    assert command(shared_database, "list").stderr == ""


def command(dsn: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bin.commands.queue", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": dsn} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


# -- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "intentq"),
        ("resume", "intentq"),
        ("weight", "intentq", "blue", "2"),
        ("limit", "intentq", "blue", "--concurrency", "2"),
        ("pause", "intentq", "blue"),
    ],
)
def test_a_queue_that_nobody_knows_is_not_made_up(conn: psycopg.Connection[Any], run: Run, arguments: tuple[str, ...]) -> None:
    before = contents(conn)
    assert run(*arguments, *WHO) == (1, "", "holdfast: queue not found: intentq\n")
    assert run("partitions", "intentq") == (1, "", "holdfast: queue not found: intentq\n")
    assert contents(conn) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pause", "intentQ"), "say who acts: --actor, or OPS_ACTOR"),
        (("pause-worker", "w", "--actor", "ada"), "say why: --reason, or OPS_REASON"),
        (("limit", "intentQ", "blue", *WHO), "say which limit: --concurrency N, or --rate N/S"),
        (("pause", "intentQ", "", *WHO), "invalid QueueAction: data/partitionKey must NOT have fewer"),
        (("weight", "intentQ", "a\x07", "2", *WHO), "invalid QueueAction: data/partitionKey must hold printable characters only"),
    ],
)
def test_what_is_missing_or_malformed_is_told_before_anything_is_done(
    conn: psycopg.Connection[Any], run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    before = contents(conn)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"holdfast: {sentence}")
    assert contents(conn) == before


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nope",),
        ("partitions",),
        ("weight", "intentQ", "blue", "0"),
        ("weight", "intentQ", "blue", "1001"),
        ("weight", "intentQ", "blue", "nan"),
        ("limit", "intentQ", "blue", "--concurrency", "-1"),
        ("limit", "intentQ", "blue", "--rate", "5"),
        ("limit", "intentQ", "blue", "--rate", "0/5"),
        ("limit", "intentQ", "blue", "--rate", "5/0"),
        ("limit", "intentQ", "blue", "--rate", "5/1e3"),
    ],
)
def test_a_malformed_command_is_a_usage_error(conn: psycopg.Connection[Any], run: Run, arguments: tuple[str, ...]) -> None:
    before = contents(conn)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: bin/queue")
    assert contents(conn) == before
