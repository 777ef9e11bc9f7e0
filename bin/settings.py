"""What the environment may say, in one frozen value. Nothing else in the program reads the environment.

A value that can't be read, or a name that looks like one of ours and is none, stops the start with one line.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.variables import BadSetting, Weights, env, group, integer, listed, names, port_number, read, secret, url, urls

ROOT = Path(__file__).resolve().parent.parent
OURS = ("CHAOS_", "HITL_", "INTENT_QUEUE_", "OC_", "RETENTION_", "SBX_", "SIGNOFF_", "WF_")
READ_BY_DRILLS = ("HITL_SOAK_WAITS", "HITL_SOAK_TEST_N")


def check_webhook_secrets(name: str, text: str) -> None:
    from api.webhooks import BadSecret, secret_of  # most commands do without

    for number, one in enumerate(listed(text), 1):
        try:
            secret_of(one)
        except BadSecret as error:
            raise BadSetting(f"{name}: invalid secret env value (not shown), number {number} of the list: {error}") from None


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """Limits of one queue: a cap per worker, a cap over all workers (of each partition, if the queue is partitioned), and a rate of the
    whole queue, where 0 starts mean no limit. weights: the shares of partitions that have another than 1.
    """

    worker_concurrency: int = integer(5, least=1)
    concurrency: int = integer(50, least=1)
    rate_limit_per_period: int = integer(100)
    rate_limit_period_sec: int = integer(60, least=1)
    partition: bool = True
    priority_enabled: bool = True
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How hard load tests press: so many users at once for how long, or up to a target, there for a while, and down again."""

    vus: int = integer(4, least=1, most=1000)
    duration: timedelta = timedelta(seconds=20)
    ramp_up: timedelta = timedelta(seconds=15)
    ramp_target: int = integer(12, least=1, most=1000)
    steady: timedelta = timedelta(seconds=20)
    ramp_down: timedelta = timedelta(seconds=10)
    p95_ms: int | None = field(default=None, metadata={"least": 1})
    bad_fixture: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    # where we listen
    port: int = port_number(3001)
    admin_port: int = port_number(3002)
    listen_host: str = "127.0.0.1"
    admin_host: str = "127.0.0.1"
    root_path: str = ""
    trusted_proxies: str | None = None
    token_requests_per_s: int = integer(100)

    # the database: one URL, or its parts, or an embedded one
    database_url: str | None = secret()
    db_host: str | None = None
    db_port: int | None = field(default=None, metadata={"least": 1, "most": 65535})
    db_user: str | None = None
    db_password: str | None = secret()
    db_pool_size: int = integer(10, least=1, most=1000)
    app_db_name: str = "app_local"
    sys_db_name: str = "dbos_sys"  # known, and the same database as the above
    system_db_name: str = "postgres"  # from here a missing database is created
    state_dir: Path = ROOT / ".state"
    pg_bindir: Path | None = None

    # who we are
    app_name: str = env("DBOS_APP_NAME", "holdfast")
    app_version: str = env("DBOS__APPVERSION", "v1")
    workflow_runtime_mode: Literal["api-shim", "inproc-worker"] = "api-shim"
    claim_scope: Literal["signoff", "demo", "live-smoke"] = "demo"
    signoff_commit: str | None = None
    signoff_tree: str | None = None
    signoff_dir: Path | None = None
    k6_dir: Path | None = None
    load: LoadSettings = group("K6_", LoadSettings())
    enable_legacy_run_routes: bool = True
    random_seed: int | None = None

    # operators, when they do not say themselves who they are and why they act
    ops_actor: str | None = None
    ops_reason: str | None = None

    # workflows and gates
    wf_sleep_ms: int = integer(5000)
    scheduled_ops: bool = False
    retention_days: int = integer(0, most=36_500)
    chaos_sleep_execute: int = integer(0)
    hitl_plan_approval_timeout_s: int = integer(3600, least=1, most=86_400)
    hitl_webhook_secrets: str | None = secret(check_webhook_secrets)
    intent_queue: QueueSettings = group("INTENT_QUEUE_", QueueSettings())
    sbx_queue: QueueSettings = group(
        "SBX_QUEUE_", QueueSettings(worker_concurrency=10, concurrency=150, rate_limit_per_period=10_000)
    )

    # the coding agent
    oc_mode: Literal["replay", "record", "live"] = "replay"
    oc_server_port: int = port_number(4096)
    oc_base_url: str = url("http://127.0.0.1:4096")
    oc_timeout_ms: int = integer(300_000, least=1)
    oc_doc_path: str = "/doc"
    oc_strict_mode: bool = False
    oc_server_cors: str = "http://localhost:3000"
    oc_server_username: str | None = env("OPENCODE_SERVER_USERNAME")
    oc_server_password: str | None = env("OPENCODE_SERVER_PASSWORD", secret=True)
    oc_model: str | None = None
    oc_provider_url: str | None = url(None)
    oc_provider_key: str | None = secret()

    # the sandboxes
    sbx_mode: Literal["mock", "live"] = "mock"
    sbx_provider: Literal["local", "e2b", "microsandbox"] = "e2b"
    sbx_alt_provider_enabled: bool = False
    sbx_default_timeout_ms: int = integer(300_000, least=1)
    sbx_default_net: bool = False
    sbx_live_cmd: str | None = None
    e2b_api_key: str | None = secret()

    # what is told about us
    trace_base_url: str | None = url(None)
    otlp_enabled: bool = env("DBOS_ENABLE_OTLP", False)
    otel_exporter_otlp_endpoint: str | None = urls()
    otel_exporter_otlp_traces_endpoint: str | None = urls()
    otel_exporter_otlp_logs_endpoint: str | None = urls()
    otel_service_name: str | None = None
    otel_resource_attributes: str | None = None

    @property
    def database(self) -> str | None:
        """The DSN that was configured; None means the embedded server."""
        if self.database_url is not None:
            return self.database_url
        if not any((self.db_host, self.db_port, self.db_user, self.db_password)):
            return None
        return make_conninfo(
            host=self.db_host or "127.0.0.1",
            port=self.db_port or 54329,
            user=self.db_user or "postgres",
            password=self.db_password or "postgres",
            dbname=self.app_db_name,
        )

    @property
    def evidence_dir(self) -> Path:
        """Where lanes and proofs leave their evidence for the sign-off board."""
        return (self.signoff_dir or self.state_dir / "signoff").absolute()

    @property
    def traces_endpoints(self) -> list[str]:
        return self._endpoints(self.otel_exporter_otlp_traces_endpoint, "traces")

    @property
    def logs_endpoints(self) -> list[str]:
        return self._endpoints(self.otel_exporter_otlp_logs_endpoint, "logs")

    def _endpoints(self, own: str | None, signal: str) -> list[str]:
        """Those of one signal are used as they stand; those for all signals get the signal's path, as the standard has it."""
        if own is not None:
            return listed(own)
        return [f"{base.rstrip('/')}/v1/{signal}" for base in listed(self.otel_exporter_otlp_endpoint)]

    @property
    def resource_attributes(self) -> dict[str, str]:
        """Raises ValueError for an item that is no name=value."""
        pairs = (item.split("=", 1) for item in listed(self.otel_resource_attributes))
        return {name.strip(): unquote(value.strip()) for name, value in pairs}

    @property
    def service_name(self) -> str:
        return self.otel_service_name or self.resource_attributes.get("service.name") or self.app_name


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Raises BadSetting for the first variable that is wrong."""
    known = {*names(Settings), *READ_BY_DRILLS}
    for name in sorted(environ):
        if name.startswith(OURS) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BadSetting(f"{name}: no such setting" + (f"; is it {near[0]}?" if near else ""))
    settings = read(Settings, environ, "", Settings())
    _check_database_url(settings)
    if settings.otlp_enabled:
        for what, endpoints in (("TRACES", settings.traces_endpoints), ("LOGS", settings.logs_endpoints)):
            if not endpoints:
                raise BadSetting(f"OTEL_EXPORTER_OTLP_{what}_ENDPOINT: needed because DBOS_ENABLE_OTLP is true")
    try:
        _ = settings.resource_attributes
    except ValueError:
        raise BadSetting("OTEL_RESOURCE_ATTRIBUTES: it must be a list such as team=blue,region=north") from None
    return settings


def _check_database_url(settings: Settings) -> None:
    """The value itself is never repeated: it may hold a password."""
    if settings.database_url is None:
        return
    try:
        parts = conninfo_to_dict(settings.database_url)
    except ProgrammingError:
        raise BadSetting("DATABASE_URL: invalid url env value (not shown): use postgresql://user@host:port/name") from None
    if not parts:
        raise BadSetting("DATABASE_URL: invalid url env value (not shown): it names nothing")
