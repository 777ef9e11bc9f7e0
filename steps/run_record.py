"""The run as its workflow knows it: what was asked, and under which conditions.

Loaded once, as the first recorded call, so that every replay works from the same facts. What an intent's constraints ask of the
workflow itself (an extra question, two approvals, a shorter time) is read here, into one small value; the workflow branches on
that and on nothing else.
"""

from dataclasses import dataclass
from typing import Literal, LiteralString, TypeAlias, cast

from engine import TerminalError, step, workflow_info
from steps import identity
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import Budget, Intent
from steps.contracts.recipe import Limits
from steps.errors import InvalidInput
from steps.ports import ports

WORKFLOW_NAME = "RunIntent"
WORKFLOW_CLASS = "IntentWorkflow"
MAX_GATE_S = 86_400

#: Why a run is made: somebody asked for it, or a recipe tries itself out on a sample form, or a recipe is improved. The second answers
#: its own gates, and leaves no files behind.
Purpose: TypeAlias = Literal["run", "fixture", "improvement"]

ASK_USER = ("askUser", "ask_user", "waitForHumanInput")
PARALLEL_APPROVALS = ("parallelApprovals", "parallel_approvals", "parallelGateTest")
GATE_TIMEOUT_S = ("planApprovalTimeoutS", "plan_approval_timeout_s", "timeoutS")


@dataclass(frozen=True, slots=True)
class Asks:
    """What an intent's constraints ask of the workflow. gate_timeout_s: None for the configured one."""

    ask_user: bool = False
    parallel_approvals: bool = False
    gate_timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe version that the run is pinned to. compile_prompt: what it tells the plan agent. limits: what its runs are held to."""

    id: str
    v: str
    hash: str
    compile_prompt: str | None
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    workflow_id: str
    intent: Intent
    asks: Asks
    recipe: Recipe | None
    budget: Budget | None
    purpose: Purpose
    partition: str | None
    trace_id: str | None


LOAD_RUN: LiteralString = """
    select r.id as run_id, r.trace_id, r.queue_partition_key, r.recipe_id, r.recipe_v, r.recipe_hash, r.budget, r.purpose,
           i.payload as intent,
           v.json #>> '{prompts,compile}' as compile_prompt, v.json -> 'limits' as limits
      from app.runs r
      join app.intents i on i.id = r.intent_id
      left join app.recipe_versions v on v.id = r.recipe_id and v.v = r.recipe_v and v.hash = r.recipe_hash
     where r.workflow_id = %s
"""


@dataclass(frozen=True, slots=True)
class _Row:
    run_id: str
    trace_id: str | None
    queue_partition_key: str | None
    recipe_id: str | None
    recipe_v: str | None
    recipe_hash: str | None
    budget: JsonObject | None
    purpose: Purpose
    intent: JsonObject
    compile_prompt: str | None
    limits: JsonObject | None


@step(name="loadRun")
async def load_run(workflow_id: str) -> Run:
    """The run of this workflow id. Fails for good when there is none or its intent is not one."""
    row = await ports().read(_Row, LOAD_RUN, workflow_id)
    if row is None:
        raise TerminalError(f"there is no run of workflow {workflow_id}; start it through ingress", name="RunNotFound")
    try:
        intent = parse(Intent, row.intent)
        budget = None if row.budget is None else parse(Budget, row.budget)
    except InvalidInput as error:
        raise TerminalError(error.message, name="InvalidIntent") from error
    return Run(
        run_id=row.run_id,
        workflow_id=workflow_id,
        intent=intent,
        asks=asks_of(intent.constraints),
        recipe=recipe_of(row),
        budget=budget,
        partition=row.queue_partition_key,
        trace_id=row.trace_id,
        purpose=row.purpose,
    )


def is_fork_of(run_id: str) -> bool:
    """Whether this code runs in a fork of the run's workflow. A fork works on the run's data, with the run's answers, but what it
    makes of them stands in its own journal: the run's record is written by the run's own workflow.
    """
    info = workflow_info()
    return info.name == WORKFLOW_NAME and identity.run_id(info.id) != run_id


def recipe_of(row: _Row) -> Recipe | None:
    if row.recipe_id is None or row.recipe_v is None or row.recipe_hash is None:
        return None
    limits = None if row.limits is None else Limits.model_validate(row.limits)
    return Recipe(row.recipe_id, row.recipe_v, row.recipe_hash, row.compile_prompt, limits)


def asks_of(constraints: JsonObject) -> Asks:
    """What the constraints ask for; an entry in `testHooks` goes before the same one beside it."""
    hooks = constraints.get("testHooks")
    sources = [cast(JsonObject, hooks), constraints] if isinstance(hooks, dict) else [constraints]
    return Asks(_flag(sources, ASK_USER), _flag(sources, PARALLEL_APPROVALS), _seconds(sources, GATE_TIMEOUT_S))


def _flag(sources: list[JsonObject], names: tuple[str, ...]) -> bool:
    """The first boolean found; a false said explicitly wins over a true further down."""
    found = [source[name] for source in sources for name in names if isinstance(source.get(name), bool)]
    return bool(found and found[0])


def _seconds(sources: list[JsonObject], names: tuple[str, ...]) -> int | None:
    """The first number found, held to the range that a gate allows."""
    for source in sources:
        for name in names:
            value = source.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return int(max(1, min(MAX_GATE_S, value)))
    return None
