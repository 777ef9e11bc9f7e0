"""The calls of `opencode serve` that we make, typed. Every trouble is raised as Faulty; nothing waits without an end.

A server that is coming up may take a connection and never answer on it, so whether it is there is asked in short tries, each on a
connection of its own. Unknown paths are answered with a web page and status 200, so only JSON counts as an answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from steps.contracts.base import JsonObject
from steps.opencode_server.faults import BadReply, Fault, Faulty, fault_of
from steps.opencode_server.replies import Event, Message, Session, event_of, mapping, message_of, rules_of, sequence, session_of
from steps.opencode_server.rules import DENY_ALL, Rule

TRY_S = 1.0
PAUSE_S = 0.1
CALL_S = 30.0
MOST_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """Where an OpenCode server is. transport: how it is reached; a test's own, or None for the network."""

    base_url: str
    username: str = "opencode"
    password: str | None = field(default=None, repr=False)
    transport: httpx.AsyncBaseTransport | None = None

    def http(self, timeout_s: float) -> httpx.AsyncClient:
        """No proxy and no other setting of the environment stands between."""
        auth = None if self.password is None else httpx.BasicAuth(self.username, self.password)
        return httpx.AsyncClient(
            base_url=self.base_url.rstrip("/"),
            auth=auth,
            timeout=timeout_s,
            transport=self.transport,
            trust_env=False,
            verify=self.base_url.startswith("https:"),  # reading all certificates takes a while
        )


