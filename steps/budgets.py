"""What a run may use, held against what it uses.

Pure checks; workflow code makes them at fixed places with recorded numbers, so a replay decides alike. Tokens are counted inside of
the steps that ask an agent. A breach ends the run, and its record, the BUDGET artifact, says what was measured.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine import StepFailed, TerminalError
from steps.artifacts import ride_artifact
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.sandbox import RETRYABLE, SBXRes
from steps.documents import compact
from steps.run_record import Run

STEP = "BUDGET"
MINUTE_MS = 60_000
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a run may use at most; None where nothing bounds it."""

    fanout: int | None = None
    sandbox_minutes: int | None = None
    artifacts_mb: int | None = None
    retries: int | None = None
    wall_clock_ms: int | None = None
    tokens: int | None = None


def allowance(run: Run) -> Allowance:
    """What the run's budget and the limits of its recipe leave it, the lower where both say something."""
    budget, limits = run.budget, run.recipe.limits if run.recipe else None
    return Allowance(
        fanout=_lower(budget and budget.maxFanout, limits and limits.maxFanout),
        sandbox_minutes=_lower(budget and budget.maxSBXMinutes, limits and limits.maxSbxMin),
        artifacts_mb=budget and budget.maxArtifactsMB,
        retries=None if budget is None else budget.maxRetriesPerStep,
        wall_clock_ms=budget and budget.maxWallClockMS,
        tokens=limits and limits.maxTokens,
    )


def _lower(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


class BudgetExceeded(TerminalError):
    """The run used more than it may."""

    def __init__(self, metric: str, limit: int, observed: int, unit: str) -> None:
        reason = f"budget:{metric}: observed {observed} > limit {limit} (runtime)"
        data: JsonObject = {
            "kind": "budget",
            "metric": metric,
            "scope": "runtime",
            "limit": limit,
            "observed": observed,
            "unit": unit,
            "outcome": "blocked",
            "reason": reason,
        }
        super().__init__(reason, data=data)
        self.metric = metric


def hold(metric: str, limit: int | None, observed: int, unit: str) -> None:
    """Raises BudgetExceeded when more was observed than the limit allows."""
    if limit is not None and observed > limit:
        raise BudgetExceeded(metric, limit, observed, unit)


def check_fanout(allowed: Allowance, tasks: int) -> None:
    hold("maxFanout", allowed.fanout, tasks, "tasks")


def check_wall_clock(allowed: Allowance, begun_at: datetime, at: datetime) -> None:
    hold("maxWallClockMS", allowed.wall_clock_ms, round((at - begun_at).total_seconds() * 1000), "ms")


def check_tokens(limit: int | None, tokens: int) -> None:
    hold("maxTokens", limit, tokens, "tokens")


def attempts_allowed(allowed: Allowance, most: int) -> int:
    """How often a task may be tried, of `most` times."""
    return most if allowed.retries is None else min(most, 1 + allowed.retries)


def check_given_up(allowed: Allowance, most: int, err_code: str) -> None:
    """For a task that failed for good: raises BudgetExceeded if it was the budget that kept it from another attempt."""
    if err_code in RETRYABLE and attempts_allowed(allowed, most) < most:
        hold("maxRetriesPerStep", allowed.retries, attempts_allowed(allowed, most), "retries")


def check_usage(allowed: Allowance, results: Sequence[SBXRes], attempts: Iterable[int]) -> None:
    """After the tasks: sandbox time, what came out of them, and how often each was tried."""
    minutes = math.ceil(sum(result.metrics.wallMs for result in results) / MINUTE_MS)
    hold("maxSBXMinutes", allowed.sandbox_minutes, minutes, "minutes")
    if allowed.artifacts_mb is not None:
        megabytes = math.ceil(sum(output_bytes(result) for result in results) / MEGABYTE)
        hold("maxArtifactsMB", allowed.artifacts_mb, megabytes, "MB")
    hold("maxRetriesPerStep", allowed.retries, max(attempts, default=1) - 1, "retries")


def output_bytes(result: SBXRes) -> int:
    texts = [result.stdout, result.stderr, *(file.inline or "" for file in result.filesOut)]
    texts += [canonical_json(result.raw or {}), canonical_json(compact(result.metrics))]
    return sum(len(text.encode()) for text in texts)


def breach_of(failure: Exception) -> JsonObject | None:
    """What was measured, if it was a budget that ended the run, here or inside of a step."""
    if isinstance(failure, BudgetExceeded) or (isinstance(failure, StepFailed) and failure.name == BudgetExceeded.__name__):
        return failure.data
    return None


def ride_breach(run_id: str, breach: JsonObject) -> None:
    metric = breach["metric"]
    ride_artifact(run_id, STEP, "json_diagnostic", f"{metric}.json", {"json": breach}, idx=0, attempt=1, task_key=metric)
