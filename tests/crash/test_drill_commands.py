"""bin/demo and bin/crashdemo as a person meets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bin.database import connect
from bin.settings import ROOT


def run(command: str, *arguments: str, database: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": database, "STATE_DIR": str(folder), "PORT": "1"}
    words = [sys.executable, "-P", "-m", f"bin.commands.{command}", *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)


def test_the_demo_proves_one_run_and_may_be_repeated(database: str, tmp_path: Path) -> None:
    for arguments, runs in (("--start",), 1), (("--start", "--replay"), 2), (("--start", "--replay"), 2):
        done = run("demo", *arguments, database=database, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "9 of 9 proofs hold" in done.stdout
        with connect(database) as conn:
            found = conn.execute(
                "select count(*), count(*) filter (where status = 'succeeded') from app.runs where purpose = 'run'"
            ).fetchall()
            assert found == [(runs, runs)]


def test_the_demo_says_when_there_is_no_service(database: str, tmp_path: Path) -> None:
    done = run("demo", database=database, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "holdfast: no service answers at http://127.0.0.1:1: run bin/start first, or use --start\n"


def test_the_demo_notices_what_is_not_as_it_should_be(database: str, tmp_path: Path) -> None:
    """With the marks of somebody who meddles in it: a second message in the run's mailbox."""
    with connect(database, autocommit=True) as conn:
        conn.execute("""
            create function meddle() returns trigger language plpgsql as $$
            begin
                insert into dbos.notifications (destination_uuid, topic, message) values (new.workflow_id, 'human:nobody', '{}');
                return new;
            end $$
        """)
        conn.execute("create trigger meddle before insert on app.human_interactions for each row execute function meddle()")
    done = run("demo", "--start", database=database, folder=tmp_path)
    assert done.returncode == 1
    assert "8 of 9 proofs hold" in done.stdout
    assert "NOT AS IT SHOULD BE" in done.stdout


def test_a_round_of_the_crash_drill_is_exact(database: str, tmp_path: Path) -> None:
    done = run("crashdemo", "--at", "in-sleep", "--sleep-ms", "300", database=database, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "round 1 in-sleep: killed at PENDING s1=1 s2=0, SUCCESS s1=1 s2=1" in done.stdout
    assert done.stdout.endswith("1 of 1 rounds exact\nDBOS workflow status: SUCCESS\nmarks s1=1 s2=1\n")


@pytest.mark.slow
def test_the_crash_drill_is_exact_at_each_of_its_points(database: str, tmp_path: Path) -> None:
    done = run("crashdemo", "--rounds", "6", database=database, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 6 rounds exact" in done.stdout


def test_the_crash_drill_fails_when_a_mark_is_not_what_it_should_be(database: str, tmp_path: Path) -> None:
    with connect(database, autocommit=True) as conn:
        conn.execute("""
            create function forget() returns trigger language plpgsql as $$
            begin return case when new.step = 's2' then null else new end; end $$
        """)
        conn.execute("create trigger forget before insert on app.marks for each row execute function forget()")
    done = run("crashdemo", "--at", "in-sleep", "--sleep-ms", "300", database=database, folder=tmp_path)
    assert done.returncode == 1
    assert "NOT EXACT" in done.stdout
    assert "marks {'s1': 1, 's2': 0}" in done.stdout
    assert "0 of 1 rounds exact" in done.stdout
