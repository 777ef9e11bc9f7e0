"""A history that was exported replays without a database, and whatever differs from it is found and named."""

import copy
import json
from collections.abc import Callable
from typing import Any, LiteralString

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from engine import (
    Connection,
    Replay,
    StepFailed,
    TerminalError,
    Workflow,
    close_stream,
    export_history,
    gather,
    get_event,
    patched,
    recv,
    replay,
    send,
    set_event,
    sleep,
    start,
    step,
    transaction,
    workflow,
    workflow_info,
    write_stream,
)
from tests.engine import programs
from tests.engine.programs import PROGRAMS, Program
from tests.engine.test_replay_property import CRASHES, EVERYTHING, Family, drive
from tests.engine.workshop import Brake, Ledger, Trace, Workshop

History = dict[str, list[dict[str, Any]]]

ALL_IDS: LiteralString = "select array_agg(workflow_uuid) as ids from dbos.workflow_status"


async def exported(shop: Workshop) -> History:
    """Everything in the database, through JSON text and back."""
    (row,) = await shop.rows(ALL_IDS)
    async with shop.engine.transaction() as conn:
        return json.loads(json.dumps(await export_history(conn, row["ids"] or [])))


def named(history: History, id: str, name: str) -> dict[str, Any]:
    """The journal row of a call."""
    (row,) = [r for r in history["operation_outputs"] if r["workflow_uuid"] == id and r["function_name"] == name]
    return row


async def told(workflow: Workflow[Any, Any], history: History, id: str = "w") -> str:
    """What the difference is said to be."""
    difference = (await replay(workflow, history, id)).difference
    assert difference is not None
    return str(difference)


# A run that uses everything --------------------------------------------------------------------------------------------------


@step
async def classify(text: str) -> str:
    return text


@step
async def judge(kind: str) -> int:
    return len(kind)


@transaction
async def book(conn: Connection, amount: int) -> int:
    await conn.execute("insert into public.ledger (entry) values ('booked')")
    return amount


@workflow(name="helper")
async def helper(kind: str, amount: int) -> str:
    return await classify(f"{kind} {amount}")


@workflow(name="talkative")
async def talkative(text: str) -> dict[str, Any]:
    kind = await classify(text)
    amount = await judge(kind)
    await set_event("kind", {"kind": kind, "steady": 1})
    await write_stream("log", [kind])
    await send(workflow_info().id, {"kind": kind}, "self")
    child = await start(helper, kind, amount, partition=kind)
    booked, told = await gather(book(amount), child.result())
    heard = await recv("self", timeout_s=60)
    if amount > 5:
        await sleep(0.001)
    await close_stream("log")
    return {"told": told, "booked": booked, "heard": heard}


@pytest.fixture
async def history(shop: Workshop, ledger: Ledger) -> History:
    """What 'w' and its child recorded."""
    await shop.worker(talkative, helper)
    await shop.engine.enqueue(talkative, "lamp", id="w")
    await shop.result("w")
    await shop.stop_all()
    return await exported(shop)


async def test_a_finished_run_replays_as_recorded(history: History, ledger: Ledger) -> None:
    recorded = [row for row in history["operation_outputs"] if row["workflow_uuid"] == "w"]
    assert await replay(talkative, history, "w") == Replay("w", "talkative", "SUCCESS", len(recorded), (), None)
    assert (await replay(helper, history, "w-6")).difference is None
    assert await ledger.entries() == ["booked"]


async def test_a_replay_changes_nothing_in_the_history(history: History) -> None:
    before = copy.deepcopy(history)
    await replay(talkative, history, "w")
    assert history == before


async def test_an_altered_output_shows_in_an_event(history: History) -> None:
    named(history, "w", "classify")["output"] = '"lump"'
    assert await told(talkative, history) == (
        "w at call 3, 'DBOS.setEvent': recorded was the value of 'kind' at /kind: \"lamp\"; the code now gives \"lump\""
    )


async def test_an_altered_output_shows_in_what_a_child_gets(history: History) -> None:
    named(history, "w", "judge")["output"] = "5"
    assert await told(talkative, history) == (
        "w at call 6, 'helper': recorded was the child's inputs at /positionalArgs/1: 4; the code now gives 5"
    )


