"""The endurance soak: what its samples say about growth, its picture, and itself, for a minute."""

import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psycopg
import pytest

from bin.settings import ROOT
from bin.soaks import endurance
from bin.soaks.endurance_plot import draw
from bin.soaks.samples import HOT, LONG_ENOUGH_S, MB, Clients, Process, Sample, Table, Watch, findings, look_at, slope_of
from bin.soaks.stage import Stage

HOUR_S = 3600.0


def sample(
    at_s: float, *, worker_mb: float = 90, files: int = 25, runs_mb: float = 4, dead: int = 500, vacuumed_at: float = 1
) -> Sample:
    tables = {name: Table(MB, 100, 500, vacuumed_at) for name in HOT} | {
        "app.runs": Table(int(runs_mb * MB), 100, dead, vacuumed_at)
    }
    processes = {"api": Process(80 * MB, 20), "worker": Process(int(worker_mb * MB), files), "other": Process(70 * MB, 20)}
    return Sample(at_s, processes, 3.0, 3.0, 40.0, 0.4, connections=30, bytes=60 * MB, tables=tables)


def watch(tmp_path: Path, samples: list[Sample]) -> Watch:
    one = Watch("", tmp_path / "samples.jsonl", {}, ("api", "worker"), 10.0)
    one.samples = samples
    return one


def found(tmp_path: Path, seconds: float = HOUR_S, **grows: float) -> tuple[list[str], list[str]]:
    """What is too much where these grow evenly to so much at the end."""
    least = {"worker_mb": 90, "files": 25, "runs_mb": 4, "dead": 500}
    chance = random.Random(1)
    samples: list[Sample] = []
    for at_s in range(10, int(seconds), 10):
        now = {name: least[name] + (most - least[name]) * at_s / seconds for name, most in grows.items()}
        noise = chance.uniform(-3, 3)
        worker_mb = now.get("worker_mb", 90) + noise
        samples.append(
            sample(
                at_s,
                worker_mb=worker_mb,
                files=int(now.get("files", 25)),
                runs_mb=now.get("runs_mb", 4),
                dead=int(now.get("dead", 500)),
            )
        )
    said = findings(watch(tmp_path, samples), seconds)
    return list(said.leaks), list(said.bloat)


def test_the_line_through_points_does_not_mind_a_few_that_are_far_off() -> None:
    points = [(x / 10, 2 * x / 10 + (50 if x % 9 == 0 else 0)) for x in range(60)]
    slope = slope_of(points)
    assert slope.slope == pytest.approx(2, abs=0.1)
    assert slope.low <= slope.slope <= slope.high


def test_an_even_hour_has_nothing_that_is_too_much(tmp_path: Path) -> None:
    assert found(tmp_path) == ([], [])


def test_each_growth_is_found(tmp_path: Path) -> None:
    assert found(tmp_path, worker_mb=104)[0][0].startswith("worker grows by 1")
    assert found(tmp_path, files=60)[0][0].startswith("worker has ")
    assert found(tmp_path, runs_mb=14)[1][0].startswith("app.runs has grown from ")
    assert found(tmp_path, dead=20_000)[1][0].startswith("app.runs has up to ")


def test_a_short_soak_judges_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, seconds=LONG_ENOUGH_S / 2, worker_mb=500) == ([], [])


def test_a_table_that_no_vacuum_came_to_is_found(tmp_path: Path) -> None:
    never = [
        Sample(at_s, sample(at_s).processes, 3.0, 3.0, 40.0, 0.4, 30, MB, {"app.runs": Table(MB, 100, 9000, None)})
        for at_s in range(10, 3600, 10)
    ]
    assert "app.runs was never vacuumed" in findings(watch(tmp_path, never), HOUR_S).bloat


def test_clients_count_and_time_what_they_hear() -> None:
    clients = Clients()
    for n in range(100):
        clients.heard("POST", 201 if n else 503, n / 1000)
    clients.accepted()
    assert clients.take(2.0) | {"silence_s": 0} == {"accepted_per_s": 0.5, "ended_per_s": 0, "post_p99_ms": 99.0, "silence_s": 0}
    assert clients.statuses == {201: 99, 503: 1}
    assert clients.take(1.0)["post_p99_ms"] is None


def test_a_process_has_memory_and_files_as_long_as_it_is_there() -> None:
    me = look_at(os.getpid())
    assert me is not None and me.memory > MB and me.files > 0
    assert look_at(2**22 - 3) is None
    assert look_at(0) is None


def test_the_picture_is_one() -> None:
    picture = draw([sample(at_s) for at_s in range(10, 100, 10)], ("api", "worker"), [(30.0, "failover"), (60.0, "kill worker")])
    lines = ElementTree.fromstring(picture).findall("{http://www.w3.org/2000/svg}line")
    assert len(lines) == 8  # two marks in four panels


async def test_what_has_ended_is_deleted_before_its_day_and_the_clock_goes_on(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into app.intents (id, goal, payload) values ('w', 'plain', '{}')")
        conn.execute("insert into app.runs (id, intent_id, workflow_id, status) values ('r', 'w', 'w', 'succeeded')")
        conn.execute(
            "insert into dbos.workflow_status (workflow_uuid, status, name, created_at, updated_at, completed_at)"
            " values ('w', 'SUCCESS', 'RunIntent', engine.now_ms() - 5, engine.now_ms() - 5, engine.now_ms() - 5)"
        )
        ((now_ms,),) = conn.execute("select engine.now_ms() + 1000").fetchall()
        done = await endurance.delete_once(database, now_ms)
        assert (done.workflows, done.runs) == (1, 1)
        assert conn.execute("select from engine.clock").fetchall() == []


@pytest.mark.slow
def test_a_minute_of_endurance_goes_well(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bin.commands.soak", "endurance", "--minutes", "1", "--seed", "3", "--plot", str(plot)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"endurance: {len(endurance.ORACLES)} of {len(endurance.ORACLES)} oracles hold, seed 3" in done.stdout
    assert "lap 3 of 3" in done.stdout
    assert plot.read_text().startswith("<svg ")
    (samples,) = tmp_path.rglob("samples.jsonl")
    assert set(json.loads(samples.read_text().splitlines()[-1])["processes"]) >= {"api that stays", "worker that stays"}


def test_endurance_wants_two_servers(tmp_path: Path) -> None:
    stage = Stage("", tmp_path, None, 0, 1, 0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(endurance.SoakFailed):
        endurance.Crew.begin(stage)