class OpenCodeClient:
    """Calls to one server. Make it with `connected`."""

    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        self._server = server
        self._http = http

    async def health(self, within_s: float) -> str:
        """The server's version. Raises Faulty when it does not say so in that time, or at once when it refuses us."""
        end = time.monotonic() + within_s
        while True:
            try:
                async with self._server.http(TRY_S) as fresh:
                    found = mapping(await _call(fresh, "GET", "/global/health", None, TRY_S))
                if found.get("healthy") is True:
                    return str(found.get("version", ""))
                fault = Fault("oc_live_unavailable", "the server is not healthy", retriable=True)
            except Faulty as trouble:
                fault = trouble.fault
            if not fault.retriable or time.monotonic() >= end:
                raise Faulty(fault)
            await asyncio.sleep(PAUSE_S)

    async def agents(self) -> dict[str, tuple[Rule, ...]]:
        """The rules of each agent that the server has."""
        found = await self._call("GET", "/agent")
        return {str(mapping(one).get("name", "")): rules_of(mapping(one).get("permission")) for one in sequence(found)}

    async def models(self) -> frozenset[str]:
        """All models that the server can ask, as provider/model. The first call makes the server set up its providers. It is patient:
        a server whose first set-up was interrupted by an abort fails ever after.
        """
        found = mapping(await self._call("GET", "/config/providers"))
        providers = [mapping(one) for one in sequence(found.get("providers"))]
        return frozenset(f"{one.get('id', '')}/{model}" for one in providers for model in mapping(one.get("models")))

    async def open_session(self, id: str, agent: str, title: str, metadata: Mapping[str, str]) -> Session:
        """The session of this id, in which nothing but an answer is permitted; made if it is not there. What the server says of it."""
        await self._call("POST", "/api/session", {"id": id, "agent": agent})
        rules = [{"permission": rule.permission, "pattern": rule.pattern, "action": rule.action} for rule in DENY_ALL]
        changed = {"title": title, "metadata": dict(metadata), "permission": rules}
        return session_of(await self._call("PATCH", f"/session/{id}", changed))

    async def has_session(self, id: str) -> bool:
        try:
            await self._call("GET", f"/session/{id}")
        except Faulty as trouble:
            if trouble.fault.name == "oc_gone":
                return False
            raise
        return True

    async def prompt(self, session: str, message: str, agent: str, text: str, schema: JsonObject, timeout_s: float) -> Message:
        """Ask, and wait for the last step of the answer, which may carry an error."""
        asked = {
            "messageID": message,
            "agent": agent,
            "parts": [{"type": "text", "text": text}],
            "format": {"type": "json_schema", "schema": schema, "retryCount": 0},
        }
        return message_of(await self._call("POST", f"/session/{session}/message", asked, timeout_s))

    async def steps_back(self, session: str, most: int) -> list[Message]:
        """The steps of the answer, the last first. They are read one by one: a page that holds a question with a schema is refused."""
        found: list[Message] = []
        before: str | None = None
        while len(found) < most:
            query = {"limit": "1"} | ({"before": before} if before else {})
            try:
                page, headers = await _call_with_headers(self._http, "GET", f"/session/{session}/message", None, CALL_S, query)
            except Faulty as trouble:
                if trouble.fault.name == "oc_bad_request":
                    break  # the question itself
                raise
            messages = [message_of(one) for one in sequence(page)]
            found += [one for one in messages if one.answers]
            before = headers.get("x-next-cursor")
            if not before or not messages:
                break
        return found

    async def busy(self) -> Mapping[str, JsonObject]:
        """The sessions that are at work, and how."""
        found = mapping(await self._call("GET", "/session/status"))
        return {id: mapping(status) for id, status in found.items() if mapping(status).get("type") != "idle"}

    async def abort(self, session: str) -> None:
        await self._call("POST", f"/session/{session}/abort")

    async def revert(self, session: str, message: str) -> None:
        """Take back what was done since that message."""
        await self._call("POST", f"/session/{session}/revert", {"messageID": message})

    async def describe(self, path: str) -> str:
        """The version of OpenAPI in which the server describes itself at this path."""
        return str(mapping(await self._call("GET", path)).get("openapi", ""))

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """What happens from now on, until the server ends it."""
        try:
            async with self._http.stream("GET", "/event", timeout=httpx.Timeout(CALL_S, read=None)) as response:
                kind = response.headers.get("content-type", "")
                if response.status_code != 200 or not kind.startswith("text/event-stream"):
                    raise Faulty(fault_of(BadReply(response.status_code, kind, None)))
                yield _events(response)
        except httpx.HTTPError as error:
            raise Faulty(fault_of(error)) from error

    async def _call(self, method: str, path: str, body: Any = None, timeout_s: float = CALL_S) -> Any:
        return await _call(self._http, method, path, body, timeout_s)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[OpenCodeClient]:
    async with server.http(CALL_S) as http:
        yield OpenCodeClient(server, http)


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            try:
                yield event_of(orjson.loads(line[5:]))
            except orjson.JSONDecodeError:
                continue


async def _call(http: httpx.AsyncClient, method: str, path: str, body: Any, timeout_s: float) -> Any:
    return (await _call_with_headers(http, method, path, body, timeout_s))[0]


async def _call_with_headers(
    http: httpx.AsyncClient, method: str, path: str, body: Any, timeout_s: float, query: Mapping[str, str] | None = None
) -> tuple[Any, httpx.Headers]:
    try:
        async with asyncio.timeout(timeout_s):
            async with http.stream(method, path, json=body, params=query, timeout=timeout_s) as response:
                content = await _read(response)
    except TimeoutError as error:
        raise Faulty(Fault("oc_live_unavailable", f"no answer to {method} {path} in {timeout_s:.0f} s", True)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Faulty(fault_of(error)) from error
    kind = response.headers.get("content-type", "")
    try:
        document = orjson.loads(content) if kind.startswith("application/json") else None
    except orjson.JSONDecodeError:
        document, kind = None, "broken application/json"
    if response.status_code != 200 or not kind.startswith("application/json"):
        raise Faulty(fault_of(BadReply(response.status_code, kind, document)))
    return document, response.headers


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            raise Faulty(Fault("oc_output_length", f"the answer is larger than {MOST_BYTES} bytes"))
    return bytes(content)
