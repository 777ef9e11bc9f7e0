"""Load tests: what they measure is judged rightly, the board can read it, and a service that is too slow makes them fail."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from bin.commands.load import read_arguments
from bin.load_figures import IMPOSSIBLE, Endpoint, Limits, Measured, details, judge, percentile, summary
from bin.own_server import surroundings
from bin.service import ServiceProcess
from bin.settings import ROOT, LoadSettings
from steps.load_tests import read_load_tests

SMOKE = Limits(p95_ms=1200)


def measured(*times: float, failed: int = 0, checks: tuple[int, int] = (100, 0)) -> Measured:
    endpoints = {"GET /x": Endpoint(list(times), failed)} if times else {}
    return Measured(endpoints, {"it is well": checks}, iterations=len(times), took_s=2.0, most_users=3, seconds=[])


def verdicts(found: Measured, limits: Limits = SMOKE) -> list[bool]:
    return [threshold.ok for threshold in judge(found, limits)]


def load(*arguments: str, state: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "bin.commands.load", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "STATE_DIR": str(state), **environ},
        capture_output=True,
        text=True,
        timeout=100,
    )


# -- figures ----------------------------------------------------------------------------------------------------------------------


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile([], 0.95) is None
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([0.0, 100.0], 0.95) == 95.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (measured(*[10.0] * 100), [True, True, True]),
        (measured(*[10.0] * 90, *[1300.0] * 10), [False, True, True]),
        (measured(*[10.0] * 97, *[1300.0] * 3), [True, True, True]),
        (measured(*[1200.0] * 100), [False, True, True]),
        (measured(*[10.0] * 100, failed=1), [True, False, True]),
        (measured(*[10.0] * 101, failed=1), [True, True, True]),
        (measured(10.0, checks=(99, 1)), [True, True, False]),
        (measured(10.0, checks=(199, 1)), [True, True, True]),
        (measured(checks=(0, 0)), [False, False, False]),
    ],
)
def test_each_threshold_is_kept_or_crossed(found: Measured, kept: list[bool]) -> None:
    assert verdicts(found) == kept


def test_nothing_keeps_to_the_thresholds_of_the_bad_fixture() -> None:
    assert verdicts(measured(0.0), IMPOSSIBLE) == [False, False, False]


@pytest.mark.parametrize(("limits", "passed"), [(SMOKE, True), (IMPOSSIBLE, False)])
def test_the_board_reads_a_summary(tmp_path: Path, limits: Limits, passed: bool) -> None:
    found = measured(10.0, 20.0, 30.0)
    (tmp_path / "smoke-summary.json").write_bytes(orjson.dumps(summary(found, judge(found, limits))))
    (row,) = read_load_tests(tmp_path)
    assert (row.name, row.avg, row.threshold, row.pass_) == ("smoke", 20.0, limits.p95_ms, passed)
    assert (row.p95, row.p99) == (29.0, 29.8)


def test_the_board_shows_a_test_without_an_answer_as_failed(tmp_path: Path) -> None:
    found = measured(checks=(0, 0))
    (tmp_path / "smoke-summary.json").write_bytes(orjson.dumps(summary(found, judge(found, SMOKE))))
    (row,) = read_load_tests(tmp_path)
    assert (row.p95, row.pass_) == (None, False)
    assert details("smoke", found)["endpoints"] == {}


# -- arguments --------------------------------------------------------------------------------------------------------------------


def test_options_win_over_settings_and_settings_over_defaults() -> None:
    plan = read_arguments(["smoke"], LoadSettings())
    assert (plan.stages, plan.limits, plan.base) == ([(20.0, 4, 4)], Limits(p95_ms=1200), None)
    plan = read_arguments(["ramp"], LoadSettings())
    assert (plan.stages, plan.limits.p95_ms) == ([(15.0, 1, 12), (20.0, 12, 12), (10.0, 12, 1)], 1500)
    plan = read_arguments(["smoke", "--users", "7", "--duration", "1m30s"], LoadSettings(vus=5, p95_ms=9))
    assert (plan.stages, plan.limits.p95_ms) == ([(90.0, 7, 7)], 9)
    assert read_arguments(["smoke"], LoadSettings(bad_fixture=True)).limits == IMPOSSIBLE


@pytest.mark.parametrize(
    "wrong",
    [
        ["smoke", "--users", "0"],
        ["smoke", "--duration", "soon"],
        ["smoke", "--duration", "0"],
        ["smoke", "--base", "nowhere"],
        ["ramp", "--p95-ms", "-1"],
        ["walk"],
        [],
    ],
)
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        read_arguments(wrong, LoadSettings())
    assert refused.value.code == 2


# -- for real ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[str]:
    process = ServiceProcess("start", tmp_path / "service.log", surroundings(database, tmp_path / "state"))
    process.start()
    yield process.url()
    process.stop()


def test_two_users_for_two_seconds_pass_and_impossible_thresholds_do_not(service: str, database: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = load("smoke", "--users", "2", "--duration", "2s", "--base", service, state=state)
    assert (done.returncode, done.stdout.splitlines()[-1].split(";")[0]) == (0, "smoke: PASS"), done.stdout + done.stderr
    assert "2 users" in done.stderr

    shortened = {"K6_RAMP_UP": "1s", "K6_RAMP_TARGET": "2", "K6_STEADY": "0", "K6_RAMP_DOWN": "0", "K6_BAD_FIXTURE": "1"}
    bad = load("ramp", "--base", service, state=state, **shortened)
    assert (bad.returncode, bad.stdout.count("FAIL")) == (1, 4), bad.stdout + bad.stderr

    rows = httpx.get(f"{service}/api/ops/throughput").json()["k6"]
    assert [(row["name"], row["threshold"], row["pass"]) for row in rows] == [("ramp", 0, False), ("smoke", 1200, True)]
    assert all(row["p95"] and row["p99"] and row["avg"] for row in rows)

    found: dict[str, Any] = orjson.loads((state / "k6/smoke-metrics.json").read_bytes())
    endpoints = found["endpoints"]
    assert list(endpoints) == [
        "POST /api/intents",
        "POST /api/runs",
        "GET /api/runs/{wid}",
        "GET /api/ops/queue-depth",
        "GET /api/runs/{wid}/steps",
        "GET /api/artifacts/{uri}",
    ]
    assert all(one["count"] > 5 and one["failed"] == 0 for one in endpoints.values())
    assert {check["fails"] for check in found["checks"].values()} == {0}
    with psycopg.connect(database) as conn:
        keys = conn.execute("select distinct queue_partition_key from app.runs where purpose = 'run' order by 1").fetchall()
    assert keys == [("k6-part-0",), ("k6-part-1",)]


def test_a_service_that_is_not_there_fails_and_leaves_no_older_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "k6"
    folder.mkdir()
    (folder / "smoke-summary.json").write_text('{"metrics": {}}')
    done = load("smoke", "--users", "1", "--duration", "1s", "--base", "http://127.0.0.1:9", state=tmp_path)
    assert (done.returncode, done.stdout.count("FAIL")) == (1, 3), done.stdout + done.stderr  # no answer is a quick one
    (row,) = read_load_tests(folder)
    assert (row.pass_, row.threshold) == (False, 1200)


def test_without_locust_it_says_how_to_get_it(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['locust'] = None; sys.argv[1:] = ['smoke']\n"
    hidden += "import runpy; runpy.run_module('bin.commands.load', run_name='__main__')"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-P", "-c", hidden], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("holdfast: load tests need Locust")
    assert "bin/bootstrap --dev" in done.stderr
