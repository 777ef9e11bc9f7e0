"""bin/replay: a pack of a run replays without a database, and what was altered in it is named."""

import asyncio
import copy
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from steps.canonical import MAX_INPUT_DEPTH
from steps.opencode import ReplayOpenCode
from steps.replaying import replay_pack
from steps.repro import pack_bytes, repro_pack
from steps.retry import retry_run
from steps.sandbox import MockSandbox
from steps.seals import seals_of
from tests.crash.drill import is_parked
from tests.crash.fleet import Job, until, workers
from tests.steps.product import Product, patch, product, replay

ROOT = Path(__file__).resolve().parents[2]
Pack = dict[str, Any]

#: A run that asks twice, changes a file, and has two tasks.
CONSTRAINTS = {
    "askUser": True,
    **replay(
        plan={"goal": "g", "design": ["d"], "files": [], "risks": [], "tests": ["a", "b"], "patchPlan": [patch("a.txt", "A")]},
        build={"patch": [], "tests": ["a", "b"], "test_command": "true"},
    ),
}


async def pack_of(engine: Engine, wid: str) -> Pack:
    """The run's pack, through its text and back."""
    async with engine.pool.connection() as conn:
        pack = await repro_pack(conn, wid)
    assert pack is not None
    return json.loads(pack_bytes(pack))


