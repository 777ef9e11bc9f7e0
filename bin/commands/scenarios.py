"""bin/scenarios: sixteen scenarios from bootstrap to sign-off, each a handful of tests that must pass, in one call of pytest each.

    bin/scenarios [ID ...] [--list]

Writes STATE_DIR/scenario-matrix.json, and the proofs of the sign-off board for the scenarios that it ran. Exit code 1 if one failed.
"""

import argparse
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bin import evidence
from bin.children import stopping_on_term
from bin.lanes import say, table
from bin.outcomes import Session, Verdict, run_tests
from bin.scenario_matrix import PROOFS, SCENARIOS, Scenario
from bin.settings import Settings
from bin.wiring import FAILED, USAGE, complain, run


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario with what became of it."""

    scenario: Scenario
    verdict: Verdict
    session: Session
    log: Path

    @property
    def proofs(self) -> list[str]:
        return [f"test:{name}" for name in self.scenario.tests] + [f"file:{self.log}"]

    @property
    def proves(self) -> str:
        """In short; the matrix names every test."""
        return " ".join([*(f"tile:{proof}" for proof in self.scenario.proves), f"file:{self.log}"])

    def document(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "id": self.scenario.id,
            "name": self.scenario.name,
            "status": self.verdict.state,
            "duration": round(self.verdict.seconds * 1000),
            "proofRefs": self.proofs,
        }
        return said | ({"error": self.verdict.text} if self.verdict.text else {})


def main(settings: Settings) -> int:
    known = {scenario.id: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(prog="bin/scenarios", description="From bootstrap to sign-off.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these (all): S00 … S15")
    parser.add_argument("--list", action="store_true", help="show the scenarios and run nothing")
    asked = parser.parse_args()
    if unknown := [name for name in asked.ids if name not in known]:
        complain(f"no such scenario: {', '.join(unknown)}; they are {', '.join(known)}")
        return USAGE
    scenarios = [scenario for scenario in SCENARIOS if not asked.ids or scenario.id in asked.ids]
    if asked.list:
        table([("id", "name", "tests"), *((one.id, one.name, " ".join(one.tests)) for one in scenarios)])
        return 0
    with stopping_on_term():
        return play_all(settings, scenarios)


def play_all(settings: Settings, scenarios: list[Scenario]) -> int:
    logs = settings.state_dir.absolute() / "scenarios" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    matrix = settings.state_dir.absolute() / "scenario-matrix.json"
    matrix.unlink(missing_ok=True)
    with ExitStack() as tiles:
        claims = {proof: tiles.enter_context(evidence.tile(settings, proof)) for one in scenarios for proof in one.proves}
        played = [play(scenario, logs) for scenario in scenarios]
        evidence.write_whole(matrix, orjson.dumps([one.document() for one in played], option=orjson.OPT_INDENT_2))
        for one in played:
            for proof in one.scenario.proves:
                verdict = one.session.of_all(PROOFS[proof])
                claims[proof].decide(verdict.text or "", [*(f"test:{name}" for name in PROOFS[proof]), f"file:{one.log}"])
    return tell(played, matrix)


def play(scenario: Scenario, logs: Path) -> Played:
    say(f"{scenario.id} {scenario.name} …")
    log = logs / f"{scenario.id}.log"
    session = run_tests(scenario.tests, log)
    verdict = session.of_all(scenario.tests)
    say(f"    {verdict.state} {verdict.count} tests in {verdict.seconds:.1f} s" + (f": {verdict.text}" if verdict.text else ""))
    if scenario.note:
        say(f"    {scenario.note}")
    return Played(scenario, verdict, session, log)


def tell(played: list[Played], matrix: Path) -> int:
    say("")
    rows = [
        (one.scenario.id, one.scenario.name, one.verdict.state, f"{one.verdict.seconds:.1f}", str(one.verdict.count), one.proves)
        for one in played
    ]
    table([("id", "scenario", "", "seconds", "tests", "proofs"), *rows])
    for one in played:
        if one.verdict.text:
            say(f"{one.scenario.id} {one.verdict.state}: {one.verdict.text}")
    counts = {state: sum(one.verdict.state == state for one in played) for state in ("PASS", "FAIL", "SKIP")}
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count) + f"; {matrix}")
    return FAILED if counts["FAIL"] else 0


if __name__ == "__main__":
    run(main)
