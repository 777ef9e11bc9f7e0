"""What a run may use, held against what it uses.

Pure checks; workflow code makes them at fixed places with recorded numbers, so a replay decides alike. A breach ends the run,
and its record, the BUDGET artifact, says what was measured.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from engine import TerminalError
from steps.artifacts import ride_artifact
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.intent import Budget
from steps.contracts.sandbox import SBXRes
from steps.documents import compact

STEP = "BUDGET"
MINUTE_MS = 60_000
MEGABYTE = 1024 * 1024


class BudgetExceeded(TerminalError):
    """The run used more than it may."""

    def __init__(self, metric: str, limit: int, observed: int, unit: str) -> None:
        reason = f"budget:{metric}: observed {observed} > limit {limit} (runtime)"
        super().__init__(reason, name="BudgetExceeded")
        self.metric = metric
        self.data: JsonObject = {
            "kind": "budget",
            "metric": metric,
            "scope": "runtime",
            "limit": limit,
            "observed": observed,
            "unit": unit,
            "outcome": "blocked",
            "reason": reason,
        }


def check_fanout(budget: Budget | None, tasks: int) -> None:
    if budget is not None and tasks > budget.maxFanout:
        raise BudgetExceeded("maxFanout", budget.maxFanout, tasks, "tasks")


def check_wall_clock(budget: Budget | None, begun_at: datetime, at: datetime) -> None:
    if budget is not None:
        observed_ms = round((at - begun_at).total_seconds() * 1000)
        if observed_ms > budget.maxWallClockMS:
            raise BudgetExceeded("maxWallClockMS", budget.maxWallClockMS, observed_ms, "ms")


def check_usage(budget: Budget | None, results: Sequence[SBXRes], attempts: Iterable[int]) -> None:
    """After the tasks: sandbox time, what came out of them, and how often each was tried."""
    if budget is None:
        return
    minutes = math.ceil(sum(result.metrics.wallMs for result in results) / MINUTE_MS)
    if minutes > budget.maxSBXMinutes:
        raise BudgetExceeded("maxSBXMinutes", budget.maxSBXMinutes, minutes, "minutes")
    megabytes = math.ceil(sum(output_bytes(result) for result in results) / MEGABYTE)
    if megabytes > budget.maxArtifactsMB:
        raise BudgetExceeded("maxArtifactsMB", budget.maxArtifactsMB, megabytes, "MB")
    retries = max(attempts, default=1) - 1
    if retries > budget.maxRetriesPerStep:
        raise BudgetExceeded("maxRetriesPerStep", budget.maxRetriesPerStep, retries, "retries")


def output_bytes(result: SBXRes) -> int:
    texts = [result.stdout, result.stderr, *(file.inline or "" for file in result.filesOut)]
    texts += [canonical_json(result.raw or {}), canonical_json(compact(result.metrics))]
    return sum(len(text.encode()) for text in texts)


def ride_breach(run_id: str, breach: BudgetExceeded) -> None:
    ride_artifact(
        run_id,
        STEP,
        "json_diagnostic",
        f"{breach.metric}.json",
        {"json": breach.data},
        idx=0,
        attempt=1,
        task_key=breach.metric,
    )
