"""Soaks, small: each comes to its end, and an oracle that is contradicted makes it fail."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bin.commands import soak
from bin.commands.migrate import prepare
from bin.own_server import OwnServer
from bin.settings import ROOT
from bin.soaks import chaos, endurance, hitl, oracles
from bin.soaks.oracles import Oracle, ask
from bin.soaks.stage import Client, SoakFailed, Stage

NOBODY = {"runs": 0, "accepted": [], "tasks": 0, "answers": 0}


def play(name: str, database: str, folder: Path, *, n: int = 3, minutes: float = 0.1, server: OwnServer | None = None) -> int:
    asked = argparse.Namespace(name=name, n=n, minutes=minutes, seed=7, plot=None)
    prepare(database, only_default_recipe=True)
    return soak.soak(asked, folder, database, server)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("name", "count"), [("sandbox", 18), ("hitl-load", 18), ("hitl-burst", 16), ("crashdemo", 9)])
def test_a_small_soak_goes_well(
    name: str, count: int, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hitl, "IDLE_S", 0.2)
    assert play(name, database, tmp_path, n=1 if name == "crashdemo" else 3) == 0
    assert last_line(capsys) == f"{name}: {count} of {count} oracles hold, seed 7"


@pytest.mark.slow
def test_a_fan_out_survives_the_deaths_of_its_workers(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert play("fanout", database, tmp_path, n=8) == 0
    said = capsys.readouterr().out
    assert "8 tasks; workers killed 0 times" not in said
    assert said.endswith("fanout: 17 of 17 oracles hold, seed 7\n")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    bindir = os.environ.get("PG_BINDIR")
    server = OwnServer(tmp_path / "database", Path(bindir) if bindir else None)
    yield server
    server.close()


def test_chaos_kills_workers_and_crashes_the_database_and_loses_nothing(
    own_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chaos, "PAUSE_S", (0.3, 0.6))
    assert play("chaos", own_server.dsn, tmp_path / "logs", minutes=0.2, server=own_server) == 0
    said = capsys.readouterr().out
    assert "killed 0 times" not in said
    assert "crashed 0 times" not in said
    assert " 0 workflows were under way then" not in said
    assert own_server.log.read_text().count("not properly shut down") >= 1
    assert said.endswith("chaos: 17 of 17 oracles hold, seed 7\n")


# -- the oracles ------------------------------------------------------------------------------------------------------------------

#: A run that ended well, with all that the oracles look for, as statements that break it one by one.
GOOD = """
insert into app.intents (id, goal, payload) values ('w', 'plain', '{}');
insert into app.runs (id, intent_id, workflow_id, status) values ('r', 'w', 'w', 'succeeded');
insert into dbos.workflow_status (workflow_uuid, status, name, class_name) values
    ('w', 'SUCCESS', 'RunIntent', 'IntentWorkflow'), ('t', 'SUCCESS', 'ExecuteTask', null), ('c', 'SUCCESS', 'CrashDemo', null);
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path) values ('w', 1, '1'), ('w', 2, '2');
insert into app.run_steps (run_id, step_id, phase) values
    ('r', 'CompileST', 'a'), ('r', 'ApplyPatchST', 'b'), ('r', 'DecideST', 'c'), ('r', 'ExecuteST', 'd');
insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, request_payload)
    values ('k', 'r', 'ExecuteST', 'h', 1, 1, '{}');
insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_hash, postimage_hash, diff_hash, preimage_content,
                               postimage_content, applied_at) values ('r', 'ApplyPatchST', 0, 'f', '', '', '', '', '', now());
insert into app.sbx_runs (run_id, step_id, task_key, provider, request, err_code, attempt) values
    ('r', 'ExecuteST', 'k', 'mock', '{}', 'BOOT_FAIL', 1), ('r', 'ExecuteST', 'k', 'mock', '{}', 'NONE', 2);
