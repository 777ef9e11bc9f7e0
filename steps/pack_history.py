"""The part of a repro pack that makes it replayable: what the engine recorded of the pack's workflows.

It goes into the pack's `dbos` section, beside the statuses and events that people read there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from engine import export_history
from steps.contracts.base import JsonObject

#: Where the rows of an engine table stand in a pack's `dbos` section. Those of two are there anyway, by parent and child.
SECTIONS: Mapping[str, str] = {
    "operation_outputs": "operationOutputs",
    "workflow_events_history": "eventHistory",
    "streams": "streams",
    "notifications": "messages",
    "workflow_input": "workflowInputs",
    "workflow_output": "workflowOutputs",
}
STATUSES = ("parentStatuses", "childStatuses")


async def history_rows(conn: AsyncConnection[Any], workflow_ids: Sequence[str]) -> dict[str, list[JsonObject]]:
    """The sections of these workflows, sorted. Read them in one snapshot with the rest of the pack."""
    history = await export_history(conn, workflow_ids)
    return {section: history[table] for table, section in SECTIONS.items()}


def history_of(dbos: Mapping[str, list[JsonObject]]) -> dict[str, list[JsonObject]]:
    """A pack's `dbos` section as the engine's replay takes it."""
    history = {table: dbos[section] for table, section in SECTIONS.items()}
    return history | {"workflow_status": [row for section in STATUSES for row in dbos[section]]}
