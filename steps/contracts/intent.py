"""What is asked for: the intent, and the request to run it."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import Count, Duration, Int32, JsonObject, Name, Positive, Text, Wire

QueueName = Literal["compileQ", "sbxQ", "controlQ", "intentQ"]
Lane = Literal["interactive", "batch"]


class Intent(Wire):
    goal: Text
    inputs: JsonObject
    constraints: JsonObject
    connectors: list[str] | None = None


class Workload(Wire):
    """How much the caller expects to use, held against the recipe's limits before the start."""

    concurrency: Count
    steps: Count
    sandboxMinutes: Count


class Budget(Wire):
    """How much a run may use; checked at the start and while it runs."""

    maxFanout: Positive
    maxSBXMinutes: Positive
    maxArtifactsMB: Positive
    maxRetriesPerStep: Count
    maxWallClockMS: Duration


class RunRequest(Wire):
    """The options of a start."""

    traceId: str | None = None
    queueName: QueueName | None = None
    lane: Lane | None = None
    priority: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    deduplicationID: Name | None = None
    timeoutMS: Duration | None = None
    recipeName: str | None = None
    recipeVersion: Int32 | None = None
    workload: Workload | None = None
    tenantId: Name | None = None
    taskKey: Name | None = None
    queuePartitionKey: Name | None = None
    budget: Budget | None = None


class RecipeRef(Wire):
    """One exact version of a recipe."""

    id: Name
    v: Name


class RunStartRequest(Wire):
    recipeRef: RecipeRef
    formData: JsonObject
    opts: RunRequest | None = None
