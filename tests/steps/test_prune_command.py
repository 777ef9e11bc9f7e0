"""bin/prune: what would go, what goes, and what it says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.tables import row_counts

ROOT = Path(__file__).resolve().parents[2]

#: Runs that ended so many days ago, each with a task; the third still waits for its task.
FILL: LiteralString = """
insert into app.intents (id, goal, payload) select 'i' || n, 'g', '{}' from generate_series(1, 4) n;
insert into app.runs (id, intent_id, workflow_id, status, updated_at)
select 'r' || n, 'i' || n, 'w' || n, 'succeeded', now() - interval '1 day' * n * 20 from generate_series(1, 4) n;
insert into dbos.workflow_status (workflow_uuid, name, status, created_at, updated_at, completed_at, parent_workflow_id)
select id, 'w', case when id = 'w3 task' then 'PENDING' else 'SUCCESS' end, ended - 1000, ended, ended, parent
  from generate_series(1, 4) n
 cross join lateral (select (extract(epoch from now()) * 1000)::bigint - n * 20 * 86400000::bigint as ended) t
 cross join lateral (values ('w' || n, null), ('w' || n || ' task', 'w' || n)) v (id, parent);
insert into app.human_interactions (workflow_id, run_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
select 'w' || n, 'r' || n, 'g', 't', 'k', repeat('a', 64), '{}', 'manual' from generate_series(1, 4) n;
"""


@pytest.fixture
def filled(database: str) -> str:
    with psycopg.connect(database) as conn:
        conn.execute(FILL)
    return database


def command(database: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bin.commands.prune", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prune(database: str, *arguments: str, **environ: str) -> tuple[int, str, str]:
    process = command(database, *arguments, **environ)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def answer(database: str, *arguments: str, **environ: str) -> Any:
    code, out, _ = prune(database, *arguments, "--json", **environ)
    assert code == 0
    return json.loads(out)


def test_without_yes_it_says_what_would_go_and_writes_nothing(filled: str) -> None:
    before = row_counts(filled)
    code, out, err = prune(filled, "--older-than", "30d")
    assert (code, err) == (0, "")
    assert row_counts(filled) == before
    first, *rest = out.splitlines()
    assert first.startswith("would delete 4 workflows, 2 with a run, which ended from 20")
    assert [line.split(maxsplit=1) for line in rest if line] == [
        ["ROWS", "OF"],
        ["2", "app.human_interactions"],
        ["2", "app.intents"],
        ["2", "app.runs"],
        ["4", "dbos.workflow_status"],
        ["KEPT", "BECAUSE"],
        ["1", "unfinished"],
        ["1", "unfinished child"],
        ["nothing", "is deleted yet; --yes does it"],
    ]


def test_with_yes_it_goes_batch_by_batch(filled: str) -> None:
    seen = answer(filled, "--older-than", "30d")
    code, out, err = prune(filled, "--older-than", "30d", "--yes", "--batch", "1", "--json")
    done = json.loads(out)
    assert code == 0
    assert done == seen | {"deleted": True}
    assert done["workflows"] == 4
    assert err.splitlines() == ["holdfast: 2 workflows deleted so far", "holdfast: 4 workflows deleted so far"]
    with psycopg.connect(filled) as conn:
        found = conn.execute("select id from app.runs order by 1").fetchall()
    assert found == [("r1",), ("r3",)]
    again = answer(filled, "--older-than", "30d", "--yes")
    assert (again["workflows"], again["rows"], again["firstEndedAt"]) == (0, {}, None)


def test_the_setting_says_how_old_unless_the_command_does(filled: str) -> None:
    assert answer(filled, RETENTION_DAYS="70")["runs"] == 1
    assert answer(filled, "--older-than", "2w", RETENTION_DAYS="70")["runs"] == 3


@pytest.mark.parametrize("environ", [{}, {"RETENTION_DAYS": "0"}])
def test_without_an_age_everything_is_kept(filled: str, environ: dict[str, str]) -> None:
    before = row_counts(filled)
    said = "RETENTION_DAYS is 0, so everything is kept; to prune once, say --older-than 30d\n"
    assert prune(filled, "--yes", **environ) == (0, said, "")
    assert row_counts(filled) == before


@pytest.mark.parametrize("arguments", [["--older-than", "30"], ["--older-than", "0d"], ["--older-than", "1h"], ["--batch", "0"]])
def test_what_cannot_be_read_is_refused_in_one_sentence(database: str, arguments: list[str]) -> None:
    code, out, err = prune(database, *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("bin/prune: error: argument")


def test_it_can_be_stopped_at_any_time_and_called_again(filled: str) -> None:
    with psycopg.connect(filled) as conn:
        conn.execute(
            """
            insert into dbos.workflow_status (workflow_uuid, status, created_at, completed_at)
            select 'more ' || n, 'SUCCESS', n, n from generate_series(1, 3000) n
            """
        )
    process = command(filled, "--older-than", "30d", "--yes", "--batch", "1")
    assert process.stderr
    assert process.stderr.readline() == "holdfast: 1 workflows deleted so far\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    left = row_counts(filled)["dbos.workflow_status"]
    assert 8 < left < 3008
    assert answer(filled, "--older-than", "30d", "--yes")["workflows"] == left - 4
