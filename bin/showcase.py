"""A service with something to show: recipes, and a run in each state that a person can find one in. Made over HTTP alone.

The console's pictures are taken of it (bin/console-shots), and its tests in a real browser begin with it. The recipes rehearse: nothing is
asked of an agent, and what a sandbox leaves is written down here.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

PATIENCE_S = 60.0
BY = {"actor": "ada", "reason": "weekly upgrade window"}
ENDED = ("SUCCESS", "ERROR", "CANCELLED")
SUITES = ["unit", "api", "ledger", "migrations", "webhooks", "reports", "currency", "smoke"]

MANIFEST = """\
[project]
name = "payments"
requires-python = ">=3.11"
dependencies = [
    "alembic>=1.13",
    "sqlalchemy>=2.0.30,<2.1",
    "psycopg[binary]>=3.2",
    "greenlet==3.0.3",
    "typing-extensions>=4.12",
]
"""
SESSION = '''\
"""Sessions of the ledger."""

from collections.abc import Iterator

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session


def session_scope(engine: Engine) -> Iterator[Session]:
    session = Session(bind=engine, autocommit=False)
    try:
        yield session
        session.commit()
    except Exception:
        session.rollback()
        raise


def settle(session: Session, batch_id: str) -> int:
    query = session.query(Entry).filter_by(batch_id=batch_id)
    return query.update({"settled": True})
'''
SETTINGS = "POOL_SIZE = 20\nPOOL_RECYCLE_S = 1800\nECHO = False\n"

NEW_MANIFEST = MANIFEST.replace(">=2.0.30,<2.1", ">=2.1.2,<2.2").replace("3.0.3", "3.2.1")
NEW_SESSION = '''\
"""Sessions of the ledger."""

from collections.abc import Iterator

from sqlalchemy import update
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session


def session_scope(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session, session.begin():
        yield session


def settle(session: Session, batch_id: str) -> int:
    statement = update(Entry).where(Entry.batch_id == batch_id).values(settled=True)
    return session.execute(statement).rowcount
'''
NEW_SETTINGS = SETTINGS.replace("1800", "900") + "POOL_PRE_PING = True\n"
NEW_TEST = """\
from ledger.session import session_scope


def test_a_failed_batch_is_rolled_back(engine):
    ...
