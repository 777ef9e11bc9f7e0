"""What a worker process of the product runs: these workflows, from these queues, through the ports it was given.

configure(Ports(pool=engine.pool, opencode=ReplayOpenCode(), sandbox=MockSandbox(), workspace=Path("workspace")))
await engine.run_worker(workflows(), queues=QUEUES)
"""

from collections.abc import Mapping
from typing import Any

from engine import Workflow
from steps.apply import rollback_run
from steps.crashdemo import crash_demo
from steps.escalation import escalate_timeout
from steps.execute_task import execute_task
from steps.fixtures import recipe_fixture
from steps.flywheel import improve_recipe
from steps.ports import Limits, Ports, configure
from steps.promoting import promote_recipe
from steps.retention import prune_nightly
from steps.run import run_intent
from steps.timers import scheduled_ops, slow_step, time_workflow

#: How many workflows one worker holds at the same time, by queue.
QUEUES: Mapping[str, int] = {"intentQ": 50, "sbxQ": 100, "controlQ": 20, "compileQ": 10}

#: How many all workers hold together of the queues that have no settings of their own.
CONCURRENCY: Mapping[str, int] = {"controlQ": 5, "compileQ": 10}


def workflows() -> list[Workflow[Any, Any]]:
    return [
        run_intent,
        execute_task,
        escalate_timeout,
        rollback_run,
        crash_demo,
        slow_step,
        time_workflow,
        scheduled_ops,
        prune_nightly,
        promote_recipe,
        improve_recipe,
        recipe_fixture,
    ]


__all__ = ["CONCURRENCY", "QUEUES", "Limits", "Ports", "configure", "workflows"]
