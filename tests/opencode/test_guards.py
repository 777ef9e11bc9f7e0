"""What a server must be and do before and while it is asked, held against one that is not so. Four known troubles of OpenCode are here:
sessions with a parent that never answer (8528), rules that are ignored (6396), producers that stall (11064), and a loop without end.
"""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from steps.agent import forbid_child_sessions
from steps.opencode import AgentFailed
from steps.opencode_server.client import Server
from steps.opencode_server.live import LiveOpenCode
from steps.opencode_server.watchdog import Patience
from tests.opencode.fake import ANSWER, BAN, PLAN, FakeOpenCode, answer, tool_part
from tests.opencode.questions import plan_question

QUICK = Patience(turn_s=30, silence_s=30, up_s=0, back_off_s=0, settle_s=1)


async def failure(fake: FakeOpenCode, patience: Patience = QUICK, *, strict: bool = True) -> AgentFailed:
    with pytest.raises(AgentFailed) as failed:
        await LiveOpenCode(fake.server, patience, strict=strict).ask(plan_question("run_1"))
    assert not fake.is_busy
    return failed.value


async def test_a_good_server_is_asked_once() -> None:
    fake = FakeOpenCode()
    reply = await LiveOpenCode(fake.server, QUICK).ask(plan_question("run_1"))
    assert reply.structured == PLAN
    assert reply.usage is not None
    assert reply.usage.total_tokens == 120
    assert len(fake.asked) == 1


# Before anything is asked ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"version": "0.5.0"}, "oc_version"),
        ({"version": "2.0.0"}, "oc_version"),
        ({"agents": []}, "oc_bad_config"),
        ({"agents": [{"name": "build", "permission": [BAN, ANSWER]}]}, "oc_bad_config"),
        ({"agents": [{"name": "plan", "permission": []}]}, "oc_permissions"),
        ({"agents": [{"name": "plan", "permission": [BAN]}]}, "oc_permissions"),
        (
            {"agents": [{"name": "plan", "permission": [BAN, ANSWER, {"permission": "bash", "pattern": "*", "action": "ask"}]}]},
            "oc_permissions",
        ),
        ({"providers": []}, "oc_bad_config"),
        ({"echo": {"permission": []}}, "oc_permissions"),
        ({"echo": {"permission": [BAN, ANSWER, {"permission": "edit", "pattern": "*", "action": "allow"}]}}, "oc_permissions"),
        ({"echo": {"id": "ses_other"}}, "oc_bad_config"),
        ({"echo": {"parentID": "ses_other"}}, "child_session_denied"),
    ],
)
async def test_a_server_that_may_not_be_asked_is_not_asked(wrong: dict[str, Any], name: str, strict: bool) -> None:
    fake = replace(FakeOpenCode(), **wrong)
    assert (await failure(fake, strict=strict)).name == name
    assert fake.asked == []


async def test_without_a_server_a_strict_worker_has_no_answer_and_another_says_that_it_made_one_up() -> None:
    server = Server("http://fake", transport=httpx.MockTransport(lambda _: httpx.Response(503)))
    with pytest.raises(AgentFailed, match="oc_live_unavailable:CompileST:"):
        await LiveOpenCode(server, QUICK, strict=True).ask(plan_question("run_1"))
    reply = await LiveOpenCode(server, QUICK, strict=False).ask(plan_question("run_1"))
    assert reply.document()["made_up"].startswith("oc_live_unavailable: ")
    assert reply.structured is not None
    assert reply.structured["goal"] == "made up"


# 8528: sessions with a parent take a question and never answer ---------------------------------------------------------------------


async def test_an_answer_without_anything_in_it_is_no_answer() -> None:
    fake = FakeOpenCode(replies=[answer("msg", structured=None, parentID=None) for _ in range(9)])
    failed = await failure(fake)
    assert failed.name == "oc_no_answer"
    assert len(fake.asked) == 1 + QUICK.most_repeats


async def test_an_empty_answer_is_asked_for_again() -> None:
    fake = FakeOpenCode(replies=[answer("msg", structured=None, parentID=None)])
    assert (await LiveOpenCode(fake.server, QUICK).ask(plan_question("run_1"))).structured == PLAN
    assert len(fake.asked) == 2


def test_no_question_may_carry_a_parent() -> None:
    with pytest.raises(Exception, match="child sessions are not allowed"):
        forbid_child_sessions({"intent": {"inputs": [{"Parent_Session-ID": "ses_1"}]}})


# 6396: rules of an agent are ignored -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["edit", "Edit", " edit", "Bash", "task", "mcp_write"])
async def test_a_tool_that_was_used_in_spite_of_the_ban_ends_the_step(tool: str) -> None:
    fake = FakeOpenCode(replies=[answer("msg", parentID=None) | {"parts": [tool_part(tool)]}])
    failed = await failure(fake)
    assert (failed.name, failed.data["tool"], failed.data["agent"]) == ("tool_denied", tool, "plan")
    assert f"tool-denied: {tool} for agent plan" in str(failed)
    assert [call.name for call in failed.reply.toolcalls] == [tool]


