"""An OpenCode server that misbehaves as a test wants it to, in ways in which the real one does not, or no longer, or not on demand."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from steps.opencode_server.client import Server

BAN = {"permission": "*", "pattern": "*", "action": "deny"}
ANSWER = {"permission": "StructuredOutput", "pattern": "*", "action": "allow"}
PLAN = {"goal": "g", "design": [], "files": [], "risks": [], "tests": []}


def answer(question: str, number: int = 1, **info: Any) -> dict[str, Any]:
    """A message of the agent, complete and good unless told otherwise."""
    known = {
        "id": f"msg_{number}",
        "parentID": question,
        "role": "assistant",
        "structured": PLAN,
        "tokens": {"total": 120},
        "cost": 0.5,
        "time": {"created": 1, "completed": 2},
        "providerID": "p",
        "modelID": "m",
    }
    return {"info": {name: value for name, value in (known | info).items() if value is not None}, "parts": []}


def tool_part(name: str, id: str = "prt_1") -> dict[str, Any]:
    return {"type": "tool", "id": id, "tool": name, "state": {"status": "running", "input": {"a": 1}}}


@dataclass
class FakeOpenCode:
    """Its attributes are its behaviour. silent: so many questions are never answered, and the session is busy until it is aborted.
    asked: questions so far; aborted, reverted: sessions, in order.
    """

    version: str = "1.18.33"
    agents: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": name, "permission": [BAN, ANSWER]} for name in ("plan", "build")]
    )
    providers: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "p", "models": {"m": {}}}])
    echo: dict[str, Any] = field(default_factory=dict[str, Any])
    replies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    silent: int = 0
    is_busy: bool = False
    says_idle: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    aborted: list[str] = field(default_factory=list[str])
    reverted: list[str] = field(default_factory=list[str])
    bodies: list[Any] = field(default_factory=list[Any])
    sessions: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])

    @property
    def server(self) -> Server:
        return Server("http://fake", transport=httpx.MockTransport(self.handle))

    async def handle(self, request: httpx.Request) -> httpx.Response:
        body: Any = json.loads(request.content) if request.content else {}
        if body:
            self.bodies.append(body)
        parts = request.url.path.strip("/").split("/")
        match request.method, parts:
            case "GET", ["global", "health"]:
                return httpx.Response(200, json={"healthy": True, "version": self.version})
            case "GET", ["agent"]:
                return httpx.Response(200, json=self.agents)
            case "GET", ["config", "providers"]:
                return httpx.Response(200, json={"providers": self.providers})
            case "POST", ["api", "session"]:
                self.sessions.setdefault(body["id"], [])
                return httpx.Response(200, json={"data": {"id": body["id"]}})
            case "PATCH", ["session", id]:
                return httpx.Response(
                    200, json={"id": id, "version": self.version, "permission": body["permission"], **self.echo}
                )
            case "GET", ["session", "status"]:
                busy = {id: {"type": "busy"} for id in self.sessions} if self.is_busy and not self.says_idle else {}
                return httpx.Response(200, json=busy)
            case "POST", ["session", id, "abort"]:
                self.aborted.append(id)
                self.is_busy = False
                return httpx.Response(200, json=True)
            case "POST", ["session", id, "revert"]:
                self.reverted.append(id)
                return httpx.Response(200, json={"id": id})
            case "GET", ["event"]:
                return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Events(self))
            case "GET", ["session", id, "message"]:
                return self._page(id, request.url.params.get("before"))
            case "POST", ["session", id, "message"]:
                return await self._answer(id, body)
            case _:
                return httpx.Response(200, headers={"content-type": "text/html"}, text="<html>")

    def _page(self, id: str, before: str | None) -> httpx.Response:
        messages = self.sessions.get(id, [])
        place = len(messages) - 1 if before is None else int(before)
        if place < 0:
            return httpx.Response(200, json=[]) if before is None else httpx.Response(400, json={"name": "BadRequest"})
        return httpx.Response(200, json=[messages[place]], headers={"x-next-cursor": str(place - 1)})

    async def _answer(self, id: str, body: dict[str, Any]) -> httpx.Response:
        self.asked.append(body)
        if self.silent:
            self.silent -= 1
            self.is_busy = True
            await asyncio.Event().wait()
        reply = self.replies.pop(0) if self.replies else answer(body["messageID"], len(self.asked))
        reply["info"].setdefault("parentID", body["messageID"])
        self.sessions[id].append(reply)
        return httpx.Response(200, json=reply)


class Events(httpx.AsyncByteStream):
    """The connection, what the test put in for whichever session was opened last, and then nothing."""

    def __init__(self, fake: FakeOpenCode) -> None:
        self._fake = fake

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield line({"type": "server.connected", "properties": {}})
        session = list(self._fake.sessions)[-1]
        for event in self._fake.events:
            yield line({**event, "properties": {"sessionID": session, **event["properties"]}})
        await asyncio.Event().wait()


def line(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
