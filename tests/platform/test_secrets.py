"""No secret is in anything that the system writes: its logs, its tables, its files, its answers."""

import base64
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bin.commands.demo import drive
from bin.service import ServiceProcess
from tests.platform.test_token_command import token
from tests.ports import free_port

CANARY = "canary7f3a"
ENVIRONMENT = {
    "OPENCODE_SERVER_PASSWORD": f"{CANARY}-opencode",
    "OC_PROVIDER_KEY": f"{CANARY}-provider",
    "E2B_API_KEY": f"{CANARY}-e2b",
    "HITL_WEBHOOK_SECRETS": "whsec_" + base64.b64encode(f"{CANARY}-webhook-secret-of-a-fair-length".encode()).decode(),
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-of-somebody-else",
}


@pytest.fixture
def written(database: str, tmp_path: Path) -> dict[str, bytes]:
    """Everything that a service wrote in a life with a run, refusals, and a database that breaks connections; and the secrets."""
    text = token(database, "create", "ben", "--role", "admin").stdout.strip()
    dsn = make_conninfo(database, password=f"{CANARY}-database")
    found: dict[str, bytes] = {}
    processes = {role: process(role, dsn, tmp_path) for role in ("api", "worker")}
    try:
        for one in processes.values():
            one.start()
        headers = {"authorization": f"Bearer {text}"}
        with httpx.Client(base_url=processes["api"].url(), timeout=30, headers=headers) as http:
            wid, _ = drive(http, replay=False)
            cut_connections(database)
            for path in (f"/api/runs/{wid}/repro", f"/api/runs/{wid}", "/api/ops/wf", "/api/session", "/openapi.json", "/"):
                found[f"answer {path}"] = http.get(path).content
            wrong = f"hf_wrongone_{CANARY}"
            for answer in (
                http.get("/api/session", headers={"authorization": f"Bearer {wrong}"}),
                http.post("/api/session", json={"token": wrong}),
                http.post("/api/events/hitl", json={}, headers={"webhook-signature": f"v1,{CANARY}"}),
                http.post("/api/run", content=f'{{"{CANARY}'.encode()),
            ):
                assert answer.status_code in (400, 401)
                found[f"answer {answer.url.path} {answer.status_code}"] = answer.content
    finally:
        for one in processes.values():
            one.stop()
    found |= {f"file {file.relative_to(tmp_path)}": file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    found |= tables(database)
    found["secrets"] = "\n".join([text.split("_", 2)[2], CANARY, *ENVIRONMENT.values()]).encode()
    return found


def process(role: str, dsn: str, folder: Path) -> ServiceProcess:
    own = {"DATABASE_URL": dsn, "PORT": "0", "ADMIN_PORT": str(free_port()), "STATE_DIR": str(folder / "state")}
    return ServiceProcess(role, folder / f"{role}.log", ENVIRONMENT | own)


def cut_connections(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )


def tables(database: str) -> dict[str, bytes]:
    with psycopg.connect(database) as conn:
        names = conn.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('dbos', 'engine', 'app') order by 1, 2"
        ).fetchall()
        rows = sql.SQL("select coalesce(string_agg(t::text, E'\\n'), '') from {} t")
        return {
            f"table {schema}.{name}": str(conn.execute(rows.format(sql.Identifier(schema, name))).fetchone()).encode()
            for schema, name in names
        }


def test_no_secret_is_in_anything_that_was_written(written: dict[str, bytes]) -> None:
    secrets = written.pop("secrets").splitlines()
    assert len(written) > 30
    assert b"RunIntent" in written["table dbos.workflow_status"]  # the tables were read
    assert b"ben" in written["table app.api_tokens"]
    assert any(b"error" in written[name] for name in ("file api.log", "file worker.log"))  # trouble was told
    leaks = [(where, secret) for where, text in written.items() for secret in secrets if secret in text]
    assert leaks == []
