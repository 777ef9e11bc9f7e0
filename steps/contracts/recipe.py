"""A recipe: how a form becomes an intent, within which limits, and how its results are judged."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steps.contracts.base import Count, JsonObject, Name, Positive, Text, Wire
from steps.contracts.intent import QueueName

RecipeStatus = Literal["draft", "candidate", "stable"]


class FileExists(Wire):
    id: Name
    kind: Literal["file_exists"]
    glob: str


class JsonSchema(Wire):
    id: Name
    kind: Literal["jsonschema"]
    artifact: str
    schema_: Annotated[JsonObject, Field(alias="schema")]


class RowcountGte(Wire):
    id: Name
    kind: Literal["rowcount_gte"]
    artifact: str
    n: Count


class Regex(Wire):
    id: Name
    kind: Literal["regex"]
    artifact: str
    re: str


class DiffLe(Wire):
    id: Name
    kind: Literal["diff_le"]
    artifactA: str
    artifactB: str
    max: Annotated[float, Field(ge=0, allow_inf_nan=False)]


EvalCheck = Annotated[FileExists | JsonSchema | RowcountGte | Regex | DiffLe, Field(discriminator="kind")]


class Limits(Wire):
    maxSteps: Positive
    maxFanout: Positive
    maxSbxMin: Positive
    maxTokens: Positive


class Fixture(Wire):
    """A sample form."""

    id: Name
    formData: JsonObject


class Prompts(Wire):
    compile: Text
    postmortem: Text


class RecipeSpec(Wire):
    """One version of a recipe, whole. Its canonical hash is its address."""

    id: Name
    v: Name
    name: Text
    tags: list[str] = Field(default_factory=list)
    formSchema: JsonObject
    intentTmpl: JsonObject
    wfEntry: str
    queue: QueueName
    limits: Limits
    eval: list[EvalCheck]
    fixtures: list[Fixture]
    prompts: Prompts

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        for what, ids in (("eval", [c.id for c in self.eval]), ("fixtures", [f.id for f in self.fixtures])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"must have a different id for each of its {what}")
        return self


class RecipeBundle(Wire):
    """Versions that travel together."""

    id: Name
    versions: Annotated[list[RecipeSpec], Field(min_length=1)]


class RecipeExportRequest(Wire):
    id: Name


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    id: str
    v: str
    hash: str
    status: RecipeStatus


@dataclass(frozen=True, slots=True)
class RecipeSummary:
    """A recipe with its latest version."""

    id: str
    name: str
    latestV: str
    status: RecipeStatus
    updatedAt: int


@dataclass(frozen=True, slots=True)
class VersionSummary:
    id: str
    v: str
    hash: str
    status: RecipeStatus
    createdAt: int
    evalCount: int
    fixtureCount: int