async def test_an_altered_output_shows_in_the_path_that_the_code_takes(history: History) -> None:
    named(history, "w", "judge")["output"] = "6"
    for row in history["workflow_status"]:  # its other consequence comes first
        row["inputs"] = row["inputs"].replace("4", "6")
    assert await told(talkative, history) == (
        "w at call 10, 'DBOS.closeStream': recorded was this call; the code now calls 'DBOS.sleep'"
    )


async def test_an_altered_output_shows_in_the_result(history: History) -> None:
    named(history, "w", "book")["output"] = "5"
    assert await told(talkative, history) == "w at its end: recorded was the output at /booked: 4; the code now gives 5"


def change(table: str, column: str, value: Any, **where: Any) -> Callable[[History], None]:
    """Sets a column of the one row that has these values."""

    def alter(history: History) -> None:
        (row,) = [row for row in history[table] if all(row[c] == v for c, v in where.items())]
        row[column] = value

    return alter


def lose(name: str) -> Callable[[History], None]:
    """Takes a call out of the journal."""
    return lambda history: history["operation_outputs"].remove(named(history, "w", name))


def invent(name: str) -> Callable[[History], None]:
    """Puts a call into the journal once more, after all others."""
    return lambda history: history["operation_outputs"].append(named(history, "w", name) | {"function_id": 99, "call_path": "99"})


JOURNAL, EVENTS, MAIL = "operation_outputs", "workflow_events_history", "notifications"
STATUS = "workflow_status"
WEIRD = '{"name": "E", "message": "m"}'
ALTERATIONS: list[tuple[Callable[[History], None], str]] = [
    (change(EVENTS, "value", '{"kind": "lamp", "steady": 2}'), "'kind' at /steady: 2; the code now gives 1"),
    (change(EVENTS, "value", '{"kind": "lamp", "steady": true}'), "'kind' at /steady: true; the code now gives 1"),
    (change(EVENTS, "key", "sort"), "the key 'sort'; the code now uses 'kind'"),
    (change("streams", "value", '["cup"]', offset=0), '\'log\' at /0: "cup"; the code now gives "lamp"'),
    (lambda history: history["streams"].clear(), "no value; the code now sets 'log'"),
    (change(MAIL, "message", '{"kind": "cup"}'), 'the message at /kind: "cup"; the code now gives "lamp"'),
    (change(MAIL, "topic", "else"), "the topic 'else'; the code now sends to 'self'"),
    (lambda history: history["notifications"].clear(), "another message or destination; the code now sends 'w:5::w'"),
    (change(STATUS, "output", '"x"', workflow_uuid="w"), 'the output: "x"; the code now gives {'),
    (change(STATUS, "inputs", '{"positionalArgs": []}', workflow_uuid="w-6"), "the child's inputs at /namedArgs: nothing"),
    (change(STATUS, "queue_partition_key", "cup", workflow_uuid="w-6"), "the child's partition 'cup'; the code now gives 'lamp'"),
    (change(JOURNAL, "child_workflow_id", "x", function_name="helper"), "the child 'x'; the code now starts 'w-6'"),
    (change(JOURNAL, "function_name", "weigh", function_name="judge"), "this call; the code now calls 'judge'"),
    (change(JOURNAL, "error", WEIRD, function_name="judge"), "this call; the code now ends with the error"),
    (lose("judge"), "call 2, 'judge': recorded was nothing here, but"),
    (lose("DBOS.closeStream"), "nothing more, but the end as SUCCESS; the code now makes this call"),
    (invent("judge"), "call 99, 'judge': recorded was this call; the code now ends with"),
]


@pytest.mark.parametrize(("alter", "difference"), ALTERATIONS, ids=[difference for _, difference in ALTERATIONS])
async def test_whatever_else_is_altered_is_found(history: History, alter: Callable[[History], None], difference: str) -> None:
    alter(history)
    assert difference in await told(talkative, history)


async def test_a_child_that_was_moved_to_another_queue_is_no_difference(history: History) -> None:
    change(STATUS, "queue_name", "slow", workflow_uuid="w-6")(history)
    assert (await replay(talkative, history, "w")).difference is None


async def test_a_history_without_that_workflow_is_refused(history: History) -> None:
    with pytest.raises(LookupError, match="'nobody'"):
        await replay(talkative, history, "nobody")


# Failures --------------------------------------------------------------------------------------------------------------------


