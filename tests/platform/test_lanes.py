"""Lanes run all of their parts, and leave evidence that says what was run, about which files, and how it ended: at any end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bin import evidence
from bin.commands import crashdemo, full
from bin.lanes import Part, run_lane
from bin.settings import ROOT, Settings
from steps.signoff import PF_TILES, PROOF_TILES, Evidence, Release, judge

WAIT_S = 20.0


def code(text: str, name: str = "one", **options: Any) -> Part:
    """A part that runs this Python, and fails if it raises."""
    return Part(name=name, command=("timeit", "-n", "1", "-r", "1", text), **options)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", app_version="v7")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "file").write_text("one")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "one")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def tile(settings: Settings, name: str) -> dict[str, Any]:
    return json.loads((settings.evidence_dir / f"{name}.json").read_text())


# What evidence is about -------------------------------------------------------------------------------------


def test_evidence_names_the_commit_and_its_tree(settings: Settings, repo: Path) -> None:
    about = evidence.origin(settings, repo)
    assert about == evidence.Origin(git(repo, "rev-parse", "HEAD"), git(repo, "rev-parse", "HEAD^{tree}"))


def test_files_that_differ_from_the_commit_are_another_tree(settings: Settings, repo: Path) -> None:
    clean = evidence.origin(settings, repo)
    (repo / "ignored").write_text("x")
    assert evidence.origin(settings, repo) == clean
    seen = [clean.tree]
    for name, text in (("file", "two"), ("file", "three"), ("new", "x"), ("new", "y"), ("newer", "")):
        (repo / name).write_text(text)
        now = evidence.origin(settings, repo)
        assert now.commit == clean.commit
        assert now.tree not in seen
        assert str(now.tree).startswith(f"{clean.tree}+")
        seen.append(now.tree)
    (repo / "file").write_text("one")
    (repo / "new").unlink()
    (repo / "newer").unlink()
    assert evidence.origin(settings, repo) == clean


def test_without_a_history_the_settings_say_what_it_is_about(tmp_path: Path, repo: Path) -> None:
    told = Settings(state_dir=tmp_path, signoff_commit="c", signoff_tree="t")
    inside = repo / "somebody's copy"
    inside.mkdir()
    (inside / "file").write_text("x")
    for folder in (tmp_path, inside):
        assert evidence.origin(told, folder) == evidence.Origin("c", "t")
    assert evidence.origin(told, repo).commit == git(repo, "rev-parse", "HEAD")
    assert evidence.origin(Settings(), tmp_path) == evidence.Origin(None, None)


# Lanes ------------------------------------------------------------------------------------------------------


def test_a_lane_that_goes_well_is_a_go(settings: Settings, repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_lane(settings, "quick", [code("print('a')"), code("print('b')", "two")], repo) == 0
    said = tile(settings, "pf-quick")
    about = evidence.origin(settings, repo)
    assert (said["verdict"], said["commit"], said["tree"], said["appVersion"]) == ("GO", about.commit, about.tree, "v7")
    assert abs(said["ts"] / 1000 - time.time()) < 60
    logs = [Path(ref.split(" > ")[1]) for ref in said["evidenceRefs"]]
    assert [log.read_text().splitlines()[0] for log in logs] == ["a", "b"]
    out = capfd.readouterr().out
    assert "[2/2] two: python -m timeit" in out
    assert out.endswith("lane quick: 2 PASS\n")
    assert [path.name for path in settings.evidence_dir.iterdir()] == ["pf-quick.json"]


def test_all_parts_are_run_even_if_one_fails(settings: Settings, repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = [
        code("raise ValueError('broken')", "first"),
        code("pass", "second", tile="pf-deps"),
        code("1 / 0", "third", tile="pf-policy"),
    ]
    assert run_lane(settings, "check", parts, repo) == 1
    said = tile(settings, "pf-check")
    assert (said["verdict"], said["reason"]) == ("NO_GO", "failed: first, third")
    assert (tile(settings, "pf-deps")["verdict"], tile(settings, "pf-policy")["verdict"]) == ("GO", "NO_GO")
    out = capfd.readouterr().out
    assert "    ValueError: broken" in out
    assert "lane check: 1 PASS, 2 FAIL" in out


def test_a_part_that_is_skipped_stands_in_the_evidence(settings: Settings, repo: Path) -> None:
    assert run_lane(settings, "full", [code("pass"), code("1 / 0", "smoke", skipped="no key")], repo) == 0
    assert (tile(settings, "pf-full")["verdict"], tile(settings, "pf-full")["reason"]) == ("GO", "without: smoke (no key)")


def test_a_lane_of_which_nothing_was_run_is_no_go(settings: Settings, repo: Path) -> None:
    assert run_lane(settings, "full", [code("pass", skipped="no key")], repo) == 1
    assert (tile(settings, "pf-full")["verdict"], tile(settings, "pf-full")["reason"]) == ("NO_GO", "there is no evidence")


def test_a_part_that_takes_too_long_is_stopped_and_fails(settings: Settings, repo: Path) -> None:
    began = time.monotonic()
    assert run_lane(settings, "quick", [code("import time; time.sleep(60)", timeout_s=0.5)], repo) == 1
    assert time.monotonic() - began < WAIT_S


def test_files_that_change_while_a_lane_runs_make_it_a_no_go(settings: Settings, repo: Path) -> None:
    run_lane(settings, "quick", [code(f"open({str(repo / 'file')!r}, 'a').write('x')")], repo)
    assert (tile(settings, "pf-quick")["verdict"], tile(settings, "pf-quick")["reason"]) == ("NO_GO", evidence.MOVED)


def test_a_part_that_tests_leaves_no_evidence_among_that_of_the_machine() -> None:
    assert Part.of_tests("t", "tests").environ == {"SIGNOFF_DIR": ""}


class Running:
    """A lane in a process of its own, whose only part sleeps after it has said its process id."""

    def __init__(self, settings: Settings, repo: Path, folder: Path) -> None:
        said = folder / "pid"
        sleeper = f"import os, time; open({str(said)!r}, 'w').write(str(os.getpid())); time.sleep(120)"
        script = f"""
