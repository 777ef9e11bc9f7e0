"""bin/failoverdemo: a real service, real servers, one round each."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bin.settings import ROOT


def play(state: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bin.commands.failoverdemo", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_failover_to_a_synchronous_standby_loses_nothing(tmp_path: Path) -> None:
    told = play(tmp_path, "--rounds", "1", "--workers", "1")
    assert re.search(r"^1 .* 0/0/0 +0$", told, re.MULTILINE), told
    assert "lost in 1 rounds: 0 runs, 0 answers, 0 steps; noticed 0 times" in told
    assert "17 of 17 oracles hold" in told


@pytest.mark.slow
def test_a_failover_to_an_asynchronous_standby_loses_what_it_did_not_hear_and_no_more(tmp_path: Path) -> None:
    told = play(tmp_path, "--rounds", "2", "--async")
    assert "17 of 17 oracles hold" in told
    assert not re.search(r"0 runs, 0 answers, 0 steps", told), "nothing was lost, so nothing was shown"
    assert not re.search(r"noticed 0 times", told)


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    for words in (["--rounds", "0"], ["--stall", "x"]):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bin.commands.failoverdemo", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done
