"""Watching a run while it works: its streams as lines, and everything that it does as events; and all workflows, as hints.

Both read rows and wait for a flag (api.waiting), so a client that only listens costs the database nothing, and one that reads slowly
is never read ahead of. An event's id is a place in the run's journal: whoever comes back with it, to whichever process, goes on
behind it. What has no place in the journal, the run's header and an answer that the run has not taken yet, is sent as it is now,
whenever it changed.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, LiteralString

import orjson
import psycopg
import structlog
from psycopg import AsyncConnection
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.artifacts import patches_of_run, with_diffs
from api.http import BadRequest, Door, noticing_departure, numbers_in_query, query_of
from api.timeline import FROM_THE_START, Cursor, cursor_of, news
from api.views import Run, find_gates, find_run, gate_view, require_run, run_header
from api.waiting import ANY_WORKFLOW
from engine import FINAL, cannot_now
from steps.contracts.base import JsonObject, Wire, parse
from steps.documents import json_or_text
from steps.errors import NotFound

HEARTBEAT_S = 15.0
WAITING = "WAITING_INPUT"
GAP_S = 0.05  # at least, between two reads for one client, so that what happens at once is sent at once
BATCH = 500  # rows in memory for one client
CLOSED = b'"__DBOS_STREAM_CLOSED__"'
CURSOR = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
LIVE_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

log = structlog.get_logger("api.streams")

Chunks = AsyncGenerator[bytes, None]
Changes = defaultdict[int, list[tuple[str, JsonObject]]]  # events by the record that they belong to


class Live(StreamingResponse):
    """A response that is written as things happen, and ends with its source.

    The source itself looks out for the client's leaving. It is never cancelled, since that could hit it in the middle of a query and
    would cost the pool a connection.
    """

    def __init__(self, chunks: Chunks, media_type: str) -> None:
        self._chunks = until_trouble(chunks)
        super().__init__(self._chunks, media_type=media_type, headers=LIVE_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await self.stream_response(send)


async def until_trouble(chunks: Chunks) -> Chunks:
    """The same, ending early when the database fails: the client comes back and goes on where it was."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except psycopg.Error as error:
            if not cannot_now(error):
                raise
            log.warning("a live stream ended early", error_type=type(error).__qualname__)


@asynccontextmanager
async def watching(door: Door, request: Request, workflow_id: str) -> AsyncGenerator["Watch"]:
    async with door.waits.watch(workflow_id) as changed, noticing_departure(request, changed) as departed:
        yield Watch(door, changed, departed)


@dataclass(frozen=True, slots=True)
class Watch:
    """What a live response waits on: a flag for every change, and for the client's leaving."""

    door: Door
    changed: asyncio.Event
    departed: asyncio.Task[None]

    @property
    def over(self) -> bool:
        """Whether nobody is to be told any more: the client has left, or the server stops."""
        return self.departed.done() or self.door.waits.closing

    async def change(self, timeout_s: float) -> bool:
        """Wait for one; False when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.changed.wait()
        except TimeoutError:
            return False


# A stream as lines -------------------------------------------------------------------------------------------

WORKFLOW: LiteralString = """
    select s.workflow_uuid, s.status
      from dbos.workflow_status s
     where s.workflow_uuid = coalesce((select r.workflow_id from app.runs r where r.id = %(wid)s), %(wid)s)
"""
CHUNKS: LiteralString = """
    select t.value
      from dbos.streams t
     where t.workflow_uuid = %s and t.key = %s and t."offset" >= %s
     order by t."offset"
     limit %s
"""


class StreamQuery(Wire):
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


async def get_stream(door: Door, request: Request) -> Response:
    """The values of a workflow's stream, a line each, until it is closed or the workflow has ended."""
    query = parse(StreamQuery, numbers_in_query(query_of(request, only=("offset",))))
    door.waits.require_room()
    async with door.reading() as conn:
        found = await (await conn.execute(WORKFLOW, {"wid": request.path_params["wid"]})).fetchone()
    if found is None:
        raise NotFound("run not found")
    return Live(stream_lines(door, request, found[0], query.offset), "application/x-ndjson")


