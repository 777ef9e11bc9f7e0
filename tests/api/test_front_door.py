"""What holds for every route: unknown paths, bodies that are not JSON, and what nobody foresaw."""

import asyncio
from typing import Any, LiteralString

import httpx
import psycopg
import pytest
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from structlog.testing import capture_logs

from api import runs
from api.app import create_app
from api.config import Config
from api.errors import answer_to
from engine import DuplicateWork, Engine, NoSuchWorkflow
from steps.errors import Conflict, NotFound, QueuePolicyError, RunIdentityConflict
from tests.api.samples import START, Rows, changed


async def test_a_serving_process_says_so(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("GET", "/api"),
        ("GET", "/healthz/"),
        ("POST", "/healthz"),
        ("DELETE", "/api/run"),
        ("GET", "/api/run"),
        ("PUT", "/api/recipes"),
        ("GET", "/api/runs/x/gates/y/reply"),
    ],
)
async def test_an_unknown_route_or_method_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()) == (404, {"error": "not found"})


@pytest.mark.parametrize(
    "path",
    [
        "/api/run",
        "/api/intents",
        "/intents",
        "/api/recipes/import",
        "/api/recipes/export",
        "/api/events/hitl",
        "/api/runs/x/gates/y/reply",
    ],
)
async def test_a_body_that_is_not_json_is_refused_before_anything_is_written(
    client: httpx.AsyncClient, rows: Rows, path: str
) -> None:
    before = await rows.counts()
    for body in (b"{bad", b"\xff\xfe", b"[" * 2000, b" ", b'{"goal": NaN}'):
        response = await client.post(path, content=body)
        assert (response.status_code, response.json()) == (400, {"error": "invalid json"})
    assert await rows.counts() == before


async def test_an_empty_body_is_an_empty_object(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/run")
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid RunStartRequest: data must have required property")
    missing = {detail["params"]["missingProperty"] for detail in response.json()["details"]}
    assert missing == {"recipeRef", "formData"}


async def test_a_body_of_another_json_type_is_refused(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    for body in ("null", "[]", '"text"', "7"):
        for path in ("/api/run", "/api/intents", "/api/recipes/import", "/api/events/hitl"):
            response = await client.post(path, content=body)
            assert response.status_code == 400, (path, body)
            assert response.json()["error"].startswith("invalid "), response.text
    assert await rows.counts() == before


async def test_a_body_beyond_the_limit_is_refused_with_the_limit(engine: Engine, database: str) -> None:
    app = create_app(engine, Config(database_url=database, max_body_bytes=100))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
        response = await client.post("/api/intents", content=b" " * 101)
        assert response.status_code == 400
        assert response.json() == {"error": "the request body is larger than 100 bytes; send less"}
        assert (await client.post("/api/intents", content=b" " * 100)).json() == {"error": "invalid json"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/%00",
        "/marks?wf=%00",
        "/api/artifacts/artifact%00",
        "/api/runs/a/gates/b%00",
        "/api/recipes/%00/versions",
    ],
)
async def test_a_nul_in_the_address_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 400
    assert "NUL" in response.json()["error"]


@pytest.mark.parametrize("goal", ["a\x00b", {"deep": ["\x00"]}])
async def test_a_nul_in_the_body_is_refused(client: httpx.AsyncClient, rows: Rows, goal: object) -> None:
    before = await rows.counts()
    response = await client.post("/api/run", json=changed(START, formData__account=goal))
    assert response.status_code == 400
    assert "NUL" in response.json()["error"]
    assert await rows.counts() == before


async def test_a_body_nested_too_deeply_is_refused(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    body = b'{"goal":"g","constraints":{},"inputs":' + deep + b"}"
    response = await client.post("/api/intents", content=body)
    assert response.status_code == 400
    assert "nested" in response.json()["error"]
    assert await rows.counts() == before


async def test_what_nobody_foresaw_is_answered_without_details(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> None:
        raise LookupError("a secret")

    monkeypatch.setattr(runs, "require_run", failing)
    with capture_logs() as logged:
        response = await client.get("/api/runs/some-run")
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert [(entry["path"], repr(entry["exc_info"])) for entry in logged] == [("/api/runs/some-run", "LookupError('a secret')")]


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(app: Starlette, rows: Rows) -> None:
    before = await rows.counts()
    messages = [
        {"type": "http.request", "body": b'{"goal":', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/api/intents", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert messages == []
    assert await rows.counts() == before


def test_each_refusal_has_its_code_and_body() -> None:
    assert answer_to(NotFound("run not found")) == (404, {"error": "run not found"})
    assert answer_to(Conflict("no", run_status="running")) == (409, {"error": "no", "status": "running"})
    assert answer_to(QueuePolicyError("no")) == (400, {"error": "no", "code": "queue_policy_violation"})
    drift = [{"field": "trace_id", "existing": None, "incoming": "t"}]
    assert answer_to(RunIdentityConflict("w", drift)) == (
        409,
        {"error": "Divergence in run w: identity drift on trace_id", "drift": drift},
    )
    assert answer_to(DuplicateWork("intentQ", "d"))[0] == 409
    assert answer_to(NoSuchWorkflow("w")) == (404, {"error": "workflow not found: w"})
    assert answer_to(ValueError("secret")) == (500, {"error": "internal error"})
    for away in (
        psycopg.OperationalError("the connection is closed"),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.TooManyConnections(),
        psycopg.errors.DiskFull(),
        psycopg.errors.QueryCanceled(),
        psycopg.errors.ReadOnlySqlTransaction(),
        PoolTimeout(),
    ):
        assert answer_to(away) == (503, {"error": "the database is away at the moment; ask again"})
    assert answer_to(psycopg.errors.UndefinedTable("secret")) == (500, {"error": "internal error"})


ENDED_SESSIONS: LiteralString = """
    select pg_terminate_backend(a.pid) from pg_stat_activity a
     where a.datname = current_database() and a.wait_event_type = 'Lock' and a.pid <> pg_backend_pid()
"""


async def test_a_request_whose_connection_breaks_is_answered_503_and_can_be_made_again(
    client: httpx.AsyncClient, rows: Rows, database: str
) -> None:
    wanted = {"goal": "once more", "inputs": {}, "constraints": {}}
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("lock table app.intents in access exclusive mode")
        asking = asyncio.create_task(client.post("/api/intents", json=wanted))
        async with asyncio.timeout(20):
            while not (await (await other.execute(ENDED_SESSIONS)).fetchall()):
                await asyncio.sleep(0.01)
            response = await asking
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json() == {"error": "the database is away at the moment; ask again"}
    assert (await client.post("/api/intents", json=wanted)).status_code == 201
