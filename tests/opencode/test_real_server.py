"""Our client and the real `opencode serve`, with a stand-in for the model: what either of them promises the other.

Skipped, with the reason, where OpenCode can't be had.
"""

import asyncio
from dataclasses import replace

import pytest

from steps.contracts.plan import Build, Plan
from steps.opencode import AgentFailed
from steps.opencode_server.client import connected
from steps.opencode_server.faults import Faulty
from steps.opencode_server.live import LiveOpenCode
from steps.opencode_server.rules import session_id
from tests.opencode.model_server import Answer, Asked, Call, ModelServer, Move, Refuse, Silence, Text, Truncated, plan
from tests.opencode.questions import PATIENT, build_question, plan_question
from tests.opencode.stage import OpenCodeServer


def live(opencode: OpenCodeServer, **patience: float) -> LiveOpenCode:
    return LiveOpenCode(opencode.server, replace(PATIENT, **patience))


async def failure(opencode: OpenCodeServer, run_id: str, **patience: float) -> AgentFailed:
    with pytest.raises(AgentFailed) as failed:
        await live(opencode, **patience).ask(plan_question(run_id))
    await require_rest(opencode)
    return failed.value


async def require_rest(opencode: OpenCodeServer) -> None:
    async with connected(opencode.server) as client:
        assert await client.busy() == {}


