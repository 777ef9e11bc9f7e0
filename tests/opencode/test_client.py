"""The client against servers that are slow, broken or none at all."""

import asyncio
import json
from typing import Any

import httpx
import orjson
import pytest

from steps.opencode_server import client as module
from steps.opencode_server.client import OpenCodeClient, Server, connected
from steps.opencode_server.faults import Faulty
from tests.opencode.fake import BAN, FakeOpenCode, answer, tool_part

HEALTHY = {"healthy": True, "version": "1.18.33"}


class Replies(httpx.AsyncBaseTransport):
    """Hands out replies in turn; the last one stays. None is never answered. closed: how many of its users have left."""

    def __init__(self, *replies: httpx.Response | None) -> None:
        self.replies = list(replies)
        self.seen: list[httpx.Request] = []
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            await asyncio.Event().wait()
        assert reply is not None
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    async def aclose(self) -> None:
        self.closed += 1


def healthy(document: Any = HEALTHY) -> httpx.Response:
    return httpx.Response(200, json=document)


async def fault_name(transport: httpx.AsyncBaseTransport, within_s: float = 0) -> str:
    async with connected(Server("http://fake", transport=transport)) as client:
        with pytest.raises(Faulty) as refused:
            await client.health(within_s)
    return refused.value.fault.name


async def test_a_server_that_takes_a_connection_and_never_answers_is_asked_again_on_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TRY_S", 0.2)
    transport = Replies(None, None, healthy())
    async with connected(Server("http://fake", transport=transport)) as client:
        assert await client.health(30) == "1.18.33"
        assert transport.closed == len(transport.seen) >= 3


async def test_waiting_for_health_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRY_S", 0.05)
    assert await fault_name(Replies(None), within_s=0.2) == "oc_live_unavailable"
    assert await fault_name(Replies(healthy({"healthy": False})), within_s=0.2) == "oc_live_unavailable"


async def test_a_wrong_password_is_not_tried_again() -> None:
    transport = Replies(httpx.Response(401))
    assert await fault_name(transport, within_s=30) == "oc_auth"
    assert len(transport.seen) == 1


async def test_the_password_goes_along_and_is_never_shown() -> None:
    server = Server("http://fake", "opencode", "s3cret-word", Replies(healthy()))
    async with connected(server) as client:
        await client.health(0)
    assert server.transport is not None
    (request,) = server.transport.seen  # type: ignore[attr-defined]  # it is the Replies above
    assert request.headers["authorization"].startswith("Basic ")
    assert "s3cret" not in repr(server)


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, headers={"content-type": "text/html"}, text="<html>OpenCode</html>"),
        httpx.Response(200, headers={"content-type": "application/json"}, text='{"healthy": tr'),
        httpx.Response(200, headers={"content-type": "application/json"}, text="[]"),
        httpx.Response(200),
    ],
)
async def test_what_is_no_json_is_no_answer(reply: httpx.Response) -> None:
    assert await fault_name(Replies(reply)) == "oc_live_unavailable"


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    long = httpx.Response(200, headers={"content-type": "application/json"}, content=orjson.dumps("x" * 5000))
    assert await fault_name(Replies(long)) == "oc_output_length"


async def test_no_proxy_of_the_environment_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Server("http://127.0.0.1:1").http(1) as http:
        assert not http._mounts


async def test_the_steps_of_an_answer_are_read_one_by_one_back_to_the_question() -> None:
    fake = FakeOpenCode()
    tool = answer("msg_q", 1, structured=None) | {"parts": [tool_part("bash")]}
    fake.sessions["ses_1"] = [tool, answer("msg_q", 2)]
    async with connected(fake.server) as client:
        found = await client.steps_back("ses_1", 9)
        assert [step.id for step in found] == ["msg_2", "msg_1"]
        assert [tool.name for tool in found[1].tools] == ["bash"]
        assert [step.id for step in await client.steps_back("ses_1", 1)] == ["msg_2"]
        assert await client.steps_back("ses_2", 9) == []


async def test_a_session_is_opened_with_a_ban_and_no_call_ever_names_a_parent() -> None:
    fake = FakeOpenCode()
    async with connected(fake.server) as client:
        await client.open_session("ses_1", "plan", "t", {"op_key": "k"})
        await client.prompt("ses_1", "msg_1", "plan", "do", {}, 5)
    assert [body["permission"][0] for body in fake.bodies if "permission" in body] == [BAN]
    assert "parent" not in json.dumps(fake.bodies).lower()


async def test_a_document_of_another_form_is_read_with_care() -> None:
    odd: list[Any] = [None, [], {"info": 5, "parts": {}}, {"info": {"tokens": {"total": "x"}, "structured": [1], "error": "e"}}]
    transport = Replies(*[httpx.Response(200, json=[one]) for one in odd])
    async with connected(Server("http://fake", transport=transport)) as client:
        for _ in odd:
            assert await client.steps_back("ses_1", 1) == []
        assert isinstance(client, OpenCodeClient)
