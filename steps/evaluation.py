"""Eval: what a run left, judged by the checks of the recipe version that it is pinned to.

`judge` is pure: the same artifacts give the same verdicts, always. `evaluate` is the step of a run that reads what the newest attempt's
tasks left, one check at a time, and writes the verdicts. A red check fails nothing: the run did what it was told.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString, cast

import orjson
from pydantic import TypeAdapter
from rapidfuzz.distance import Levenshtein

from engine import Rider, TerminalError, ride, step
from steps.artifacts import content_text
from steps.canonical import canonical_json, number_text
from steps.contracts.base import JsonObject
from steps.contracts.recipe import DiffLe, EvalCheck, FileExists, JsonSchema, Regex, RowcountGte
from steps.execute_artifacts import STEP
from steps.identity import parse_artifact_uri
from steps.json_schema import TooMuch, effort, failures
from steps.patterns import found, glob_pattern
from steps.ports import ports
from steps.run_record import Recipe, Run, is_fork_of

#: Characters of either text that are compared, once what both begin and end with is taken away. Longer ones differ too much.
LONGEST_COMPARED = 200_000
#: Of holding one artifact against one schema (steps.json_schema): some 150,000 small rows, about 10 seconds.
MOST_EFFORT = 8_000_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that a run left. content: its envelope, {"text": …} or {"json": …}; not needed where no check names it."""

    uri: str
    content: JsonObject | None = None

    @property
    def name(self) -> str:
        return parse_artifact_uri(self.uri).name


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's verdict, and in a few words why."""

    check_id: str
    passed: bool
    reason: str
    payload: JsonObject | None = None


# Judging ---------------------------------------------------------------------------------------------------------------------


def judge(checks: Iterable[EvalCheck], artifacts: Sequence[Artifact]) -> list[CheckResult]:
    """The verdict of each check, by check id. Artifacts that a check names must have their content (see `named_by`)."""
    by_name = first_by_name(artifacts)
    return [_judged(check, artifacts, by_name) for check in sorted(checks, key=lambda check: check.id)]


def first_by_name(artifacts: Iterable[Artifact]) -> dict[str, Artifact]:
    """Artifacts by what a check may call them: the URI, the part of it behind the task, a file's path. Of several the first by URI."""
    names: dict[str, Artifact] = {}
    for artifact in sorted(artifacts, key=lambda artifact: artifact.uri):
        name = artifact.name
        for called in (artifact.uri, name, name.removeprefix("files/")):
            names.setdefault(called, artifact)
    return names


def named_by(check: EvalCheck) -> tuple[str, ...]:
    """The artifacts whose content the check looks at, as it calls them."""
    match check:
        case FileExists():
            return ()
        case DiffLe():
            return (check.artifactA, check.artifactB)
        case _:
            return (check.artifact,)


def _judged(check: EvalCheck, artifacts: Sequence[Artifact], by_name: Mapping[str, Artifact]) -> CheckResult:
    contents = [artifact.content if (artifact := by_name.get(name)) else None for name in named_by(check)]
    match check:
        case FileExists():
            pattern = glob_pattern(check.glob)
            there = any(found(pattern, artifact.uri) for artifact in artifacts)
            return CheckResult(check.id, there, f"file_exists:{'ok' if there else 'missing'}:{check.glob}")
        case JsonSchema():
            return _of_schema(check, contents[0])
        case RowcountGte():
            return _of_rows(check, contents[0])
        case Regex():
            return _of_pattern(check, contents[0])
        case DiffLe():
            return _of_distance(check, contents[0], contents[1])


def _of_schema(check: JsonSchema, content: JsonObject | None) -> CheckResult:
    if content is None:
        return CheckResult(check.id, False, f"jsonschema:artifact_missing:{check.artifact}")
    try:
        with effort(MOST_EFFORT):
            valid = not failures(check.schema_, _json_of(content), most=1)
    except (ValueError, TooMuch):  # no JSON, or more than can be looked at
        valid = False
    return CheckResult(check.id, valid, f"jsonschema:{'ok' if valid else 'invalid'}:{check.artifact}")