async def test_a_tool_in_an_earlier_step_is_found_although_the_answer_does_not_show_it() -> None:
    fake = FakeOpenCode()
    live = LiveOpenCode(fake.server, QUICK)
    question = plan_question("run_1")
    session = live.session_of(question)
    message = session.replace("ses_", "msg_")
    fake.sessions[session] = [answer(message, 1, structured=None) | {"parts": [tool_part("write")]}, answer(message, 2)]
    with pytest.raises(AgentFailed) as failed:
        await live.ask(question)
    assert failed.value.name == "tool_denied"
    assert fake.asked == []


async def test_a_tool_is_stopped_while_it_is_being_called() -> None:
    fake = FakeOpenCode(silent=9, events=[{"type": "message.part.updated", "properties": {"part": tool_part("bash")}}])
    assert (await failure(fake)).name == "tool_denied"
    assert len(fake.aborted) == 1


# 11064: a producer stalls ----------------------------------------------------------------------------------------------------------


async def test_a_stall_is_reverted_and_asked_again_once_with_less_to_do() -> None:
    fake = FakeOpenCode(silent=1)
    question = plan_question("run_1")
    reply = await LiveOpenCode(fake.server, replace(QUICK, silence_s=1.0)).ask(question)
    assert reply.document()["responses"] == ["oc_stall", "answered"]
    first, second = (asked["parts"][0]["text"] for asked in fake.asked)
    assert first == question.prompt
    assert second.startswith(question.prompt)
    assert "Tighten the scope" in second
    assert fake.reverted == fake.aborted == [LiveOpenCode(fake.server).session_of(question)]


async def test_a_second_stall_is_final() -> None:
    fake = FakeOpenCode(silent=9)
    failed = await failure(fake, replace(QUICK, turn_s=0.2))
    assert failed.name == "oc_timeout_terminal"
    assert len(fake.asked) == len(set(fake.reverted)) == len(set(fake.aborted)) == 2


async def test_a_producer_that_is_quick_enough_is_left_alone() -> None:
    fake = FakeOpenCode()
    await LiveOpenCode(fake.server, replace(QUICK, turn_s=20, silence_s=20)).ask(plan_question("run_1"))
    assert (fake.aborted, fake.reverted) == ([], [])


# A loop without end -----------------------------------------------------------------------------------------------------------------


async def test_a_server_that_goes_round_in_circles_is_stopped() -> None:
    steps = [
        {"type": "message.part.updated", "properties": {"part": {"type": "step-start", "id": f"prt_{number}"}}}
        for number in range(9)
    ]
    fake = FakeOpenCode(silent=9, events=steps)
    failed = await failure(fake)
    assert failed.name == "oc_runaway"
    assert len(set(fake.aborted)) == 2


# Answers that do not fit ----------------------------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_fit_is_asked_for_twice_more_each_time_in_a_new_session() -> None:
    fake = FakeOpenCode(replies=[answer("msg", structured={"nope": 1}, parentID=None) for _ in range(9)])
    failed = await failure(fake)
    assert failed.name == "structured_output_invalid"
    assert len(fake.asked) == 3
    assert len(fake.sessions) == 3
    assert "'nope' is unknown" in fake.asked[1]["parts"][0]["text"]
    assert failed.reply.usage is not None
    assert failed.reply.usage.total_tokens == 120  # the fake gives all three answers the same id


@pytest.mark.parametrize(
    ("error", "name", "asked"),
    [
        ({"name": "APIError", "data": {"statusCode": 401, "isRetryable": False}}, "oc_auth", 1),
        ({"name": "APIError", "data": {"statusCode": 429, "isRetryable": True}}, "oc_rate_limited", 4),
        ({"name": "APIError", "data": {"statusCode": 500, "isRetryable": True}}, "oc_provider", 4),
        ({"name": "MessageAbortedError", "data": {}}, "oc_aborted", 4),
        ({"name": "ContextOverflowError", "data": {}}, "oc_context_overflow", 1),
        ({"name": "StructuredOutputError", "data": {}}, "structured_output_invalid", 3),
    ],
)
async def test_what_passes_is_asked_again_and_what_does_not_is_not(error: dict[str, Any], name: str, asked: int) -> None:
    fake = FakeOpenCode(replies=[answer("msg", number, structured=None, error=error, parentID=None) for number in range(9)])
    assert (await failure(fake)).name == name
    assert len(fake.asked) == asked


# Leaving ---------------------------------------------------------------------------------------------------------------------------


async def cancelled_while_it_asks(fake: FakeOpenCode) -> None:
    asking = asyncio.create_task(LiveOpenCode(fake.server, QUICK).ask(plan_question("run_1")))
    async with asyncio.timeout(20):
        while not fake.asked:
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_who_is_cancelled_leaves_nothing_running_behind() -> None:
    fake = FakeOpenCode(silent=9)
    await cancelled_while_it_asks(fake)
    assert len(fake.aborted) == 1
    assert not fake.is_busy


async def test_who_is_cancelled_twice_does_not_forget_either() -> None:
    fake = FakeOpenCode(silent=9)
    asking = asyncio.create_task(LiveOpenCode(fake.server, QUICK).ask(plan_question("run_1")))
    async with asyncio.timeout(20):
        while not fake.asked:
            await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(20):
        while fake.is_busy:
            await asyncio.sleep(0.01)


async def test_a_question_that_is_just_arriving_is_aborted_although_the_server_says_that_it_is_idle() -> None:
    fake = FakeOpenCode(silent=9, says_idle=True)
    await cancelled_while_it_asks(fake)
    assert len(fake.aborted) == 1
