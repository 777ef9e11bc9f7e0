"""What sandbox tasks were told to do, and how their attempts ended."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from steps.contracts.base import JsonObject
from steps.documents import without_none

TASKS: LiteralString = """
    select b.task_key as key, b.attempt, b.request ->> 'cmd' as command, b.err_code,
           (b.metrics ->> 'wallMs')::double precision as wall_ms,
           floor(extract(epoch from b.created_at) * 1000)::bigint as began_at_ms,
           floor(extract(epoch from b.updated_at) * 1000)::bigint as ended_at_ms
      from app.sbx_runs b
     where b.run_id = %s and b.step_id = 'ExecuteST' and b.task_key = any (%s)
     order by b.task_key, b.attempt
"""


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """One attempt of a sandbox task."""

    key: str
    attempt: int
    command: str | None
    err_code: str
    wall_ms: float | None
    began_at_ms: int
    ended_at_ms: int


async def tasks_of(conn: AsyncConnection[Any], run_id: str, keys: Sequence[str]) -> Mapping[str, JsonObject]:
    """`title` and `attempts` of a row, by the task's key; those that have recorded no attempt yet are left out."""
    if not keys:
        return {}
    async with conn.cursor(row_factory=class_row(TaskAttempt)) as cursor:
        await cursor.execute(TASKS, (run_id, list(keys)))
        found = await cursor.fetchall()
    tasks: defaultdict[str, JsonObject] = defaultdict(dict)
    for one in found:
        shown: JsonObject = {
            "attempt": one.attempt,
            "errCode": one.err_code,
            "wallMs": one.wall_ms,
            "startedAt": one.began_at_ms,
            "endedAt": one.ended_at_ms,
        }
        if one.command:
            tasks[one.key]["title"] = one.command
        tasks[one.key].setdefault("attempts", []).append(without_none(shown))
    return tasks
