"""Scenarios are as good as the tests behind them: those exist, and what was not proved is never told as proved."""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bin import evidence
from bin.commands import policy, scenarios
from bin.outcomes import Session, run_tests
from bin.scenario_matrix import PROOFS, SCENARIOS, Scenario
from bin.settings import ROOT, Settings
from steps.signoff import PROOF_TILES
from tests.platform.test_policy import POLICIES

SAMPLES = """
import pytest

def test_good(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.parametrize("n", [1, 2])
def test_each(n): pass

@pytest.mark.parametrize("n", [1, 2])
def test_one_of(n): assert n == 1, f"{n} is wrong"

def test_bad(): assert 1 == 2

@pytest.fixture
def broken(): raise OSError("no disk")

def test_fixture(broken): pass

@pytest.fixture
def dirty():
    yield
    raise OSError("left dirty")

def test_teardown(dirty): pass

def test_skipped(): pytest.skip("needs a moon")

@pytest.mark.skip
def test_skipped_without_reason(): pass

@pytest.mark.skip(reason="needs a sun")
def test_marked(): pass

@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert 0

@pytest.mark.xfail(reason="known")
def test_not_expected_to_pass(): pass
"""
CONFIG = "[pytest]\nmarkers = slow: slow\naddopts = -m 'not slow'\nxfail_strict = true\n"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "tests").mkdir()
    (folder / "tests/test_it.py").write_text(SAMPLES)
    (folder / "tests/test_broken.py").write_text("import nothing_like_this\n\ndef test_it(): pass\n")
    (folder / "pytest.ini").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the samples need none, and pytest starts in a third of the time
        yield folder


@pytest.fixture(scope="module")
def session(samples: Path) -> Session:
    return run_tests(["tests/test_it.py"], samples / "log", root=samples)


# What a test proves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "state", "count", "text"),
    [
        ("test_good", "PASS", 1, ""),
        ("test_slow", "PASS", 1, ""),
        ("test_each", "PASS", 2, ""),
        ("test_each[2]", "PASS", 1, ""),
        ("test_one_of", "FAIL", 2, "tests/test_it.py::test_one_of[2]: AssertionError: 2 is wrong"),
        ("test_one_of[1]", "PASS", 1, ""),
        ("test_bad", "FAIL", 1, "tests/test_it.py::test_bad: assert 1 == 2"),
        ("test_fixture", "FAIL", 1, 'tests/test_it.py::test_fixture: failed on setup with "OSError: no disk"'),
        ("test_teardown", "FAIL", 1, 'tests/test_it.py::test_teardown: failed on teardown with "OSError: left dirty"'),
        ("test_skipped", "SKIP", 1, "tests/test_it.py::test_skipped: needs a moon"),
        ("test_marked", "SKIP", 1, "tests/test_it.py::test_marked: needs a sun"),
        ("test_skipped_without_reason", "FAIL", 1, "tests/test_it.py::test_skipped_without_reason: skipped without a reason"),
        ("test_expected_to_fail", "FAIL", 1, "tests/test_it.py::test_expected_to_fail: it is expected to fail"),
        ("test_missing", "FAIL", 0, "tests/test_it.py::test_missing: no such test was run"),
        ("test_goo", "FAIL", 0, "tests/test_it.py::test_goo: no such test was run"),
    ],
)
def test_a_name_is_proved_only_by_tests_that_passed(session: Session, test: str, state: str, count: int, text: str) -> None:
    verdict = session.of(f"tests/test_it.py::{test}")
    assert (verdict.state, verdict.count, verdict.text) == (state, count, text)


def test_a_test_that_passes_against_its_expectation_proves_nothing(session: Session) -> None:
    assert session.of("tests/test_it.py::test_not_expected_to_pass").state == "FAIL"


def test_several_names_are_as_good_as_the_worst(session: Session) -> None:
    def state(*names: str) -> str:
        return session.of_all([f"tests/test_it.py::{name}" for name in names]).state

    assert state("test_good", "test_each") == "PASS"
    assert state("test_good", "test_skipped") == "SKIP"
    assert state("test_skipped", "test_bad", "test_good") == "FAIL"
    assert session.of_all([]).state == "FAIL"
    assert session.of_all(["tests/test_it.py::test_good", "tests/test_it.py::test_each"]).count == 3


@pytest.mark.parametrize("name", ["tests/test_it.py::test_missing", "tests/test_nowhere.py", "tests/test_broken.py"])
def test_what_pytest_cannot_find_or_load_fails_with_its_words(samples: Path, name: str) -> None:
    verdict = run_tests([name], samples / "log of none", root=samples).of(name)
    assert verdict.state == "FAIL"
    assert "ERROR" in verdict.text or "no module named" in verdict.text.lower() or "collection" in verdict.text


# The matrix -------------------------------------------------------------------------------------------------


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing(names: set[str]) -> list[str]:
    gone: list[str] = []
    for name in sorted(names):
        file, _, test = name.partition("::")
        path = ROOT / file
        if not path.exists() or (test and re.sub(r"\[.*", "", test) not in functions_of(path)):
            gone.append(name)
    return gone