"""

BEFORE: Mapping[str, str] = {"pyproject.toml": MANIFEST, "ledger/session.py": SESSION, "ledger/settings.py": SETTINGS}
AFTER: Mapping[str, str] = {
    "pyproject.toml": NEW_MANIFEST,
    "ledger/session.py": NEW_SESSION,
    "ledger/settings.py": NEW_SETTINGS,
    "tests/test_session.py": NEW_TEST,
}


# Recipes ---------------------------------------------------------------------------------------------------------------------------


def recipe(id: str, v: str, name: str, hooks: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """One version. Its goal and its inputs are those of the form."""
    return {
        "id": id,
        "v": v,
        "name": name,
        "tags": ["dependencies"] if id == "dependency-upgrade" else ["showcase"],
        "formSchema": FORM,
        "intentTmpl": {
            "goal": "{{formData.repository}} · {{formData.subject}}",
            "inputs": {"repository": "{{formData.repository}}", "rollout": "{{formData.rollout}}"},
            "constraints": {"testHooks": hooks},
        },
        "wfEntry": "Runner.runIntent",
        "queue": "intentQ",
        "limits": {"maxSteps": 10, "maxFanout": 12, "maxSbxMin": 30, "maxTokens": 50_000},
        "eval": [{"id": "leaves-a-report", "kind": "file_exists", "glob": "**/report.json"}],
        "fixtures": [{"id": "payments", "formData": {"repository": "acme/payments", "subject": "fixture"}}],
        "prompts": {
            "compile": "Plan the change in small patches.",
            "postmortem": "Say what broke and what would have prevented it.",
        },
    } | parts


FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "repository": {
            "type": "string",
            "title": "Repository",
            "description": "owner/name",
            "minLength": 3,
            "default": "acme/payments",
        },
        "subject": {"type": "string", "title": "What is to be done", "minLength": 3, "default": "SQLAlchemy 2.1"},
        "rollout": {"type": "string", "title": "Rollout", "enum": ["canary", "full"], "default": "canary"},
    },
    "required": ["repository", "subject"],
}


def upgrade(files: Mapping[str, str], suites: list[str]) -> dict[str, Any]:
    """What a rehearsal of an upgrade says: its plan with the files as they shall be, its tests, its report."""
    report = {
        "suites": len(suites),
        "passed": 212,
        "failed": 0,
        "risk": "medium",
        "transitive": ["greenlet", "typing-extensions"],
    }
    return {
        "replay": {
            "plan": {
                "design": [
                    "Raise the pins, and nothing else of the manifest",
                    "Sessions by context manager; the old autocommit argument is gone",
                    "Bulk updates by update(), which no longer returns a count by itself",
                ],
                "files": list(files),
                "risks": ["Connections that were idle for long are dropped by the new pool"],
                "tests": suites,
                "patchPlan": [
                    {"targetPath": path, "postimageContent": content, "diffText": f"+++ {path}\n"}
                    for path, content in files.items()
                ],
            },
            "build": {"patch": [], "tests": suites, "test_command": "pytest -q"},
            "usage": {"total_tokens": 4_200},
            "sandbox": {
                "stdout": "212 passed in 41.70s\n",
                "files": {
                    "report.json": json.dumps(report, indent=2) + "\n",
                    "summary.md": "# Upgrade\n\n212 passed, 0 failed.\n",
                },
            },
        }
    }


STABLE = recipe("dependency-upgrade", "2.3.0", "Upgrade a dependency", upgrade(BEFORE, SUITES))
NEXT = recipe("dependency-upgrade", "2.4.0", "Upgrade a dependency", upgrade(AFTER, SUITES))
ASKING = recipe("release-notes", "1.0.0", "Release notes", {"askUser": True, **upgrade({"NOTES.md": "# 4.2\n"}, ["links"])})
BROKEN = recipe("nightly-integration", "1.2.0", "Nightly integration", {"replay": {"build": {"test_command": "FAIL_ME"}}})
HURRIED = recipe("hotfix", "1.0.0", "Hotfix", {"planApprovalTimeoutS": 1})
RECIPES = [[STABLE, NEXT], [ASKING], [BROKEN], [HURRIED]]


# Runs ------------------------------------------------------------------------------------------------------------------------------


class Unexpected(Exception):
    """The service did something else than it should; the message says what."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Workflow ids of what there is to see. gates: the keys of the open gates, by run."""

    succeeded: str
    waiting: str
    asking: str
    failed: str
    late: str
    cancelled: str
    broke_budget: str
    fork: str
    improvement: str
    gates: Mapping[str, str]