def _of_rows(check: RowcountGte, content: JsonObject | None) -> CheckResult:
    rows = 0 if content is None else _rows_of(content)
    enough = content is not None and rows >= check.n
    reason = f"rowcount_gte:ok:{rows}>={check.n}" if enough else f"rowcount_gte:fail:{rows}<{check.n}"
    return CheckResult(check.id, enough, reason, {"rows": rows, "min": check.n})


def _of_pattern(check: Regex, content: JsonObject | None) -> CheckResult:
    if content is None:
        return CheckResult(check.id, False, f"regex:artifact_missing:{check.artifact}")
    there = found(check.re, content_text(content))
    return CheckResult(check.id, there, f"regex:{'ok' if there else 'miss'}:{check.artifact}")


def _of_distance(check: DiffLe, one: JsonObject | None, other: JsonObject | None) -> CheckResult:
    if one is None or other is None:
        return CheckResult(check.id, False, f"diff_le:artifact_missing:{check.artifactA}|{check.artifactB}")
    most = math.floor(check.max)
    distance = edit_distance(content_text(one), content_text(other), most)
    near, limit = distance <= most, number_text(check.max)
    return CheckResult(check.id, near, f"diff_le:ok:{distance}<={limit}" if near else f"diff_le:fail:{distance}>{limit}")


def edit_distance(one: str, other: str, most: int) -> int:
    """How many characters must be put in, taken out or exchanged to make one the other; `most` + 1 stands for anything above `most`."""
    one, other = _without_common_ends(one, other)
    if max(len(one), len(other)) > LONGEST_COMPARED:
        return most + 1
    return Levenshtein.distance(one, other, score_cutoff=min(most, LONGEST_COMPARED))


def _without_common_ends(one: str, other: str) -> tuple[str, str]:
    start = _common(one, other, str.startswith, lambda text, size: text[:size])
    one, other = one[start:], other[start:]
    end = _common(one, other, str.endswith, lambda text, size: text[len(text) - size :])
    return one[: len(one) - end], other[: len(other) - end]


