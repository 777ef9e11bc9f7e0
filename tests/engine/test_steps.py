"""A step's outcome is recorded once and comes back alike for ever; its attempts, failures and limits are what the decorator says."""

from typing import Any

import pytest

from engine import gather, step, step_info, workflow, workflow_info
from tests.engine.workshop import Brake, Trace, Workshop


async def test_a_step_is_recorded_once_and_replayed_without_running(shop: Workshop, trace: Trace) -> None:
    @step
    async def charge(amount: int) -> str:
        return f"receipt {amount} {trace('charge')}"

    @step
    async def ship(receipt: str) -> str:
        trace("ship")
        return f"shipped on {receipt}"

    @workflow(name="fulfil")
    async def fulfil(amount: int) -> str:
        return await ship(await charge(amount))

    await shop.worker(fulfil)
    handle = await shop.engine.enqueue(fulfil, 7, id="order")
    assert await handle.result(10) == "shipped on receipt 7 1"
    await shop.engine.rewind("order", 2)
    assert await handle.result(10) == "shipped on receipt 7 1"
    assert trace.calls == ["charge", "ship", "ship"]
    assert await shop.journal("order") == [
        (1, "1", charge.name, "receipt 7 1"),
        (2, "2", ship.name, "shipped on receipt 7 1"),
    ]


async def test_another_worker_goes_on_after_the_last_record_of_one_that_crashed(shop: Workshop, trace: Trace) -> None:
    @step
    async def count(n: int) -> int:
        trace(n)
        return n

    @workflow(name="sum")
    async def total() -> int:
        return await count(1) + await count(2) + await count(3)

    first = await shop.worker(total)
    brake = Brake(first, 2, after=True)  # the second step is committed, and nobody was told
    await shop.engine.enqueue(total, id="s")
    await brake.reached.wait()
    await shop.crash(first)
    await shop.worker(total)
    assert await shop.result("s") == 6
    assert trace.calls == [1, 2, 3]


async def test_a_step_that_was_not_recorded_runs_again(shop: Workshop, trace: Trace) -> None:
    @step
    async def count(n: int) -> int:
        trace(n)
        return n

    @workflow(name="sum")
    async def total() -> int:
        return await count(1) + await count(2)

    first = await shop.worker(total)
    brake = Brake(first, 2, after=False)
    await shop.engine.enqueue(total, id="s")
    await brake.reached.wait()
    await shop.crash(first)
    await shop.worker(total)
    assert await shop.result("s") == 3
    assert trace.calls == [1, 2, 2]
    assert [record[0] for record in await shop.journal("s")] == [1, 2]


async def test_a_step_key_is_the_same_on_every_attempt_and_in_every_worker(shop: Workshop, trace: Trace) -> None:
    @step(max_attempts=2, backoff_s=0.001)
    async def call_out() -> str:
        info = step_info()
        if trace((info.key, info.path, info.workflow_id)) == 1:
            raise OSError("again")
        return info.key

    @workflow(name="w")
    async def twice() -> list[str]:
        return [await call_out(), await call_out()]

    first = await shop.worker(twice)
    brake = Brake(first, 1, after=False)
    await shop.engine.enqueue(twice, id="w")
    await brake.reached.wait()
    await shop.crash(first)
    await shop.worker(twice)
    assert await shop.result("w") == ["w:1", "w:2"]
    assert trace.calls == [("w:1", "1", "w")] * 3 + [("w:2", "2", "w")]


async def test_a_step_called_outside_of_a_workflow_or_inside_a_step_is_just_its_function(shop: Workshop) -> None:
    @step
    async def inner(n: int) -> int:
        return n + 1

    @step
    async def outer(n: int) -> int:
        return await inner(n) * 10

    @workflow(name="w")
    async def once() -> int:
        return await outer(1)

    assert await inner(1) == 2
    assert await once() == 20
    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 20
    assert await shop.names("w") == [outer.name]


async def test_the_recorded_name_is_the_one_given(shop: Workshop) -> None:
    @step(name="CompileST")
    async def compile_intent() -> None:
        pass

    @workflow(name="RunIntent", class_name="IntentWorkflow")
    async def run_intent() -> list[Any]:
        await compile_intent()
        return [workflow_info().name, workflow_info().id]

    await shop.worker(run_intent)
    await shop.engine.enqueue(run_intent, id="w")
    assert await shop.result("w") == ["RunIntent", "w"]
    assert await shop.names("w") == ["CompileST"]
    row = await shop.row("w")
    assert (row["name"], row["class_name"]) == ("RunIntent", "IntentWorkflow")


def test_a_step_needs_at_least_one_attempt() -> None:
    async def f() -> None: ...

    with pytest.raises(ValueError, match="at least 1"):
        step(max_attempts=0)(f)


async def test_keys_of_steps_in_branches_tell_them_apart(shop: Workshop) -> None:
    @step
    async def key() -> str:
        return step_info().key

    @workflow(name="w")
    async def once() -> Any:
        return await gather(key(), key(), gather(key()))

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == ["w:1.1.1", "w:1.2.1", ["w:1.3.1.1.1"]]


async def test_inside_a_step_and_outside_of_workflows_gather_is_asyncios(shop: Workshop) -> None:
    @step
    async def number(n: int) -> int:
        return n

    @step
    async def fan_out() -> Any:
        return await gather(number(1), number(2))

    @workflow(name="w")
    async def once() -> Any:
        return await fan_out()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == [1, 2]
    assert await shop.names("w") == [fan_out.name]
    assert await gather(number(1), number(2)) == (1, 2)
