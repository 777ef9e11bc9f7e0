"""A run as one document: complete, of one moment, and the same bytes whoever asks."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from bin.settings import ROOT
from engine import WorkflowFailed
from steps.canonical import canonical_json
from steps.repro import SECTIONS, repro_pack
from steps.sandbox import MockSandbox
from tests.api.samples import RUN_ID, WID, Rows
from tests.steps.product import Product, patch, product, replay

KEYS = {
    "artifacts",
    "dbos",
    "evalResults",
    "humanGates",
    "humanInteractions",
    "intent",
    "meta",
    "opencodeCalls",
    "run",
    "runSteps",
    "sbxRuns",
}
DBOS_KEYS = {"workflowScope", "parentStatuses", "childStatuses", "parentEvents", "childEvents"}


async def pack_of(client: httpx.AsyncClient, wid: str) -> Any:
    response = await client.get(f"/api/runs/{wid}/repro")
    assert response.status_code == 200
    assert response.content == canonical_json(orjson.loads(response.content)).encode() + b"\n"
    return response.json()


def command(database: str, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bin.commands.repro_pack", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database, **(environment or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )


async def run_to_the_end(one: Product, wid: str) -> None:
    await one.approve(wid)
    await one.result(wid)


async def test_a_pack_holds_everything_that_a_run_left(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path) as one:
        wid = await one.start(constraints=replay(build={"tests": ["a", "b"]}))
        await run_to_the_end(one, wid)
        pack = await pack_of(client, wid)
        assert {*pack} >= KEYS
        assert {*pack["dbos"]} >= DBOS_KEYS
        for section, rows in pack.items():
            if section in SECTIONS and section not in ("evalResults",):
                assert rows, section
        assert [row["step_id"] for row in pack["runSteps"]] == ["ApplyPatchST", "CompileST", "DecideST", "ExecuteST"]
        assert pack["run"]["workflow_id"] == pack["intent"]["id"] == pack["meta"]["workflowId"] == wid
        tasks = sorted(row["task_key"] for row in pack["sbxRuns"])
        assert len(tasks) == 2
        assert pack["dbos"]["workflowScope"] == sorted([wid, *tasks])
        assert [row["workflow_uuid"] for row in pack["dbos"]["parentStatuses"]] == [wid]
        assert [row["workflow_uuid"] for row in pack["dbos"]["childStatuses"]] == tasks
        assert {row["key"].split(":")[0] for row in pack["dbos"]["parentEvents"]} == {"ui", "decision"}
        columns = await one.rows(
            "select column_name::text from information_schema.columns where table_schema = 'app' and table_name = 'artifacts'"
        )
        assert {*pack["artifacts"][0]} == {row["column_name"] for row in columns} - {"payload"}


async def test_the_command_and_the_route_give_the_same_bytes(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path / "workspace") as one:
        wid = await one.start()
        await run_to_the_end(one, wid)
    served = (await client.get(f"/api/runs/{wid}/repro")).content
    elsewhere = {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German"}
    printed = await asyncio.to_thread(command, database, "--run", wid, environment=elsewhere)
    assert (printed.returncode, printed.stdout) == (0, served)
    file = tmp_path / "pack.json"
    written = await asyncio.to_thread(command, database, "--run", served_run(served), "--out", str(file))
    assert (written.returncode, written.stdout, file.read_bytes()) == (0, b"", served)


def served_run(pack: bytes) -> str:
    return orjson.loads(pack)["meta"]["runId"]


async def test_nothing_tells_how_to_reach_the_database(client: httpx.AsyncClient, database: str, rows: Rows) -> None:
    await rows.run()
    response = await client.get(f"/api/runs/{RUN_ID}/repro")
    meta = response.json()["meta"]
    name = str(conninfo_to_dict(database)["dbname"])
    assert meta == {"runId": RUN_ID, "workflowId": WID, "appDb": name, "sysDb": name}
    hidden = [str(value) for key, value in conninfo_to_dict(database).items() if key in ("host", "password") and value]
    assert [value for value in hidden if value in response.text] == []


@pytest.mark.usefixtures("rows")
async def test_an_unknown_run_has_no_pack(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    response = await client.get("/api/runs/nobody/repro")
    assert (response.status_code, response.json()) == (404, {"error": "run not found"})
    file = tmp_path / "pack.json"
    refused = await asyncio.to_thread(command, database, "--run", "nobody", "--out", str(file))
    assert (refused.returncode, refused.stderr) == (1, b"holdfast: there is no run nobody\n")
    assert not file.exists()


async def test_the_scope_has_all_that_a_run_set_off_and_nothing_else(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await rows.gate("approve-plan-0123456789abcdef")
    related = {
        "child": (WID, None),
        "grandchild": ("child", None),
        "a-fork": (None, WID),
        "child-of-a-fork": ("a-fork", None),
        f"esc:{WID}:approve-plan-0123456789abcdef": (None, None),
        "task-key": (None, None),
    }
    for id, (parent, original) in {**related, "stranger": (None, None), "child-of-stranger": ("stranger", None)}.items():
        await rows.fetch(
            "insert into dbos.workflow_status (workflow_uuid, status, parent_workflow_id, forked_from) values (%s, 'SUCCESS', %s, %s)",
            id,
            parent,
            original,
        )
    await rows.fetch(
        """insert into app.sbx_runs (run_id, step_id, task_key, provider, request, err_code)
           values (%s, 'ExecuteST', 'task-key', 'mock', '{}', 'NONE'), (%s, 'ExecuteST', 'never-made', 'mock', '{}', 'NONE')""",
        RUN_ID,
        RUN_ID,
    )
    dbos = (await pack_of(client, WID))["dbos"]
    assert dbos["workflowScope"] == sorted([WID, *related])
    assert [row["workflow_uuid"] for row in dbos["childStatuses"]] == sorted(related)


async def test_the_workflow_that_takes_a_cancelled_runs_patches_back_is_in_the_pack(
    client: httpx.AsyncClient, database: str, tmp_path: Path
) -> None:
    async with product(database, tmp_path) as one:
        wid = await one.start(constraints=replay(plan={"patchPlan": [patch("a.txt", "new")]}))
        await one.prompt(wid)
        await one.engine.cancel(wid)
        with pytest.raises(WorkflowFailed):
            await one.result(wid)
        (undoing,) = await one.rows("select workflow_uuid from dbos.workflow_status where name = 'RollbackRun'")
        await one.engine.result(undoing["workflow_uuid"], timeout_s=20)
        pack = await pack_of(client, wid)
    assert undoing["workflow_uuid"] in pack["dbos"]["workflowScope"]


async def test_a_pack_is_of_one_moment(database: str, rows: Rows) -> None:
    """What commits while the pack is read is not in it: here, while the pack waits for the table that it reads second."""
    await rows.run()
    async with (
        await AsyncConnection.connect(database) as other,
        await AsyncConnection.connect(database, application_name="packing") as conn,
    ):
        await other.execute("lock table app.run_steps in access exclusive mode")
        packing = asyncio.create_task(repro_pack(conn, WID))
        async with asyncio.timeout(20):
            while not await rows.value(
                "select count(*) from pg_stat_activity where application_name = 'packing' and wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)
        await other.execute(
            "insert into app.run_steps (run_id, step_id, phase) values (%s, 'CompileST', 'compilation')", (RUN_ID,)
        )
        await other.commit()
        first, second = await packing, await repro_pack(conn, WID)
    assert first is not None
    assert second is not None
    assert (len(first["runSteps"]), len(second["runSteps"])) == (0, 1)


async def test_an_escalated_run_has_its_escalation_in_the_pack(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path, sandbox=MockSandbox()) as one:
        wid = await one.start(constraints={"planApprovalTimeoutS": 1})
        await one.failure(wid)
        pack = await pack_of(client, wid)
        assert [row["name"] for row in pack["dbos"]["childStatuses"]] == ["EscalateTimeout"]
