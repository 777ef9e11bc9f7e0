"""One serving process: a front door, a worker, or both, with the side door for operators, until it is told to stop."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
import uvloop
from psycopg.conninfo import conninfo_to_dict

from api import tokens
from api.access import is_loopback
from api.app import create_app
from api.config import Config
from api.webhooks import secret_of
from bin.admin import create_admin_app
from bin.metrics import RequestMetrics, RunMetrics, ServiceMetrics, WorkerMetrics, new_registry
from bin.queue_limits import declare_queues
from bin.schema_watch import watch_schema
from bin.serving import Stopping, serve
from bin.settings import Settings
from bin.variables import BadSetting, listed
from bin.watch import Spans, WatchedRequests, WatchedRuns
from bin.wiring import FAILED, calm_garbage_collector, complain
from engine import Engine, Worker
from steps import seeds
from steps.opencode import OpenCode, OpenCodeNotConfigured, RecordOpenCode, ReplayOpenCode
from steps.policy import QUEUES, QueueRules
from steps.ports import Limits, Ports, configure
from steps.redaction import Redaction
from steps.retention import set_retention
from steps.sandbox import Sandbox, SandboxNotConfigured, make_sandbox
from steps.timers import set_schedule
from steps.worker import QUEUES as SLOTS
from steps.worker import workflows

#: How long a start waits at most for the recipes that a fresh database starts with.
SEEDS_S = 15.0

log = structlog.get_logger("bin.roles")


@dataclass(frozen=True)
class Role:
    """What this process does. Its listeners are open already, so that a taken port stops the start before anything began.

    sandbox: instead of the one that the settings name. lease_s: how long others wait before they take over from this worker.
    """

    name: str
    admin: socket.socket
    door: socket.socket | None = None
    works: bool = False
    sandbox: Sandbox | None = None
    lease_s: float = 10.0


def serve_until_stopped(settings: Settings, dsn: str, role: Role, *, when_up: Callable[[], None] | None = None) -> int:
    """The exit code: 0 after a drain, 1 after a hard stop or a failure."""
    stopping = Stopping()
    failed = False
    with telemetry(settings, role.name) as spans, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings, dsn, role, stopping, when_up, spans))
        except* (psycopg.OperationalError, OSError, SandboxNotConfigured, OpenCodeNotConfigured) as troubles:
            failed = True
            for trouble in troubles.exceptions:
                complain(f"{role.name} ends: {(str(trouble).strip() or type(trouble).__name__).splitlines()[0]}")
    return FAILED if failed or stopping.hard.is_set() else 0


@contextmanager
def telemetry(settings: Settings, role: str) -> Iterator[Spans | None]:
    """Where spans go while the block lasts, logs going there too; None if it is not wanted. Its packages are loaded only if it is."""
    if not settings.otlp_enabled:
        yield None
        return
    from bin.telemetry import Telemetry

    with Telemetry(settings, role) as sender:
        yield sender


async def _serve(
    settings: Settings,
    dsn: str,
    role: Role,
    stopping: Stopping,
    when_up: Callable[[], None] | None,
    spans: Spans | None,
) -> None:
    stopping.take_signals()
    calm_garbage_collector()
    async with Engine.connect(dsn, pool_size=settings.db_pool_size) as engine:
        if role.door is not None:
            await require_tokens(engine, settings.listen_host)
        registry = new_registry(engine)
        state = ServiceMetrics(engine)
        registry.register(state)
        parts: list[Coroutine[Any, Any, None]] = []
        if role.works:
            if settings.oc_mode == "live":
                from bin.live_opencode import live_opencode, require_opencode, sweep

                await require_opencode(settings)
                parts.append(sweep(engine, live_opencode(settings), stopping.draining))
            configure(ports(settings, engine, role.sandbox))
            await declare_queues(engine, settings)
            await set_schedule(engine, on=settings.scheduled_ops)
            await set_retention(engine, settings.retention_days)
            observer = WatchedRuns(RunMetrics(registry), spans)
            worker = engine.worker(
                workflows(), queues=slots(settings), version=settings.app_version, lease_s=role.lease_s, observer=observer
            )
            registry.register(WorkerMetrics(worker))
            parts.append(_work(worker, stopping))
        if role.door is not None:
            app = create_app(engine, api_config(settings, dsn), draining=stopping.draining)
            watched = WatchedRequests(app, RequestMetrics(registry), spans)
            parts.append(_open_door(settings, engine, role, watched, stopping))
        if when_up is not None:
            parts.append(_announce(role, stopping, when_up))
        # The side door closes last: a draining process can still be asked how it is.
        last = Stopping()
        side_door = asyncio.create_task(serve(create_admin_app(role.name, engine, registry, state, stopping), role.admin, last))
        watching = asyncio.create_task(watch_schema(engine, stopping))
        ends = await asyncio.gather(*parts, return_exceptions=True)
        watching.cancel()
        last.drain()
        await side_door
    if failures := [end for end in ends if isinstance(end, Exception)]:
        raise ExceptionGroup(f"{role.name} failed", failures)


async def _work(worker: Worker, stopping: Stopping) -> None:
    async def obey() -> None:
        await stopping.draining.wait()
        worker.drain()
        await stopping.hard.wait()
        worker.stop()

    obeying = asyncio.create_task(obey())
    try:
        await worker.run()
    finally:
        obeying.cancel()
        stopping.drain()  # without its worker the process has no business here


async def _announce(role: Role, stopping: Stopping, when_up: Callable[[], None]) -> None:
    """Calls back once the front door answers its first question."""
    assert role.door is not None
    host, port = role.door.getsockname()[:2]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        status = await reader.readline()
    finally:
        writer.close()
    if b" 200 " in status:
        when_up()
    elif not stopping.draining.is_set():
        log.error("the front door is not well", answer=status.decode(errors="replace").strip())


async def _open_door(settings: Settings, engine: Engine, role: Role, app: WatchedRequests, stopping: Stopping) -> None:
    """Serve, once the recipes of a fresh database have been tried out where this process does that itself: it takes some seconds, the
    first time, and whoever looks on afterwards sees only what they asked for. Who asks meanwhile is answered then.
    """
    assert role.door is not None
    end = time.monotonic() + SEEDS_S
    while role.works and not stopping.draining.is_set() and time.monotonic() < end and await seeds.are_promoting(engine):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await stopping.draining.wait()
    await serve(app, role.door, stopping, root_path=settings.root_path, proxies=listed(settings.trusted_proxies))


async def require_tokens(engine: Engine, host: str) -> None:
    """Raises BadSetting where other machines could reach a front door that asks nobody who they are."""
    if is_loopback(host):
        return
    async with engine.pool.connection() as conn:
        if not await tokens.good(conn):
            raise BadSetting(
                f"LISTEN_HOST: other machines can reach {host}, and there is no token that they would have to show; "
                "make one first: bin/token create NAME --role admin"
            )


def api_config(settings: Settings, dsn: str) -> Config:
    return Config(
        database_url=dsn,
        app_version=settings.app_version,
        runtime_mode=settings.workflow_runtime_mode,
        oc_mode=settings.oc_mode,
        oc_strict_mode=settings.oc_strict_mode,
        sbx_mode=settings.sbx_mode,
        sbx_provider=settings.sbx_provider,
        claim_scope=settings.claim_scope,
        trace_base_url=settings.trace_base_url,
        evidence_dir=settings.evidence_dir,
        signoff_commit=settings.signoff_commit,
        signoff_tree=settings.signoff_tree,
        k6_dir=(settings.k6_dir or settings.state_dir / "k6").absolute(),
        queue_rules=queue_rules(settings),
        legacy_routes=settings.enable_legacy_run_routes,
        random_seed=settings.random_seed,
        crashdemo_sleep_ms=settings.wf_sleep_ms,
        token_requests_per_s=settings.token_requests_per_s,
        open_without_tokens=is_loopback(settings.listen_host),
        webhook_secrets=tuple(map(secret_of, listed(settings.hitl_webhook_secrets))),
    )


def queue_rules(settings: Settings) -> QueueRules:
    configured = {"intentQ": settings.intent_queue, "sbxQ": settings.sbx_queue}
    without_priority = {name for name, queue in configured.items() if not queue.priority_enabled}
    return QueueRules(
        partitioned=frozenset(name for name, queue in configured.items() if queue.partition),
        prioritised=frozenset(QUEUES) - without_priority,
    )


def slots(settings: Settings) -> dict[str, int]:
    """How many runs of each queue one worker holds."""
    return {
        **SLOTS,
        "intentQ": settings.intent_queue.worker_concurrency,
        "sbxQ": settings.sbx_queue.worker_concurrency,
    }


def ports(settings: Settings, engine: Engine, sandbox: Sandbox | None = None) -> Ports:
    workspace = settings.state_dir.absolute() / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    return Ports(
        pool=engine.pool,
        opencode=open_code(settings),
        sandbox=sandbox
        or make_sandbox(
            settings.sbx_mode,
            settings.sbx_provider,
            settings.state_dir.absolute() / "sandboxes",
            alt_provider_enabled=settings.sbx_alt_provider_enabled,
            e2b_api_key=settings.e2b_api_key,
            installation=settings.app_name,
        ),
        workspace=workspace,
        redaction=Redaction(secrets_of(settings)),
        limits=Limits(
            plan_approval_timeout_s=settings.hitl_plan_approval_timeout_s,
            sandbox_timeout_ms=settings.sbx_default_timeout_ms,
            sandbox_net=settings.sbx_default_net,
            queue_rules=queue_rules(settings),
        ),
    )


def secrets_of(settings: Settings) -> list[str]:
    """What no row may hold."""
    known = [settings.db_password, settings.e2b_api_key, settings.oc_server_password, settings.oc_provider_key]
    if settings.oc_mode == "live":
        from bin.live_opencode import password_of

        known.append(password_of(settings))
    known += listed(settings.hitl_webhook_secrets)
    known.append(str(conninfo_to_dict(settings.database_url or "").get("password") or ""))
    return [secret for secret in known if secret]


def open_code(settings: Settings) -> OpenCode:
    """Where answers come from. The packages of the live one are loaded only if it is wanted."""
    fixtures = settings.state_dir.absolute() / "fixtures" / "oc"
    if settings.oc_mode == "replay":
        return ReplayOpenCode(fixtures)
    if settings.oc_mode == "record":
        return RecordOpenCode(fixtures)
    from bin.live_opencode import live_opencode

    return live_opencode(settings)