from pathlib import Path
from bin.lanes import Part, run_lane
from bin.settings import Settings
from bin.wiring import run
part = Part(name="sleeper", command=("timeit", "-n", "1", "-r", "1", {sleeper!r}))
run(lambda _: run_lane(Settings(state_dir=Path({str(settings.state_dir)!r})), "quick", [part], Path({str(repo)!r})))
"""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([sys.executable, "-P", "-c", script], env=environ, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT_S
        while not (said.exists() and said.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.sleeper = int(said.read_text())

    def is_asleep(self) -> bool:
        try:
            os.kill(self.sleeper, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def running(settings: Settings, repo: Path, tmp_path: Path) -> Iterator[Running]:
    settings.evidence_dir.mkdir(parents=True)
    (settings.evidence_dir / "pf-quick.json").write_text('{"verdict": "GO"}')
    lane = Running(settings, repo, tmp_path)
    yield lane
    lane.process.kill()
    lane.process.wait()
    if lane.is_asleep():
        os.kill(lane.sleeper, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lane_that_is_stopped_stops_what_it_started_and_leaves_a_no_go(
    settings: Settings, running: Running, number: signal.Signals
) -> None:
    running.process.send_signal(number)
    assert running.process.wait(WAIT_S) == 130
    assert not running.is_asleep()
    assert (tile(settings, "pf-quick")["verdict"], tile(settings, "pf-quick")["reason"]) == ("NO_GO", evidence.INTERRUPTED)


def test_a_lane_that_was_killed_leaves_a_no_go(settings: Settings, running: Running) -> None:
    running.process.kill()
    running.process.wait()
    assert (tile(settings, "pf-quick")["verdict"], tile(settings, "pf-quick")["reason"]) == ("NO_GO", evidence.UNFINISHED)


# The lanes that there are -----------------------------------------------------------------------------------


def test_the_lanes_fan_out() -> None:
    def parts(lane: str, *flags: str) -> list[str]:
        command = [sys.executable, "-P", "-m", f"bin.commands.{lane}", "--list", *flags]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
        return [line.split("  ")[0] for line in done.stdout.splitlines()[1:]]

    assert parts("quick") == ["lint", "format", "types", "deps", "fast tests", "policy"]
    assert parts("check") == ["quick", "tests", "durability drills", "crashdemo", "otlp smoke", "ops views"]
    availability = ["engine behind a pooler", "failovers", "failovers async", "faults", "restores"]
    release = ["check", "slow tests", *availability, "scenarios", "bench", "oc live smoke", "sbx live smoke"]
    assert parts("full") == release
    assert parts("check", "--ci")[-1] == "load smoke"
    assert parts("full", "--ci") == [*release, "load ramp"]
    names = ["crashdemo", "chaos", "sandbox", "fanout", "hitl-load", "hitl-burst", "endurance"]
    again = [f"unit soak {number}" for number in (1, 2, 3)]
    assert parts("full", "--soaks") == [*release, *(f"soak {name}" for name in names), *again]


def test_a_live_smoke_that_cannot_run_is_skipped_with_its_reason_unless_strictness_is_asked_for() -> None:
    assert full.oc_obstacle(Settings()) == "OC_MODE is replay"
    assert full.oc_obstacle(Settings(oc_mode="live")) is None
    assert full.sbx_obstacle(Settings()) == "SBX_MODE is mock"
    assert full.sbx_obstacle(Settings(sbx_mode="live")) == "E2B_API_KEY is not set"
    assert full.sbx_obstacle(Settings(sbx_mode="live", e2b_api_key="k")) is None
    assert full.sbx_obstacle(Settings(sbx_mode="live", sbx_provider="microsandbox")) is None
    assert full.smoke(Settings(), "s", "bin.commands.demo", "no key").skipped == "no key"
    assert full.smoke(Settings(), "s", "bin.commands.demo", None).skipped is None
    assert full.smoke(Settings(), "s", "bin.commands.nowhere", None).skipped == "this version has no such command"
    assert full.smoke(Settings(oc_strict_mode=True), "s", "bin.commands.nowhere", "no key").skipped is None


def test_a_crash_drill_leaves_evidence_of_itself(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bin/crashdemo", "--rounds", "3", "--seed", "5"])
    monkeypatch.setattr(evidence, "origin", lambda *_: evidence.Origin("c", "t"))  # nobody else's edits are of interest here
    for ended, verdict, reason in ((0, "GO", None), (1, "NO_GO", "not every round was exact")):
        monkeypatch.setattr(crashdemo, "kill_and_count", lambda *_, ended=ended: (ended, tmp_path))
        assert crashdemo.main(settings) == ended
        said = tile(settings, "pf-crashdemo")
        assert (said["verdict"], said.get("reason")) == (verdict, reason)
        assert said["evidenceRefs"] == ["run:bin/crashdemo --rounds 3 --seed 5 --at each", f"file:{tmp_path}"]


def test_evidence_of_lanes_and_proofs_that_went_well_makes_a_go_and_its_loss_a_no_go(settings: Settings, repo: Path) -> None:
    about = evidence.origin(settings, repo)
    release = Release(about.commit, about.tree, "v7")
    for name in (*PF_TILES, *PROOF_TILES):
        with evidence.tile(settings, name, repo) as claim:
            claim.decide("", ["test:x"])

    def verdicts(release: Release = release) -> set[tuple[str, str | None]]:
        found = {path.stem: Evidence(path.read_bytes(), 1) for path in settings.evidence_dir.glob("*.json")}
        tiles = [judge(name, "pf", found.get(name), release).tile for name in (*PF_TILES, *PROOF_TILES)]
        return {(tile.verdict, tile.reason) for tile in tiles}

    assert verdicts() == {("GO", None)}
    assert verdicts(Release("c", "t", "v8")) == {("NO_GO", "commit_mismatch; tree_mismatch; app_version_mismatch")}
    (settings.evidence_dir / "proof-x1-audit.json").unlink()
    assert verdicts() == {("GO", None), ("NO_GO", "missing signoff results")}
