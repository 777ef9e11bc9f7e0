"""The fairness benchmark measures what it says: its arithmetic on times, one cell that must miss its promise, and the whole of it once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fairness, fairness_limits, holdfast
from benchmarks.fairness import QUICK, Bench
from benchmarks.server import SETTINGS, Server
from benchmarks.shares import Queued, contended, most_at_once, most_in_window
from bin.postgres import borrow
from bin.settings import ROOT
from tests.platform.test_commands import CLEAN

WITHOUT_WEIGHTS = b"""
create function public.no_weight() returns trigger language plpgsql as $$ begin new.weight := 1; return new; end $$;
create trigger no_weight before insert or update on engine.queue_partition for each row execute function public.no_weight();
"""
WITHOUT_CAPS = b"""
create function public.not_held() returns trigger language plpgsql as $$ begin new.held := false; return new; end $$;
create trigger not_held before update on dbos.workflow_status for each row execute function public.not_held();
"""


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Server]:
    lease = borrow(tmp_path / "bench", settings=SETTINGS)
    server = Server(lease.dsn)
    yield server
    server.close()
    lease.close()


def starts(tenant: str, every_ms: int, until_ms: int) -> list[Queued]:
    """A tenant with more than enough queued since 0."""
    return [Queued(tenant, 0, at) for at in range(every_ms, until_ms, every_ms)] + [Queued(tenant, 0, None)]


def test_a_start_is_owed_in_equal_parts_to_all_who_contend() -> None:
    found = contended(starts("a", 10, 2000) + starts("b", 30, 2000), end_ms=2000)
    assert (found["a"].got, found["b"].got) == (199, 66)
    assert found["a"].owed == found["b"].owed == pytest.approx(265 / 2)


def test_weights_divide_what_is_owed() -> None:
    found = contended(starts("a", 10, 2000) + starts("b", 20, 2000), 2000, {"a": 2, "b": 1})
    assert found["a"].share == pytest.approx(1, abs=0.01)
    assert found["b"].share == pytest.approx(1, abs=0.01)


def test_a_short_wait_is_no_contention_and_takes_nothing_from_the_others() -> None:
    found = contended([*starts("a", 10, 2000), Queued("b", 500, 900)], 2000)
    assert found.keys() == {"a"}
    assert found["a"].share == 1


def test_a_tenant_contends_only_while_it_has_something_queued() -> None:
    found = contended([*starts("a", 10, 4000), *(Queued("b", 1000, 1000 + n * 100) for n in range(1, 16))], 4000)
    assert found["b"].got == 15
    assert found["b"].owed == pytest.approx((150 + 15) / 2, abs=1)


def test_what_ends_at_a_moment_makes_room_for_what_begins_then() -> None:
    assert most_at_once([(0, 10), (10, 20), (5, 12), (30, 40)]) == 2
    assert most_at_once([(0, 10), (9, 20), (5, 12)]) == 3
    assert most_at_once([]) == 0


def test_a_window_does_not_hold_its_end() -> None:
    assert most_in_window([0, 100, 1999, 2000], 2000) == 3
    assert most_in_window([5, 4, 3], 1) == 1


def test_weights_that_are_not_heeded_miss_the_promise(durable: Server, tmp_path: Path) -> None:
    report = fairness.weights(Bench(durable, tmp_path, replace(QUICK, heavy=5000), holdfast.SCHEMA + WITHOUT_WEIGHTS))
    assert [verdict.kept for verdict in report.verdicts] == [False]


@pytest.mark.slow
def test_caps_that_are_not_heeded_miss_the_promise(durable: Server, tmp_path: Path) -> None:
    report = fairness_limits.measure(durable, tmp_path, fairness_limits.QUICK, print, holdfast.SCHEMA + WITHOUT_CAPS)
    assert [verdict.kept for verdict in report.verdicts] == [False]


@pytest.mark.slow
def test_the_fairness_benchmark_runs_through(durable: Server, tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "bin.commands.bench", "fairness", "--quick", "--dsn", durable.dsn]
    argv += ["--plots", str(tmp_path / "plots")]
    environ = {**os.environ, **CLEAN, "STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "caps never exceeded" in done.stdout
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"fairness-shares.svg", "fairness-waits.svg"}
