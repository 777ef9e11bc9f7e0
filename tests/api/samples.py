"""Sample recipes, requests and rows for tests of the front door."""

import json
from copy import deepcopy
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from engine import Engine
from steps.contracts.base import parse
from steps.contracts.recipe import RecipeBundle
from steps.identity import gate_key, human_topic, run_id

SPEC: dict[str, Any] = {
    "id": "sample",
    "v": "1.0.0",
    "name": "a sample",
    "tags": ["sample"],
    "formSchema": {
        "type": "object",
        "properties": {
            "goal": {"type": "string", "default": "the default goal"},
            "account": {"type": "string"},
        },
        "required": [],
    },
    "intentTmpl": {
        "goal": "{{formData.goal}}",
        "inputs": {"account": "{{formData.account}}"},
        "constraints": {},
    },
    "wfEntry": "Runner.runIntent",
    "queue": "intentQ",
    "limits": {"maxSteps": 10, "maxFanout": 1, "maxSbxMin": 5, "maxTokens": 1024},
    "eval": [{"id": "ev1", "kind": "file_exists", "glob": "**/*"}],
    "fixtures": [{"id": "fx1", "formData": {"goal": "fixture", "account": "acct-fx"}}],
    "prompts": {"compile": "compile", "postmortem": "postmortem"},
}
BUNDLE = parse(RecipeBundle, {"id": "sample", "versions": [SPEC]})

START: dict[str, Any] = {
    "recipeRef": {"id": "sample", "v": "1.0.0"},
    "formData": {"goal": "alpha", "account": "acct-1"},
    "opts": {"queuePartitionKey": "tenant-1"},
}

COUNTS: LiteralString = """
    select (select count(*) from app.intents), (select count(*) from app.runs),
           (select count(*) from app.human_interactions), (select count(*) from app.artifacts),
           (select count(*) from app.recipe_versions), (select count(*) from app.recipe_fixtures),
           (select count(*) from dbos.workflow_status), (select count(*) from dbos.notifications)
"""

WID = "ih_" + "a" * 64
RUN_ID = run_id(WID)
GATE = gate_key(RUN_ID, "ApplyPatchST", "approve-plan", 1)
YES: dict[str, Any] = {"payload": {"choice": "yes"}, "dedupeKey": "key-1", "origin": "manual"}


def changed(sample: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A deep copy with values set; a dotted path is written with double underscores."""
    copy = deepcopy(sample)
    for path, value in values.items():
        *parents, last = path.split("__")
        target = copy
        for parent in parents:
            target = target[parent]
        target[last] = value
    return copy


class Rows:
    """The database's side of a test."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def fetch(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        async with self.engine.transaction() as conn:
            cursor = await conn.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def value(self, query: LiteralString, *values: object) -> Any:
        return (await self.fetch(query, *values))[0][0]

    async def counts(self) -> tuple[Any, ...]:
        """Of every table that a refused request could have touched."""
        return (await self.fetch(COUNTS))[0]

    async def run(self, status: str = "running", *, workflow_id: str = WID, workflow_status: str = "PENDING") -> str:
        """A run as a worker would have left it; returns its workflow id."""
        await self.fetch(
            "insert into app.intents (id, goal, payload) values (%s, 'sample', %s)",
            workflow_id,
            Jsonb({"goal": "sample", "inputs": {}, "constraints": {}}),
        )
        await self.fetch(
            "insert into app.runs (id, intent_id, workflow_id, status) values (%s, %s, %s, %s)",
            run_id(workflow_id),
            workflow_id,
            workflow_id,
            status,
        )
        await self.fetch(
            """insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, serialization)
               values (%s, %s, 'RunIntent', 'IntentWorkflow', 'intentQ', 'portable_json')""",
            workflow_id,
            workflow_status,
        )
        return workflow_id

    async def gate(self, gate_key: str = GATE, *, workflow_id: str = WID) -> str:
        """An open gate of that run: its row and its prompt. Returns its key."""
        await self.fetch(
            "insert into app.human_gates (run_id, gate_key, topic) values (%s, %s, %s)",
            run_id(workflow_id),
            gate_key,
            human_topic(gate_key),
        )
        prompt = {
            "schemaVersion": 1,
            "formSchema": {"v": 1},
            "ttlS": 60,
            "createdAt": 1_000,
            "deadlineAt": 61_000,
        }
        await self.event(f"ui:{gate_key}", prompt, workflow_id=workflow_id)
        return gate_key

    async def event(self, key: str, value: object, *, workflow_id: str = WID) -> None:
        await self.fetch(
            """insert into dbos.workflow_events (workflow_uuid, key, value, serialization)
               values (%s, %s, %s, 'portable_json')""",
            workflow_id,
            key,
            json.dumps(value),
        )

    async def waiting_gate(self) -> str:
        await self.run("waiting_input")
        return await self.gate()
