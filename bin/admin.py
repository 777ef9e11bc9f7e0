"""The side door for operators and their machines: health, readiness, metrics, drain. Every serving process has one on ADMIN_PORT.

Healthy means that the process answers; restart it if not. Ready means that it can do its work now: the database answers and nobody
asked it to stop.
"""

import asyncio

import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.access import is_loopback
from bin.metrics import ServiceMetrics
from bin.serving import Stopping
from engine import Engine

READY_WITHIN_S = 2.0


def create_admin_app(
    role: str, engine: Engine, registry: CollectorRegistry, state: ServiceMetrics, stopping: Stopping
) -> Starlette:
    async def healthz(_: Request) -> Response:
        return JSONResponse({"ok": True, "role": role})

    async def readyz(_: Request) -> Response:
        reason = "draining" if stopping.draining.is_set() else await trouble(engine)
        return JSONResponse({"ready": reason is None, "role": role, "reason": reason}, 503 if reason else 200)

    async def metrics(_: Request) -> Response:
        await state.refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def drain(request: Request) -> Response:
        if request.client is None or not is_loopback(request.client.host):
            return JSONResponse({"error": "only this machine may drain the process; send it TERM, or ask from there"}, 403)
        asyncio.get_running_loop().call_later(0.05, stopping.drain)  # the answer leaves first
        return JSONResponse({"draining": True, "role": role}, 202)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/drain", drain, methods=["POST"]),
        ]
    )


async def trouble(engine: Engine) -> str | None:
    """Why the database can't be used right now; None when it can."""
    try:
        async with asyncio.timeout(READY_WITHIN_S), engine.pool.connection(timeout=READY_WITHIN_S) as conn:
            await conn.execute("select 1")
    except (psycopg.Error, PoolTimeout, TimeoutError) as error:
        return f"the database does not answer ({type(error).__name__})"
    return None