@step
async def refuse(reason: str) -> None:
    raise TerminalError(reason, name="Refused")


@workflow(name="failing")
async def failing(reason: str) -> None:
    try:
        await refuse(reason)
    except StepFailed as failure:
        raise TerminalError(f"because {failure.message}", name="Failed", data={"reason": failure.message}) from failure


async def test_a_failure_replays_as_recorded(shop: Workshop) -> None:
    await shop.worker(failing)
    await shop.engine.enqueue(failing, "no", id="w")
    assert await shop.ended("w") == ["ERROR"]
    history = await exported(shop)
    assert (await replay(failing, history, "w")).difference is None
    named(history, "w", "refuse")["error"] = '{"name": "Refused", "message": "never"}'
    assert 'the error at /data/reason: "no"; the code now gives "never"' in await told(failing, history)
    named(history, "w", "refuse")["error"] = None
    assert "its end as ERROR" in await told(failing, history)


# Changed code ----------------------------------------------------------------------------------------------------------------


@workflow(name="plain")
async def plain() -> int:
    return await judge(await classify("lamp"))


@workflow(name="plain")
async def plain_and_more() -> int:
    result = await judge(await classify("lamp"))
    await set_event("more", result)
    return result


@workflow(name="plain")
async def plain_and_less() -> int:
    await classify("lamp")
    return 4


@workflow(name="plain")
async def plain_but_guarded() -> int:
    kind = await classify("lamp")
    if await patched("louder"):
        kind = await classify(kind.upper())
    return await judge(kind)


@workflow(name="plain")
async def plain_but_stubborn() -> int:
    try:
        return await judge("lamp")
    except:  # noqa: E722
        return 4


async def test_changed_code_is_told_from_a_guarded_change(shop: Workshop) -> None:
    await shop.worker(plain)
    await shop.engine.enqueue(plain, id="w")
    await shop.result("w")
    history = await exported(shop)
    assert (await replay(plain, history, "w")).difference is None
    assert (await replay(plain_but_guarded, history, "w")).difference is None
    assert "call 3, 'DBOS.setEvent': recorded was nothing more" in await told(plain_and_more, history)
    assert "call 2, 'judge': recorded was this call; the code now ends with 4 before it" in await told(plain_and_less, history)
    assert "call 1, 'classify': recorded was this call; the code now calls 'judge'" in await told(plain_but_stubborn, history)


# Unfinished runs -------------------------------------------------------------------------------------------------------------


@workflow(name="patient")
async def patient(other: str) -> Any:
    trace("started")
    try:
        await classify("before")
        return await gather(recv("go", timeout_s=3600), sleep(60), get_event(other, "never", timeout_s=7200), classify("beside"))
    finally:
        await set_event("left", True)


trace = Trace()


async def test_an_unfinished_run_stands_where_it_waits(shop: Workshop) -> None:
    await shop.set_clock()
    await shop.worker(patient)
    await shop.engine.enqueue(patient, "nobody", id="w")
    await shop.parked("w")
    outcome = await replay(patient, await exported(shop), "w")
    assert outcome.difference is None
    assert outcome.stands_at == ("'DBOS.recv' at call 2.1.1", "'DBOS.sleep' at call 2.2.1", "'DBOS.getEvent' at call 2.3.1")
    await shop.pass_time(60)
    await shop.until(lambda: shop.value("select claims > 1 and waits is not null from dbos.workflow_status"), "it waits again")
    outcome = await replay(patient, await exported(shop), "w")
    assert outcome.stands_at == ("'DBOS.recv' at call 2.1.1", "'DBOS.getEvent' at call 2.3.1")


async def test_a_run_that_nobody_began_stands_at_its_first_call(shop: Workshop) -> None:
    await shop.engine.enqueue(talkative, "lamp", id="w")
    outcome = await replay(talkative, await exported(shop), "w")
    assert (outcome.calls, outcome.stands_at, outcome.difference) == (0, ("'classify' at call 1",), None)


async def test_a_cancelled_run_stands_where_it_was_cancelled(shop: Workshop) -> None:
    await shop.worker(patient)
    await shop.engine.enqueue(patient, "nobody", id="w")
    await shop.parked("w")
    await shop.engine.cancel("w")
    outcome = await replay(patient, await exported(shop), "w")
    assert (outcome.status, outcome.difference) == ("CANCELLED", None)
    assert outcome.stands_at[0] == "'DBOS.recv' at call 2.1.1"