def _common(one: str, other: str, has: Callable[[str, str], bool], part: Callable[[str, int], str]) -> int:
    """How many characters both have at that end, found by halves."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if has(one, part(other, middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _json_of(content: JsonObject) -> Any:
    """Raises ValueError for text that is not JSON."""
    return content["json"] if "json" in content else orjson.loads(content_text(content))


def _rows_of(content: JsonObject) -> int:
    """Entries of a list, 1 for an object, lines that are not blank of anything else."""
    try:
        value = _json_of(content)
    except ValueError:
        value = None
    if isinstance(value, list):
        return len(cast(list[Any], value))
    if isinstance(value, dict):
        return 1
    return sum(1 for line in content_text(content).splitlines() if line.strip())


# The step of a run -----------------------------------------------------------------------------------------------------------

CHECKS: LiteralString = "select json -> 'eval' as checks from app.recipe_versions where id = %s and v = %s and hash = %s"
#: What the tasks of the newest attempt left, as their indexes say.
LEFT: LiteralString = """
    select newest.attempt, count(distinct a.uri)::int as indexes,
           coalesce(array_agg(item.value ->> 'uri' order by item.value ->> 'uri') filter (where item.value is not null), '{}') as uris
      from (select %s::text as run_id, %s::text as step_id) asked
     cross join lateral (select max(t.attempt) as attempt from app.artifacts t
                          where t.run_id = asked.run_id and t.step_id = asked.step_id) newest
      left join app.artifacts a on a.run_id = asked.run_id and a.step_id = asked.step_id and a.attempt = newest.attempt
                               and a.kind = 'artifact_index'
      left join lateral jsonb_array_elements(a.inline #> '{json,items}') item on true
     group by newest.attempt
"""
CONTENT: LiteralString = """
    select a.inline as content from app.artifacts a
     where a.run_id = %s and a.step_id = %s and a.attempt = %s and a.uri = %s
     order by a.task_key, a.idx
     limit 1
"""
RECORDED: LiteralString = """
    select coalesce(jsonb_agg(jsonb_build_array(e.check_id, e.pass, e.reason, e.payload)), '[]') as rows
      from app.eval_results e
     where e.run_id = %s
"""
VERDICT = Rider("""
    insert into app.eval_results (run_id, check_id, pass, reason, payload)
    select n.run_id, n.check_id, n.pass, n.reason, n.payload
      from json_to_recordset(%s) as n (run_id text, check_id text, pass boolean, reason text, payload jsonb)
    on conflict do nothing
""")


@dataclass(frozen=True, slots=True)
class _Checks:
    checks: list[JsonObject]


@dataclass(frozen=True, slots=True)
class _Left:
    attempt: int | None
    indexes: int
    uris: list[str]


@dataclass(frozen=True, slots=True)
class _Content:
    content: JsonObject | None


@dataclass(frozen=True, slots=True)
class _Recorded:
    rows: list[list[Any]]


_EVAL: TypeAdapter[list[EvalCheck]] = TypeAdapter(list[EvalCheck])


@step(name="evaluate")
async def evaluate(run: Run, recipe: Recipe) -> list[CheckResult]:
    """The verdicts of the recipe's checks over the run's newest artifacts, and their rows; none of a fork. Fails for good when there
    is no artifact index, and when verdicts are recorded that differ.
    """
    if is_fork_of(run.run_id):
        return []
    pinned = await ports().read(_Checks, CHECKS, recipe.id, recipe.v, recipe.hash)
    if pinned is None:
        raise TerminalError(
            f"recipe version {recipe.id}@{recipe.v} is gone, so the run can't be evaluated", name="RecipeNotFound"
        )
    left = await ports().read(_Left, LEFT, run.run_id, STEP)
    if left is None or left.attempt is None or not left.indexes:
        raise TerminalError(f"run {run.run_id} left no artifact index, so it can't be evaluated", name="ArtifactIndexMissing")
    results = await _verdicts(run.run_id, left.attempt, left.uris, _EVAL.validate_python(pinned.checks))
    await _require_same(run.run_id, results)
    for result in results:
        ride(VERDICT, {"run_id": run.run_id, **_row_of(result)})
    return results


async def _verdicts(run_id: str, attempt: int, uris: Sequence[str], checks: Sequence[EvalCheck]) -> list[CheckResult]:
    """With the content of no more artifacts in memory than one check names."""
    artifacts = [Artifact(uri) for uri in uris]
    by_name = first_by_name(artifacts)
    results: list[CheckResult] = []
    for check in sorted(checks, key=lambda check: check.id):
        looked_at = artifacts
        if names := named_by(check):
            named = {by_name[name].uri: by_name[name] for name in names if name in by_name}
            looked_at = [await _with_content(run_id, attempt, artifact) for artifact in named.values()]
        results += await asyncio.to_thread(judge, [check], looked_at)
    return results


async def _with_content(run_id: str, attempt: int, artifact: Artifact) -> Artifact:
    found_there = await ports().read(_Content, CONTENT, run_id, STEP, attempt, artifact.uri)
    return replace(artifact, content=None if found_there is None else found_there.content)


async def _require_same(run_id: str, results: Sequence[CheckResult]) -> None:
    """That what an earlier evaluation of the run wrote, if there was one, says the same."""
    recorded = await ports().read(_Recorded, RECORDED, run_id)
    before = sorted(canonical_json(row) for row in (recorded.rows if recorded else []))
    again = sorted(canonical_json([*_row_of(result).values()]) for result in results)
    if before and before != again:
        raise TerminalError(
            f"Determinism violation in eval of {run_id}: it is recorded with other verdicts", name="DeterminismViolation"
        )


def _row_of(result: CheckResult) -> JsonObject:
    return {"check_id": result.check_id, "pass": result.passed, "reason": result.reason, "payload": result.payload}
