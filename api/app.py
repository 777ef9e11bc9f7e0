"""The application: its route table is the map of the front door.

It holds the engine's client side, so it starts runs and reads them; workers run elsewhere. Whoever makes it
serves it (bin does, on a port of its choice) and runs its lifespan, without which no long poll is woken.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.contextvars import bind_contextvars

from api import (
    artifacts,
    console,
    crashdemo,
    docs,
    flow,
    gates,
    health,
    improvements,
    inbox,
    legacy,
    openapi,
    ops,
    proofs,
    recipes,
    runs,
    session,
    signoff,
    streams,
    throughput,
    timeline,
)
from api.access import Doorkeeper, Right, needed
from api.config import Config
from api.errors import refusal
from api.http import BadRequest, Door, Handler
from api.pace import Pace
from api.waiting import EventWaits
from engine import Engine

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/healthz", health.healthz),
    ("GET", "/openapi.json", openapi.get_document),
    ("GET", "/docs", docs.get_page),
    # Who asks
    ("GET", "/api/session", session.get_session),
    ("POST", "/api/session", session.sign_in),
    ("DELETE", "/api/session", session.sign_out),
    # Intents and runs
    ("POST", "/api/intents", runs.create_intent),
    ("POST", "/intents", runs.create_intent),
    ("POST", "/api/run", runs.start_run),
    ("POST", "/api/runs", runs.start_stored),
    ("GET", "/api/runs/{wid}", runs.get_run),
    ("GET", "/api/runs/{wid}/steps", timeline.list_steps),
    ("GET", "/api/runs/{wid}/steps/{step_id}", timeline.get_step),
    ("GET", "/api/runs/{wid}/steps/{step_id}/patches", artifacts.list_patches),
    ("GET", "/api/runs/{wid}/patches", artifacts.list_run_patches),
    ("GET", "/api/runs/{wid}/proofs", proofs.list_proofs),
    ("GET", "/api/runs/{wid}/eval", proofs.list_eval),
    ("GET", "/api/runs/{wid}/repro", proofs.get_repro),
    ("POST", "/api/runs/{wid}/improve", improvements.improve),
    ("GET", "/api/runs/{wid}/improvements", improvements.list_improvements),
    ("GET", "/api/runs/{wid}/stream", streams.get_events),
    ("GET", "/api/ops/stream", streams.get_changes),
    ("GET", "/api/runs/{wid}/stream/{key}", streams.get_stream),
    ("GET", "/api/artifacts/{uri:path}", artifacts.get_artifact),
    # Gates
    ("GET", "/api/runs/{wid}/gates", gates.list_gates),
    ("GET", "/api/runs/{wid}/gates/{gate_key}", gates.get_gate),
    ("POST", "/api/runs/{wid}/gates/{gate_key}/reply", gates.reply),
    ("GET", "/api/runs/{wid}/interactions", gates.list_interactions),
    ("POST", "/api/events/hitl", gates.accept_event),
    ("GET", "/api/hitl/inbox", inbox.list_inbox),
    # Recipes
    ("GET", "/api/recipes", recipes.list_recipes),
    ("GET", "/api/recipes/{recipe_id}/versions", recipes.list_versions),
    ("GET", "/api/recipes/{recipe_id}/versions/{v}", recipes.get_version),
    ("GET", "/api/recipes/{recipe_id}/improvements", recipes.list_improvements),
    ("POST", "/api/recipes/import", recipes.import_bundle),
    ("POST", "/api/recipes/export", recipes.export_recipe),
    ("POST", "/api/recipes/{recipe_id}/versions/{v}/candidate", recipes.make_candidate),
    ("POST", "/api/recipes/{recipe_id}/versions/{v}/promote", recipes.promote),
    ("GET", "/api/recipes/{recipe_id}/versions/{v}/promotion", recipes.get_promotion),
    # Boards
    ("GET", "/api/ops/throughput", throughput.get_board),
    ("GET", "/api/ops/flow", flow.get_flow),
    # Operators
    ("GET", "/api/ops/wf", ops.list_workflows),
    ("GET", "/api/ops/counts", ops.count_workflows),
    ("GET", "/api/ops/wf/{wid}", ops.get_workflow),
    ("GET", "/api/ops/wf/{wid}/steps", ops.list_steps),
    ("POST", "/api/ops/wf/{wid}/cancel", ops.cancel),
    ("POST", "/api/ops/wf/{wid}/resume", ops.resume),
    ("POST", "/api/ops/wf/{wid}/fork", ops.fork),
    ("GET", "/api/ops/queue-depth", ops.queue_depth),
    ("GET", "/api/ops/queues", ops.list_queues),
    ("GET", "/api/ops/queues/{queue}/partitions", ops.list_partitions),
    ("POST", "/api/ops/queues/{queue}/pause", ops.pause_queue),
    ("POST", "/api/ops/queues/{queue}/resume", ops.resume_queue),
    ("GET", "/api/ops/workers", ops.list_workers),
    ("POST", "/api/ops/workers/{worker}/pause", ops.pause_worker),
    ("POST", "/api/ops/workers/{worker}/resume", ops.resume_worker),
    ("GET", "/api/ops/audit", ops.list_actions),
    ("POST", "/api/ops/sleep", ops.sleep),
    # Sign-off
    ("GET", "/api/ops/signoff", signoff.get_board),
    # Older clients
    ("POST", "/intents/{intent_id}/run", legacy.start_intent),
    ("GET", "/runs/{wid}", legacy.get_run),
    ("POST", "/runs/{wid}/retry", legacy.retry_run),
    ("POST", "/runs/{wid}/events", legacy.send_event),
    ("POST", "/runs/{wid}/approve-plan", legacy.approve_plan),
    ("POST", "/api/runs/{wid}/approve-plan", legacy.approve_plan),
    # The kill -9 drill
    ("POST", "/crashdemo", crashdemo.start),
    ("GET", "/marks", crashdemo.marks),
    ("POST", "/slowstep", crashdemo.start_slow_step),
    ("GET", "/slowmarks", crashdemo.marks),
)


def create_app(engine: Engine, config: Config, *, draining: asyncio.Event | None = None) -> Starlette:
    """The front door over this engine. It starts nothing before its lifespan does.

    draining: set when the server stops; long polls then answer at once, instead of holding the server up.
    """
    keeper = Doorkeeper(engine.pool, open_without=config.open_without_tokens, pace=Pace(config.token_requests_per_s))
    door = Door(engine, config, EventWaits(config.database_url, listen=engine.own_sessions), keeper)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with door.waits.running(until=draining):
            yield

    app = Starlette(
        routes=[
            Route(path, bound(handler, door, needed(method, path)), methods=[method])
            for method, path, handler in (*ROUTES, *console.ROUTES)
        ],
        exception_handlers={HTTPException: unrouted},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # an unknown path is 404, not a hint at a known one
    app.state.door = door
    return app


def bound(handler: Handler, door: Door, right: Right | None) -> Callable[[Request], Awaitable[Response]]:
    """The handler as an endpoint for callers with this right: whatever it raises becomes the answer of the error table."""

    async def endpoint(request: Request) -> Response:
        try:
            if "\x00" in request.url.path or "%00" in request.url.query:
                raise BadRequest("the address holds a NUL character (%00), which cannot be stored; remove it")
            if "wid" in request.path_params:
                bind_contextvars(wid=request.path_params["wid"])  # for the log lines of this request
            request.state.caller = await door.keeper.admit(request, right)
            return await handler(door, request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except Exception as error:
            return refusal(request, error)

    return endpoint


async def unrouted(request: Request, error: Exception) -> Response:
    return refusal(request, error)
