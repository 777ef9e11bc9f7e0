"""A batch of a pass over a hundred thousand workflows reads hardly more than its own rows, also on tables that were never analyzed."""

import json
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from engine import retention
from engine.entries import PART
from tests.conftest import new_database

#: 100,000 finished workflows and a journal; every tenth has a child, and every hundredth has not ended.
FILL: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, created_at, updated_at, completed_at, parent_workflow_id)
select 'run ' || n, case when n % 100 = 0 then 'PENDING' else 'SUCCESS' end, 'w', n / 3, n, case when n % 100 > 0 then n end,
       case when n % 10 = 1 then 'run ' || (n - 1) end
  from generate_series(1, 100000) n;
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path) select 'run ' || n, 1, '1' from generate_series(1, 100000) n;
insert into engine.wait (token, workflow_uuid) select 'c:other ' || n, 'run ' || n from generate_series(100, 100000, 100) n;
"""
IDS = [f"run {n}" for n in range(50_001, 51_001)]
HERE = {"ids": IDS, "most": None, "part": PART, "behind_part": chr(ord(PART) + 1)}
NEXT = {"before_ms": 30_000, "limit": 1000, "created_at_ms": 16_000, "id": "run 48002"}
STATEMENTS: dict[str, tuple[LiteralString, dict[str, Any]]] = {
    "next": (retention.NEXT, NEXT),
    "above": (retention.ABOVE, HERE),
    "families": (retention.FAMILIES, HERE),
    "waited for": (retention.WAITED_FOR_IDS, HERE),
    "count": (retention.COUNT, HERE),
    "delete parts": (retention.DELETE_PARTS, HERE),
    "delete statuses": (retention.DELETE_STATUSES, HERE),
}


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def filled(server: str, engine_template: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    with new_database(server, engine_template, direct=True) as dsn, psycopg.connect(dsn) as conn:
        conn.execute("alter table dbos.workflow_status set (autovacuum_enabled = off)")
        conn.execute(FILL)
        if request.param == "analyzed":
            conn.execute("analyze")
        conn.commit()
        yield conn


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_batch_of_a_hundred_thousand_finds_its_rows_by_indexes(filled: psycopg.Connection[Any], name: str) -> None:
    statement, given = STATEMENTS[name]
    with filled.transaction(force_rollback=True):
        filled.execute(retention.USE_INDEXES)
        row = filled.execute(b"explain (analyze, format json) " + statement.encode(), given, prepare=False).fetchone()
    assert row is not None
    found = list(nodes((row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"]))
    assert [node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"] == []
    read = [node for node in found if "Index Name" in node]
    assert read
    for node in read:
        unwanted = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        assert (node["Actual Rows"] + unwanted) * node["Actual Loops"] <= 3 * len(IDS), node["Index Name"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)
