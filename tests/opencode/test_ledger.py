"""Calls in the ledger: written down before they are asked, paid once, ended when nobody waits, and without secrets."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from steps import identity
from steps.contracts.plan import OCOutput
from steps.opencode import AgentRequest
from steps.opencode_server.live import LiveOpenCode
from steps.opencode_server.orphans import end_orphans
from steps.opencode_server.rules import session_id
from steps.opencode_server.watchdog import Patience
from steps.ports import Ports
from steps.redaction import Redaction
from steps.sandbox import MockSandbox
from tests.opencode.fake import PLAN, FakeOpenCode, answer
from tests.steps.product import Product, product

QUICK = Patience(turn_s=30, silence_s=30, up_s=0, back_off_s=0, settle_s=5)
CALLS = "select * from app.opencode_calls order by created_at"


def live(fake: FakeOpenCode) -> LiveOpenCode:
    return LiveOpenCode(fake.server, QUICK)


async def test_a_call_is_in_the_ledger_before_it_is_asked_and_after_it_is_answered(database: str, tmp_path: Path) -> None:
    fake = FakeOpenCode(silent=1)
    async with product(database, tmp_path, opencode=live(fake)) as runs:
        wid = await runs.start()
        await asked(fake, 1)
        (call,) = await runs.rows(CALLS)
        assert (call["state"], call["response"], call["structured"]) == ("asked", {}, None)
        assert call["session_id"] == session_id(call["op_key"], 0, 0)
        await runs.engine.cancel(wid)
        await at_rest(fake)
        (call,) = await runs.rows(CALLS)
        assert call["state"] == "asked"  # what came of it nobody knows


async def test_an_answer_is_recorded_with_all_that_it_was_made_of(database: str, tmp_path: Path) -> None:
    fake = FakeOpenCode(replies=[answer("msg", structured={"nope": 1}, parentID=None)])
    async with product(database, tmp_path, opencode=live(fake)) as runs:
        await runs.prompt(await runs.start())
        (call,) = await runs.rows(CALLS)
    assert (call["state"], call["error"], call["structured"]) == ("answered", None, PLAN)
    assert call["session_id"] == session_id(call["op_key"], 1, 0)
    assert call["response"]["responses"] == ["invalid", "answered"]
    assert call["request"]["schema"]
    assert call["prompt"] in fake.asked[0]["parts"][0]["text"]


async def test_a_failed_call_is_recorded_with_its_price_and_is_no_answer(database: str, tmp_path: Path) -> None:
    refused = answer("msg", structured=None, parentID=None, error={"name": "ContentFilterError", "data": {"message": "no"}})
    fake = FakeOpenCode(replies=[refused])
    async with product(database, tmp_path, opencode=live(fake)) as runs:
        wid = await runs.start()
        assert (await runs.failure(wid)).name == "oc_content_filter"
        (call,) = await runs.rows(CALLS)
        assert (call["state"], call["structured"]) == ("failed", None)
        assert call["error"] == {"name": "oc_content_filter", "message": "oc_content_filter:CompileST:no"}
        assert call["response"]["usage"] == {"total_tokens": 120}
        await runs.engine.rewind(wid, 0)
        await runs.prompt(wid)
        assert len(fake.asked) == 2
        (call,) = await runs.rows(CALLS)
        assert (call["state"], call["error"]) == ("answered", None)


class DiesAfterTheAnswer:
    """The first time, the worker that asked is gone before it can write down what it heard."""

    def __init__(self, inner: LiveOpenCode) -> None:
        self._inner = inner
        self.heard = asyncio.Event()

    def session_of(self, request: AgentRequest) -> str:
        return self._inner.session_of(request)

    async def abandon(self, op_key: str) -> bool:
        return await self._inner.abandon(op_key)

    async def ask(self, request: AgentRequest) -> OCOutput:
        reply = await self._inner.ask(request)
        if not self.heard.is_set():
            self.heard.set()
            await asyncio.Event().wait()
        return reply


async def test_an_answer_that_was_not_written_down_is_found_again_and_not_paid_twice(database: str, tmp_path: Path) -> None:
    fake = FakeOpenCode()
    opencode = DiesAfterTheAnswer(live(fake))
    async with product(database, tmp_path, opencode=opencode) as runs:
        wid = await runs.start()
        async with asyncio.timeout(20):
            await opencode.heard.wait()
        await runs.stop_worker()
        (call,) = await runs.rows(CALLS)
        assert call["state"] == "asked"
        await runs.start_worker()
        await runs.prompt(wid)
        (call,) = await runs.rows(CALLS)
        assert call["state"] == "answered"
    assert len(fake.asked) == 1


async def test_a_call_whose_run_has_ended_is_stopped_by_whoever_comes_next(database: str, tmp_path: Path) -> None:
    fake = FakeOpenCode()
    async with Engine.connect(database) as engine:
        runs = Product(engine, tmp_path, live(fake), MockSandbox())
        wid = await runs.start()
        await left_asked(runs, wid, "key_1")
        fake.sessions[session_id("key_1", 0, 1)] = []
        fake.is_busy = True
        assert await end_orphans(engine.pool, live(fake)) == 0  # its run may still be taken over
        assert fake.is_busy
        await engine.cancel(wid)
        assert await end_orphans(engine.pool, live(fake)) == 1
        assert not fake.is_busy
        (call,) = await runs.rows(CALLS)
        assert (call["state"], call["error"]["name"]) == ("failed", "oc_abandoned")
        assert await end_orphans(engine.pool, live(fake)) == 0


async def left_asked(runs: Product, wid: str, op_key: str) -> None:
    async with runs.engine.pool.connection() as conn:
        await conn.execute(
            "insert into app.opencode_calls (id, run_id, step_id, request, response, op_key, state)"
            " values (%s, %s, 'CompileST', '{}', '{}', %s, 'asked')",
            (op_key, identity.run_id(wid), op_key),
        )


async def test_a_secret_is_neither_in_a_row_nor_in_the_journal(database: str, tmp_path: Path) -> None:
    secret = "correct-horse-battery"
    token = "ghp_" + "a1B2" * 9
    leaky = PLAN | {"design": [f"use {secret}"], "risks": [token]}
    failing = {"name": "APIError", "data": {"statusCode": 401, "message": f"bad key {secret}"}}
    fake = FakeOpenCode(replies=[answer("msg", structured=leaky, parentID=None)])
    async with Engine.connect(database) as engine:
        runs = Product(engine, tmp_path, live(fake), MockSandbox())
        runs.ports = Ports(engine.pool, live(fake), MockSandbox(), tmp_path, redaction=Redaction([secret]))
        await runs.start_worker()
        try:
            first = await runs.start("one")
            await runs.prompt(first)
            (card,) = [one for one in await runs.artifacts(first, "CompileST") if one["kind"] == "plan_card"]
            assert card["inline"]["json"]["design"] == ["use [redacted]"]
            assert card["inline"]["json"]["risks"] == ["[redacted]"]
            fake.replies.append(answer("msg", structured=None, error=failing, parentID=None))
            assert (await runs.failure(await runs.start("two"))).message.endswith("bad key [redacted]")
        finally:
            await runs.stop_worker()
        everything = await runs.rows(
            "select c::text as row from app.opencode_calls c union all select a::text from app.artifacts a"
            " union all select o::text from dbos.operation_outputs o union all select s::text from dbos.workflow_status s"
        )
        assert everything
        assert not [row for row in everything if secret in row["row"] or token in row["row"]]


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghijklmnopqrstuvwxyz",
        "postgresql://me:hunter2@db/x",
        "Authorization: Bearer abcdefghijklmnop1234",
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    hidden: Any = Redaction().document({"a": [f"it is {text} indeed"], "b": 1})
    assert "[redacted]" in hidden["a"][0]
    assert text not in hidden["a"][0]
    assert hidden["a"][0].startswith("it is ")


@pytest.mark.parametrize(
    "value", ["a risk-averse sk-etch", "task-1234567890123456", "http://host:80/path", None, 5, True, ["bash"]]
)
def test_what_does_not_is_left_alone(value: Any) -> None:
    assert Redaction(["abc"]).document({"abc": value}) == {"abc": value}


def test_a_known_secret_is_found_however_it_has_to_be_written_in_json() -> None:
    hide = Redaction(['quo"te\\slash', "ünïcode-word"])
    assert hide.document({"a": 'x quo"te\\slash y', "b": ["ünïcode-word"], "c": 2**70}) == {
        "a": "x [redacted] y",
        "b": ["[redacted]"],
        "c": 2**70,
    }
    assert hide.document({"a": 'x quo"te\\slash y'}) == {"a": "x [redacted] y"}


async def asked(fake: FakeOpenCode, times: int) -> None:
    async with asyncio.timeout(20):
        while len(fake.asked) < times:
            await asyncio.sleep(0.01)


async def at_rest(fake: FakeOpenCode) -> None:
    async with asyncio.timeout(20):
        while fake.is_busy or not fake.aborted:
            await asyncio.sleep(0.01)
