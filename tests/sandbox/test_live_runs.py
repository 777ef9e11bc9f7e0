"""The product with sandboxes that really run commands: a whole run, and workers that are killed while commands run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg.rows import dict_row

from bin.settings import ROOT
from engine import Engine
from steps.contracts.sandbox import FileIn, SBXRes
from steps.execute_task import Task, execute_task
from steps.sandboxes.artifacts import read_artifact
from steps.sandboxes.conformance import command_line, new_mark, processes_with, request
from steps.sandboxes.local import LocalSandbox, groups_here
from steps.sandboxes.slots import group_of
from tests.sandbox.e2b_service import e2b_service
from tests.sandbox.subjects import local
from tests.steps.product import INSERT_INTENT, INSERT_RUN, patch, product, replay

WAIT_S = 60.0  # a worker starts in seconds, on a machine that does much else
SBX_RUNS = "select task_key, attempt, err_code, provider, response from app.sbx_runs order by task_key, attempt"


async def test_a_run_executes_its_command_on_what_its_plan_changed(database: str, tmp_path: Path) -> None:
    command = "python3 check.py && echo '{\"rows\": 3}' > report.json"
    script = "import json; print(json.load(open('intent.json'))['goal'], open('notes/a.txt').read())\n"
    constraints = replay(
        plan={"patchPlan": [patch("check.py", script), patch("notes/a.txt", "patched")]},
        build={"test_command": command, "tests": []},
    )
    async with product(database, tmp_path, sandbox=local(tmp_path)) as it:
        wid = await it.start("live", constraints)
        await it.approve(wid)
        assert (await it.result(wid))["status"] == "succeeded"
        (row,) = await it.rows(SBX_RUNS)
        assert (row["provider"], row["err_code"], row["response"]["stdout"]) == ("local", "NONE", "live patched\n")
        by_name = {one["uri"].rpartition("/")[2]: one for one in await it.artifacts(wid, "ExecuteST") if one["task_key"]}
        assert by_name["stdout.log"]["inline"] == {"text": "live patched\n"}
        assert by_name["report.json"]["inline"] == {"text": '{"rows": 3}\n'}
        assert by_name["metrics.json"]["inline"]["json"]["wallMs"] > 1
        assert await read_artifact(by_name["report.json"]["uri"]) == '{"rows": 3}\n'


async def test_an_input_file_may_be_an_artifact_and_nothing_else_that_has_an_address(tmp_path: Path) -> None:
    async def read(uri: str) -> str:
        if uri != "artifact://known":
            raise LookupError(f"there is no artifact {uri}")
        return "its text"

    local(tmp_path)
    box = LocalSandbox(tmp_path / "box", read_artifact=read)

    async def given(uri: str) -> SBXRes:
        asked = request("cat a.txt").model_copy(update={"filesIn": [FileIn(path="a.txt", uri=uri)]})
        return await box.run(asked, attempt=1, key=uri)

    assert (await given("artifact://known")).stdout == "its text"
    assert (await given("artifact://other")).stderr == "there is no artifact artifact://other\n"
    for uri in ("https://files.example/a.txt", "file:///etc/passwd", ""):
        refused = await given(uri)
        assert (refused.errCode, refused.stderr) == (
            "UPLOAD_FAIL",
            "the input file 'a.txt' has neither a text nor an address that is read here\n",
        )


async def test_a_command_that_fails_or_takes_too_long_fails_its_run_without_another_attempt(
    database: str, tmp_path: Path
) -> None:
    async with product(database, tmp_path, sandbox=local(tmp_path)) as it:
        wid = await it.start("fails", replay(build={"test_command": "echo no >&2; exit 7", "tests": []}))
        await it.approve(wid)
        assert "SBX execution failed [CMD_NONZERO]" in (await it.failure(wid)).message
        (row,) = await it.rows(SBX_RUNS)
        assert (row["attempt"], row["response"]["exit"], row["response"]["stderr"]) == (1, 7, "no\n")


# Workers that are killed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drill:
    """A database with sandbox tasks, and workers on it that use one state folder."""

    database: str
    state: Path
    engine: Engine
    provider: Mapping[str, str] = field(default_factory=lambda: {"SBX_PROVIDER": "local"})

    @contextmanager
    def worker(self) -> "Iterator[subprocess.Popen[bytes]]":
        settings = {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.database,
            "STATE_DIR": str(self.state),
            "ADMIN_PORT": "0",
            "SBX_MODE": "live",
            **self.provider,
        }
        arguments = [sys.executable, "-P", "-m", "bin.commands.worker"]
        with (self.state / "worker.log").open("ab") as log:
            with subprocess.Popen(arguments, env={**os.environ, **settings}, stdout=log, stderr=log) as process:
                try:
                    yield process
                finally:
                    process.kill()

    async def begin(self, name: str, cmd: str) -> None:
        """Enqueue a sandbox task of a run of its own."""
        async with self.engine.transaction() as conn:
            await conn.execute(INSERT_INTENT, (name, "g", "{}"))
            await conn.execute(INSERT_RUN, (name, name, name, None))
            task = Task(name, request(cmd).model_copy(update={"taskKey": name}), 0, name)
            await self.engine.enqueue(execute_task, task, id=name, queue="sbxQ", partition="p", conn=conn)

    async def rows(self) -> list[dict[str, Any]]:
        async with self.engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(SBX_RUNS)).fetchall()

    def recorded(self) -> dict[str, str]:
        """What stands in each recorded result, by sandbox."""
        found = [SBXRes.model_validate_json(file.read_bytes()) for file in self.state.glob("sandboxes/*/result.json")]
        return {result.sandboxRef: result.stdout for result in found}


@pytest.fixture
async def drill(database: str, tmp_path: Path) -> AsyncIterator[Drill]:
    local(tmp_path)  # or the test is skipped
    async with Engine.connect(database) as engine:
        yield Drill(database, tmp_path, engine)


async def wait_until(true: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = true()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


def commands_with(mark: str) -> list[int]:
    """Without bubblewrap itself: killed while it boots it may leave a process that waits, which the next worker clears."""
    return [pid for pid in processes_with(mark) if not command_line(pid).split(b"\0")[0].endswith(b"bwrap")]


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
async def test_killed_workers_leave_nothing_behind_and_run_nothing_twice_that_had_ended(drill: Drill, kills: int) -> None:
    mark, ended = new_mark(), dict[str, str]()
    told = f"cat /proc/sys/kernel/random/uuid; : {mark}"  # something else each time that it is run
    for number in range(kills):
        await drill.begin(f"quick-{number}", told)
        await drill.begin(f"slow-{number}", f"{told}; sleep 1.{mark}")
        with drill.worker() as worker:
            await wait_until(lambda: processes_with(mark) != [], "no command began")
            await asyncio.sleep(0.02 * (number % 10))
            worker.kill()
            worker.wait()
        ended |= drill.recorded()
        await wait_until(lambda: commands_with(mark) == [], "a command outlived its worker")
    with drill.worker() as worker:

        async def all_done() -> bool:
            return len([row for row in await drill.rows() if row["err_code"] == "NONE"]) == 2 * kills

        await wait_until(all_done, "not every task was done")
        rows = await drill.rows()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WAIT_S) == 0
    assert [row for row in rows if row["err_code"] != "NONE" or row["attempt"] != 1] == []
    said = {row["response"]["sandboxRef"]: row["response"]["stdout"] for row in rows}
    assert {ref: said[ref] for ref in ended} == ended, "a command ran again although its end was recorded"
    assert len(set(said.values())) == 2 * kills
    assert processes_with(mark) == []
    assert [file for file in drill.state.glob("sandboxes/*") if not (file / "result.json").exists()] == []
    groups = groups_here()
    places = [] if groups is None else groups.folders.values()
    slots = list(drill.state.glob("sandboxes/*"))
    assert len(slots) == 2 * kills
    assert [slot for slot in slots for place in places if (place / group_of(slot)).exists()] == []


#: Fifty in all.
MANY = [pytest.param(10, id=f"10, part {part} of 5", marks=pytest.mark.slow) for part in range(1, 6)]


@pytest.mark.parametrize("kills", [2, *MANY])
async def test_killed_workers_leave_no_sandbox_at_a_service_and_run_nothing_twice(
    database: str, tmp_path: Path, kills: int
) -> None:
    """A command there outlives its worker, so none is begun twice at all."""
    mark = new_mark()
    told = f"echo once >> ran.md; cat ran.md /proc/sys/kernel/random/uuid; sleep 0.4; : {mark}"
    with e2b_service(tmp_path / "e2b") as service:
        settings = {"SBX_PROVIDER": "e2b", "E2B_API_KEY": "k", "E2B_API_URL": service.url, "E2B_SANDBOX_URL": service.url}
        async with Engine.connect(database) as engine:
            drill = Drill(database, tmp_path, engine, settings)
            for number in range(kills):
                await drill.begin(f"task-{number}", told)
                made = len(service.calls("create"))
                with drill.worker() as worker:
                    await wait_until(lambda made=made: len(service.calls("create")) > made, "no sandbox was asked for")
                    await asyncio.sleep(0.06 * (number % 12))
                    worker.kill()
                    worker.wait()
            with drill.worker() as worker:

                async def all_done() -> bool:
                    return len([row for row in await drill.rows() if row["err_code"] == "NONE"]) == kills

                await wait_until(all_done, "not every task was done")
                await wait_until(lambda: service.running() == [], "a sandbox was left")
                rows = await drill.rows()
                worker.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(worker.wait, WAIT_S) == 0
    said = [row["response"]["stdout"].splitlines() for row in rows]
    assert [(row["attempt"], row["err_code"]) for row in rows] == [(1, "NONE")] * kills
    assert [len(lines) for lines in said] == [2] * kills, "a command was begun twice in a sandbox"
    assert len({lines[1] for lines in said}) == kills
    assert processes_with(mark) == []


async def test_a_worker_without_bubblewrap_does_not_start(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with Engine.connect(database) as engine:
        with Drill(database, tmp_path, engine).worker() as worker:
            assert await asyncio.to_thread(worker.wait, WAIT_S) == 1
    said = (tmp_path / "worker.log").read_text().splitlines()[-1]
    assert said == "holdfast: worker ends: SBX_PROVIDER=local: bubblewrap is not installed; install the package bubblewrap"
