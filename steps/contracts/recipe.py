"""A recipe: how a form becomes an intent, within which limits, and how its results are judged."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, model_validator

from steps.canonical import compact_json, require_storable
from steps.contracts.base import Count, JsonObject, Millis, Name, Positive, Wire
from steps.contracts.intent import QueueName
from steps.contracts.ops import Said
from steps.errors import InvalidInput, pointer
from steps.forms import completed
from steps.json_schema import BadSchema, effort, node_count, require_schema
from steps.patterns import require_pattern
from steps.template import require_template

RecipeStatus = Literal["draft", "candidate", "stable"]
PromotionStatus = Literal["under_way", "promoted", "refused"]


MOST_VERSIONS = 1_000  # of one bundle
MOST_CHECKS = 200
MOST_FIXTURES = 100
MOST_TAGS = 50
MOST_SPEC_BYTES = 256 * 1024  # of one version, as JSON
MOST_SCHEMA_NODES = 50_000  # of all schemas of a bundle together
MOST_FIXTURE_EFFORT = 20_000_000  # of holding all fixtures of a bundle against their schemas


def _sound_pattern(pattern: str) -> str:
    require_pattern(pattern)
    return pattern


def _sound_schema(schema: JsonObject) -> JsonObject:
    try:
        require_schema(schema)
    except BadSchema as bad:
        raise ValueError(f"{bad} (at {pointer(bad.path)})" if bad.path else str(bad)) from None
    return schema


def _of_objects(schema: JsonObject) -> JsonObject:
    if schema.get("type", "object") != "object":
        raise ValueError("must be a schema of type object, since a form is one")
    return schema


def _sound_template(template: JsonObject) -> JsonObject:
    require_template(template)
    return template


Schema = Annotated[JsonObject, AfterValidator(_sound_schema)]
Pattern = Annotated[str, AfterValidator(_sound_pattern)]
Address = Annotated[str, Field(min_length=1, max_length=1_000)]
Prompt = Annotated[str, Field(min_length=1, max_length=20_000)]
Tag = Annotated[str, Field(max_length=100)]


class FileExists(Wire):
    id: Name
    kind: Literal["file_exists"]
    glob: Annotated[str, Field(max_length=1_000)]


class JsonSchema(Wire):
    id: Name
    kind: Literal["jsonschema"]
    artifact: Address
    schema_: Annotated[Schema, Field(alias="schema")]


class RowcountGte(Wire):
    id: Name
    kind: Literal["rowcount_gte"]
    artifact: Address
    n: Count


class Regex(Wire):
    id: Name
    kind: Literal["regex"]
    artifact: Address
    re: Pattern


class DiffLe(Wire):
    id: Name
    kind: Literal["diff_le"]
    artifactA: Address
    artifactB: Address
    max: Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]


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
    compile: Prompt
    postmortem: Prompt


class RecipeSpec(Wire):
    """One version of a recipe, whole. Its canonical hash is its address."""

    id: Name
    v: Name
    name: Annotated[str, Field(min_length=1, max_length=200)]
    tags: Annotated[list[Tag], Field(max_length=MOST_TAGS)] = Field(default_factory=list)
    formSchema: Annotated[Schema, AfterValidator(_of_objects)]
    intentTmpl: Annotated[JsonObject, AfterValidator(_sound_template)]
    wfEntry: Annotated[str, Field(max_length=200)]
    queue: QueueName
    limits: Limits
    eval: Annotated[list[EvalCheck], Field(max_length=MOST_CHECKS)]
    fixtures: Annotated[list[Fixture], Field(max_length=MOST_FIXTURES)]
    prompts: Prompts
    #: Which groups of people may answer the gates of its runs; everybody who may answer gates, if none is named.
    approvers: Annotated[list[Tag], Field(max_length=MOST_TAGS)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _is_bounded(cls, given: Any) -> Any:
        """Before anything else looks at it."""
        if isinstance(given, dict):
            require_storable(given)
            if len(compact_json(given).encode()) > MOST_SPEC_BYTES:
                raise ValueError(f"must NOT be larger than {MOST_SPEC_BYTES} bytes")
        return cast(Any, given)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        for what, ids in (("eval", [c.id for c in self.eval]), ("fixtures", [f.id for f in self.fixtures])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"must have a different id for each of its {what}")
        return self

    @model_validator(mode="after")
    def _fixtures_fit(self) -> Self:
        for fixture in self.fixtures:
            try:
                completed(self.formSchema, fixture.formData)
            except InvalidInput as error:
                raise ValueError(f"must have fixtures that fit its formSchema; {fixture.id} does not: {error.message}") from None
        return self


class RecipeBundle(Wire):
    """Versions that travel together."""

    id: Name
    versions: Annotated[list[RecipeSpec], Field(min_length=1, max_length=MOST_VERSIONS)]

    @model_validator(mode="wrap")
    @classmethod
    def _is_bounded(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if schema_nodes(given) > MOST_SCHEMA_NODES:
            raise ValueError(f"must NOT have schemas of more than {MOST_SCHEMA_NODES} values altogether")
        with effort(MOST_FIXTURE_EFFORT):
            return handler(given)

    @model_validator(mode="after")
    def _versions_are_unique(self) -> Self:
        if len({(spec.id, spec.v) for spec in self.versions}) < len(self.versions):
            raise ValueError("must have each version once")
        return self


def schema_nodes(bundle: Any) -> int:
    """How many values the schemas of a bundle hold, whatever the bundle looks like."""
    versions = [version for version in _list_in(bundle, "versions") if isinstance(version, dict)]
    checks = [check for version in versions for check in _list_in(version, "eval") if isinstance(check, dict)]
    schemas = [*(version.get("formSchema") for version in versions), *(check.get("schema") for check in checks)]
    return sum(map(node_count, schemas))


def _list_in(given: Any, key: str) -> list[Any]:
    found = cast(JsonObject, given).get(key) if isinstance(given, dict) else None
    return cast(list[Any], found) if isinstance(found, list) else []


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


class CandidateRequest(Wire):
    """actor, reason: who makes the version a candidate and why; kept with it for good."""

    actor: Said
    reason: Said


class PromoteRequest(Wire):
    """actor, reason: who wants the version promoted and why; kept with the promotion for good."""

    actor: Said
    reason: Said


@dataclass(frozen=True, slots=True)
class FixtureRound:
    """One run of a fixture. status: as of its workflow; hash: of what it left, when it ended well."""

    round: int
    workflowID: str
    status: str
    checks: list[JsonObject]
    hash: str | None


@dataclass(frozen=True, slots=True)
class FixtureOutcome:
    """What became of a fixture. reason: why it is not green, one sentence; empty when it is."""

    fixtureId: str
    green: bool
    reason: str
    rounds: list[FixtureRound]


@dataclass(frozen=True, slots=True)
class PromotionView:
    """A try to make a version stable. fixturesDone, fixturesTotal: how far it is; refusal: why it is refused; fixtures: what each did,
    once it has ended.
    """

    attempt: int
    workflowID: str
    actor: str
    reason: str
    status: PromotionStatus
    fixturesDone: int
    fixturesTotal: int
    refusal: str | None
    fixtures: list[FixtureOutcome]
    createdAt: int
    endedAt: int | None


class VersionView(Wire):
    """A version whole. active: the one that a start by name takes. candidateActor, candidateReason: who made it a candidate and why.
    promotion: the newest try to make it stable, if there was one.
    """

    id: str
    v: str
    hash: str
    status: RecipeStatus
    createdAt: Millis
    active: bool
    candidateActor: str | None = None
    candidateReason: str | None = None
    spec: JsonObject
    promotion: PromotionView | None = None


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version and where it stands."""

    id: str
    v: str
    hash: str
    status: RecipeStatus


@dataclass(frozen=True, slots=True)
class PromotedVersion(VersionStatus):
    """promotion: the latest try to make it stable, if there was one."""

    promotion: PromotionView | None
