"""Names that follow from content: every id, key and hash of the product, each in one place.

The same ask has the same name wherever and whenever it is made, which is what makes a second start, a second
reply or a second call find the first one. Nothing here reads a clock or draws a random number.
"""

import re
from dataclasses import dataclass

from steps.canonical import compact_json, sha256_json, sha256_text
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput

# Runs


def intent_hash(intent: JsonObject) -> str:
    return sha256_json(intent)


def workflow_id(intent_hash: str) -> str:
    """The canonical intent id, which is also its run's workflow id."""
    return f"ih_{intent_hash}"


def legacy_intent_id(token: str) -> str:
    """The id of an intent posted on its own: 16 hex digits that the caller draws."""
    return f"it_{token}"


def seeded_token(seed: int, number: int) -> str:
    """16 hex digits that follow from the seed, another one for each number."""
    return sha256_json({"seed": seed, "number": number})[:16]


def run_id(workflow_id: str) -> str:
    return f"run_{sha256_json({'workflowId': workflow_id})[:32]}"


def recipe_hash(spec: JsonObject) -> str:
    return sha256_json(spec)


# Gates


def gate_key(run_id: str, step_id: str, purpose: str, attempt: int) -> str:
    slug = re.sub(r"[^a-z0-9]", "-", purpose.lower())[:16]
    return f"{slug}-{sha256_text(f'{run_id}:{step_id}:{purpose}:{attempt}')[:16]}"


def human_topic(gate_key: str) -> str:
    return f"human:{gate_key}"


def system_topic(key: str) -> str:
    return f"sys:{key}"


def topic_slug(text: str) -> str:
    """Free text as the part of a topic behind the colon."""
    return re.sub(r"[^a-z0-9:_-]+", "-", re.sub(r"\s+", "-", text.strip().lower()))


def prompt_event(gate_key: str) -> str:
    return f"ui:{gate_key}"


def result_event(gate_key: str) -> str:
    return f"ui:{gate_key}:result"


def audit_event(gate_key: str) -> str:
    return f"ui:{gate_key}:audit"


def decision_event(gate_key: str) -> str:
    return f"decision:{gate_key}"


def send_key(topic: str, dedupe_key: str) -> str:
    return f"send:{topic}:{dedupe_key}"


def payload_hash(payload: JsonObject) -> str:
    return sha256_json(payload)


def legacy_dedupe_key(origin: str, workflow_id: str, run_id: str, gate_key: str, topic: str, payload_hash: str) -> str:
    """The dedupe key of an answer given through a route that asks for none."""
    parts = {"origin": origin, "workflowId": workflow_id, "runId": run_id}
    parts |= {"gateKey": gate_key, "topic": topic, "payloadHash": payload_hash}
    return f"{origin}:{sha256_json(parts)}"


def pre_approval_dedupe_key(workflow_id: str, gate_key: str) -> str:
    return f"legacy-plan-approval:{workflow_id}:{gate_key}"


def fixture_dedupe_key(workflow_id: str, gate_key: str) -> str:
    """Of the answer that a fixture's run gives itself."""
    return f"fixture:{workflow_id}:{gate_key}"


# Other workflows


def task_key(workflow_id: str, run_id: str, *, cmd: str, template_key: str, template_ref: str, test: str | None = None) -> str:
    """The id of a sandbox task and of the child workflow that runs it."""
    request = {"cmd": cmd, "templateKey": template_key, "templateRef": template_ref}
    if test is not None:
        request["test"] = test
    return sha256_json({"intentId": workflow_id, "runId": run_id, "stepId": "ExecuteST", "normalizedReq": request})


def escalation_id(workflow_id: str, gate_key: str) -> str:
    return f"esc:{workflow_id}:{gate_key}"


def promotion_id(recipe_id: str, recipe_v: str, attempt: int) -> str:
    """The id of a version's promotion: no two versions share one, whatever their names hold."""
    recipe, v = (name.replace("%", "%25").replace("@", "%40") for name in (recipe_id, recipe_v))
    return f"promote:{recipe}@{v}:{attempt}"


def fixture_workflow_id(recipe_id: str, recipe_v: str, fixture_id: str, attempt: int = 1) -> str:
    """attempt: of the version's promotion."""
    fixture: JsonObject = {"recipeId": recipe_id, "recipeV": recipe_v, "fixtureId": fixture_id}
    return sha256_json(fixture if attempt == 1 else fixture | {"attempt": attempt})


def fixture_run_id(recipe_id: str, recipe_v: str, recipe_hash: str, fixture_id: str, attempt: int, round: int) -> str:
    """The workflow id of a run that tries a fixture out."""
    version = {"recipeId": recipe_id, "recipeV": recipe_v, "recipeHash": recipe_hash}
    return f"fx_{sha256_json(version | {'fixtureId': fixture_id, 'attempt': attempt, 'round': round})}"


def improvement_id(failed_workflow_id: str, number: int) -> str:
    """The id of a failed run's improvement, the first of which is number 1; that of its recipe's own asking ends in `auto`."""
    return f"improve:{failed_workflow_id}:{number}"


def improvement_intent_id(improvement_id: str) -> str:
    return f"im_{sha256_text(improvement_id)}"


# Calls and side effects


def schema_hash(schema: JsonObject) -> str:
    """Of the schema as it is sent: the order of its keys is part of it."""
    return sha256_text(compact_json(schema))


def op_key(run_id: str, step_id: str, attempt: int, schema_hash: str, prompt_hash: str) -> str:
    return sha256_text(f"{run_id}:{step_id}:{attempt}:{schema_hash}:{prompt_hash}")


def oc_fixture_key(intent: JsonObject, schema_version: int, seed: int | str) -> str:
    return sha256_json({"intent": intent, "schemaVersion": schema_version, "seed": seed})


def receipt_key(run_id: str, step_id: str, payload_hash: str) -> str:
    return sha256_text(f"{run_id}:{step_id}:{payload_hash}")


def env_deps_hash(env_ref: str) -> str:
    return sha256_json({"envRef": env_ref})


def ops_task_key(op: str, target_workflow_id: str, actor: str, reason: str, forked_workflow_id: str | None, sequence: int) -> str:
    """`sequence` comes from the database and keeps two equal actions apart."""
    action = {"op": op, "targetWorkflowID": target_workflow_id, "actor": actor, "reason": reason}
    if forked_workflow_id is not None:
        action["forkedWorkflowID"] = forked_workflow_id
    return f"op-intent:{op}:{sha256_json(action)}:{sequence}"


# Artifacts

_ARTIFACT_URI = re.compile(r"artifact://run/([^/]+)/step/([^/]+)/task/([^/]*)/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ArtifactAddress:
    run_id: str
    step_id: str
    task_key: str
    name: str


def artifact_uri(run_id: str, step_id: str, task_key: str, name: str) -> str:
    """The task may be empty; the name may contain slashes."""
    return f"artifact://run/{run_id}/step/{step_id}/task/{task_key}/{name}"


def parse_artifact_uri(uri: str) -> ArtifactAddress:
    match = _ARTIFACT_URI.fullmatch(uri)
    if match is None:
        raise InvalidInput("invalid artifact URI: it must be artifact://run/<run>/step/<step>/task/<task or nothing>/<name>")
    return ArtifactAddress(*match.groups())
