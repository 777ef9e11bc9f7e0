"""Whose machines nobody waits for any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from steps.ports import ports

OVER: LiteralString = """
    select array(select s.workflow_uuid from dbos.workflow_status s
                  where s.workflow_uuid = any (%s)
                    and s.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
                  order by 1) as ids
"""


@dataclass(frozen=True, slots=True)
class _Over:
    ids: list[str]


async def over(keys: Sequence[str]) -> set[str]:
    """Of the keys of sandbox commands, those whose task is over. A task that this database does not know is somebody else's."""
    tasks = {key: key.rsplit(":", 2)[0] for key in keys}  # <task>:<step>:<attempt>
    found = await ports().read(_Over, OVER, sorted(set(tasks.values())))
    ids = set(found.ids) if found else set[str]()
    return {key for key, task in tasks.items() if task in ids}