class Maker:
    """Makes runs at a service and brings them where they are wanted. thinks_s: how long its person looks at a gate."""

    def __init__(self, http: httpx.Client, thinks_s: float = 0.0) -> None:
        self.http = http
        self._thinks_s = thinks_s

    def publish(self, versions: list[dict[str, Any]]) -> None:
        """The recipe with its first version stable, and the others candidates."""
        id, first = versions[0]["id"], versions[0]["v"]
        self.post("/api/recipes/import", {"id": id, "versions": versions})
        for version in versions:
            self.post(f"/api/recipes/{id}/versions/{version['v']}/candidate", BY)
        if id == "dependency-upgrade":
            self.post(f"/api/recipes/{id}/versions/{first}/promote", BY)
            promotion = self.get(f"/api/recipes/{id}/versions/{first}/promotion?timeoutS=30")
            if promotion["status"] != "promoted":
                raise Unexpected(f"{id}@{first} is not promoted but {promotion['status']}: {promotion['refusal']}")

    def start(self, version: dict[str, Any], subject: str, repository: str = "acme/payments", **opts: Any) -> str:
        partition = repository.partition("/")[0]
        return self.post(
            "/api/run",
            {
                "recipeRef": {"id": version["id"], "v": version["v"]},
                "formData": {"repository": repository, "subject": subject},
                "opts": {"queuePartitionKey": partition, "lane": "interactive"} | opts,
            },
        )["workflowID"]

    def gate(self, wid: str) -> str:
        """The key of its open gate, once there is one."""
        return until(lambda: next((gate["gateKey"] for gate in self.gates(wid) if gate["state"] == "PENDING"), None), wid)

    def gates(self, wid: str) -> list[dict[str, Any]]:
        return self.get(f"/api/runs/{wid}/gates")

    def answer(self, wid: str, choice: str = "yes", rationale: str = "The suites are green and the diff is small.") -> None:
        gate = self.gate(wid)
        time.sleep(self._thinks_s)
        payload = {"choice": choice, "rationale": rationale}
        self.post(
            f"/api/runs/{wid}/gates/{gate}/reply", {"payload": payload, "dedupeKey": f"showcase:{gate}", "origin": "manual"}
        )

    def end(self, wid: str) -> str:
        """Its status at the end."""
        return until(lambda: (status := self.get(f"/api/runs/{wid}")["status"]) in ENDED and status, wid)

    def get(self, path: str) -> Any:
        return said(self.http.get(path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return said(self.http.post(path, json=body))


def said(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise Unexpected(f"{answer.request.method} {answer.request.url} was answered by {answer.status_code} {answer.text[:300]}")
    return answer.json()


def until(look: Callable[[], Any], what: str) -> Any:
    """What it gives, once that is something. Raises Unexpected when it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise Unexpected(f"nothing came of {what} in {PATIENCE_S:.0f} s; does a worker run?")
        time.sleep(0.05)
    return found


def fill(http: httpx.Client, thinks_s: float = 0.0) -> Shown:
    """Everything that there is to show. On an empty service, with a worker."""
    maker = Maker(http, thinks_s)
    for versions in RECIPES:
        maker.publish(versions)
    succeeded = maker.start(STABLE, "SQLAlchemy 2.0")
    failed = maker.start(BROKEN, "integration of 20 November", "globex/warehouse")
    late = maker.start(HURRIED, "rotate the signing key", "globex/warehouse")
    over = {"maxFanout": 2, "maxSBXMinutes": 10, "maxArtifactsMB": 10, "maxRetriesPerStep": 1, "maxWallClockMS": 600_000}
    broke_budget = maker.start(STABLE, "Django 6.0", "initech/portal", budget=over, lane="batch")
    for wid in (succeeded, failed, broke_budget):
        maker.answer(wid)
    for wid in (succeeded, failed, broke_budget, late):
        maker.end(wid)
    cancelled = maker.start(NEXT, "Pydantic 3", "initech/portal", lane="batch")
    maker.gate(cancelled)
    maker.post(f"/api/ops/wf/{cancelled}/cancel", {"actor": "ada", "reason": "The release was moved to Monday."})
    steps = maker.get(f"/api/ops/wf/{succeeded}/steps")
    fork = maker.post(f"/api/ops/wf/{succeeded}/fork", {"stepN": max(step["functionId"] for step in steps), **BY})[
        "forkedWorkflowID"
    ]
    improvement = maker.post(f"/api/runs/{failed}/improve", BY)["workflowID"]
    asking = maker.start(ASKING, "notes for 4.2", "globex/warehouse")
    waiting = maker.start(NEXT, "SQLAlchemy 2.1")
    gates = {wid: maker.gate(wid) for wid in (waiting, asking, improvement)}
    return Shown(succeeded, waiting, asking, failed, late, cancelled, broke_budget, fork, improvement, gates)


def addresses(shown: Shown) -> Mapping[str, str]:
    """Where in the console there is something to see, by the name of its picture: every board, and every tab of a run."""
    waiting = f"/?wid={shown.waiting}&board=run"
    done = f"/?wid={shown.succeeded}&board=run"
    return {
        "run-timeline": f"{done}&tab=timeline",
        "run-gate": f"{waiting}&tab=gate",
        "run-artifacts": f"{done}&tab=artifacts",
        "run-patches": f"{waiting}&tab=patches",
        "run-proof": f"{done}&tab=proof",
        "run-failed": f"/?wid={shown.failed}&board=run&tab=timeline",
        "hitl-inbox": "/?board=hitl-inbox",
        "ops": "/?board=ops",
        "throughput": "/?board=throughput",
        "recipe": "/?board=recipe",
        "signoff": "/?board=signoff",
    }
