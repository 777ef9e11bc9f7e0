"""What a sandbox task finds in its folder, and what a rehearsal says that it leaves."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import TerminalError
from steps import identity
from steps.canonical import canonical_json, sha256_text
from steps.contracts.sandbox import FileIn, SBXReq, SBXRes
from steps.sandbox import MockSandbox, OnOutput
from steps.sandbox_inputs import MAX_BYTES, by_hash, files_of
from tests.steps.product import Product, patch, product, replay

MARK = "a text that should stand in few places"


class CuriousSandbox(MockSandbox):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[SBXReq] = []

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        self.given.append(request)
        return await super().run(request, attempt=attempt, key=key)


@pytest.fixture
def sandbox() -> CuriousSandbox:
    return CuriousSandbox()


@pytest.fixture
async def runs(database: str, tmp_path: Path, sandbox: CuriousSandbox) -> AsyncIterator[Product]:
    async with product(database, tmp_path, sandbox=sandbox) as one:
        yield one


async def done(runs: Product, constraints: dict[str, Any]) -> str:
    wid = await runs.start(constraints=constraints)
    await runs.approve(wid)
    await runs.result(wid)
    return wid


async def test_a_task_finds_the_patched_files_as_planned_and_the_intent(runs: Product, sandbox: CuriousSandbox) -> None:
    plan = [patch("work/a.py", "first"), patch("./work//a.py", MARK), patch("b.txt", "")]
    constraints = replay(plan={"patchPlan": plan}, build={"tests": ["x", "y"], "test_command": "run"})
    wid = await done(runs, constraints)
    intent = canonical_json({"goal": "alpha", "inputs": {}, "constraints": constraints})
    texts = {"b.txt": "", "intent.json": intent, "work/a.py": MARK}
    assert len(sandbox.given) == 2
    for request in sandbox.given:
        assert request.filesIn == [FileIn(path=path, inline=text) for path, text in texts.items()]
    recorded = await runs.rows("select request from app.sbx_runs")
    hashes = [{"path": path, "uri": f"sha256:{sha256_text(text)}"} for path, text in texts.items()]
    assert [row["request"]["filesIn"] for row in recorded] == [hashes, hashes]
    keys = {
        identity.task_key(
            wid, identity.run_id(wid), cmd=f"run {t}", test=t, template_key="env:local-node-24", template_ref="local-node-24"
        )
        for t in ("x", "y")
    }
    assert {request.taskKey for request in sandbox.given} == keys


async def test_the_journal_does_not_hold_the_files_again(runs: Product) -> None:
    await done(runs, replay(plan={"patchPlan": [patch("a.py", MARK)]}))
    holders = await runs.rows(
        """select o.function_name as name from dbos.operation_outputs o where o.output like %s
           union all select 'input of ' || s.name from dbos.workflow_status s join dbos.workflow_input i using (workflow_uuid)
                      where i.inputs like %s
            order by 1""",
        f"%{MARK}%",
        f"%{MARK}%",
    )
    assert [row["name"] for row in holders] == ["CompileST", "DecideST", "loadRun"]


async def test_a_forks_tasks_find_the_same_files(runs: Product, sandbox: CuriousSandbox) -> None:
    wid = await done(runs, replay(plan={"patchPlan": [patch("a.py", MARK)]}))
    records = await runs.rows("select function_id as n from dbos.operation_outputs where function_name = 'planTasks'")
    fork = await runs.engine.fork(wid, start_step=records[0]["n"])
    await runs.engine.result(fork, timeout_s=20)
    assert [request.filesIn for request in sandbox.given[1:]] == [sandbox.given[0].filesIn]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ([patch(f"{n}.txt", "\u20ac" * 200_000) for n in range(8)], f"at most {MAX_BYTES} are allowed"),
        ([patch("./intent.json", "{}")], "the plan changes intent.json"),
    ],
)
async def test_inputs_that_are_refused_fail_the_run_with_a_sentence(
    runs: Product, sandbox: CuriousSandbox, plan: list[dict[str, str]], sentence: str
) -> None:
    wid = await runs.start(constraints=replay(plan={"patchPlan": [one | {"diffText": ""} for one in plan]}))
    await runs.approve(wid)
    failure = await runs.failure(wid)
    assert failure.message.startswith("SBX execution failed [SandboxInputs]: ")
    assert sentence in failure.message
    assert sandbox.given == []
    assert list(runs.workspace.rglob("*.txt")) == []


def test_the_bound_is_of_all_files_together() -> None:
    rest = MAX_BYTES - len(canonical_json({}))
    assert len(files_of({}, [("a", "x" * rest)])) == 2
    with pytest.raises(TerminalError):
        files_of({}, [("a", "x" * rest), ("b", "x")])


def test_a_row_holds_no_content() -> None:
    assert by_hash([FileIn(path="a", inline="secret")]) == [FileIn(path="a", uri=f"sha256:{sha256_text('secret')}")]


# Rehearsals --------------------------------------------------------------------------------------------------------------


async def test_a_rehearsal_says_what_a_success_leaves(runs: Product) -> None:
    wid = await done(runs, replay(sandbox={"stdout": "2 rows\n", "files": {"out/rows.csv": "a\n1\n", "report.json": "{}"}}))
    found = {a["uri"].partition("/task/")[2].partition("/")[2]: a["inline"] for a in await runs.artifacts(wid, "ExecuteST")}
    assert found["stdout.log"] == {"text": "2 rows\n"}
    assert {name for name in found if name.startswith("files/")} == {"files/out/rows.csv", "files/report.json"}
    assert found["files/out/rows.csv"] == {"text": "a\n1\n"}


async def test_a_rehearsal_that_cannot_be_read_fails_the_run_with_a_sentence(runs: Product) -> None:
    wid = await runs.start(constraints=replay(sandbox={"files": {"a": 1}}))
    await runs.approve(wid)
    assert "constraints.testHooks.replay.sandbox: " in (await runs.failure(wid)).message


async def test_a_command_that_is_to_fail_fails_whatever_is_rehearsed(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "FAIL_ME"}, sandbox={"files": {"a.json": "{}"}}))
    await runs.approve(wid)
    await runs.failure(wid)
    output = (await runs.steps(wid))["ExecuteST"]["output"]
    assert json.dumps(output["filesOut"]) == "[]"
