"""The workflow PromoteRecipe: run every fixture of a candidate (steps.fixtures), and settle.

It settles in one transaction with its journal record: all green makes the version stable and the active one, anything else refuses, and
nothing is changed.
"""

from dataclasses import dataclass
from typing import Literal, LiteralString

from pydantic import TypeAdapter

from engine import (
    ChildHandle,
    Connection,
    Rider,
    WorkflowFailed,
    gather,
    ride,
    set_event,
    start,
    transaction,
    workflow,
    workflow_info,
)
from steps.contracts.base import JsonObject
from steps.contracts.recipe import FixtureOutcome
from steps.errors import ProductError
from steps.fixtures import FixtureRequest, recipe_fixture
from steps.policy import CONTROL_QUEUE
from steps.promotion import (
    UNDER_WAY,
    WORKFLOW_CLASS,
    WORKFLOW_NAME,
    PromotionOutcome,
    PromotionRequest,
    check_ready,
    first,
    insert,
    locked,
    make_stable,
    partition_of,
)
from steps.recipes import RecipeVersion

#: The event that a promotion sets when it has ended; its value is the status.
ENDED_EVENT = "promotion"

OWN: LiteralString = "select attempt, status from app.promotions where workflow_id = %s"
ENDED = Rider("""
    update app.promotions p
       set status = n.status, outcome = n.outcome, ended_at = now()
      from json_to_recordset(%s) as n (workflow_id text, status text, outcome jsonb)
     where p.workflow_id = n.workflow_id and p.status = 'under_way'
""")


@dataclass(frozen=True, slots=True)
class Opened:
    """A promotion that may run. attempt: 0 for one without a row; refusal: why it may not; fixtures: what is to be run."""

    attempt: int
    recipe_hash: str
    fixtures: list[str]
    refusal: str


@workflow(name=WORKFLOW_NAME, class_name=WORKFLOW_CLASS)
async def promote_recipe(request: PromotionRequest) -> PromotionOutcome:
    """Run all fixtures of a candidate side by side; the version is stable and active when all are green, and as before when not."""
    opened = await open_promotion(request)
    fixtures = await run_fixtures(request, opened)
    outcome = await settle(request, opened, fixtures)
    await set_event(ENDED_EVENT, outcome.status)
    return outcome


async def run_fixtures(request: PromotionRequest, opened: Opened) -> list[FixtureOutcome]:
    requests = [FixtureRequest(request.recipe_id, request.v, opened.recipe_hash, id, opened.attempt) for id in opened.fixtures]
    partition = partition_of(request.recipe_id)
    handles = await gather(*(start(recipe_fixture, one, id=one.id, queue=CONTROL_QUEUE, partition=partition) for one in requests))
    return list(await gather(*(outcome_of(one.fixture_id, handle) for one, handle in zip(requests, handles, strict=True))))


async def outcome_of(fixture_id: str, handle: ChildHandle[FixtureOutcome]) -> FixtureOutcome:
    """The fixture's outcome; not green when its workflow ended without one."""
    try:
        return await handle.result()
    except WorkflowFailed as failure:
        return FixtureOutcome(fixture_id, False, f"fixture {fixture_id} did not come to its end: {failure.message}", [])


@transaction(name="openPromotion")
async def open_promotion(conn: Connection, request: PromotionRequest) -> Opened:
    """Find this workflow's promotion, or make one when it was started by another workflow and the version is ready."""
    me = workflow_info().id
    own = await first(conn, OWN, me)
    attempt = 0 if own is None else own[0]
    try:
        version = await locked(conn, request.ref)
        if version.status == "stable":
            return Opened(attempt, version.hash, [], "")
        check_ready(version)
    except ProductError as error:
        return Opened(attempt, "", [], error.message)
    if own is None:
        if await first(conn, UNDER_WAY, request.recipe_id, request.v) is not None:
            return Opened(0, version.hash, [], f"another promotion of {version.id}@{version.v} is under way; wait for its end")
        attempt = await insert(conn, request, me)
    return Opened(attempt, version.hash, [fixture.id for fixture in version.spec.fixtures], "")


@transaction(name="settlePromotion")
async def settle(conn: Connection, request: PromotionRequest, opened: Opened, fixtures: list[FixtureOutcome]) -> PromotionOutcome:
    """The end: the version's status and the promotion's are one commit, which the fence forbids to whoever lost the workflow."""
    reason = opened.refusal
    if not reason:
        version = await locked(conn, request.ref)
        reason = await why_not(conn, version, opened, fixtures)
        if not reason:
            await make_stable(conn, version)
    status: Literal["promoted", "refused"] = "refused" if reason else "promoted"
    ended: JsonObject = {"fixtures": TypeAdapter(list[FixtureOutcome]).dump_python(fixtures)}
    # Written behind the fence, as the database writes it when the workflow is cancelled: the workflow's row is locked before this one.
    ride(ENDED, {"workflow_id": workflow_info().id, "status": status, "outcome": ended | ({"reason": reason} if reason else {})})
    return PromotionOutcome(request.recipe_id, request.v, opened.attempt, status, reason, fixtures)


async def why_not(conn: Connection, version: RecipeVersion, opened: Opened, fixtures: list[FixtureOutcome]) -> str:
    """Why the version may not become stable and active; empty when it may."""
    name = f"{version.id}@{version.v}"
    if version.hash != opened.recipe_hash:
        return f"recipe version {name} is another one by now; promote again"
    own = await first(conn, OWN, workflow_info().id)
    if opened.attempt and (own is None or own[1] != "under_way"):  # a fork, or resumed after a cancel
        return f"this promotion of {name} has ended before; promote again"
    if version.status == "stable":
        return ""
    red = next((fixture.reason for fixture in fixtures if not fixture.green), "")
    if red:
        return red
    ran = [fixture.fixtureId for fixture in fixtures]
    if not ran or ran != [fixture.id for fixture in version.spec.fixtures]:
        return f"not every fixture of {name} was run; promote again"
    return ""
