"""A patch lets runs that went the old way finish it, while new runs go the new way, on every replay."""

from typing import Any

from engine import deprecate_patch, gather, patched, recv, step, workflow
from tests.engine.old_code import a, a_then_waits, b, failure, parked_under
from tests.engine.workshop import Trace, Workshop


@workflow(name="w")
async def with_patch() -> Any:
    first = await b() if await patched("b instead of a") else await a()
    return [first, await recv("go")]


async def test_a_run_from_before_a_patch_goes_the_old_way(shop: Workshop) -> None:
    await parked_under(shop, a_then_waits, "w")
    await shop.worker(with_patch)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == ["a", 1]
    assert await shop.names("w") == ["a", "DBOS.recv"]


async def test_a_run_from_after_a_patch_goes_the_new_way_on_every_replay(shop: Workshop) -> None:
    await parked_under(shop, with_patch, "w")
    await shop.worker(with_patch)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == ["b", 1]
    assert await shop.names("w") == ["DBOS.patch-b instead of a", "b", "DBOS.recv"]


async def test_a_patch_before_a_wait_that_an_old_run_is_in(shop: Workshop) -> None:
    @workflow(name="w")
    async def old() -> Any:
        return await recv("go", timeout_s=1000)

    @workflow(name="w")
    async def new() -> Any:
        return [await patched("say more"), await recv("go", timeout_s=1000)]

    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == [False, 1]


async def test_a_patch_before_branches_that_an_old_run_has_made(shop: Workshop, trace: Trace) -> None:
    @step(name="note")
    async def note(n: int) -> int:
        trace(n)
        return n

    @workflow(name="w")
    async def old() -> Any:
        return [await gather(note(1), note(2)), await recv("go")]

    @workflow(name="w")
    async def new() -> Any:
        more = await patched("a third")
        notes = await gather(note(1), note(2), note(3)) if more else await gather(note(1), note(2))
        return [notes, await recv("go")]

    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    assert await shop.result("w") == [[1, 2], 1]
    assert sorted(trace.calls) == [1, 2]


async def test_a_patch_inside_a_branch_belongs_to_that_branch(shop: Workshop) -> None:
    async def old_branch() -> Any:
        return [await a(), await recv("go")]

    async def new_branch() -> Any:
        return [await b() if await patched("p") else await a(), await recv("go")]

    @workflow(name="w")
    async def old() -> Any:
        return await gather(recv("never", timeout_s=100), old_branch())

    @workflow(name="w")
    async def new() -> Any:
        return await gather(recv("never", timeout_s=100), new_branch())

    await shop.set_clock()
    await parked_under(shop, old, "w")
    await shop.worker(new)
    await shop.engine.send("w", 1, "go")
    await shop.pass_time(100)
    assert await shop.result("w") == [None, ["a", 1]]


async def test_deprecating_a_patch_replays_runs_that_recorded_it_and_marks_no_new_ones(shop: Workshop) -> None:
    @workflow(name="w")
    async def deprecated() -> Any:
        await deprecate_patch("b instead of a")
        return [await b(), await recv("go")]

    await parked_under(shop, with_patch, "w")
    await shop.worker(deprecated)
    await shop.engine.enqueue(deprecated, id="new")
    await shop.engine.send("w", 1, "go")
    await shop.engine.send("new", 2, "go")
    assert [await shop.result("w"), await shop.result("new")] == [["b", 1], ["b", 2]]
    assert await shop.names("new") == ["b", "DBOS.recv"]


async def test_a_run_that_went_the_old_way_is_stopped_by_a_deprecated_patch(shop: Workshop) -> None:
    @workflow(name="w")
    async def deprecated() -> Any:
        await deprecate_patch("b instead of a")
        return [await b(), await recv("go")]

    await parked_under(shop, a_then_waits, "w")
    await shop.worker(deprecated)
    await shop.engine.send("w", 1, "go")
    assert "holds 'a' at call 1, but the code now calls 'b'" in (await failure(shop, "w")).message
