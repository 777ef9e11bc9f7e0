"""A worker that starts puts the settings of the queues into force, and leaves alone what operators gave to single partitions."""

import pytest

from bin.queue_limits import declare_queues
from bin.settings import QueueSettings, Settings, read_settings
from bin.variables import BadSetting
from engine import Engine, QueueState, Rate


async def declared(dsn: str, settings: Settings) -> dict[str, QueueState]:
    async with Engine.connect(dsn) as engine:
        await declare_queues(engine, settings)
        return {state.name: state for state in await engine.queues.states()}


async def test_the_defaults_are_caps_of_each_partition_and_a_rate_of_the_queue(database: str) -> None:
    states = await declared(database, Settings())
    intents, tasks = states["intentQ"], states["sbxQ"]
    assert (intents.concurrency, intents.partition_concurrency) == (None, 50)
    assert (intents.rate_limit_max, intents.rate_limit_period_s) == (100, 60)
    assert (tasks.concurrency, tasks.partition_concurrency) == (None, 150)
    assert (tasks.rate_limit_max, tasks.rate_limit_period_s) == (10_000, 60)
    assert (states["controlQ"].concurrency, states["compileQ"].concurrency) == (5, 10)
    assert all(state.partition_rate_limit_max is None and not state.paused for state in states.values())


async def test_a_queue_without_partitions_has_a_cap_for_all_and_zero_starts_are_no_rate(database: str) -> None:
    await declared(database, Settings())
    states = await declared(
        database, Settings(intent_queue=QueueSettings(partition=False, concurrency=7, rate_limit_per_period=0))
    )
    intents = states["intentQ"]
    assert (intents.concurrency, intents.partition_concurrency, intents.rate_limit_max) == (7, None, None)


async def test_weights_are_set_and_nothing_that_a_partition_was_given_is_lost(database: str) -> None:
    async with Engine.connect(database) as engine:
        await engine.queues.tune("intentQ", "a", weight=9, concurrency=2, rate=Rate(3, 60))
        await engine.queues.tune("intentQ", "b", weight=8, concurrency=1)
        await engine.queues.pause("sbxQ", "c")
        queue = QueueSettings(weights={"a": 4, "c": 0.5})
        await declare_queues(engine, Settings(intent_queue=queue, sbx_queue=queue))
        a, b, c = await engine.queues.partitions("intentQ")
        assert (a.weight, a.concurrency, a.rate_limit_max, a.rate_limit_period_s) == (4, 2, 3, 60)
        assert (b.weight, b.concurrency) == (8, 1)
        assert (c.weight, c.concurrency) == (0.5, None)
        assert [(p.key, p.weight, p.state) for p in await engine.queues.partitions("sbxQ")] == [("a", 4, "e"), ("c", 0.5, "p")]


def test_weights_are_a_list_of_keys_and_numbers() -> None:
    settings = read_settings({"INTENT_QUEUE_WEIGHTS": "tenant-a=4, tenant b =0.5", "SBX_QUEUE_WEIGHTS": "x=1000"})
    assert settings.intent_queue.weights == {"tenant-a": 4, "tenant b": 0.5}
    assert settings.sbx_queue.weights == {"x": 1000}
    assert Settings().intent_queue.weights is None


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "=1",
        "a=0",
        "a=0.0005",
        "a=1001",
        "a=-1",
        "a=1e3",
        "a=nan",
        "a=1,",
        ",a=1",
        "a=1;b=2",
        "a=٣",
        "a\x07=1",
        "a=b=1",
    ],
)
def test_weights_that_cannot_be_read_are_told_in_one_line(text: str) -> None:
    with pytest.raises(BadSetting) as told:
        read_settings({"SBX_QUEUE_WEIGHTS": text})
    assert str(told.value) == (
        f"SBX_QUEUE_WEIGHTS: invalid weights env value: {text!r}; write it as tenant-a=4,tenant-b=0.5, each from 0.001 to 1000"
    )


def test_a_key_with_two_weights_is_named() -> None:
    with pytest.raises(BadSetting, match=r"^INTENT_QUEUE_WEIGHTS: invalid weights env value: 'a=1,a=2'; it has 'a' twice$"):
        read_settings({"INTENT_QUEUE_WEIGHTS": "a=1,a=2"})
