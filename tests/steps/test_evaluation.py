"""Eval: verdicts that follow from what a run left and from nothing else, written once with the run."""

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from steps import evaluation, identity, recipes
from steps.contracts.base import parse
from steps.contracts.intent import RunStartRequest
from steps.contracts.recipe import EvalCheck, RecipeBundle
from steps.evaluation import Artifact, CheckResult, edit_distance, judge
from steps.identity import artifact_uri
from steps.ingress import start_run
from steps.policy import QueueRules
from tests.steps.product import Product, product
from tests.steps.samples import SPEC

CHECK: TypeAdapter[EvalCheck] = TypeAdapter(EvalCheck)


def check(kind: str, **parts: Any) -> EvalCheck:
    return CHECK.validate_python({"id": "c", "kind": kind, **parts})


def left(name: str, *, task: str = "t1", **content: Any) -> Artifact:
    return Artifact(artifact_uri("run_1", "ExecuteST", task, name), content)


def verdict(one: EvalCheck, *artifacts: Artifact) -> tuple[bool, str]:
    [result] = judge([one], artifacts)
    return result.passed, result.reason


# Judging ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "there"),
    [
        ("**/*", True),
        ("*", True),
        ("*/files/report.json", True),
        ("artifact://run/run_1/*/report.jso?", True),
        ("*/files/*.js?n", True),
        ("*.[j]son", False),
        ("report.json", False),
        ("*/files/report.json?", False),
        ("*.json.*", False),
        ("", False),
    ],
)
def test_a_glob_is_held_against_whole_addresses(glob: str, there: bool) -> None:
    reason = f"file_exists:{'ok' if there else 'missing'}:{glob}"
    assert verdict(check("file_exists", glob=glob), left("files/report.json", text="{}")) == (there, reason)


def test_a_glob_finds_nothing_where_nothing_is_left() -> None:
    assert verdict(check("file_exists", glob="*")) == (False, "file_exists:missing:*")


@pytest.mark.parametrize(
    "name", ["files/report.json", "report.json", artifact_uri("run_1", "ExecuteST", "t1", "files/report.json")]
)
def test_an_artifact_is_named_by_its_address_its_name_or_its_path(name: str) -> None:
    one = check("jsonschema", artifact=name, schema={"type": "object"})
    assert verdict(one, left("files/report.json", text="{}")) == (True, f"jsonschema:ok:{name}")


def test_of_several_tasks_with_the_same_file_the_first_by_address_counts() -> None:
    one = check("regex", artifact="a.txt", re="^first$")
    assert verdict(one, left("files/a.txt", task="t2", text="second"), left("files/a.txt", task="t1", text="first"))[0]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"text": '{"n": 1}'}, "ok"),
        ({"json": {"n": 1}}, "ok"),
        ({"text": '{"n": "1"}'}, "invalid"),
        ({"text": "no json"}, "invalid"),
        ({"text": ""}, "invalid"),
        ({"text": "[" * 5000}, "invalid"),
        ({"json": {"n": 10**400}}, "ok"),
    ],
)
def test_a_schema_is_held_against_the_parsed_artifact(content: dict[str, Any], word: str) -> None:
    one = check("jsonschema", artifact="a", schema={"properties": {"n": {"type": "integer"}}})
    assert verdict(one, left("a", **content)) == (word == "ok", f"jsonschema:{word}:a")


def test_a_schema_without_its_artifact_fails() -> None:
    assert verdict(check("jsonschema", artifact="a", schema={})) == (False, "jsonschema:artifact_missing:a")


def test_a_schema_that_takes_too_long_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"a{n}" for n in range(40)]
    definitions: dict[str, Any] = {one: {"allOf": [{"$ref": f"#/$defs/{two}"}] * 2} for one, two in itertools.pairwise(names)}
    schema = {"$defs": definitions | {names[-1]: {}}, "$ref": "#/$defs/a0"}
    monkeypatch.setattr(evaluation, "MOST_EFFORT", 500_000)
    begun = time.process_time()
    assert verdict(check("jsonschema", artifact="a", schema=schema), left("a", json=1)) == (False, "jsonschema:invalid:a")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"text": "[1, 2, 3]"}, 3),
        ({"json": []}, 0),
        ({"text": '{"a": [1, 2]}'}, 1),
        ({"text": "a,b\n1,2\r\n\n   \n3,4"}, 3),
        ({"text": ""}, 0),
        ({"text": "17"}, 1),
        ({"json": "two\nlines"}, 1),
    ],
)
def test_rows_are_entries_or_lines_that_are_not_blank(content: dict[str, Any], rows: int) -> None:
    for n in (rows, rows + 1):
        [result] = judge([check("rowcount_gte", artifact="a", n=n)], [left("a", **content)])
        ok = rows >= n
        reason = f"rowcount_gte:ok:{rows}>={n}" if ok else f"rowcount_gte:fail:{rows}<{n}"
        assert result == CheckResult("c", ok, reason, {"rows": rows, "min": n})


