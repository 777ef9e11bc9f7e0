"""Old code for new code to disagree with: steps, a workflow that waits after the first, and how to run it until it does."""

from typing import Any

import pytest

from engine import WorkflowFailed, recv, step, workflow
from tests.engine.workshop import Workshop


@step(name="a")
async def a() -> str:
    return "a"


@step(name="b")
async def b() -> str:
    return "b"


@step(name="c")
async def c() -> str:
    return "c"


async def parked_under(shop: Workshop, old: Any, *ids: str) -> None:
    """Run the old code until it waits, and stop its worker."""
    worker = await shop.worker(old)
    for id in ids:
        await shop.engine.enqueue(old, id=id)
    await shop.parked(*ids)
    await shop.stop(worker)


async def failure(shop: Workshop, id: str) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result(id)
    return failed.value


@workflow(name="w")
async def a_then_waits() -> Any:
    return [await a(), await recv("go")]
