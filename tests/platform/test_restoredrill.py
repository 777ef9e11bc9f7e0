"""bin/restoredrill: a real service, real servers, both ways to restore."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.platform.drills import played


def play(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return played("restoredrill", state, *words, timeout_s=600)


@pytest.mark.slow
def test_what_was_told_before_a_mistake_is_there_again_and_all_of_it_ends(tmp_path: Path) -> None:
    done = play(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    assert re.search(r"mistake +delete .*: [1-9]\d* are gone", told)
    assert "lost of what was told before the mistake: 0 runs, 0 answers, 0 steps" in told
    assert "noticed by 2 of 2 workers, which nobody restarted" in told
    assert re.search(r"to the moment: \d+ runs ended, 17 of 17 oracles hold", told)
    assert re.search(r"before the dump began: 0 runs, 0 answers, 0 steps; [1-9]\d* workflows under way", told)
    assert re.search(r"from the dump: \d+ runs ended, 17 of 17 oracles hold", told)
    assert list((tmp_path / "drills").glob("*/live")) == [], "the servers' files are taken away after a good end"


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    done = play(tmp_path, "--workers", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
