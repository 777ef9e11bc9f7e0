"""What the page comes with, so that its first paint needs no further request: who serves it, and the run that it opens."""

import re
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from starlette.requests import Request

from api.access import Caller
from api.config import Config
from api.inbox import open_gates
from api.session import session_of
from api.timeline import page
from api.views import find_gates, find_run, gate_view, run_header
from engine import Connection
from steps.contracts.base import JsonObject

BOARDS = ("run", "hitl-inbox", "ops", "throughput", "recipe", "signoff")
TABS = ("timeline", "gate", "artifacts", "patches", "proof")
FIRST_ROWS = 200
MOST_GATES = 200
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
NOW = "select engine.now_ms()"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address leads. missing: the part of it that names nothing, `board`, `tab` or `run`."""

    board: str
    wid: str | None
    tab: str | None
    missing: str | None = None


def place_of(request: Request) -> Place:
    query = request.query_params
    board, wid, tab = query.get("board") or "run", query.get("wid") or None, query.get("tab") or None
    if board not in BOARDS:
        return Place(board, wid, tab, missing="board")
    if board == "run" and tab is not None and tab not in TABS:
        return Place(board, wid, tab, missing="tab")
    return Place(board, wid, tab or ("timeline" if wid else None))


def base_of(request: Request) -> str:
    """The path that the service is mounted under: the server's own, or what a proxy says that it took away."""
    prefix: str = request.scope.get("root_path") or request.headers.get("x-forwarded-prefix", "")
    prefix = prefix.rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else ""


async def boot_data(conn: Connection, config: Config, base: str, place: Place, caller: Caller | None) -> JsonObject:
    """The page's data; `missing` is "run" where there is no such run. Without a caller there is nothing to read in it."""
    clock = await (await conn.execute(NOW)).fetchone()
    assert clock is not None
    page_only = {"base": base, "now": int(clock[0]), "session": None, "service": {}, "inbox": None, "run": None, "missing": None}
    if caller is None:
        return page_only
    run = await run_data(conn, config, place.wid) if place.board == "run" and place.wid and not place.missing else None
    return page_only | {
        "session": session_of(caller).document(),
        "service": {
            "appVersion": config.app_version,
            "claimScope": config.claim_scope,
            "topology": config.runtime_mode,
            "ocMode": config.oc_mode,
            "sbxMode": config.sbx_mode,
            "sbxProvider": config.sbx_provider,
        },
        "inbox": len(await open_gates(conn, MOST_GATES)),
        "run": run,
        "missing": place.missing or ("run" if place.board == "run" and place.wid and run is None else None),
    }


async def run_data(conn: AsyncConnection[Any], config: Config, wid: str) -> JsonObject | None:
    """The run's header, gates and first rows, with the cursor where its events go on; None when there is none.

    The cursor is read first, so whatever happens between the reads comes as an event as well.
    """
    run = await find_run(conn, wid)
    if run is None:
        return None
    first = await page(conn, run, offset=0, limit=FIRST_ROWS)
    header = await run_header(conn, run, config)
    gates = [gate_view(gate).document() for gate in await find_gates(conn, run.workflow_id)]
    return {"header": header.document(), "gates": gates, **first.document()}
