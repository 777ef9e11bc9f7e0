"""bin/ops and bin/workflow: what operators type, and what they get back."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bin.commands import ops, workflow
from bin.operators import workflow_ids
from bin.settings import Settings
from bin.wiring import exit_code
from steps.errors import InvalidInput
from tests.api.conftest import WIPE

ROOT = Path(__file__).resolve().parents[2]
WHO = ("--actor", "ada", "--reason", "drill")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(shared_database: str) -> str:
    """The module's database, emptied."""
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(WIPE)
    return shared_database


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest.fixture
def run(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: its exit code, what it printed and what it complained about."""

    def command(module: Any, *arguments: str, typed: str = "", **settings: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bin/command", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        try:
            code = exit_code(lambda: module.main(Settings(database_url=database, **settings)))
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def made(conn: psycopg.Connection[Any], id: str, status: str = "PENDING", *, at: int = 0, name: str = "Chore") -> str:
    conn.execute(
        """insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, application_version, created_at, updated_at,
                                             serialization)
           values (%s, %s, %s, 'controlQ', 'v1', %s, %s, 'portable_json')""",
        (id, status, name, at, at),
    )
    return id


def record(conn: psycopg.Connection[Any], id: str, number: int, name: str, error: str | None = None) -> None:
    conn.execute(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, error, started_at_epoch_ms,
                                               completed_at_epoch_ms, call_path)
           values (%s, %s, %s, %s, 1000, 8000, %s)""",
        (id, number, name, error, str(number)),
    )