async def stream_lines(door: Door, request: Request, workflow_id: str, offset: int) -> Chunks:
    key = request.path_params["key"]
    async with watching(door, request, workflow_id) as watch:
        while True:
            watch.changed.clear()
            async with door.reading() as conn:
                workflow = await (await conn.execute(WORKFLOW, {"wid": workflow_id})).fetchone()
                values = await (await conn.execute(CHUNKS, (workflow_id, key, offset, BATCH))).fetchall()
            for (value,) in values:
                line = orjson.dumps(json_or_text(value))
                if line == CLOSED:
                    return
                yield line + b"\n"
            offset += len(values)
            if len(values) == BATCH and not watch.over:
                continue
            if workflow is None or workflow[1] in FINAL or watch.over:
                return
            await watch.changed.wait()


# All workflows as hints --------------------------------------------------------------------------------------

HINT_GAP_S = 1.0  # at least, between two hints to one client
LOOK_S = 5.0  # at most, until a change is noticed that nobody notified
#: Where the database stands: every transaction that writes moves it on, and only such.
PLACE: LiteralString = "select pg_snapshot_xmax(pg_current_snapshot())::text"


async def get_changes(door: Door, request: Request) -> Response:
    """A hint, as a server-sent event, whenever something may have changed in any workflow, queue or gate."""
    door.waits.require_room()
    place = request.headers.get("last-event-id") or request.query_params.get("after")
    return Live(hints(door, request, place), "text/event-stream")


async def hints(door: Door, request: Request, place: str | None) -> Chunks:
    """`changed` whenever the database has moved on from the place; `here` at first, for a client that has none."""
    yield b"retry: 2000\n\n"
    clock = asyncio.get_running_loop().time
    async with watching(door, request, ANY_WORKFLOW) as watch:
        while not watch.over:
            watch.changed.clear()
            read_at = clock()
            async with door.reading() as conn:
                found = await (await conn.execute(PLACE)).fetchone()
            now = found[0] if found else place
            yield b":\n\n" if now == place else event("here" if place is None else "changed", {}, id=now)
            place = now
            await watch.change(LOOK_S)
            if not watch.over:
                await asyncio.sleep(max(0.0, read_at + HINT_GAP_S - clock()))


# A run as events ---------------------------------------------------------------------------------------------


async def get_events(door: Door, request: Request) -> Response:
    """Everything that the run does, as server-sent events, from the start or from behind a cursor."""
    cursor = cursor_in(request)
    door.waits.require_room()
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
    return Live(run_events(door, request, run.workflow_id, cursor), "text/event-stream")


def cursor_in(request: Request) -> Cursor | None:
    """Where the client stands: what it received last wins over what its page was made with."""
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if not text:
        return None
    found = CURSOR.fullmatch(text)
    if found is None:
        raise BadRequest("after (or Last-Event-ID) must be the id of an event, such as 0.12")
    return Cursor(int(found[1]), int(found[2]))


async def run_events(door: Door, request: Request, workflow_id: str, cursor: Cursor | None) -> Chunks:
    """The events of a run behind a cursor, until it has ended."""
    yield b"retry: 2000\n\n"
    shown: JsonObject = {}
    answered: dict[str, JsonObject] = {}
    clock = asyncio.get_running_loop().time
    async with watching(door, request, workflow_id) as watch:
        while True:
            watch.changed.clear()
            read_at = clock()
            if shown.get("status", WAITING) == WAITING:  # first, since somebody may be looking at the question
                known, answered = answered, await answered_gates(door, workflow_id)
                for key, gate in answered.items():
                    if gate != known.get(key):
                        yield event("gate", gate)
            latest = await read_latest(door, workflow_id, cursor)
            if latest is None:
                return
            if latest.header != shown:
                shown = latest.header
                yield event("run", shown)
            if latest.is_reset:
                yield event("reset", {})
            for one in latest.events:
                yield one
            cursor = latest.cursor
            if latest.more and not watch.over:
                continue
            if latest.ended:
                yield event("end", {"status": shown["status"]})
            if latest.ended or watch.over:
                return
            while not await watch.change(HEARTBEAT_S):
                yield b":\n\n"
            await asyncio.sleep(max(0.0, read_at + GAP_S - clock()))


@dataclass(slots=True)
class Latest:
    """What is new about a run. cursor: where the next look goes on; more: this look did not take all."""

    header: JsonObject
    cursor: Cursor
    ended: bool
    is_reset: bool = False
    more: bool = False
    events: list[bytes] = field(default_factory=list[bytes])


