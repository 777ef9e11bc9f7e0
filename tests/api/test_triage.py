"""What somebody sees who looks for the cause of a failure: from the outside in, and every look agrees with the one before it."""

import json
from pathlib import Path

import httpx

from tests.api.samples import Rows
from tests.steps.product import product, replay


async def test_a_failure_is_told_alike_at_every_depth(
    client: httpx.AsyncClient, rows: Rows, database: str, tmp_path: Path
) -> None:
    async with product(database, tmp_path) as runs:
        wid = await runs.start(constraints=replay(build={"test_command": "FAIL_ME"}))
        await runs.approve(wid)
        why = (await runs.failure(wid)).message

    assert (await client.get("/healthz")).json() == {"ok": True}

    header = (await client.get(f"/api/runs/{wid}")).json()
    assert (header["status"], header["error"]["message"], header["nextAction"]) == ("ERROR", why, "REPAIR")

    [run] = await rows.fetch(
        "select status, last_step, retry_count, next_action, error from app.runs where workflow_id = %s", wid
    )
    assert run == (header["durableStatus"], header["lastStep"], header["retryCount"], header["nextAction"], why)

    steps = await rows.fetch(
        """select s.step_id, s.attempt, s.phase from app.run_steps s join app.runs r on r.id = s.run_id
            where r.workflow_id = %s order by s.started_at""",
        wid,
    )
    shown = (await client.get(f"/api/runs/{wid}/steps")).json()
    assert steps == [(step["stepID"], step["attempt"], step["name"]) for step in shown]
    assert steps[-1][0] == header["lastStep"]

    [workflow] = await rows.fetch("select status, queue_name, error from dbos.workflow_status where workflow_uuid = %s", wid)
    assert (workflow[:2], json.loads(workflow[2])["message"]) == (("ERROR", "intentQ"), why)

    pack = (await client.get(f"/api/runs/{wid}/repro")).json()
    assert (pack["run"]["workflow_id"], pack["run"]["error"]) == (wid, why)
    assert sorted((step["step_id"], step["attempt"]) for step in pack["runSteps"]) == sorted(step[:2] for step in steps)
    assert [status["status"] for status in pack["dbos"]["parentStatuses"]] == ["ERROR"]
