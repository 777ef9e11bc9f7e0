"""What a run shows: its status, its steps with their artifacts, its patches, its artifacts' contents."""

from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from psycopg.types.json import Jsonb

from api.views import merged_status
from steps.contracts.views import StepRow
from steps.identity import run_id
from tests.api.samples import WID, Rows

RUN_ID = run_id(WID)


@pytest.mark.parametrize(
    ("run", "workflow", "shown"),
    [
        ("queued", None, "ENQUEUED"),
        ("queued", "ENQUEUED", "ENQUEUED"),
        ("queued", "DELAYED", "ENQUEUED"),
        ("queued", "PENDING", "ENQUEUED"),
        ("queued", "RUNNING", "PENDING"),
        ("running", "ENQUEUED", "PENDING"),
        ("running", "SUCCESS", "SUCCESS"),
        ("running", "ERROR", "ERROR"),
        ("waiting_input", "PENDING", "WAITING_INPUT"),
        ("waiting_input", "CANCELLED", "CANCELLED"),
        ("waiting_input", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"),
        ("succeeded", "ERROR", "SUCCESS"),
        ("retries_exceeded", "SUCCESS", "ERROR"),
        ("canceled", "SUCCESS", "CANCELLED"),
        ("repairing", "ERROR", "PENDING"),
        ("something else", None, "ERROR"),
        ("running", "something else", "PENDING"),
    ],
)
def test_the_further_status_is_shown(run: str, workflow: str | None, shown: str) -> None:
    assert merged_status(run, workflow) == shown


async def test_a_header_shows_the_error_only_when_there_is_one(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("running")
    assert "error" not in (await client.get(f"/api/runs/{WID}")).json()
    await rows.fetch("update app.runs set error = 'it broke', status = 'retries_exceeded', next_action = 'REPAIR'")
    header = (await client.get(f"/api/runs/{WID}")).json()
    assert (header["error"], header["status"], header["nextAction"]) == (
        {"message": "it broke"},
        "ERROR",
        "REPAIR",
    )
    assert (header["durableStatus"], header["recipeRef"]) == ("retries_exceeded", None)


async def add_step(rows: Rows, step_id: str, phase: str, *, attempt: int = 1, at_s: int = 1) -> None:
    await rows.fetch(
        """insert into app.run_steps (run_id, step_id, attempt, phase, output, started_at, finished_at)
           values (%s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))""",
        RUN_ID,
        step_id,
        attempt,
        phase,
        Jsonb({"attempt": attempt}),
        at_s,
        at_s + 1,
    )


async def add_artifact(
    rows: Rows, step_id: str, kind: str, inline: Any, *, idx: int = 0, attempt: int = 1, task: str = ""
) -> str:
    uri = f"artifact://run/{RUN_ID}/step/{step_id}/task/{task}/{kind}-{idx}"
    await rows.fetch(
        """insert into app.artifacts (run_id, step_id, task_key, idx, attempt, kind, uri, inline, sha256)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        RUN_ID,
        step_id,
        task,
        idx,
        attempt,
        kind,
        uri,
        None if inline is None else Jsonb(inline),
        "0" * 64,
    )
    return uri


async def test_a_step_is_shown_by_its_latest_attempt_and_that_attempts_artifacts(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await add_step(rows, "CompileST", "compilation", at_s=1)
    await add_step(rows, "ExecuteST", "execution", attempt=1, at_s=3)
    await add_step(rows, "ExecuteST", "execution", attempt=2, at_s=5)
    plan = await add_artifact(rows, "CompileST", "plan_card", {"json": {"goal": "g"}})
    await add_artifact(rows, "ExecuteST", "text", {"text": "old"}, attempt=1)
    log = await add_artifact(rows, "ExecuteST", "text", {"text": "new ✓"}, attempt=2, task="t")
    steps = [StepRow.model_validate(row) for row in (await client.get(f"/api/runs/{WID}/steps")).json()]
    assert [(row.stepID, row.name, row.attempt, row.startedAt, row.endedAt) for row in steps] == [
        ("CompileST", "compilation", 1, 1_000, 2_000),
        ("ExecuteST", "execution", 2, 5_000, 6_000),
    ]
    refs = [[(ref.id, ref.kind, ref.mime, ref.size) for ref in row.artifactRefs] for row in steps]
    assert refs == [
        [(plan, "plan_card", "application/json", len('{"goal": "g"}'))],
        [(log, "text", "text/plain", len("new ✓".encode()))],
    ]


async def test_a_step_that_failed_is_shown_with_its_recorded_error(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await add_step(rows, "CompileST", "compilation")
    await rows.fetch(
        """insert into dbos.operation_outputs
                  (workflow_uuid, function_id, function_name, error, started_at_epoch_ms, completed_at_epoch_ms)
           values (%s, 1, 'CompileST', null, 1000, 2000), (%s, 2, 'DecideST', %s, 3000, 4000),
                  (%s, 3, 'DBOS.sleep', null, 3000, 4000)""",
        WID,
        WID,
        orjson.dumps({"name": "Denied", "message": "no"}).decode(),
        WID,
    )
    steps = (await client.get(f"/api/runs/{WID}/steps")).json()
    assert [row["stepID"] for row in steps] == ["CompileST", "DecideST"]
    assert steps[1]["error"] == {"name": "Denied", "message": "no"}
    assert (steps[1]["name"], steps[1]["attempt"], steps[1]["endedAt"]) == ("planning", 1, 4000)


async def test_a_blocked_budget_stands_among_the_steps(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    blocked = {"kind": "budget", "metric": "maxFanout", "outcome": "blocked"}
    uri = await add_artifact(rows, "BUDGET", "json_diagnostic", {"json": blocked}, task="maxFanout")
    await add_artifact(rows, "OPS", "json_diagnostic", {"op": "cancel"})
    steps = (await client.get(f"/api/runs/{WID}/steps")).json()
    assert [(row["stepID"], [ref["id"] for ref in row["artifactRefs"]]) for row in steps] == [("BUDGET", [uri])]


@pytest.mark.parametrize(
    ("kind", "inline", "content", "mime"),
    [
        ("json", {"json": [1, 2]}, b"[1,2]", "application/json"),
        ("raw", {"json": None}, b"null", "application/json"),
        ("text", {"text": "OK: test\n"}, b"OK: test\n", "text/plain; charset=utf-8"),
        ("patch", {"text": "--- a"}, b"--- a", "text/plain; charset=utf-8"),
        ("svg", {"text": "<svg/>"}, b"<svg/>", "image/svg+xml"),
        ("json_diagnostic", {"op": "cancel"}, b'{"op":"cancel"}', "application/json"),
    ],
)
async def test_an_artifact_is_served_out_of_its_envelope(
    client: httpx.AsyncClient, rows: Rows, kind: str, inline: Any, content: bytes, mime: str
) -> None:
    await rows.run()
    uri = await add_artifact(rows, "CompileST", kind, inline)
    response = await client.get(f"/api/artifacts/{quote(uri, safe='')}")
    assert (response.status_code, response.content, response.headers["content-type"]) == (200, content, mime)


async def test_an_artifact_without_content_is_described(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    uri = await add_artifact(rows, "CompileST", "text", None)
    described = (await client.get(f"/api/artifacts/{quote(uri, safe='')}")).json()
    assert (described["id"], described["mime"], described["sha256"]) == (uri, "text/plain", "0" * 64)


async def test_the_latest_attempt_of_an_artifact_is_served(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for attempt in (2, 1):
        uri = await add_artifact(rows, "CompileST", "text", {"text": f"attempt {attempt}"}, attempt=attempt)
    assert (await client.get(f"/api/artifacts/{quote(uri, safe='')}")).text == "attempt 2"


async def test_an_unknown_artifact_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/api/artifacts/{quote('artifact://run/r/step/s/task//x', safe='')}")
    assert (response.status_code, response.json()) == (404, {"error": "artifact not found"})


async def test_patches_are_listed_in_their_order(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    for index in (1, 0):
        await rows.fetch(
            """insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_hash, postimage_hash,
                                              diff_hash, preimage_content, postimage_content, applied_at)
               values (%s, 'ApplyPatchST', %s, 'a.txt', %s, %s, %s, '', 'x', case when %s = 0 then to_timestamp(1) end)""",
            RUN_ID,
            index,
            "a" * 64,
            "b" * 64,
            "c" * 64,
            index,
        )
    patches = (await client.get(f"/api/runs/{WID}/steps/ApplyPatchST/patches")).json()
    assert [(row["patchIndex"], row["appliedAt"], row["rolledBackAt"]) for row in patches] == [
        (0, 1000, None),
        (1, None, None),
    ]
    assert (await client.get(f"/api/runs/{WID}/steps/CompileST/patches")).json() == []