def test_every_scenario_rests_on_tests_that_exist() -> None:
    assert [scenario.id for scenario in SCENARIOS] == [f"S{number:02}" for number in range(16)]
    assert [scenario.id for scenario in SCENARIOS if not scenario.tests] == []
    assert missing({test for scenario in SCENARIOS for test in scenario.tests}) == []


def test_every_proof_of_the_board_is_made_by_one_scenario() -> None:
    assert tuple(PROOFS) == PROOF_TILES
    assert sorted(proof for scenario in SCENARIOS for proof in scenario.proves) == sorted(PROOF_TILES)
    assert [proof for proof, tests in PROOFS.items() if not tests] == []


def test_every_rule_of_the_house_is_checked_by_tests_that_exist() -> None:
    assert missing({test for tests in policy.RULES.values() for test in tests}) == []
    assert set(policy.BY_SOURCE) == {rule.name for rule in POLICIES}


# Playing ----------------------------------------------------------------------------------------------------

Play = Callable[..., int]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def play(samples: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays scenarios of the sample tests, each given by its tests; the first one carries a proof."""
    monkeypatch.setattr(scenarios, "run_tests", partial(run_tests, root=samples))
    monkeypatch.setattr(evidence, "origin", lambda *_: evidence.Origin("c", "t"))  # nobody else's edits are of interest here
    monkeypatch.setitem(PROOFS, "proof-x1-audit", ("tests/test_it.py::test_good",))

    def carry_out(*tests: str, **first: Any) -> int:
        some = [
            Scenario(id=f"S{number:02}", name=name, checks=(f"tests/test_it.py::{name}",), **(first if number == 0 else {}))
            for number, name in enumerate(tests)
        ]
        return scenarios.play_all(settings, some)

    return carry_out


def matrix(settings: Settings) -> list[dict[str, Any]]:
    return json.loads((settings.state_dir / "scenario-matrix.json").read_text())


def tile(settings: Settings) -> dict[str, Any]:
    return json.loads((settings.evidence_dir / "proof-x1-audit.json").read_text())


def test_what_passes_is_in_the_matrix_and_on_the_board(play: Play, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    assert play("test_good", "test_each", proves=("proof-x1-audit",)) == 0
    [first, second] = matrix(settings)
    assert set(first) == {"id", "name", "status", "duration", "proofRefs"}
    assert (first["id"], first["status"], second["status"]) == ("S00", "PASS", "PASS")
    assert first["proofRefs"][0] == "test:tests/test_it.py::test_good"
    assert (tile(settings)["verdict"], tile(settings)["evidenceRefs"][0]) == ("GO", "test:tests/test_it.py::test_good")
    out = capfd.readouterr().out
    assert "2 PASS; " in out
    assert "tile:proof-x1-audit file:" in out


def test_one_that_fails_fails_all_and_says_why(play: Play, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    assert play("test_good", "test_bad", "test_skipped") == 1
    assert [one["status"] for one in matrix(settings)] == ["PASS", "FAIL", "SKIP"]
    assert [one.get("error") for one in matrix(settings)] == [
        None,
        "tests/test_it.py::test_bad: assert 1 == 2",
        "tests/test_it.py::test_skipped: needs a moon",
    ]
    assert "1 PASS, 1 FAIL, 1 SKIP; " in capfd.readouterr().out


def test_one_that_was_skipped_fails_nothing_and_proves_nothing(
    play: Play, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROOFS, "proof-x1-audit", ("tests/test_it.py::test_skipped",))
    assert play("test_good", proves=("proof-x1-audit",)) == 0
    assert [one["status"] for one in matrix(settings)] == ["SKIP"]
    assert (tile(settings)["verdict"], tile(settings)["reason"]) == ("NO_GO", "tests/test_it.py::test_skipped: needs a moon")


def test_what_a_scenario_does_not_cover_is_said(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    assert play("test_good", note="not covered: the moon") == 0
    assert "not covered: the moon" in capfd.readouterr().out


def test_some_can_be_asked_for_and_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bin/scenarios", "--list", "S11", "S02"])
    assert scenarios.main(settings) == 0
    assert [line[:3] for line in capfd.readouterr().out.splitlines()[1:]] == ["S02", "S11"]
    monkeypatch.setattr(sys, "argv", ["bin/scenarios", "S99"])
    assert scenarios.main(settings) == 2
    assert capfd.readouterr().err.startswith("holdfast: no such scenario: S99; they are S00, ")


def test_some_rules_can_be_asked_for_and_leave_no_evidence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(sys, "argv", ["bin/policy", "wf-purity", "queue-class-parity"])
    assert policy.main(settings) == 0
    assert capfd.readouterr().out.endswith("2 of 2 rules hold\n")
    assert not settings.evidence_dir.exists()
    monkeypatch.setattr(sys, "argv", ["bin/policy", "no-bundlers"])
    assert policy.main(settings) == 2
