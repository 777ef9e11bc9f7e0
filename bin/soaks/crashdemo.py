"""Rounds of the crash demonstration, one after the other; see bin/crashdemo."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

from bin.children import run_module
from bin.own_server import surroundings
from bin.soaks.oracles import MARKS, TIDY, Facts
from bin.soaks.stage import LOOK_S, SoakFailed, Stage

ORACLES = (*TIDY, MARKS)
ROUND = re.compile(r"^round \d+ ", re.MULTILINE)
LONGEST_ROUND_S = 60.0


def play(stage: Stage) -> Facts:
    log = stage.folder / "crashdemo.log"
    log.touch()
    words = ("bin.commands.crashdemo", "--rounds", str(stage.n), "--seed", str(stage.seed))
    with ThreadPoolExecutor(1) as thread:
        environ = surroundings(stage.dsn, stage.folder / "state")
        ends = thread.submit(run_module, words, log, environ, timeout_s=stage.n * LONGEST_ROUND_S)
        while not ends.done():
            played = len(ROUND.findall(log.read_text()))
            stage.bar.show(played / stage.n, f"{played} of {stage.n} rounds")
            time.sleep(LOOK_S)
    lines = log.read_text().splitlines()
    if ends.result() is None or not any("rounds exact" in line for line in lines):
        raise SoakFailed(f"bin/crashdemo ended early: {' | '.join(lines[-3:])}; see {log}")
    stage.notes += [line for line in lines if "rounds exact" in line or "NOT EXACT" in line]
    return {"runs": 0, "accepted": [], "name": "CrashDemo", "rounds": stage.n}
