"""The throughput board: figures over all runs, each with where it was read."""

import os
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from psycopg.types.json import Jsonb

from api.app import create_app
from api.config import Config
from engine import Engine
from steps.budgets import BudgetExceeded
from steps.contracts.proof import Throughput
from steps.load_tests import read_load_tests
from tests.api.samples import RUN_ID, Rows
from tests.steps.product import product, replay


async def board(client: httpx.AsyncClient) -> Throughput:
    response = await client.get("/api/ops/throughput")
    assert response.status_code == 200
    for rows in response.json().values():
        assert all(row["source"] and row["provenance"] and row["rawRef"] for row in rows)
    return Throughput.model_validate(response.json())


async def queued(
    rows: Rows, id: str, queue: str, *, partition: str | None, priority: int = 0, status: str = "ENQUEUED", at: int
) -> None:
    await rows.fetch(
        """insert into dbos.workflow_status (workflow_uuid, status, queue_name, queue_partition_key, priority, created_at, updated_at)
           values (%s, %s, %s, %s, %s, %s, %s)""",
        id,
        status,
        queue,
        partition,
        priority,
        at,
        at + 100,
    )


async def test_nothing_to_show_is_an_empty_board(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/ops/throughput")).json() == {
        "fairness": [],
        "priority": [],
        "budgets": [],
        "templates": [],
        "k6": [],
    }


async def test_queues_are_shown_by_partition_and_by_priority(client: httpx.AsyncClient, rows: Rows) -> None:
    await queued(rows, "a", "intentQ", partition="t2", priority=1, at=1000)
    await queued(rows, "b", "intentQ", partition="t2", priority=1000, at=3000)
    await queued(rows, "c", "intentQ", partition="t1", priority=1, status="PENDING", at=2000)
    await queued(rows, "d", "controlQ", partition=None, at=4000)
    await queued(rows, "e", "controlQ", partition=None, status="SUCCESS", at=4000)
    shown = await board(client)
    assert [
        (r.queueName, r.partitionKey, r.status, r.workflowCount, r.oldestCreatedAt, r.newestCreatedAt) for r in shown.fairness
    ] == [
        ("controlQ", None, "ENQUEUED", 1, 4000, 4000),
        ("intentQ", "t1", "PENDING", 1, 2000, 2000),
        ("intentQ", "t2", "ENQUEUED", 2, 1000, 3000),
    ]
    assert [(r.queueName, r.priority, r.status, r.workflowCount, r.avgLatencyMs) for r in shown.priority] == [
        ("controlQ", 0, "ENQUEUED", 1, 100.0),
        ("intentQ", 1, "ENQUEUED", 1, 100.0),
        ("intentQ", 1, "PENDING", 1, 100.0),
        ("intentQ", 1000, "ENQUEUED", 1, 100.0),
    ]


async def test_a_partition_is_shown_with_its_share_and_where_it_stands(client: httpx.AsyncClient, rows: Rows) -> None:
    for id, partition in (("a", "t1"), ("b", "t2"), ("c", None)):
        await queued(rows, id, "intentQ", partition=partition, at=1000)
    await rows.fetch(
        "insert into engine.queue_partition (queue, key, state, weight) values ('intentQ', 't1', 'p', 0.5), ('intentQ', '', 'r', 1)"
    )
    shown = await board(client)
    assert [(r.partitionKey, r.weight, r.state) for r in shown.fairness] == [
        (None, 1.0, "ready"),
        ("t1", 0.5, "paused"),
        ("t2", 1.0, None),
    ]