@pytest.mark.parametrize("n", [0, 2])
def test_a_missing_artifact_never_has_enough_rows(n: int) -> None:
    assert verdict(check("rowcount_gte", artifact="a", n=n)) == (False, f"rowcount_gte:fail:0<{n}")


@pytest.mark.parametrize(
    ("pattern", "content", "there"),
    [
        ("^x", {"text": "xyz"}, True),
        ("y$", {"text": "xyz"}, False),
        ("^é.$", {"text": "é😀"}, True),
        (r"\pL", {"text": "ж"}, True),
        ('"a":1', {"json": {"a": 1}}, True),
        ("", {"text": ""}, True),
    ],
)
def test_a_pattern_is_looked_for_in_the_text_as_it_is_served(pattern: str, content: dict[str, Any], there: bool) -> None:
    one = check("regex", artifact="a", re=pattern)
    assert verdict(one, left("a", **content)) == (there, f"regex:{'ok' if there else 'miss'}:a")


def test_a_pattern_without_its_artifact_fails() -> None:
    assert verdict(check("regex", artifact="a", re="")) == (False, "regex:artifact_missing:a")


def test_no_pattern_takes_more_than_the_time_to_read_the_text() -> None:
    begun = time.monotonic()
    assert not verdict(check("regex", artifact="a", re="^(a+)+$"), left("a", text="a" * 4_000_000 + "b"))[0]
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("one", "other", "most", "passed", "reason"),
    [
        ("kitten", "sitting", 3, True, "diff_le:ok:3<=3"),
        ("kitten", "sitting", 2.9, False, "diff_le:fail:3>2.9"),
        ("same", "same", 0, True, "diff_le:ok:0<=0"),
        ("", "abc", 5.0, True, "diff_le:ok:3<=5"),
        ("aaaa", "bbbb", 1, False, "diff_le:fail:2>1"),  # it stops counting behind the limit
        ("é", "e\u0301", 9, True, "diff_le:ok:2<=9"),
    ],
)
def test_a_difference_is_an_edit_distance(one: str, other: str, most: float, passed: bool, reason: str) -> None:
    result = verdict(check("diff_le", artifactA="a", artifactB="b", max=most), left("a", text=one), left("b", text=other))
    assert result == (passed, reason)


@pytest.mark.parametrize("there", [[], ["a"], ["b"]])
def test_a_difference_without_both_sides_fails(there: list[str]) -> None:
    one = check("diff_le", artifactA="a", artifactB="b", max=1)
    assert verdict(one, *(left(name, text="") for name in there)) == (False, "diff_le:artifact_missing:a|b")


@pytest.mark.parametrize("most", [0, 10, 1e6, 2**53])
def test_long_texts_are_compared_in_time(most: float) -> None:
    long, other = "ab" * 2_000_000, "ba" * 2_000_000
    begun = time.monotonic()
    one = check("diff_le", artifactA="a", artifactB="b", max=most)
    verdict(one, left("a", text=long), left("b", text=other))
    assert verdict(one, left("a", text=long), left("b", text=long))[0]
    assert time.monotonic() - begun < 10


