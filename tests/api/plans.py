"""How much of a table a statement reads."""

from typing import Any, LiteralString

from tests.api.samples import Rows


async def rows_read(rows: Rows, table: str, query: LiteralString, given: Any) -> int:
    """How many rows of the table the statement reads, those included that it does not want."""
    async with rows.engine.transaction() as conn:
        cursor = await conn.execute(b"explain (analyze, format json) " + query.encode(), given, prepare=False)
        row = await cursor.fetchone()
    assert row is not None
    scans = [node for node in nodes(row[0][0]["Plan"]) if node.get("Relation Name") == table]
    return sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(below for child in plan.get("Plans", ()) for below in nodes(child))]
