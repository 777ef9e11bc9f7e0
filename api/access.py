"""Who may do what at the front door.

Before the first token is made the door asks nobody, and the service listens on this machine only (bin sees to that). From then on every
request needs a token, as `Authorization: Bearer …` or in the console's cookie, and its roles decide. Tokens are read together, every
other second at most, so that one that was revoked is refused within that time.

What a browser does by itself for a page of somebody else is refused: a request that changes something must come from our own pages,
which the browser says in `sec-fetch-site` or `origin`; and while nobody is asked for a token, a browser must call us by an address of
this machine, or a name that leads here today could be made to lead elsewhere tomorrow, and be read by that page.
"""

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from psycopg_pool import AsyncConnectionPool
from starlette.requests import Request

from api import tokens
from api.pace import Pace
from api.tokens import Holder, Role
from engine import Connection
from steps.contracts.base import JsonObject

Right = Literal["read", "answer", "operate", "administer"]
RIGHTS: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({"read"}),
    "approver": frozenset({"read", "answer"}),
    "operator": frozenset({"read", "operate"}),
    "admin": frozenset({"read", "answer", "operate", "administer"}),
}
COOKIE = "holdfast"
FRESH_S = 2.0
#: What each route needs that is not served to every reader; None is for everybody. A route that changes something and is not named
#: here is for admins.
NEEDS: Mapping[tuple[str, str], Right | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/"): None,  # the page asks by itself, so that it can show where to sign in
    ("GET", "/static/{hash}/{path:path}"): None,
    ("POST", "/api/session"): None,
    ("DELETE", "/api/session"): None,
    ("POST", "/api/intents"): "operate",
    ("POST", "/intents"): "operate",
    ("POST", "/intents/{intent_id}/run"): "operate",
    ("POST", "/api/run"): "operate",
    ("POST", "/api/runs"): "operate",
    ("POST", "/runs/{wid}/retry"): "operate",
    ("POST", "/api/runs/{wid}/improve"): "operate",
    ("POST", "/api/recipes/import"): "operate",
    ("POST", "/api/recipes/export"): "read",
    ("POST", "/api/recipes/{recipe_id}/versions/{v}/candidate"): "operate",
    ("POST", "/api/ops/wf/{wid}/cancel"): "operate",
    ("POST", "/api/ops/wf/{wid}/resume"): "operate",
    ("POST", "/api/ops/wf/{wid}/fork"): "operate",
    ("POST", "/api/ops/queues/{queue}/pause"): "operate",
    ("POST", "/api/ops/queues/{queue}/resume"): "operate",
    ("POST", "/api/ops/workers/{worker}/pause"): "operate",
    ("POST", "/api/ops/workers/{worker}/resume"): "operate",
    ("POST", "/api/runs/{wid}/gates/{gate_key}/reply"): "answer",
    ("POST", "/api/events/hitl"): None,  # a signature stands for a token there
    ("POST", "/runs/{wid}/events"): "answer",
    ("POST", "/runs/{wid}/approve-plan"): "answer",
    ("POST", "/api/runs/{wid}/approve-plan"): "answer",
}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def needed(method: str, path: str) -> Right | None:
    """The right that a route needs."""
    return NEEDS.get((method, path), "read" if method in SAFE else "administer")


class Unauthorized(Exception):
    """401: nobody that we know asks."""


class Forbidden(Exception):
    """403: somebody asks who may not, or in a way that is not allowed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` is None while nobody is asked for a token."""

    name: str | None
    roles: tuple[Role, ...]
    groups: frozenset[str] = frozenset()

    def may(self, right: Right) -> bool:
        return any(right in RIGHTS[role] for role in self.roles)

    def signed(self, body: JsonObject) -> JsonObject:
        """What the caller says, as of the one it really is: whatever it calls its actor."""
        return body if self.name is None else {**body, "actor": self.name}


ANYBODY = Caller(None, ("admin",))


class Doorkeeper:
    """Knows the tokens. open_without: whether nobody is asked as long as there never was one. pace: how much each may ask."""

    def __init__(self, pool: AsyncConnectionPool[Connection], *, open_without: bool, pace: Pace) -> None:
        self._pool = pool
        self._open_without = open_without
        self._pace = pace
        self._holders: dict[bytes, Holder] = {}
        self._open = False
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._used: set[str] = set()

    async def admit(self, request: Request, right: Right | None) -> Caller:
        """Who asks, if that one may. Raises Unauthorized, Forbidden or TooMany."""
        require_own_page(request)
        if right is None:
            return ANYBODY
        await self._refresh()
        if self._open:
            require_this_machine(request)
            return ANYBODY
        caller = self._caller(token_in(request))
        if not caller.may(right):
            raise Forbidden(f"this needs a token with the right to {right}; {caller.name!r} is {' and '.join(caller.roles)}")
        return caller

    def _caller(self, text: str | None) -> Caller:
        if text is None:
            raise Unauthorized("send a token as 'Authorization: Bearer …', or sign in; bin/token makes one")
        holder = self._holders.get(tokens.hash_of(text))
        if holder is None:
            raise Unauthorized("this token is not known here, has expired or was revoked")
        self._pace.take(holder.id)
        self._used.add(holder.id)
        return Caller(holder.name, tuple(holder.roles), frozenset(holder.groups))

    async def whose(self, text: str) -> Caller:
        """Whom a token stands for. Raises Unauthorized or TooMany."""
        await self._refresh()
        return self._caller(text)

    async def _refresh(self) -> None:
        if time.monotonic() < self._read_at + FRESH_S:
            return
        async with self._reading:
            if time.monotonic() < self._read_at + FRESH_S:
                return
            asked_at = time.monotonic()
            async with self._pool.connection() as conn:
                holders = await tokens.good(conn)
                self._open = self._open_without and not holders and not await tokens.were_made(conn)
                if self._used:
                    await tokens.note_use(conn, sorted(self._used))
                    self._used.clear()
            self._holders = {holder.hash: holder for holder in holders}
            self._read_at = asked_at


def token_in(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text:
        return text.strip()
    return request.cookies.get(COOKIE)


def require_own_page(request: Request) -> None:
    """Raises Forbidden for what a page of another site makes a browser change. Programs that are no browsers say neither header."""
    if request.method not in SAFE and not is_of_own_page(request):
        raise Forbidden("a page of another site may not do this; use the console, or a program with a token")


def is_of_own_page(request: Request) -> bool:
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def require_this_machine(request: Request) -> None:
    """Raises Forbidden for a browser that calls this machine by another name than its own."""
    if "sec-fetch-site" in request.headers and not is_loopback(request.url.hostname or ""):
        raise Forbidden("without tokens a browser must use 127.0.0.1 or localhost; bin/token makes one")


def is_loopback(host: str) -> bool:
    """Whether an address or name can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
