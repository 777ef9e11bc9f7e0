"""Gates: what a run asks of people, and their answers.

This is their HTTP side; when an answer counts is decided in steps.replies.
"""

import asyncio
from typing import Annotated, Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api import webhooks
from api.access import Forbidden
from api.answers import Ok, Replied
from api.http import Door, caller_of, json_of, json_response, noticing_departure, numbers_in_query, query_of, read_body, read_json
from api.views import Gate, find_gates, find_run, gate_view
from steps import replies
from steps.contracts.base import Wire, parse
from steps.contracts.gate import ExternalEvent, GateKey, GateReply, InteractionRow
from steps.errors import NotFound

#: Long enough for a gate that is being opened, short enough for a client that only wants to look.
DEFAULT_WAIT_S = 0.1


class HitlGateKey(Wire):
    gateKey: GateKey


class HitlGateGetQuery(Wire):
    timeoutS: Annotated[int, Field(ge=0, le=30)] | None = None


class HitlInteractionsQuery(Wire):
    limit: Annotated[int, Field(ge=1, le=500)] = 200


def gate_key_of(request: Request) -> str:
    return parse(HitlGateKey, {"gateKey": request.path_params["gate_key"]}).gateKey


async def list_gates(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        gates = await find_gates(conn, request.path_params["wid"])
    return json_response([gate_view(gate).document() for gate in gates])


async def get_gate(door: Door, request: Request) -> Response:
    """The gate once it is settled, or as it is after timeoutS."""
    gate_key = gate_key_of(request)
    query = parse(HitlGateGetQuery, numbers_in_query(query_of(request, only=("timeoutS",))))
    wait_s = DEFAULT_WAIT_S if query.timeoutS is None else query.timeoutS
    async with door.reading() as conn:
        run = await find_run(conn, request.path_params["wid"])
    gate = await settled_gate(door, request, run.workflow_id, gate_key, wait_s) if run else None
    if gate is None:
        raise NotFound("gate not found")
    return json_response(gate_view(gate).document())


async def settled_gate(door: Door, request: Request, workflow_id: str, gate_key: str, wait_s: float) -> Gate | None:
    """The gate as soon as it is settled; or as it is at the deadline, or when client or server go away."""
    door.waits.require_room()
    deadline = asyncio.get_running_loop().time() + wait_s
    async with door.waits.watch(workflow_id) as changed, noticing_departure(request, changed) as departed:
        while True:
            changed.clear()
            over = door.waits.closing or departed.done() or asyncio.get_running_loop().time() >= deadline
            async with door.reading() as conn:
                gate = next(iter(await find_gates(conn, workflow_id, gate_key)), None)
            if over or (gate is not None and gate.settled):
                return gate
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                continue


async def reply(door: Door, request: Request) -> Response:
    gate_key = gate_key_of(request)
    given = parse(GateReply, await read_json(door, request), "HitlGateReply")
    await require_approver(door, request, request.path_params["wid"])
    given = given.model_copy(update={"payload": caller_of(request).signed(given.payload)})
    is_replay = await replies.reply_to_gate(door.engine, request.path_params["wid"], gate_key, given)
    return json_response(Replied(ok=True, isReplay=is_replay).document())


async def accept_event(door: Door, request: Request) -> Response:
    """An answer from outside: signed by a system that shares a secret with us, or sent with a token."""
    body = await read_body(request, door.config.max_body_bytes)
    if webhooks.SIGNATURE in request.headers:
        webhooks.verify(door.config.webhook_secrets, request.headers, body)
        event = parse(ExternalEvent, json_of(body))
    else:
        request.state.caller = await door.keeper.admit(request, "answer")
        event = parse(ExternalEvent, json_of(body))
        await require_approver(door, request, event.workflowId)
        event = event.model_copy(update={"payload": caller_of(request).signed(event.payload)})
    await replies.accept_event(door.engine, event)
    return json_response(Ok(ok=True).document())


APPROVERS: LiteralString = """
    select g.name
      from app.runs r
      join app.recipe_versions v on v.id = r.recipe_id and v.v = r.recipe_v,
           jsonb_array_elements_text(v.json -> 'approvers') as g (name)
     where r.workflow_id = %(wid)s or r.id = %(wid)s
     order by g.name
"""


async def require_approver(door: Door, request: Request, wid: str) -> None:
    """Raises Forbidden for a caller in none of the groups that the run's recipe wants its gates answered by. Admins are in each."""
    caller = caller_of(request)
    if "admin" in caller.roles:
        return
    async with door.reading() as conn:
        wanted = [row[0] for row in await (await conn.execute(APPROVERS, {"wid": wid})).fetchall()]
    if wanted and caller.groups.isdisjoint(wanted):
        raise Forbidden(
            f"the gates of this run are answered by {' or '.join(wanted)}; {caller.name!r} is in none of these groups"
        )


INTERACTIONS: LiteralString = """
    select i.workflow_id as "workflowID", i.gate_key as "gateKey", i.topic, i.dedupe_key as "dedupeKey",
           i.payload_hash as "payloadHash", i.origin,
           floor(extract(epoch from i.created_at) * 1000)::bigint as "createdAt"
      from app.human_interactions i
     where i.workflow_id = %(wid)s
        or i.workflow_id = (select r.workflow_id from app.runs r where r.id = %(wid)s)
     order by i.created_at, i.id
     limit %(limit)s
"""


async def list_interactions(door: Door, request: Request) -> Response:
    query = parse(HitlInteractionsQuery, numbers_in_query(query_of(request)))
    async with door.reading() as conn:
        rows = await interactions(conn, request.path_params["wid"], query.limit)
    return json_response([row.document() for row in rows])


async def interactions(conn: AsyncConnection[Any], wid: str, limit: int) -> list[InteractionRow]:
    """The ledger of a run, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(INTERACTIONS, {"wid": wid, "limit": limit})
        return [InteractionRow.model_validate(row) for row in await cursor.fetchall()]