def replayed(pack: Pack | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """bin/replay of a pack on standard input, with a database that cannot be reached."""
    return subprocess.run(
        [sys.executable, "-m", "bin.commands.replay", *(arguments or ["-"])],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"},
        input=pack if isinstance(pack, str) else json.dumps(pack),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packs(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Packs of one run: as it waits for approval, and finished. Its worker was killed on the way, and again with the last step."""
    return asyncio.run(run_and_pack(shared_database, tmp_path_factory.mktemp("replay")))


async def run_and_pack(database: str, folder: Path) -> dict[str, Pack]:
    async with Engine.connect(database) as engine:
        one = Product(engine, folder, ReplayOpenCode(), MockSandbox())
        wid = await one.start(constraints=CONSTRAINTS)
        with workers(Job(database, folder, "product", wid)) as begin:
            first = begin(point="after . Step 4 #1")
            await until(lambda: first.exit_code == -signal.SIGKILL, "the first death")
            second = begin(point="before . Finish #1")
            await one.reply(wid, await one.prompt(wid, "ask-user", "CompileST"), answer="blue")
            await one.prompt(wid)
            await until(lambda: is_parked(engine, wid), "the run to wait")
            waiting = await pack_of(engine, wid)
            await one.approve(wid)
            await until(lambda: second.exit_code == -signal.SIGKILL, "the second death")
            begin()
            await one.result(wid)
            return {"waiting": waiting, "finished": await pack_of(engine, wid)}


@pytest.fixture
def pack(packs: dict[str, Pack]) -> Pack:
    """The finished one, to alter."""
    return copy.deepcopy(packs["finished"])


def test_a_run_that_was_killed_twice_replays_identically(pack: Pack) -> None:
    done = replayed(pack)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "identical"
    wid = pack["meta"]["workflowId"]
    assert len(lines) == len(pack["dbos"]["workflowScope"]) == 3
    journal = [row for row in pack["dbos"]["operationOutputs"] if row["workflow_uuid"] == wid]
    calls = [row for row in journal if row["function_name"] != "DBOS.sleep"]  # when a gate would have closed is none
    assert f"{wid}  RunIntent  SUCCESS  {len(calls)} calls" in lines


def test_a_run_that_waits_replays_to_where_it_waits(packs: dict[str, Pack]) -> None:
    done = replayed(packs["waiting"])
    assert done.returncode == 0
    assert re.search(r"RunIntent  PENDING  \d+ calls, stands before 'DBOS.recv' at call [\d.]+\nidentical\n", done.stdout)


async def differences(pack: Pack) -> list[str]:
    return (await replay_pack(pack)).differences


def altered(output: str) -> str:
    """Another output of the same kind: the last letter or digit in it is another."""
    found = list(re.finditer(r"[A-Za-z]|\d", output))[-1]
    other = str((int(found[0]) + 1) % 10) if found[0].isdigit() else found[0].swapcase()
    return output[: found.start()] + other + output[found.end() :]


async def test_whichever_output_is_altered_the_step_is_named(pack: Pack) -> None:
    rows = [row for row in pack["dbos"]["operationOutputs"] if row["output"] not in (None, "null")]
    assert {"loadRun", "CompileST", "openGate", "ApplyPatchST", "DecideST", "planTasks", "ExecuteST"} <= {
        row["function_name"] for row in rows
    }
    for row in rows:
        was, row["output"] = row["output"], altered(row["output"])
        first = (await differences(pack))[0]
        assert first.startswith("dbos.operationOutputs: row ")
        assert f"function_name {row['function_name']!r}, call_path {row['call_path']!r}" in first
        row["output"] = was
    assert await differences(pack) == []


#: Calls whose altered output is found even by one who made new seals: in the code's next words, or in another row that says it.
TOLD_TWICE = ("loadRun", "CompileST", "ApplyPatchST", "DecideST", "planTasks", "ExecuteST", "executeTask", "DBOS.getResult")


@pytest.mark.parametrize("name", TOLD_TWICE)
async def test_an_altered_output_under_new_seals_is_found_by_what_follows_from_it(pack: Pack, name: str) -> None:
    row = next(row for row in pack["dbos"]["operationOutputs"] if row["function_name"] == name)
    row["output"] = altered(row["output"])
    del pack["seals"]
    pack["seals"] = seals_of(pack)
    assert await differences(pack) != []


@pytest.mark.parametrize("section", ["runSteps", "artifacts", "dbos.parentEvents", "dbos.childStatuses", "dbos.streams"])
async def test_a_row_that_was_changed_or_removed_is_named(pack: Pack, section: str) -> None:
    rows = pack["dbos"][section[5:]] if section.startswith("dbos.") else pack[section]
    rows[0]["addition"] = True
    assert (await differences(pack))[0].startswith(f"{section}: row 1 (")
    del rows[0]["addition"]
    del rows[-1]
    assert f"{section}: row {len(rows) + 1} of the export is missing" in await differences(pack)


async def test_content_that_does_not_have_its_hash_is_named(pack: Pack) -> None:
    artifact = next(row for row in pack["artifacts"] if row["kind"] == "plan_card")
    artifact["inline"]["json"]["goal"] = "another"
    del pack["seals"]
    pack["seals"] = seals_of(pack)
    assert await differences(pack) == [f"artifacts: the content of {artifact['uri']} does not have its sha256"]


async def test_an_event_that_was_never_set_is_named(pack: Pack) -> None:
    event = pack["dbos"]["parentEvents"][0]
    event["value"] = '"another"'
    del pack["seals"]
    pack["seals"] = seals_of(pack)
    assert await differences(pack) == [f"{event['workflow_uuid']}: event {event['key']!r} is not the last value that was set"]


async def test_a_workflow_that_the_code_does_not_know_is_named(pack: Pack) -> None:
    row = pack["dbos"]["childStatuses"][0]
    row["name"] = "Forgotten"
    assert f"{row['workflow_uuid']}: this code has no workflow 'Forgotten'" in await differences(pack)


def test_a_difference_is_exit_code_1_and_one_line(pack: Pack) -> None:
    row = next(row for row in pack["dbos"]["operationOutputs"] if row["function_name"] == "DecideST")
    row["output"] = row["output"].replace('"true"', '"false"')
    done = replayed(pack)
    assert (done.returncode, done.stderr) == (1, "")
    different = [line for line in done.stdout.splitlines() if line.startswith("different: ")]
    assert re.search(r"function_name 'DecideST', call_path '[\d.]+'", different[0])
    assert "identical" not in done.stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{bad", "- is not JSON"),
        ("[]", "- is no repro pack: it is not a JSON object"),
        ("{}", "invalid repro pack: data must have required property 'runSteps'"),
    ],
)
def test_what_is_no_pack_is_exit_code_2_and_one_line(text: str, sentence: str) -> None:
    done = replayed(text)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"holdfast: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_exit_code_2() -> None:
    done = replayed("", "/nowhere/pack.json")
    assert (done.returncode, done.stderr) == (2, "holdfast: cannot read /nowhere/pack.json: No such file or directory\n")


# Runs of every kind ----------------------------------------------------------------------------------------------------------


async def test_runs_of_every_kind_replay_identically(database: str, tmp_path: Path) -> None:
    """With inputs as deep as may be, so that a pack of them can be written and read."""
    deep: Any = "deep"
    for _ in range(MAX_INPUT_DEPTH - 2):
        deep = {"a": deep}
    async with product(database, tmp_path) as one:
        approved = await one.start("approved", {"deep": deep})
        rejected = await one.start("rejected", replay(plan={"patchPlan": [patch("a.txt", "A")]}))
        late = await one.start("late", {"planApprovalTimeoutS": 1})
        side_by_side = await one.start("side by side", {"parallelApprovals": True})
        broken = await one.start("broken", replay(build={"tests": ["a", "b"]}), budget=BUDGET)
        failing = await one.start("failing", replay(build={"tests": [], "test_command": "FAIL_ME"}))
        cancelled = await one.start("cancelled")
        await one.prompt(cancelled)
        await one.engine.cancel(cancelled)
        await one.reply(approved, await one.prompt(approved), choice="yes", why=deep["a"])
        await one.reply(rejected, await one.prompt(rejected), choice="no")
        for purpose in ("parallel-1", "parallel-2"):
            await one.reply(side_by_side, await one.prompt(side_by_side, purpose), choice="yes")
        await one.approve(broken)
        await one.approve(failing)
        for wid in (approved, side_by_side):
            await one.result(wid)
        for wid in (rejected, late, broken, failing):
            await one.failure(wid)
        await retry_run(one.engine, failing)
        await one.failure(failing)
        fork = await one.engine.fork(approved, 5)
        await one.result(fork)
        for wid in (approved, rejected, late, side_by_side, broken, failing, cancelled):
            verdict = await replay_pack(await pack_of(one.engine, wid))
            assert verdict.differences == [], wid
            assert len(verdict.replays) == await one_and_its_own(one.engine, wid)


BUDGET = {"maxFanout": 1, "maxSBXMinutes": 1, "maxArtifactsMB": 1, "maxRetriesPerStep": 0, "maxWallClockMS": 600_000}


async def one_and_its_own(engine: Engine, wid: str) -> int:
    """How many workflows a run consists of: itself, its children, its forks."""
    every = await engine.list(limit=1000)
    own = {wid}
    while more := {one.id for one in every if one.parent_id in own or one.forked_from in own} - own:
        own |= more
    return len(own)
