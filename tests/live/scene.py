"""The product with nothing pretended but the model: a worker process, a real OpenCode server, local sandboxes, a person at the door."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import httpx
from psycopg.rows import dict_row

from api.app import create_app
from api.config import Config
from bin.settings import ROOT
from engine import Engine
from steps import identity
from tests.opencode.model_server import Answer, Asked, ModelServer, Move, Script, build, plan
from tests.opencode.stage import OpenCodeServer

SOON_S = 60.0
RECIPE = "counter"

#: The plan's files: a program, and the test of it, which leaves a report.
COUNT = """def words(text):
    return len(text.split())
"""
TEST = """import json, uuid
from count import words

cases = {"": 0, "one": 1, " two  words ": 2}
failed = [text for text, count in cases.items() if words(text) != count]
print("ran", len(cases), "cases,", len(failed), "failed", flush=True)
json.dump({"cases": len(cases), "failed": failed, "run": str(uuid.uuid4())}, open("report.json", "w"))
raise SystemExit(bool(failed))
"""
WRONG = "def words(text):\n    return len(text.split(' '))\n"
REPORT: dict[str, Any] = {
    "type": "object",
    "required": ["cases", "failed"],
    "properties": {"cases": {"const": 3}, "failed": {"type": "array", "maxItems": 0}},
}
BUNDLE: dict[str, Any] = {
    "id": RECIPE,
    "versions": [
        {
            "id": RECIPE,
            "v": "1.0.0",
            "name": "Count words",
            "tags": [],
            "formSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
            "intentTmpl": {"goal": "Mend count.py for {{formData.name}}", "inputs": {}, "constraints": {}},
            "wfEntry": "Runner.runIntent",
            "queue": "intentQ",
            "limits": {"maxSteps": 10, "maxFanout": 2, "maxSbxMin": 5, "maxTokens": 100000},
            "eval": [
                {"id": "report-is-green", "kind": "jsonschema", "artifact": "report.json", "schema": REPORT},
                {"id": "says-so", "kind": "regex", "artifact": "stdout.log", "re": "ran 3 cases, 0 failed"},
            ],
            "fixtures": [],
            "prompts": {"compile": "Plan it.", "postmortem": "Say why it failed."},
        }
    ],
}


def script(command: str = "python3 test_count.py", *, after_s: float = 0) -> Script:
    """What the model answers: the plan of both files, and the command that tests them."""

    def answer(asked: Asked) -> Move:
        if not asked.is_for_plan:
            return Answer(build(test_command=command, tests=[]), after_s)
        files = {"count.py": COUNT, "test_count.py": TEST}
        patches = [{"targetPath": path, "postimageContent": text, "diffText": f"+{text}"} for path, text in files.items()]
        return Answer(plan("Mend count.py", files=list(files), patchPlan=patches), after_s)

    return answer


@dataclass(frozen=True, slots=True)
class Scene:
    """door: the product's HTTP routes. folder: STATE_DIR of the workers, one after the other."""

    folder: Path
    database: str
    engine: Engine
    door: httpx.AsyncClient
    opencode: OpenCodeServer
    model: ModelServer

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @contextmanager
    def worker(self) -> "Iterator[subprocess.Popen[bytes]]":
        """A worker process; killed at the end."""
        settings = {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.database,
            "STATE_DIR": str(self.folder),
            "ADMIN_PORT": "0",
            "DBOS__APPVERSION": "live",
            "SBX_MODE": "live",
            "SBX_PROVIDER": "local",
            **self.opencode.settings,
        }
        with (self.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "bin.commands.worker"]
            with subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log) as process:
                try:
                    yield process
                finally:
                    process.kill()

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    async def start(self, name: str) -> str:
        """A run of the recipe; its workflow id."""
        body = {"recipeRef": {"id": RECIPE, "v": "1.0.0"}, "formData": {"name": name}, "opts": {"queuePartitionKey": "live"}}
        response = await self.door.post("/api/run", json=body)
        assert response.status_code in (200, 201, 202), response.text
        return response.json()["workflowID"]

    async def gate(self, wid: str) -> str:
        """Wait for the run's question; its gate's key."""
        key = identity.gate_key(identity.run_id(wid), "ApplyPatchST", "approve-plan", 1)
        prompt = await self.engine.get_event(wid, identity.prompt_event(key), timeout_s=SOON_S)
        assert prompt is not None, f"no gate opened; {self.log()[-3000:]}"
        return key

    async def approve(self, wid: str) -> None:
        reply = {"payload": {"choice": "yes"}, "dedupeKey": "approve-1", "origin": "manual"}
        response = await self.door.post(f"/api/runs/{wid}/gates/{await self.gate(wid)}/reply", json=reply)
        assert response.status_code == 200, response.text

    async def rows(self, query: LiteralString, *values: Any) -> list[dict[str, Any]]:
        async with self.engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(query, values)).fetchall()

    def busy_sessions(self) -> Any:
        """What the agent's server is at work on, by session."""
        settings = self.opencode.settings
        who = settings["OPENCODE_SERVER_USERNAME"], settings["OPENCODE_SERVER_PASSWORD"]
        return httpx.get(f"{self.opencode.url}/session/status", auth=who, timeout=10).json()


@asynccontextmanager
async def scene(folder: Path, database: str, opencode: OpenCodeServer, model: ModelServer) -> AsyncIterator[Scene]:
    """With the recipe imported, and a file in the workspace that is to be mended."""
    (folder / "workspace").mkdir(parents=True)
    (folder / "workspace" / "count.py").write_text(WRONG)
    async with Engine.connect(database) as engine:
        app = create_app(engine, Config(database_url=database, app_version="live", oc_mode="live", sbx_mode="live"))
        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as door:
                response = await door.post("/api/recipes/import", json=BUNDLE)
                assert response.status_code in (200, 201), response.text
                yield Scene(folder, database, engine, door, opencode, model)