def states(conn: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(conn.execute("select workflow_uuid, status from dbos.workflow_status order by 1").fetchall())


def first_record(conn: psycopg.Connection[Any], fork: str) -> int:
    """The first record that a fork does not have."""
    found = conn.execute("select count(*) from dbos.operation_outputs where workflow_uuid = %s", (fork,)).fetchone()
    assert found is not None
    return int(found[0]) + 1


# bin/ops -----------------------------------------------------------------------------------------------------------------


def test_failed_workflows_are_listed_newest_first(conn: psycopg.Connection[Any], run: Run) -> None:
    for number, status in enumerate(("ERROR", "SUCCESS", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED", "ERROR")):
        made(conn, f"w{number}", status, at=number)
    assert run(ops, "list-failed") == (0, "w4\nw2\nw0\n", "")
    assert run(ops, "list-failed", "--limit", "1") == (0, "w4\n", "")


def test_a_batch_is_read_from_standard_input_and_one_refusal_holds_up_no_other(conn: psycopg.Connection[Any], run: Run) -> None:
    for id, status in (("a", "PENDING"), ("b", "SUCCESS"), ("c", "ENQUEUED")):
        made(conn, id, status)
    code, out, err = run(ops, "cancel", *WHO, typed="a\tignored\n\nb\nnope\nc\na\n")
    assert (code, out) == (1, "a\nc\n")
    assert err == "holdfast: b: cannot cancel workflow in status SUCCESS\nholdfast: nope: workflow not found: nope\n"
    assert states(conn) == {"a": "CANCELLED", "b": "SUCCESS", "c": "CANCELLED"}
    assert run(ops, "resume", *WHO, "c", "a") == (0, "c\na\n", "")
    assert states(conn) == {"a": "ENQUEUED", "b": "SUCCESS", "c": "ENQUEUED"}


def test_who_acts_and_why_may_be_settings_and_is_written_down(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a")
    assert run(ops, "cancel", "a", ops_actor="eve", ops_reason="backlog")[0] == 0
    assert run(ops, "resume", "a", "--actor", "bob", ops_actor="eve", ops_reason="backlog")[0] == 0
    rows = conn.execute("select inline ->> 'op', inline ->> 'actor', inline ->> 'reason' from app.artifacts order by created_at")
    assert rows.fetchall() == [("cancel", "eve", "backlog"), ("resume", "bob", "backlog")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cancel", "a"), "say who acts: --actor, or OPS_ACTOR"),
        (("cancel", "a", "--actor", "ada"), "say why: --reason, or OPS_REASON"),
        (("resume", "a", "--actor", " ", "--reason", "drill"), "say who acts: --actor, or OPS_ACTOR"),
        (
            ("fork", "a", "--step", "1", "--app-version", "", *WHO),
            "invalid ForkWorkflowRequest: data/appVersion must NOT have fewer",
        ),
        (("cancel", "a\nb", *WHO), "'a\\nb' holds a control character"),
    ],
)
def test_arguments_that_are_wrong_are_told_before_anything_is_done(
    conn: psycopg.Connection[Any], run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    made(conn, "a")
    code, out, err = run(ops, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"holdfast: {sentence}")
    assert states(conn) == {"a": "PENDING"}


@pytest.mark.parametrize("arguments", [(), ("nope",), ("fork", "a", *WHO), ("fork", "a", "--step", "0", *WHO), ("sql", "nope")])
def test_a_command_that_does_not_exist_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(ops, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: bin/ops")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_without_ids_is_told_to_name_them() -> None:
    with pytest.raises(InvalidInput, match="name the workflows"):
        workflow_ids([], Terminal())
    assert workflow_ids(["a", "b", "a"], Terminal()) == ["a", "b"]


def test_forks_are_told_behind_their_originals(conn: psycopg.Connection[Any], run: Run) -> None:
    for id in ("a", "b"):
        made(conn, id, "SUCCESS")
        record(conn, id, 1, "s")
    record(conn, "a", 2, "t")
    code, out, err = run(ops, "fork", "--step", "2", *WHO, typed="a\nb\n")
    (line,) = out.splitlines()
    original, fork = line.split("\t")
    assert (code, original, err) == (1, "a", "holdfast: b: fork stepN 2 exceeds max step 1\n")
    assert states(conn)[fork] == "ENQUEUED"


@pytest.mark.parametrize(
    ("name", "step", "number"),
    [
        ("Chore", None, 2),  # the first that failed
        ("Chore", "3", 3),
        ("Chore", "charge", 3),  # the last of this name
        ("RunIntent", None, 2),  # behind the last step with a result
        ("RunIntent", "CompileST", 1),
    ],
)
def test_a_retry_begins_where_it_went_wrong_or_is_told_to(
    conn: psycopg.Connection[Any], run: Run, name: str, step: str | None, number: int
) -> None:
    made(conn, "a", "ERROR", name=name)
    record(conn, "a", 1, "CompileST" if name == "RunIntent" else "charge")
    record(conn, "a", 2, "ApplyPatchST", '{"message": "no"}')
    record(conn, "a", 3, "charge", '{"message": "no"}')
    code, out, err = run(ops, "retry-from-step", *(("--step", step) if step else ()), *WHO, "a")
    assert (code, err) == (0, "")
    assert first_record(conn, out.strip().split("\t")[1]) == number


def test_a_retry_of_what_was_never_done_is_refused(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a", "ERROR")
    assert run(ops, "retry-from-step", *WHO, "a")[2] == "holdfast: a: workflow a has no records yet\n"
    record(conn, "a", 1, "s")
    assert run(ops, "retry-from-step", "--step", "t", *WHO, "a")[2] == "holdfast: a: workflow a has no record of step t\n"
    assert run(ops, "retry-from-step", "--step", "7", *WHO, "a")[2] == "holdfast: a: fork stepN 7 exceeds max step 1\n"
    assert list(states(conn)) == ["a"]


def test_operators_look_at_questions_slow_steps_queues_and_everything(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a", "ENQUEUED", at=1000)
    record(conn, "a", 1, "slow one")
    conn.execute("insert into app.intents (id, goal, payload) values ('a', 'g', '{}')")
    conn.execute("insert into app.runs (id, intent_id, workflow_id, status) values ('r', 'a', 'a', 'waiting_input')")
    conn.execute("insert into app.human_gates (run_id, gate_key, topic, created_at) values ('r', 'g', 'human:g', 'epoch')")
    assert run(ops, "sql", "inbox")[1].splitlines() == [
        "workflow_id  gate_key  created_at            deadline_at",
        "a            g         1970-01-01T00:00:00Z  -",
    ]
    assert json.loads(run(ops, "sql", "slow", "--json")[1]) == [
        {
            "workflow_uuid": "a",
            "function_id": 1,
            "function_name": "slow one",
            "duration_ms": 7000,
            "started_at": "1970-01-01T00:00:01+00:00",
        }
    ]
    assert run(ops, "sql", "queues")[1].splitlines()[1].split() == ["controlQ", "-", "ENQUEUED", "1", "1970-01-01T00:00:01Z"]
    snapshot = run(ops, "sql", "snapshot")[1].splitlines()[1].split()
    assert snapshot == ["Chore", "ENQUEUED", "0", "1", "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"]


# bin/workflow ------------------------------------------------------------------------------------------------------------


def test_workflows_are_listed_as_a_table_or_as_the_front_door_does(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a", "SUCCESS", at=1000)
    made(conn, "b", at=2000, name="Other")
    code, out, _ = run(workflow, "list")
    assert (code, out.splitlines()) == (
        0,
        [
            "WORKFLOW  STATUS   NAME   QUEUE     VERSION  CREATED",
            "b         PENDING  Other  controlQ  v1       1970-01-01T00:00:02Z",
            "a         SUCCESS  Chore  controlQ  v1       1970-01-01T00:00:01Z",
        ],
    )
    (row,) = json.loads(run(workflow, "list", "-S", "SUCCESS", "--name", "Chore", "--json")[1])
    assert row == {
        "workflowID": "a",
        "status": "SUCCESS",
        "workflowName": "Chore",
        "workflowClassName": "Chore",
        "queueName": "controlQ",
        "applicationVersion": "v1",
        "createdAt": 1000,
        "updatedAt": 1000,
    }
    assert json.loads(run(workflow, "list", "--queue", "nope", "--json")[1]) == []


def test_a_name_cannot_steer_the_terminal(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a", name="red \x1b[31m\u202e\nalert")
    assert "  red ?[31m? alert  " in run(workflow, "list")[1].splitlines()[1]


def test_queues_are_listed_in_the_order_in_which_they_are_taken(conn: psycopg.Connection[Any], run: Run) -> None:
    for number, status in enumerate(("SUCCESS", "PENDING", "ENQUEUED", "ENQUEUED")):
        made(conn, f"w{number}", status, at=number)
    conn.execute("update dbos.workflow_status set priority = 9 where workflow_uuid = 'w2'")
    listed = json.loads(run(workflow, "queue", "list", "--json")[1])
    assert [row["workflowID"] for row in listed] == ["w3", "w2", "w1"]
    assert [row["workflowID"] for row in json.loads(run(workflow, "queue", "list", "-S", "PENDING", "--json")[1])] == ["w1"]


def test_one_workflow_is_shown_with_its_steps_and_what_was_done_to_it(conn: psycopg.Connection[Any], run: Run) -> None:
    made(conn, "a")
    record(conn, "a", 1, "charge", '{"name": "OSError", "message": "no disk"}')
    assert run(workflow, "steps", "a")[1].splitlines() == [
        "N  STEP    STATUS  STARTED               COMPLETED             ERROR",
        "1  charge  ERROR   1970-01-01T00:00:01Z  1970-01-01T00:00:08Z  no disk",
    ]
    assert json.loads(run(workflow, "steps", "a", "--json")[1])[0]["error"] == {"name": "OSError", "message": "no disk"}
    assert run(workflow, "cancel", "a", *WHO) == (0, "a\n", "")
    assert json.loads(run(workflow, "resume", "a", *WHO, "--json")[1]) == {"accepted": True, "workflowID": "a"}
    done = json.loads(run(workflow, "fork", "a", *WHO, "--json")[1])
    assert states(conn)[done["forkedWorkflowID"]] == "ENQUEUED"
    shown = json.loads(run(workflow, "get", "a", "--json")[1])
    assert [entry["op"] for entry in shown["audit"]] == ["fork", "resume", "cancel"]
    text = run(workflow, "status", "a")[1]
    assert text.startswith("WORKFLOW  STATUS")
    assert text.split("\n\n")[1].startswith("NOT AT WORK  SINCE")
    assert text.split("\n\n")[2].splitlines()[0].split() == ["AT", "OP", "ACTOR", "REASON", "FORK"]


@pytest.mark.parametrize("command", ["get", "steps", "cancel", "resume", "fork"])
def test_an_unknown_workflow_is_one_line(run: Run, command: str) -> None:
    acting = WHO if command in ("cancel", "resume", "fork") else ()
    assert run(workflow, command, "nope", *acting) == (1, "", "holdfast: workflow not found: nope\n")


def test_a_reader_that_has_seen_enough_is_no_reason_to_complain(database: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bin.commands.workflow", "list"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == ("", 141)
    process.stderr.close()


@pytest.mark.parametrize("command", ["ops", "workflow"])
def test_a_command_runs_as_a_process_of_its_own(database: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"bin.commands.{command}", *(["list-failed"] if command == "ops" else ["list", "--json"])],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "" if command == "ops" else "[]\n", "")
