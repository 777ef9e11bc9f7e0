"""PatchGenST: what to change in the recipe, so that it does not fail like this again.

The build agent answers with a patch of recipe JSON, of which a new version is made: valid, with the form that failed among its fixtures.
Nothing is stored as a recipe yet. In replay the patch follows from the cause: a rehearsed mend, if the recipe names one, else a rule.
No rule weakens a check.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, cast

from engine import TerminalError, step
from steps import identity
from steps.agent import ask_agent
from steps.artifacts import ride_artifact
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.improvement import RECIPE_PATCH_SCHEMA, RecipePatch
from steps.opencode import AgentRequest
from steps.ports import ports
from steps.postmortem import Failure
from steps.recipe_patch import PATCHABLE, BadPatch, candidate, next_version, recipe_diff
from steps.records import begin_step, finish_step
from steps.run_record import Run

STEP = "PatchGenST"
SCHEMA_VERSION = 1

#: As much of a diff stands in the gate; all of it in the artifact.
MOST_DIFF = 100_000

TAKEN: LiteralString = """
    select coalesce(array_agg(n.v), '{}') as names
      from (select v.v from app.recipe_versions v where v.id = %s
             union
            select i.to_v from app.improvements i where i.recipe_id = %s and i.to_v is not null) n
"""


@dataclass(frozen=True, slots=True)
class _Taken:
    names: list[str]


@step(name=STEP)
async def draft_patch(run: Run, failure: Failure, cause: JsonObject, version: str | None) -> JsonObject:
    """The new version as `recipe`, what is new in it as `diff`, the agent's `summary`, and the `artifact` that shows it.

    cause: the post-mortem. version: what to call it, or None for the next free name. Fails for good when the agent's patch makes none.
    """
    attempt = await begin_step(run, STEP)
    _, patch = await ask_agent(patch_request(run, failure, cause, attempt.number), RecipePatch)
    if not patch.operations:
        raise TerminalError(f"no patch was drafted: {patch.summary}", name="NoPatch")
    taken = await _taken(failure.recipe_id)
    try:
        v = version or next_version(failure.recipe_v, taken)
        spec = await asyncio.to_thread(candidate, failure.recipe, patch.operations, v, failure.form)
    except BadPatch as error:
        raise TerminalError(f"the drafted patch is unusable: {error}", name="BadPatch") from error
    recipe = spec.document()
    diff = await asyncio.to_thread(recipe_diff, failure.recipe, recipe)
    operations: JsonObject = {"json": [operation.document() for operation in patch.operations]}
    ride_artifact(run.run_id, STEP, "json_diagnostic", "recipe-patch.json", operations, idx=1, attempt=attempt.number)
    address = ride_artifact(run.run_id, STEP, "patch", "recipe.patch", {"text": diff}, idx=0, attempt=attempt.number)
    output: JsonObject = {
        "v": v,
        "hash": identity.recipe_hash(recipe),
        "summary": patch.summary,
        "diff": diff
        if len(diff) <= MOST_DIFF
        else f"{diff[:MOST_DIFF]}\n[{len(diff) - MOST_DIFF} more characters in {address}]\n",
        "recipe": recipe,
        "artifact": address,
    }
    return finish_step(run, STEP, attempt, output)


async def _taken(recipe_id: str) -> frozenset[str]:
    found = await ports().read(_Taken, TAKEN, recipe_id, recipe_id)
    return frozenset() if found is None else frozenset(found.names)


def patch_request(run: Run, failure: Failure, cause: JsonObject, attempt: int) -> AgentRequest:
    facts = failure.facts()
    told = {key: cause[key] for key in ("cause", "summary")}
    return AgentRequest(
        run_id=run.run_id,
        step_id=STEP,
        attempt=attempt,
        agent="build",
        prompt=patch_prompt(failure, facts, told),
        schema=RECIPE_PATCH_SCHEMA,
        schema_version=SCHEMA_VERSION,
        subject={"stepId": STEP, "recipeHash": failure.recipe_hash, "facts": facts, "postmortem": told},
        produce=lambda: replayed_patch(failure, told["cause"]),
    )


def patch_prompt(failure: Failure, facts: JsonObject, told: JsonObject) -> str:
    lines = [
        "Mend this recipe with a patch of its JSON, so that the form that failed succeeds.",
        f"Post-mortem: {canonical_json(told)}",
        f"Facts: {canonical_json(facts)}",
        f"Recipe: {canonical_json(failure.recipe)}",
        f"You may change {', '.join(PATCHABLE)}; paths are JSON pointers. Change as little as will do, and weaken no check.",
        "Return only JSON that fits the schema; without operations if there is nothing in the recipe to mend.",
    ]
    return "\n".join(lines)


# What follows from the cause alone -------------------------------------------------------------------------------------------

REPLAY = "/intentTmpl/constraints/testHooks/replay"

#: Whose rehearsed answer is to blame, by cause. Without its rehearsal the agent answers for itself.
BLAMED: Mapping[str, str] = {
    "CMD_NONZERO": "build",
    "TIMEOUT": "build",
    "OOM": "build",
    "UnsafeExecution": "build",
    "PREIMAGE_MISMATCH": "plan",
    "PATCH_PATH_NOT_ALLOWED": "plan",
}
#: Which of the recipe's limits a budget's metric is held to.
LIMITS: Mapping[str, str] = {
    "maxFanout": "maxFanout",
    "maxSteps": "maxSteps",
    "maxSBXMinutes": "maxSbxMin",
    "maxTokens": "maxTokens",
}


def replayed_patch(failure: Failure, cause: str) -> JsonObject:
    """The patch that a replay makes up when no fixture holds one."""
    rehearsal = rehearsal_of(failure.recipe)
    mend = rehearsal.get("mend")
    if isinstance(mend, list):
        operations = [*cast("list[Any]", mend), {"op": "remove", "path": f"{REPLAY}/mend"}]
        return {"summary": f"Make the change that the recipe rehearses for a failure, after {cause}.", "operations": operations}
    metric = cause.removeprefix("budget:")
    if metric != cause and metric in LIMITS:
        return raised_limit(failure, metric)
    part = BLAMED.get(cause, "")
    if part in rehearsal:
        operations = [{"op": "remove", "path": f"{REPLAY}/{part}"}]
        return {
            "summary": f"Let the {part} agent answer for itself; its rehearsed answer led to {cause}.",
            "operations": operations,
        }
    return {"summary": f"nothing in the recipe is known to mend {cause}", "operations": []}


def rehearsal_of(recipe: JsonObject) -> JsonObject:
    found: Any = recipe
    for key in ("intentTmpl", "constraints", "testHooks", "replay"):
        found = cast(JsonObject, found).get(key) if isinstance(found, dict) else None
    return cast(JsonObject, found) if isinstance(found, dict) else {}


def raised_limit(failure: Failure, metric: str) -> JsonObject:
    """As much as the run wanted, if it was the recipe's limit that it met."""
    limit, observed = LIMITS[metric], failure.data.get("observed")
    allowed = failure.recipe["limits"][limit]
    of_start = (failure.budget or {}).get(metric)
    if not isinstance(observed, int) or observed <= allowed or (of_start is not None and observed > of_start):
        return {"summary": f"budget {metric} was that of the start, not the recipe's; start with another one", "operations": []}
    operation = {"op": "replace", "path": f"/limits/{limit}", "value": observed}
    return {"summary": f"Allow {observed} instead of {allowed}, which is what the run needed.", "operations": [operation]}