def distance(one: str, other: str) -> int:
    """By the book."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12), st.integers(0, 12))
def test_the_distance_is_exact_up_to_the_limit(one: str, other: str, most: int) -> None:
    assert edit_distance(one, other, most) == min(distance(one, other), most + 1)


def test_verdicts_come_in_the_order_of_their_checks_whatever_the_order_they_were_asked_in() -> None:
    checks = [CHECK.validate_python({"id": name, "kind": "file_exists", "glob": "*"}) for name in ("b", "a", "B")]
    assert [result.check_id for result in judge(checks, [left("x")])] == ["B", "a", "b"]
    assert judge(checks, [left("x"), left("y")]) == judge(checks[::-1], [left("y"), left("x")])


# In a run --------------------------------------------------------------------------------------------------------------------

RESULTS: LiteralString = "select check_id, pass, reason, payload from app.eval_results where run_id = %s order by check_id"
FILES = {"report.json": '{"rows": 2}', "rows.csv": "a\n1\n", "a.txt": "same", "b.txt": "some"}
SOME: list[dict[str, Any]] = [
    {"id": "e", "kind": "file_exists", "glob": "*/files/report.json"},
    {"id": "d", "kind": "jsonschema", "artifact": "report.json", "schema": {"required": ["rows"]}},
    {"id": "c", "kind": "rowcount_gte", "artifact": "files/rows.csv", "n": 5},
    {"id": "b", "kind": "regex", "artifact": "stdout.log", "re": "^OK: "},
    {"id": "a", "kind": "diff_le", "artifactA": "a.txt", "artifactB": "b.txt", "max": 1},
]
VERDICTS: list[tuple[Any, ...]] = [
    ("a", True, "diff_le:ok:1<=1", None),
    ("b", True, "regex:ok:stdout.log", None),
    ("c", False, "rowcount_gte:fail:2<5", {"rows": 2, "min": 5}),
    ("d", True, "jsonschema:ok:report.json", None),
    ("e", True, "file_exists:ok:*/files/report.json", None),
]


@pytest.fixture
async def runs(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path) as one:
        yield one


async def started(runs: Product, checks: Sequence[dict[str, Any]] = SOME, **hooks: Any) -> str:
    """A run of a recipe with these checks, approved; its workflow id."""
    replayed = {"sandbox": {"files": FILES}} | hooks
    template = {"goal": "{{formData.goal}}", "inputs": {}, "constraints": {"testHooks": {"replay": replayed}}}
    spec = deepcopy(SPEC) | {"eval": list(checks), "intentTmpl": template}
    async with runs.engine.transaction() as conn:
        await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [spec]}))
    ref = {"id": spec["id"], "v": spec["v"]}
    asked = parse(RunStartRequest, {"recipeRef": ref, "formData": {"goal": "alpha"}, "opts": {"queuePartitionKey": "p"}})
    run = (await start_run(runs.engine, asked, QueueRules())).run
    await runs.approve(run.workflow_id)
    return run.workflow_id


async def results(runs: Product, wid: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in await runs.rows(RESULTS, identity.run_id(wid))]


async def test_a_run_is_judged_by_its_recipe_and_succeeds_even_with_red_checks(runs: Product) -> None:
    wid = await started(runs)
    assert (await runs.result(wid))["status"] == "succeeded"
    assert await results(runs, wid) == VERDICTS


async def test_a_run_without_recipe_has_no_verdicts(runs: Product) -> None:
    wid = await runs.start()
    await runs.approve(wid)
    await runs.result(wid)
    assert await results(runs, wid) == []


async def test_a_failed_run_has_no_verdicts(runs: Product) -> None:
    wid = await started(runs, build={"tests": ["FAIL_ME"], "test_command": "sh"})
    await runs.failure(wid)
    assert await results(runs, wid) == []


async def test_a_fork_writes_no_verdicts(runs: Product) -> None:
    wid = await started(runs)
    await runs.result(wid)
    await tampered(runs, "delete from app.eval_results")
    fork = await runs.engine.fork(wid, 1)
    for _ in range(2):
        await runs.reply(fork, identity.gate_key(identity.run_id(wid), "ApplyPatchST", "approve-plan", 1), choice="yes")
    await runs.result(fork)
    assert await results(runs, wid) == []


async def test_the_same_evaluation_again_finds_the_same(runs: Product) -> None:
    wid = await started(runs)
    await runs.result(wid)
    await runs.engine.rewind(wid, await last_record(runs, wid, "evaluate"))
    await runs.result(wid)
    assert await results(runs, wid) == VERDICTS


async def last_record(runs: Product, wid: str, name: str) -> int:
    (row,) = await runs.rows(
        "select max(function_id) as n from dbos.operation_outputs where workflow_uuid = %s and function_name = %s", wid, name
    )
    return row["n"]


async def test_other_verdicts_than_recorded_fail_the_run(runs: Product) -> None:
    wid = await started(runs)
    await runs.result(wid)
    await tampered(runs, "update app.eval_results set pass = not pass where check_id = 'a'")
    await runs.engine.rewind(wid, await last_record(runs, wid, "evaluate"))
    assert (await runs.failure(wid)).message.startswith(f"Determinism violation in eval of {identity.run_id(wid)}")


async def test_a_run_without_artifact_index_can_not_be_judged(runs: Product) -> None:
    wid = await started(runs)
    await runs.result(wid)
    await tampered(runs, "delete from app.artifacts where kind = 'artifact_index'")
    await runs.engine.rewind(wid, await last_record(runs, wid, "evaluate"))
    assert "left no artifact index" in (await runs.failure(wid)).message


async def tampered(runs: Product, change: LiteralString) -> None:
    async with runs.engine.transaction() as conn:
        await conn.execute("set local session_replication_role = replica")  # triggers would refuse it
        await conn.execute(change)


async def test_only_the_artifacts_that_a_check_names_are_read(runs: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[list[str]] = []

    def watched(checks: Any, artifacts: Sequence[Artifact]) -> list[CheckResult]:
        held.append([artifact.name for artifact in artifacts if artifact.content is not None])
        return judge(checks, artifacts)

    monkeypatch.setattr(evaluation, "judge", watched)
    await runs.result(await started(runs))
    assert held == [["files/a.txt", "files/b.txt"], ["stdout.log"], ["files/rows.csv"], ["files/report.json"], []]


@pytest.mark.parametrize(
    "change",
    [
        "update app.eval_results set reason = 'other'",
        "delete from app.eval_results",
        "truncate app.eval_results",
    ],
)
async def test_verdicts_stay_as_they_are(runs: Product, change: LiteralString) -> None:
    wid = await started(runs)
    await runs.result(wid)
    with pytest.raises(psycopg.errors.RestrictViolation):
        async with runs.engine.transaction() as conn:
            await conn.execute(change)
    assert await results(runs, wid) == VERDICTS