async def read_latest(door: Door, workflow_id: str, cursor: Cursor | None) -> Latest | None:
    """What is new behind the cursor; None when the run is gone.

    The run is read first, so that one that has ended has nothing to add; then the end of its journal, so that what is recorded while
    the rows are read is left for the next look, whole.
    """
    async with door.reading() as conn:
        run = await find_run(conn, workflow_id)
        if run is None:
            return None
        header = await run_header(conn, run, door.config)
        head = await cursor_of(conn, run.run_id)
        latest = Latest(header.document(), head, ended=run.workflow_status in FINAL or run.workflow_status is None)
        if cursor is not None and (cursor.retries != head.retries or cursor.seq > head.seq):
            latest.is_reset, cursor = True, None
        if cursor == head:
            return latest
        after = FROM_THE_START if cursor is None else cursor.seq
        changes = await read_changes(conn, run, latest, after=after)
        patched, patches = await new_patches(conn, run, after)
    if patches and patched <= latest.cursor.seq:
        changes[patched] += [("patch", patch.document()) for patch in await with_diffs(patches)]
    latest.events = events_of(changes, latest.cursor)
    return latest


async def read_changes(conn: AsyncConnection[Any], run: Run, latest: Latest, *, after: int) -> Changes:
    """The rows and gates that changed behind `after`. If there are too many for one look, it says so in `latest`."""
    rows = await news(conn, run, after=after, limit=BATCH)
    head = latest.cursor
    if len(rows) == BATCH:
        latest.more = True
        latest.cursor = min(head, Cursor(head.retries, rows[-1].seq or 0))
    changes: Changes = defaultdict(list)
    for row in rows:
        changes[row.seq or 0].append(("step", row.document()))
    for seq, gate in await new_gates(conn, run, after):
        changes[seq].append(("gate", gate))
    return changes


def events_of(changes: Changes, head: Cursor) -> list[bytes]:
    """Up to this place, in the order of the journal. What changed in one record ends with that record's id."""
    events: list[bytes] = []
    for seq in sorted(seq for seq, changed in changes.items() if changed and seq <= head.seq):
        *before, last = changes[seq]
        events += [event(name, data) for name, data in before]
        events.append(event(*last, id=Cursor(head.retries, seq)))
    return events


#: A gate changes with the events that its run sets for it.
NEW_GATES: LiteralString = """
    select split_part(case when h.key like 'decision:%%' then right(h.key, -9) else right(h.key, -3) end, ':', 1) as gate_key,
           max(h.function_id) as seq
      from dbos.workflow_events_history h
     where h.workflow_uuid = %s and h.function_id > %s and (h.key like 'ui:%%' or h.key like 'decision:%%')
     group by 1
     order by 2, 1
"""
#: These calls write to the ledger of patches; which rows they touched is not recorded.
PATCHED: LiteralString = """
    select max(o.function_id)
      from dbos.operation_outputs o
     where o.workflow_uuid = %s and o.function_id > %s
       and o.function_name in ('recordPreimages', 'ApplyPatchST', 'rollBackPatches', 'openGate', 'planTasks')
"""


async def new_gates(conn: AsyncConnection[Any], run: Run, after: int) -> Sequence[tuple[int, JsonObject]]:
    changed = await (await conn.execute(NEW_GATES, (run.workflow_id, after))).fetchall()
    if not changed:
        return []
    gates = {gate.gate_key: gate for gate in await find_gates(conn, run.workflow_id)}
    return [(seq, gate_view(gates[key]).document()) for key, seq in changed if key in gates]


async def answered_gates(door: Door, workflow_id: str) -> dict[str, JsonObject]:
    """Open gates that the ledger has an answer to, by key."""
    async with door.reading() as conn:
        gates = [gate_view(gate) for gate in await find_gates(conn, workflow_id)]
    return {gate.gateKey: gate.document() for gate in gates if gate.state == "PENDING" and gate.origin is not None}


async def new_patches(conn: AsyncConnection[Any], run: Run, after: int) -> tuple[int, Sequence[JsonObject]]:
    """The last record that touched patches, and all patches; none if there was no such record."""
    found = await (await conn.execute(PATCHED, (run.workflow_id, after))).fetchone()
    if found is None or found[0] is None:
        return after, []
    return found[0], await patches_of_run(conn, run.run_id)


def event(name: str, data: JsonObject, *, id: Cursor | str | None = None) -> bytes:
    """One server-sent event. Without an id the client's place stays where it is."""
    place = b"" if id is None else f"id: {id}\n".encode()
    return place + b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