@workflow(name="silent")
async def silent() -> str:
    return "said"


async def test_a_run_that_only_has_to_end_stands_at_its_end(shop: Workshop) -> None:
    await shop.engine.enqueue(silent, id="w")
    assert (await replay(silent, await exported(shop), "w")).stands_at == ("its end",)


# Copies ----------------------------------------------------------------------------------------------------------------------


async def test_a_fork_replays_with_what_it_took_over(shop: Workshop, ledger: Ledger) -> None:
    await shop.worker(talkative, helper)
    await shop.engine.enqueue(talkative, "lamp", id="w")
    await shop.result("w")
    last = max([record.function_id for record in await shop.engine.steps("w")])
    await shop.engine.fork("w", last, new_id="copy")
    await shop.result("copy")
    history = await exported(shop)
    assert (await replay(talkative, history, "copy")).difference is None
    assert (await replay(talkative, history, "w")).difference is None
    named(history, "copy", "classify")["output"] = '"cup"'
    assert 'the value of \'kind\' at /kind: "lamp"; the code now gives "cup"' in await told(talkative, history, "copy")


# Anything --------------------------------------------------------------------------------------------------------------------

OF: dict[str, Workflow[Any, Any]] = {"program": programs.run_program, "announce": programs.announce}


async def replays_of(history: History) -> dict[str, Replay]:
    return {
        row["workflow_uuid"]: await replay(OF[row["name"]], history, row["workflow_uuid"]) for row in history["workflow_status"]
    }


async def crash_and_replay(shop: Workshop, ledger: Ledger, program: Program, crashes: list[tuple[int, bool]]) -> History:
    """Run a program, crash it, and replay everything there is after each crash and in the end; the whole history."""
    await shop.empty()
    await ledger.make()
    await shop.set_clock()
    family = Family(shop, program, "root")
    await family.enqueue()
    for commit, after in [*crashes, (10**6, False)]:
        worker = await shop.worker(programs.run_program, programs.announce)
        ended = await drive(family, worker, Brake(worker, commit, after=after))
        await shop.crash(worker)
        history = await exported(shop)
        replays = await replays_of(history)
        assert [str(found.difference) for found in replays.values() if found.difference is not None] == []
        if ended:
            assert [found.stands_at for found in replays.values() if found.stands_at] == []
            return history
    raise AssertionError


SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@given(program=PROGRAMS, crashes=CRASHES)
@settings(max_examples=10, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=SHARED)
async def test_any_run_replays_from_wherever_it_crashed(
    shop: Workshop, ledger: Ledger, program: Program, crashes: list[tuple[int, bool]]
) -> None:
    await crash_and_replay(shop, ledger, program, crashes)


@pytest.mark.slow
@given(program=PROGRAMS, crashes=CRASHES)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=SHARED)
async def test_any_run_replays_from_wherever_it_crashed_very_often(
    shop: Workshop, ledger: Ledger, program: Program, crashes: list[tuple[int, bool]]
) -> None:
    await crash_and_replay(shop, ledger, program, crashes)


#: Calls whose output the program's code passes on, unless its branch fails after it.
TOLD = ("echo", "transact", "DBOS.getResult", "DBOS.getEvent")
DROPPED = ("9", None)


async def test_any_output_that_is_altered_is_found(shop: Workshop, ledger: Ledger) -> None:
    history = await crash_and_replay(shop, ledger, EVERYTHING, [])
    altered = [row for row in history["operation_outputs"] if row["function_name"] in TOLD and row["output"] not in DROPPED]
    assert len(altered) > 8
    for row in altered:
        was, row["output"] = row["output"], '"altered"'
        assert any(found.difference is not None for found in (await replays_of(history)).values()), row
        row["output"] = was


async def test_any_record_that_is_lost_is_missed(shop: Workshop, ledger: Ledger) -> None:
    history = await crash_and_replay(shop, ledger, EVERYTHING, [])
    rows = history["operation_outputs"]
    for n in range(len(rows)):
        kept = history | {"operation_outputs": rows[:n] + rows[n + 1 :]}
        found = [str(replayed.difference) for replayed in (await replays_of(kept)).values() if replayed.difference is not None]
        assert found or rows[n]["function_name"] == "DBOS.sleep", rows[n]
