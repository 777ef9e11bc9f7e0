"""Random workflow programs: data that one workflow interprets, so that a run of it uses everything a workflow can do.

A program's result does not depend on who is quicker: every receive has a topic of its own, its messages are there before it starts,
and a receive that gives up never gets one.
"""

from typing import Any

from hypothesis import strategies as st

from engine import (
    Connection,
    StepFailed,
    WorkflowFailed,
    close_stream,
    gather,
    get_event,
    now,
    patched,
    recv,
    ride,
    send,
    set_event,
    sleep,
    start,
    step,
    transaction,
    uuid4,
    workflow,
    workflow_info,
    write_stream,
)
from tests.engine.workshop import Ledger

Program = list[list[Any]]

SIMPLE = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 9)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("transact"), st.integers(0, 9)),
    st.tuples(st.just("ride"), st.integers(0, 9)),
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 100])),
    st.tuples(st.just("recv"), st.booleans()),
    st.tuples(st.just("give up"), st.sampled_from([0, 50])),
    st.tuples(st.just("event"), st.sampled_from("xy"), st.integers(0, 9)),
    st.tuples(st.just("stream"), st.integers(0, 9)),
    st.tuples(st.just("now")),
    st.tuples(st.just("uuid")),
    st.tuples(st.just("patched"), st.sampled_from("pq")),
    st.tuples(st.just("send self"), st.integers(0, 9)),
).map(list)


def _compound(inner: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
    programs = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("gather"), st.lists(programs, min_size=0, max_size=3), st.booleans()),
        st.tuples(st.just("child"), programs),
        st.tuples(st.just("start"), programs),
        st.tuples(st.just("event of child"), st.integers(0, 9)),
    ).map(list)


PROGRAMS = st.lists(st.recursive(SIMPLE, _compound, max_leaves=6), min_size=1, max_size=6)


@step(name="echo")
async def echo(n: int) -> int:
    ride(Ledger.RIDER, {"entry": f"step {n}"})
    return n


@step(name="fail")
async def fail(n: int) -> None:
    ride(Ledger.RIDER, {"entry": f"failed {n}"}, keep=True)
    raise ValueError(f"failed {n}")


@transaction(name="transact")
async def transact(conn: Connection, n: int) -> int:
    await conn.execute(Ledger.WRITE, (f"transaction {n}",))
    return n


@workflow(name="program", max_recovery_attempts=1000)
async def run_program(program: Program, place: str) -> list[Any]:
    """Do everything that the program says; its results. `place` names this run in topics, the same in every database."""
    return await _run(program, place)


@workflow(name="announce", max_recovery_attempts=1000)
async def announce(n: int) -> int:
    await set_event("n", n)
    return n


async def _run(program: Program, place: str) -> list[Any]:
    return [await _do(call, f"{place}/{n}") for n, call in enumerate(program)]


async def _do(call: list[Any], place: str) -> Any:
    match call:
        case ["step", n]:
            return await echo(n)
        case ["fail", n]:
            try:
                await fail(n)
            except StepFailed as failed:
                return [failed.name, failed.message]
        case ["transact", n]:
            return await transact(n)
        case ["ride", n]:
            ride(Ledger.RIDER, {"entry": f"workflow {n}"})
            return await echo(n)
        case ["sleep", seconds]:
            return await sleep(seconds)
        case ["recv", timed]:
            return await recv(place, timeout_s=10_000 if timed else None)
        case ["give up", seconds]:
            return await recv(f"nothing {place}", timeout_s=seconds)
        case ["event", key, n]:
            return await set_event(key, n)
        case ["stream", n]:
            await write_stream(place, n)
            return await close_stream(place)
        case ["now"]:
            return (await now()).tzname()
        case ["uuid"]:
            return len(await uuid4())
        case ["patched", marker]:
            return await patched(marker)
        case ["send self", n]:
            await send(workflow_info().id, n, f"self {place}")
            return await recv(f"self {place}")
        case _:
            return await _do_compound(call, place)


async def _do_compound(call: list[Any], place: str) -> Any:
    match call:
        case ["gather", programs, returning]:
            branches = [_branch(program, f"{place}.{n}", returning) for n, program in enumerate(programs)]
            outcomes = await gather(*branches, return_exceptions=returning)
            return [str(o) if isinstance(o, Exception) else o for o in outcomes]
        case ["child", program]:
            return await run_program(program, place)
        case ["start", program]:
            handle = await start(run_program, program, place)
            before = await echo(1)
            return [before, await handle.result()]
        case ["event of child", n]:
            handle = await start(announce, n)
            found = await get_event(handle.id, "n", timeout_s=100_000)
            try:
                return [found, await handle.result()]
            except WorkflowFailed as failed:
                return failed.name
        case _:
            raise AssertionError(call)


async def _branch(program: Program, place: str, failing: bool) -> list[Any]:
    results = await _run(program, place)
    if failing and len(program) == 1:
        await fail(0)
    return results


def topics(program: Program, place: str = "") -> list[str]:
    """The topics on which a program, without the children it starts, waits for a message."""
    found: list[str] = []
    for n, call in enumerate(program):
        at = f"{place}/{n}"
        if call[0] == "recv":
            found.append(at)
        elif call[0] == "gather":
            for i, branch in enumerate(call[1]):
                found += topics(branch, f"{at}.{i}")
    return found


def children(program: Program, place: str = "") -> list[tuple[Program, str]]:
    """The programs of the children that a program starts itself, with their places."""
    found: list[tuple[Program, str]] = []
    for n, call in enumerate(program):
        at = f"{place}/{n}"
        if call[0] in ("child", "start"):
            found.append((call[1], at))
        elif call[0] == "gather":
            for i, branch in enumerate(call[1]):
                found += children(branch, f"{at}.{i}")
    return found


def expected_ledger(program: Program) -> list[str]:
    """What the whole family of a program writes into the ledger, once each."""
    found: list[str] = []
    for call in program:
        match call:
            case ["step", n]:
                found.append(f"step {n}")
            case ["fail", n]:
                found.append(f"failed {n}")
            case ["transact", n]:
                found.append(f"transaction {n}")
            case ["ride", n]:
                found += [f"workflow {n}", f"step {n}"]
            case ["gather", programs, failing]:
                for branch in programs:
                    found += expected_ledger(branch)
                    found += ["failed 0"] * (failing and len(branch) == 1)
            case ["child", inner]:
                found += expected_ledger(inner)
            case ["start", inner]:
                found += ["step 1", *expected_ledger(inner)]
            case _:
                pass
    return found
