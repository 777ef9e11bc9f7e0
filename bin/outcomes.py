"""Tests as proofs: run some of them by name, and tell for each name whether it was proved.

A name is pytest's: a file, a test, or a test with one of its parameters. It is proved when there is at least one test of that name
and all of them passed. What was not there, not run, or expected to fail is no proof; what was skipped is none either, and is told apart
when it gives its reason.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from bin.children import run_module
from bin.settings import ROOT

State = Literal["PASS", "FAIL", "SKIP"]

#: Tests start commands that leave evidence of their own, which must not come among that of the caller.
FOR_TESTS: Mapping[str, str] = {"SIGNOFF_DIR": ""}
#: What pytest writes for a skip that nobody explained.
UNEXPLAINED = ("", "Skipped", "unconditional skip", "pytest.skip")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test. text: the failure, or the reason of a skip."""

    name: str
    state: State
    seconds: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a name, or of several together."""

    state: State
    seconds: float
    count: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One call of pytest."""

    outcomes: tuple[Outcome, ...]
    trouble: str

    def of(self, name: str) -> Verdict:
        """Whether the name was proved."""
        found = [one for one in self.outcomes if one.name == name or one.name.startswith((f"{name}[", f"{name}::"))]
        seconds = sum(one.seconds for one in found)
        for state in ("FAIL", "SKIP"):
            for one in found:
                if one.state == state:
                    return Verdict(one.state, seconds, len(found), f"{one.name}: {one.text}")
        if not found:
            return Verdict("FAIL", 0, 0, f"{name}: no such test was run" + (f"; {self.trouble}" if self.trouble else ""))
        return Verdict("PASS", seconds, len(found))

    def of_all(self, names: Sequence[str]) -> Verdict:
        """Whether all of the names were proved; the worst of them."""
        verdicts = [self.of(name) for name in names]
        if not verdicts:
            return Verdict("FAIL", 0, 0, "it names no test")
        worst = min(verdicts, key=lambda one: ("FAIL", "SKIP", "PASS").index(one.state))
        return Verdict(worst.state, sum(one.seconds for one in verdicts), sum(one.count for one in verdicts), worst.text)


def run_tests(names: Sequence[str], log: Path, *, root: Path = ROOT) -> Session:
    """Run the tests of these names, slow ones too, in one call of pytest whose output goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ["-m", "", "-q", "-o", "junit_family=xunit1", f"--junit-xml={report}"]
        code = run_module(["pytest", *options, *names], log, FOR_TESTS, cwd=root)
        outcomes = tuple(read_report(report)) if report.exists() else ()
    return Session(outcomes, trouble_in(log, code))


def read_report(report: Path) -> list[Outcome]:
    """pytest's report, test by test. One that failed and then failed to clean up stands in it once."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [outcome_of(case) for case in cases]


def outcome_of(case: ElementTree.Element) -> Outcome:
    name, seconds = f"{case.get('file', '')}::{case.get('name', '')}", float(case.get("time", 0))
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            return Outcome(name, "FAIL", seconds, first_line(found))
    if (found := case.find("skipped")) is None:
        return Outcome(name, "PASS", seconds)
    if found.get("type") == "pytest.xfail":
        return Outcome(name, "FAIL", seconds, "it is expected to fail")
    reason = found.get("message", "").removeprefix("Skipped: ").strip()
    return (
        Outcome(name, "FAIL", seconds, "skipped without a reason")
        if reason in UNEXPLAINED
        else Outcome(name, "SKIP", seconds, reason)
    )


def first_line(found: ElementTree.Element) -> str:
    lines = found.get("message", "").strip().splitlines()
    return lines[0] if lines else "failed"


def trouble_in(log: Path, exit_code: int | None) -> str:
    """pytest's own words when it could not even begin."""
    if exit_code in (0, 1):
        return ""
    if exit_code is None:
        return "its time was over"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("ERROR", "E  "))]
    return lines[-1] if lines else f"pytest ended with {exit_code}"