async def test_a_budget_that_stopped_a_run_is_shown(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    breach = BudgetExceeded("maxFanout", 2, 5, "tasks")
    uri = f"artifact://run/{RUN_ID}/step/BUDGET/task/maxFanout/maxFanout.json"
    for task, inline in (("maxFanout", {"json": breach.data}), ("other", {"json": {"kind": "something else"}})):
        await rows.fetch(
            """insert into app.artifacts (run_id, step_id, task_key, idx, kind, uri, inline, sha256, created_at)
               values (%s, 'BUDGET', %s, 0, 'json_diagnostic', %s, %s, '', to_timestamp(7))""",
            RUN_ID,
            task,
            uri,
            Jsonb(inline),
        )
    (row,) = (await board(client)).budgets
    assert (row.runId, row.metric, row.limit, row.observed, row.outcome, row.ts) == (RUN_ID, "maxFanout", 2, 5, "blocked", 7000)
    assert row.rawRef == uri


async def test_a_run_over_its_budget_reaches_the_board(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    budget = {"maxFanout": 1, "maxSBXMinutes": 5, "maxArtifactsMB": 5, "maxRetriesPerStep": 0, "maxWallClockMS": 600_000}
    async with product(database, tmp_path) as one:
        wid = await one.start(constraints=replay(build={"tests": ["a", "b"]}), budget=budget)
        await one.approve(wid)
        await one.failure(wid)
    (row,) = (await board(client)).budgets
    assert (row.metric, row.limit, row.observed) == ("maxFanout", 1, 2)


async def task(rows: Rows, key: str, template: str, wall_ms: int, boot_ms: int | None, *, attempts: int = 1) -> None:
    for attempt in range(1, attempts + 1):
        await rows.fetch(
            """insert into app.sbx_runs (run_id, step_id, task_key, attempt, provider, request, err_code, metrics)
               values (%s, 'ExecuteST', %s, %s, 'mock', %s, 'NONE', %s)""",
            RUN_ID,
            key,
            attempt,
            Jsonb({"templateKey": template}),
            Jsonb({"wallMs": wall_ms}),
        )
    await rows.fetch(
        """insert into app.artifacts (run_id, step_id, task_key, idx, kind, uri, inline, sha256)
           values (%s, 'ExecuteST', %s, 5, 'timings', %s, %s, '')""",
        RUN_ID,
        key,
        f"artifact://run/{RUN_ID}/step/ExecuteST/task/{key}/sbx-boot.json",
        Jsonb({"json": {"bootMs": boot_ms, "sandboxRef": "x"}}),
    )


async def test_templates_show_how_long_they_boot_and_run(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await rows.fetch("update app.runs set recipe_id = 'sample', recipe_v = '1.0.0'")
    await task(rows, "t1", "hot", 100, 5, attempts=2)
    await task(rows, "t2", "hot", 400, 8)
    await task(rows, "t3", "cold", 50, None)
    shown = (await board(client)).templates
    assert [(r.recipeId, r.recipeV, r.templateKey, r.runCount, r.avgBootMs, r.avgExecMs) for r in shown] == [
        ("sample", "1.0.0", "cold", 1, None, 50.0),
        ("sample", "1.0.0", "hot", 3, 6.5, 200.0),
    ]
    assert [r.p95BootMs for r in shown] == [None, 7.9]  # between the 5 and the 8 ms of two tasks
    await rows.fetch("update app.sbx_runs set created_at = now() - interval '2 days'")
    assert (await board(client)).templates == []


async def test_a_real_run_has_boot_times(client: httpx.AsyncClient, database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path) as one:
        wid = await one.start()
        await one.approve(wid)
        await one.result(wid)
    (row,) = (await board(client)).templates
    assert (row.runCount, row.recipeId) == (1, None)
    assert row.avgBootMs is not None


def summary(folder: Path, name: str, content: Any) -> None:
    path = folder / f"{name}-summary.json"
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    os.utime(path, (7, 7))


def duration(p95: float, *, ok: bool = True, p99: float | None = None) -> dict[str, Any]:
    """As handleSummary writes it."""
    values = {"avg": 10.0, "p(95)": p95} | ({} if p99 is None else {"p(99)": p99})
    return {"metrics": {"http_req_duration": {"type": "trend", "values": values, "thresholds": {"p(95)<1200": {"ok": ok}}}}}


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (duration(80.5, p99=90.0), (80.5, 90.0, 10.0, 1200.0, True)),
        (duration(1500, ok=False), (1500.0, None, 10.0, 1200.0, False)),
        (
            {"metrics": {"http_req_duration": {"avg": 1, "p(95)": 2, "thresholds": {"p(95)<1500": False}}}},
            (2.0, None, 1.0, 1500.0, True),
        ),
        (
            {"metrics": {"http_req_duration": {"avg": 1, "p(95)": 2}, "checks": {"thresholds": {"rate>0.99": {"ok": False}}}}},
            (2.0, None, 1.0, None, False),
        ),
        ({"metrics": {"http_req_duration": {"avg": 1, "p(95)": 2}}}, (2.0, None, 1.0, None, False)),
        (
            {"metrics": {"http_req_duration": {"avg": 1, "p(95)": 2, "thresholds": {"p(95)<1.2.3": {"ok": True}}}}},
            (2.0, None, 1.0, None, True),
        ),
        ({"metrics": {}}, (None, None, None, None, False)),
        ([1], (None, None, None, None, False)),
        ({"metrics": {"http_req_duration": {"avg": "1", "p(95)": 2}}}, (None, None, None, None, False)),
        (b"{not json", (None, None, None, None, False)),
        (b" " * 1_100_000, (None, None, None, None, False)),
    ],
)
def test_a_load_test_is_read_or_shown_as_failed(tmp_path: Path, content: Any, figures: tuple[Any, ...]) -> None:
    summary(tmp_path, "smoke", content)
    (row,) = read_load_tests(tmp_path)
    assert (row.p95, row.p99, row.avg, row.threshold, row.pass_) == figures
    assert (row.name, row.ts, row.rawRef) == ("smoke", 7000, "smoke-summary.json")


def test_only_summaries_are_load_tests(tmp_path: Path) -> None:
    (tmp_path / "smoke-metrics.json").write_text("{}")
    assert read_load_tests(tmp_path) == read_load_tests(tmp_path / "nowhere") == read_load_tests(None) == []


async def test_load_tests_of_the_configured_folder_are_on_the_board(engine: Engine, database: str, tmp_path: Path) -> None:
    summary(tmp_path, "ramp", duration(5))
    summary(tmp_path, "early", duration(6))
    app = create_app(engine, Config(database_url=database, k6_dir=tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
        assert [row.name for row in (await board(client)).k6] == ["early", "ramp"]
        assert (await client.get("/api/ops/throughput")).json()["k6"][0]["pass"] is True