insert into app.human_gates (run_id, gate_key, topic, resolved_at) values ('r', 'g', 'human:g', now());
insert into app.human_interactions (workflow_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
    values ('w', 'g', 'human:g', 'd', repeat('a', 64), '{}', 'manual');
insert into dbos.notifications (destination_uuid, topic, message, consumed) values ('w', 'human:g', '{"choice": "yes"}', true);
insert into dbos.workflow_events_history (workflow_uuid, function_id, key, value) values
    ('w', 1, 'ui:g', '{}'), ('w', 2, 'ui:g:result', '{}'), ('w', 2, 'decision:g', '{}');
insert into app.marks (run_id, step) values ('c', 's1'), ('c', 's2');
delete from engine.wake;
"""
FACTS: dict[str, Any] = {
    "runs": 1, "accepted": ["w"], "tasks": 1, "answers": 1, "most": 1, "odd": [], "name": "CrashDemo", "rounds": 1,
    "lost": [], "disorder": [], "rude": [], "leaks": [], "bloat": [],
}  # fmt: skip
EVERY = {oracle.claim: oracle for one in soak.SOAKS.values() for oracle in one.oracles}

BREACHES = {
    oracles.STRANDED.claim: "insert into dbos.workflow_status (workflow_uuid, status, queue_name) values ('x', 'ENQUEUED', 'q')",
    oracles.HALFWAY.claim: "insert into dbos.workflow_status (workflow_uuid, status) values ('x', 'PENDING')",
    oracles.UNENDED.claim: "update app.runs set workflow_id = 'y'",
    oracles.UNASKED.claim: "insert into dbos.workflow_status (workflow_uuid, status, class_name) values ('x', 'SUCCESS', 'IntentWorkflow')",
    oracles.LEFTOVERS.claim: "insert into engine.wake (workflow_uuid, token) values ('w', 't:x')",
    oracles.GAPS.claim: "delete from dbos.operation_outputs where function_id = 1",
    oracles.DIVERGED.claim: "alter table dbos.workflow_status disable trigger all; update dbos.workflow_status set status = 'ERROR'",
    oracles.TWICE.claim: "update app.mock_receipts set seen_count = 2",
    oracles.WRONG_END.claim: "update app.intents set goal = 'refuse it'",
    oracles.STEPS.claim: "delete from app.run_steps where step_id = 'DecideST'",
    oracles.RECEIPTS.claim: "delete from app.mock_receipts",
    oracles.PATCHES.claim: "update app.patch_history set rolled_back_at = now()",
    oracles.TASKS.claim: "update dbos.workflow_status set status = 'ERROR' where name = 'ExecuteTask'",
    oracles.ATTEMPTS.claim: "insert into app.sbx_runs (run_id, step_id, task_key, provider, request, err_code, attempt)"
    " values ('r', 'ExecuteST', 'k', 'mock', '{}', 'NONE', 3)",
    oracles.LEDGER.claim: "insert into app.human_interactions (workflow_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)"
    " values ('w', 'g', 'human:g', 'e', repeat('a', 64), '{}', 'manual')",
    oracles.GATES.claim: "insert into dbos.workflow_events_history (workflow_uuid, function_id, key, value) values ('w', 3, 'ui:g', '{}')",
    oracles.MESSAGES.claim: "update dbos.notifications set consumed = false",
    oracles.MARKS.claim: "delete from app.marks where run_id = 'c' and step = 's2'",
    endurance.ENDS.claim: "update app.intents set goal = 'cancel-late 1'",
    endurance.GATES_ASKED.claim: "update app.intents set goal = 'two 1'",
    endurance.TICKS.claim: """
        insert into app.artifacts (run_id, step_id, idx, kind, inline, sha256)
        select 'r', 'ScheduledTick', n, 'k', jsonb_build_object('json', jsonb_build_object('scheduledAt', at)), 'h'
          from (values (1, '2030-01-01T00:00:00Z'), (2, '2030-01-01T00:00:30Z'), (3, '2030-01-01T00:01:30Z')) t (n, at)""",
    "every run ended as the answer says that it heard": """update dbos.notifications set message = '{"choice": "no"}'""",
}
BY_FACTS = {
    "half of the tasks or more were at work at the same moment": {"most": 0},
    "every answer was taken, repeated or refused as a conflict": {"odd": ["500 (3 times)"]},
    endurance.KEPT_WORD.claim: {"lost": ["w"]},
    endurance.IN_ORDER.claim: {"disorder": ["w: event (0, 1) came after (0, 2)"]},
    endurance.POLITE.claim: {"rude": ["500 (3 times)"]},
    endurance.FLAT.claim: {"leaks": ["the worker grows"]},
    endurance.VACUUMED.claim: {"bloat": ["app.runs was never vacuumed"]},
}


@pytest.fixture
def good(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database) as conn:
        conn.execute(GOOD)
        yield conn


def broken(conn: psycopg.Connection[Any], facts: dict[str, Any]) -> set[str]:
    return {verdict.oracle.claim for verdict in ask(conn, list(EVERY.values()), facts) if not verdict.holds}


def test_no_oracle_fails_where_all_is_well(good: psycopg.Connection[Any]) -> None:
    assert broken(good, FACTS) == set()


@pytest.mark.parametrize("claim", BREACHES)
def test_each_oracle_sees_what_contradicts_it(claim: str, good: psycopg.Connection[Any]) -> None:
    good.execute(BREACHES[claim].encode())
    assert claim in broken(good, FACTS)


@pytest.mark.parametrize("claim", BY_FACTS)
def test_so_do_those_about_what_the_soak_saw(claim: str, good: psycopg.Connection[Any]) -> None:
    assert broken(good, FACTS | BY_FACTS[claim]) == {claim}


def test_every_oracle_is_contradicted_by_some_test() -> None:
    assert {*BREACHES, *BY_FACTS} == set(EVERY)


# -- the verdict ------------------------------------------------------------------------------------------------------------------


def idle(stage: Stage) -> dict[str, Any]:
    return NOBODY


def test_one_oracle_that_fails_makes_the_soak_fail(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = Oracle("there are no recipes", "select id from app.recipes order by id")
    monkeypatch.setitem(soak.SOAKS, "sandbox", soak.Soak(idle, (oracles.TWICE, strict), 1))
    assert play("sandbox", database, tmp_path) == 1
    out = capsys.readouterr().out
    assert "PASS  no side effect was counted twice\nFAIL  there are no recipes: compile-default; " in out
    assert out.endswith("sandbox: 1 of 2 oracles hold, seed 7\n")


def test_work_that_is_stranded_is_told_by_its_oracle(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def strand(stage: Stage) -> dict[str, Any]:
        with psycopg.connect(stage.dsn, autocommit=True) as conn:
            conn.execute(
                "insert into dbos.workflow_status (workflow_uuid, status, queue_name) values ('lost', 'ENQUEUED', 'nobody')"
            )
        stage.wait(lambda: 0, 1, "runs have ended")
        stage.settle()
        return NOBODY

    monkeypatch.setattr("bin.soaks.stage.STALL_S", 0.3)
    monkeypatch.setitem(soak.SOAKS, "sandbox", soak.Soak(strand, oracles.TIDY, 1))
    assert play("sandbox", database, tmp_path) == 1
    out = capsys.readouterr().out
    assert "gave up waiting: 0 of 1 runs have ended\n" in out
    assert "FAIL  no workflow is stranded in a queue while the workers are idle: lost ENQUEUED nobody\n" in out
    assert out.endswith("sandbox: 7 of 8 oracles hold, seed 7\n")


def test_what_must_never_be_fails_even_if_it_was_only_for_a_moment(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def moment(stage: Stage) -> dict[str, Any]:
        with psycopg.connect(stage.dsn, autocommit=True) as conn:
            conn.execute("insert into app.marks (run_id, step) values ('a moment', 's1')")
            time.sleep(3 * soak.WATCH_S)
            conn.execute("delete from app.marks where run_id = 'a moment'")
        return NOBODY

    never = Oracle("never", "select run_id from app.marks where run_id = 'a moment'", always=True)
    monkeypatch.setattr(soak, "WATCH_S", 0.05)
    monkeypatch.setitem(soak.SOAKS, "sandbox", soak.Soak(moment, (never,), 1))
    assert play("sandbox", database, tmp_path) == 1
    assert "FAIL  never: a moment" in capsys.readouterr().out


def test_a_soak_that_cannot_go_on_fails_with_one_sentence(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stuck(stage: Stage) -> dict[str, Any]:
        raise SoakFailed("nothing moves")

    monkeypatch.setitem(soak.SOAKS, "sandbox", soak.Soak(stuck, (), 1))
    assert play("sandbox", database, tmp_path) == 1
    assert capsys.readouterr().err.endswith("holdfast: sandbox could not go on: nothing moves\n")


def test_a_client_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bin.soaks.stage.PATIENCE_S", 0.2)
    client = Client("http://127.0.0.1:9")
    with closing(client), pytest.raises(SoakFailed, match="GET /api/hitl/inbox"):
        client.inbox()
    assert client.refusals > 1


@pytest.mark.parametrize("wrong", [["nothing"], ["chaos", "--minutes", "0"], ["sandbox", "--n", "-1"], []])
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        soak.read_arguments(wrong)
    assert refused.value.code == 2


def test_the_command_leaves_nothing_but_logs(tmp_path: Path) -> None:
    done = run_soak("hitl-burst", "--n", "2", "--seed", "5", state=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("hitl-burst: seed 5, logs in ")
    (folder,) = (tmp_path / "drills").iterdir()
    assert not (folder / "database").exists()
    assert sorted(path.name for path in folder.glob("*.log")) == ["api-0.log", "worker-1.log"]


def run_soak(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "STATE_DIR": str(state)}
    command = [sys.executable, "-P", "-m", "bin.commands.soak", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