async def test_the_plan_agent_gives_a_plan(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    reply = await live(opencode).ask(plan_question(run_id, "Plan a bridge."))
    assert Plan.model_validate(reply.structured).goal == "demo"
    assert reply.usage is not None
    assert reply.usage.total_tokens == 120
    (asked,) = model.asked
    assert "Plan a bridge." in asked.prompt
    assert asked.tools == ("StructuredOutput",)
    await require_rest(opencode)


async def test_the_build_agent_gives_a_build(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    reply = await live(opencode).ask(build_question(run_id))
    assert Build.model_validate(reply.structured).test_command == "true"
    assert [asked.tools for asked in model.asked] == [("StructuredOutput",)]


async def test_the_same_question_is_paid_once(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    first = await live(opencode).ask(plan_question(run_id))
    model.reset(lambda asked: Answer(plan("another")))
    again = await live(opencode).ask(plan_question(run_id))
    assert again.structured == first.structured
    assert model.asked == []


async def test_two_who_ask_the_same_at_the_same_time_share_the_answer(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Answer(plan(), after_s=0.5))
    one, other = await asyncio.gather(*[live(opencode).ask(plan_question(run_id)) for _ in range(2)])
    assert one.structured == other.structured
    assert len(model.asked) == 1


async def test_an_answer_of_another_form_is_asked_for_again_and_its_price_is_told(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    moves: list[Move] = [Answer({"nope": 1}), Text("I would say so."), Answer(plan())]
    model.reset(lambda asked: moves[asked.number - 1])
    reply = await live(opencode).ask(plan_question(run_id))
    assert reply.document()["responses"] == ["invalid", "oc_no_structure", "answered"]
    assert reply.usage is not None
    assert reply.usage.total_tokens == 360
    assert "'nope' is unknown" in model.asked[1].prompt
    assert "not handed in" in model.asked[2].prompt
    again = await live(opencode).ask(plan_question(run_id))
    assert again.structured == reply.structured
    assert len(model.asked) == 3


async def test_answers_that_never_fit_are_given_up(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    model.reset(lambda asked: Answer({"nope": asked.number}))
    failed = await failure(opencode, run_id)
    assert failed.name == "structured_output_invalid"
    assert len(model.asked) == 3
    assert failed.reply.usage is not None
    assert failed.reply.usage.total_tokens == 360


@pytest.mark.parametrize("tool", ["bash", "Write", "unheard_of"])
async def test_a_tool_is_denied_and_never_works(opencode: OpenCodeServer, model: ModelServer, run_id: str, tool: str) -> None:
    mark = opencode.wanted.folder / "empty" / "mark"
    model.reset(lambda asked: Call(tool, {"command": f"touch {mark}", "filePath": str(mark), "content": "x", "description": "d"}))
    failed = await failure(opencode, run_id)
    assert (failed.name, failed.data["tool"]) == ("tool_denied", tool)
    assert not mark.exists()


async def test_a_provider_that_refuses_our_key_is_asked_once(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    model.reset(lambda asked: Refuse(401, "bad key"))
    failed = await failure(opencode, run_id)
    assert failed.name == "oc_auth"
    assert "bad key" in str(failed)
    assert len(model.asked) == 1


async def test_a_provider_that_is_busy_is_asked_again(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    model.reset(lambda asked: Refuse(429, "slow down", {"retry-after": "0"}) if asked.number == 1 else Answer(plan()))
    assert (await live(opencode).ask(plan_question(run_id))).structured == plan()
    assert len(model.asked) == 2


async def test_a_provider_that_stays_busy_is_told_as_such(opencode: OpenCodeServer, model: ModelServer, run_id: str) -> None:
    model.reset(lambda asked: Refuse(429, "slow down", {"retry-after-ms": "1"}))
    failed = await failure(opencode, run_id, most_repeats=0)
    assert failed.name in ("oc_rate_limited", "oc_provider")
    assert "slow down" in str(failed)


async def test_a_provider_that_is_broken_is_not_waited_for_without_end(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Refuse(500, "boom"))
    failed = await failure(opencode, run_id, most_retries=0, most_repeats=0)
    assert failed.name == "oc_provider"
    assert len(model.asked) <= 2


async def test_a_stream_that_breaks_off_does_not_make_the_server_ask_for_ever(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Truncated())
    failed = await failure(opencode, run_id)
    assert failed.name == "oc_runaway"
    asked = len(model.asked)
    await asyncio.sleep(0.3)
    assert len(model.asked) == asked < 60


async def test_a_model_that_falls_silent_is_given_up_after_a_second_try(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Silence())
    failed = await failure(opencode, run_id, silence_s=2.5)
    assert failed.name == "oc_timeout_terminal"
    assert [turn["outcome"] for turn in failed.data["turns"]] == ["oc_stall", "oc_stall"]
    assert len(model.asked) <= 2


async def test_who_is_cancelled_leaves_the_server_idle_and_may_ask_again(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Silence())
    asking = asyncio.create_task(live(opencode).ask(plan_question(run_id)))
    await asked_for(model, 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await require_rest(opencode)
    model.reset()
    assert (await live(opencode).ask(plan_question(run_id))).structured == plan()


async def test_a_call_that_nobody_waits_for_can_be_ended_by_its_key(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    model.reset(lambda asked: Silence())
    question = plan_question(run_id)
    async with connected(opencode.server) as client:
        id = session_id(question.op_key, 0, 0)
        await client.open_session(id, "plan", "t", {})
        left_alone = asyncio.create_task(client.prompt(id, "msg_1", "plan", "do", question.schema, 60))
        await asked_for(model, 1)
        assert id in await client.busy()
        assert await live(opencode).abandon(question.op_key)
        assert id not in await client.busy()
        await left_alone


async def test_an_agent_that_the_server_does_not_know_is_an_error_of_the_configuration(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    async with connected(opencode.server) as client:
        assert await client.models() == {opencode.wanted.model}
        await client.open_session(f"ses_{run_id}", "plan", "t", {})
        with pytest.raises(Faulty) as refused:
            await client.prompt(f"ses_{run_id}", "msg_1", "nobody", "do", {}, 60)
    assert refused.value.fault.name == "oc_bad_config"
    assert model.asked == []


async def test_a_server_that_is_killed_in_the_middle_goes_on_where_it_was(
    opencode: OpenCodeServer, model: ModelServer, run_id: str
) -> None:
    def once_silent(asked: Asked) -> Move:
        return Silence() if asked.number == 1 else Answer(plan("after the kill"))

    model.reset(once_silent)
    asking = asyncio.create_task(live(opencode, most_repeats=5).ask(plan_question(run_id)))
    await asked_for(model, 1)
    opencode.kill()
    await asyncio.to_thread(opencode.restart)
    reply = await asking
    assert reply.structured == plan("after the kill")
    assert "oc_live_unavailable" in reply.document()["responses"]
    assert len({turn["session_id"] for turn in reply.document()["turns"]}) == 1
    await require_rest(opencode)


async def asked_for(model: ModelServer, times: int) -> None:
    async with asyncio.timeout(60):
        while len(model.asked) < times:
            await asyncio.sleep(0.02)
