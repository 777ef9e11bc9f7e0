"""The routes of older clients: runs by run id, started from a stored intent, and answered without naming a gate.

They stand on the same runs, gates and ledger as all others. Those that have a successor say so in their headers, and can be switched
off; then they answer 410 and name it.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.answers import EventAccepted, IntentStarted, PlanApproved, RetryAccepted
from api.errors import refusal
from api.gates import require_approver
from api.http import Door, Handler, caller_of, json_response, read_json, read_signed
from api.run_view import run_view
from api.views import Run, require_run
from steps import approvals, compat, ingress, ops
from steps.contracts.base import parse
from steps.contracts.gate import PlanApprovalRequest, RunEvent
from steps.contracts.intent import RunRequest
from steps.contracts.ops import RetryRequest
from steps.errors import ProductError
from steps.times import iso_of

#: How long an event waits for the question that it answers: a run says that it waits a moment before it asks.
GATE_WAIT_S = 1.0

SUPERSEDED = {"Deprecation": "true", "Sunset": "Tue, 30 Jun 2026 23:59:59 GMT"}


class RouteDisabled(ProductError):
    """The settings switch the older routes off."""

    status = 410


def superseded(by: str) -> Callable[[Handler], Handler]:
    """Marks a handler of an older route: `by` is what to use in its place."""

    def mark(handler: Handler) -> Handler:
        async def marked(door: Door, request: Request) -> Response:
            if not door.config.legacy_routes:
                raise RouteDisabled(f"legacy route disabled; use {by}")
            try:
                response = await handler(door, request)
            except ClientDisconnect:
                raise
            except Exception as error:
                response = refusal(request, error)
            response.headers.update(SUPERSEDED)
            return response

        return marked

    return mark


@superseded("POST /api/run")
async def start_intent(door: Door, request: Request) -> Response:
    """The same intent again is the same run."""
    options = compat.partitioned(parse(RunRequest, await read_json(door, request)))
    config = door.config
    intent_id = request.path_params["intent_id"]
    started = await ingress.start_intent(door.engine, intent_id, options, config.queue_rules, version=config.app_version)
    return json_response(IntentStarted(runId=started.run.id, workflowId=started.run.workflow_id).document(), 202)


async def get_run(door: Door, request: Request) -> Response:
    run = await run_of(door, request)
    async with door.reading() as conn:
        view = await run_view(conn, run)
    return json_response(view.document())


async def retry_run(door: Door, request: Request) -> Response:
    """An unknown run speaks before the body."""
    await run_of(door, request)
    asked = parse(RetryRequest, await read_signed(door, request))
    again = await ops.retry(door.engine, request.path_params["wid"], asked, version=door.config.app_version)
    return json_response(RetryAccepted(accepted=True, newRunId=again.run_id, fromStep=again.from_step).document(), 202)


async def send_event(door: Door, request: Request) -> Response:
    """The run's status speaks before the body."""
    run = await run_of(door, request)
    approvals.require_waiting(run.status)
    event = parse(RunEvent, await read_json(door, request))
    await require_approver(door, request, run.workflow_id)
    event = event.model_copy(update={"payload": caller_of(request).signed(event.payload)})
    deadline = asyncio.get_running_loop().time() + GATE_WAIT_S
    async with door.waits.watch(run.workflow_id) as changed:
        while True:
            changed.clear()
            over = door.waits.closing or asyncio.get_running_loop().time() >= deadline
            if await approvals.send_event(door.engine, run.workflow_id, event, ahead=over):
                return json_response(EventAccepted(accepted=True).document(), 202)
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                continue


@superseded("POST /api/runs/:wid/gates/:gateKey/reply")
async def approve_plan(door: Door, request: Request) -> Response:
    """An unknown run speaks before the body."""
    run = await run_of(door, request)
    approval = parse(PlanApprovalRequest, await read_json(door, request))
    await require_approver(door, request, run.workflow_id)
    approval = approval.model_copy(update={"approvedBy": caller_of(request).name or approval.approvedBy})
    approved = await approvals.approve_plan(door.engine, run.workflow_id, approval)
    answer = PlanApproved(accepted=True, runId=approved.run_id, approvedAt=iso_of(approved.approved_at))
    return json_response(answer.document(), 202)


async def run_of(door: Door, request: Request) -> Run:
    """The run that the address names by its workflow or run id. Raises NotFound."""
    async with door.reading() as conn:
        return await require_run(conn, request.path_params["wid"])
