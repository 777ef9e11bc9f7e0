"""What the settings say about queues, put into force: for all workers, by each that starts."""

from bin.settings import QueueSettings, Settings
from engine import Engine, Rate
from steps.policy import PARENT_QUEUE, SANDBOX_QUEUE
from steps.worker import CONCURRENCY


async def declare_queues(engine: Engine, settings: Settings) -> None:
    """Set the limits of all queues and the weights that the settings name. What a partition was given by command stays."""
    for name, concurrency in CONCURRENCY.items():
        await engine.queues.declare(name, concurrency=concurrency)
    await _declare(engine, PARENT_QUEUE, settings.intent_queue)
    await _declare(engine, SANDBOX_QUEUE, settings.sbx_queue)


async def _declare(engine: Engine, name: str, queue: QueueSettings) -> None:
    starts, period_s = queue.rate_limit_per_period, queue.rate_limit_period_sec
    await engine.queues.declare(
        name,
        concurrency=None if queue.partition else queue.concurrency,
        partition_concurrency=queue.concurrency if queue.partition else None,
        rate=Rate(starts, period_s) if starts else None,
    )
    for key, weight in (queue.weights or {}).items():
        await engine.queues.weigh(name, key, weight)
