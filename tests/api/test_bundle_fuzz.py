"""Recipe bundles of every kind, sent to the registry: what it takes comes out again byte by byte, and what it refuses leaves no trace."""

import asyncio
import json
import random
import string
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.config import Config
from engine import Engine
from steps.canonical import canonical_json
from tests.api.samples import SPEC
from tests.api.served import Contents

BODY = 256 * 1024  # bytes that the front door takes here


@asynccontextmanager
async def front_door(database: str) -> AsyncIterator[httpx.AsyncClient]:
    async with Engine.connect(database, pool_size=2) as engine:
        app = create_app(engine, Config(database_url=database, app_version="test", max_body_bytes=BODY))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
            yield client


# What is taken comes out again -------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORD = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SMALL = st.integers(1, 2**31 - 1)
PLAIN = TEXT.filter(lambda text: "{{" not in text)
TEMPLATES = st.fixed_dictionaries({"goal": st.just("{{ formData.goal }}"), "inputs": st.dictionaries(PLAIN, PLAIN, max_size=3)})
CHECKS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("file_exists"), "glob": TEXT}),
    st.fixed_dictionaries({"kind": st.just("jsonschema"), "artifact": WORD, "schema": st.fixed_dictionaries({"const": JSON})}),
    st.fixed_dictionaries({"kind": st.just("rowcount_gte"), "artifact": WORD, "n": SMALL}),
    st.fixed_dictionaries(
        {"kind": st.just("regex"), "artifact": WORD, "re": st.sampled_from(["^a+$", r"\pL", "é|😀", "{{", ""])}
    ),
    st.fixed_dictionaries(
        {"kind": st.just("diff_le"), "artifactA": WORD, "artifactB": WORD, "max": st.integers(0, 2**53) | st.floats(0, 2**53)}
    ),
)
FORM_SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(TEXT, st.fixed_dictionaries({}, optional={"default": JSON, "title": TEXT}), max_size=3),
        "description": TEXT,
        "x-hint": JSON,
    },
)


@st.composite
def named(draw: st.DrawFn, items: st.SearchStrategy[dict[str, Any]]) -> list[dict[str, Any]]:
    names = draw(st.lists(WORD, max_size=3, unique=True))
    return [draw(items) | {"id": name} for name in names]


@st.composite
def specs(draw: st.DrawFn, recipe_id: str, v: str) -> dict[str, Any]:
    spec = {
        "id": recipe_id,
        "v": v,
        "name": draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)),
        "formSchema": draw(FORM_SCHEMAS),
        "intentTmpl": draw(TEMPLATES) | {"constraints": {}},
        "wfEntry": "Runner.runIntent",
        "queue": draw(st.sampled_from(["intentQ", "sbxQ", "controlQ", "compileQ"])),
        "limits": {name: draw(SMALL) for name in ("maxSteps", "maxFanout", "maxSbxMin", "maxTokens")},
        "eval": draw(named(CHECKS)),
        "fixtures": draw(named(st.fixed_dictionaries({"formData": st.dictionaries(TEXT, JSON, max_size=3)}))),
        "prompts": {"compile": draw(WORD), "postmortem": draw(WORD)},
    }
    return spec | draw(st.fixed_dictionaries({}, optional={"tags": st.lists(TEXT, max_size=3)}))


@st.composite
def bundles(draw: st.DrawFn) -> dict[str, Any]:
    recipe_id = draw(WORD)
    versions = draw(st.lists(WORD, min_size=1, max_size=3, unique=True))
    return {"id": recipe_id, "versions": [draw(specs(recipe_id, v)) for v in versions]}


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_an_export_is_the_import_byte_by_byte_for_200_generated_bundles(shared_database: str, loop: asyncio.Runner) -> None:
    door = front_door(shared_database)
    client = loop.run(door.__aenter__())
    taken: list[str] = []

    async def round_trip(conn: psycopg.AsyncConnection[Any], bundle: dict[str, Any]) -> None:
        await conn.execute("delete from app.recipe_versions where status = 'draft'")
        sent = canonical_json(bundle | {"versions": sorted(bundle["versions"], key=lambda spec: spec["v"])})
        for body in (json.dumps(bundle), sent):  # as somebody writes it, and as it is exported
            imported = await client.post("/api/recipes/import", content=body)
            assert imported.status_code == 201, imported.text
            exported = await client.post("/api/recipes/export", json={"id": bundle["id"]})
            assert exported.text == sent
            await conn.execute("delete from app.recipe_versions where status = 'draft'")
        taken.append(sent)

    conn = loop.run(psycopg.AsyncConnection.connect(shared_database, autocommit=True))
    try:

        @given(bundles())
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        def one(bundle: dict[str, Any]) -> None:
            loop.run(round_trip(conn, bundle))

        one()
    finally:
        loop.run(conn.close())
        loop.run(door.__aexit__(None, None, None))
    assert len(taken) >= 200


# What is refused leaves no trace -----------------------------------------------------------------------------------------

HOSTILE = (
    *[
        "",
        " ",
        "a\0b",
        "x" * 201,
        "x" * 3000,
        "\u202e",
        "%00",
        "../../etc/passwd",
        "' or 1=1 --",
        "__proto__",
        "null",
        "{{other}}",
    ],
    *[
        "{{",
        "{{formData.goal}}",
        "{{formData." + "a." * 300 + "}}",
        "{{" * 200 + "}}" * 200,
        "{{formData.goal",
        "}}",
        "é😀",
        "\n",
    ],
    *["(a+)+$", "(?=a)", r"(a)\1", "[", "a{1000}{1000}", "(" * 300, ".*" * 400, "\\", "(?P<n>a)", r"\p{Nope}", "^a", "a|b"],
    *["#", "#/", "#/$defs/a", "#/properties/goal", "http://localhost:1/x", "file:///etc/passwd", "#/%ff", "#/-1", "//x", "a b"],
)
NUMBERS_OF_NOTE = [0, -1, 1, 0.5, -0.0, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 1e308, 5e-324]
NO_JSON = ["\ud800", float("nan"), 10**400, 1e999]
KEYWORDS = (
    *["type", "properties", "required", "items", "prefixItems", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then"],
    *["else", "$ref", "$defs", "$id", "$schema", "$anchor", "$dynamicRef", "$dynamicAnchor", "pattern", "patternProperties"],
    *["default", "additionalProperties", "propertyNames", "minLength", "maxItems", "minProperties", "multipleOf", "minimum"],
    *["exclusiveMaximum", "uniqueItems", "contains", "minContains", "dependentSchemas", "dependentRequired"],
    *["unevaluatedProperties", "unevaluatedItems", "description", "title", "examples", "x-hint"],
)


class Generator:
    """Bundles that are valid, nearly valid and not valid at all; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def bundle(self) -> bytes:
        shape = self.random.random()
        if shape < 0.02:
            return self.garbage()
        bundle = {"id": "fuzz", "versions": [self.spec() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]}
        if shape < 0.75:
            for _ in range(self.random.choice((1, 1, 1, 2, 4))):
                bundle = self.spoiled(bundle)
        return json.dumps(bundle).encode()

    def garbage(self) -> bytes:
        depth = self.random.choice((90, 105, 250, 900, 5000, 50_000))
        return self.random.choice(
            (
                self.random.randbytes(self.random.randrange(200)),
                b"[" * depth,
                b"[" * depth + b"]" * depth,
                b'{"versions":' * depth + b"0" + b"}" * depth,
                b'{"id": "a", "versions": [' + b"{}," * 2000 + b"{}]}",
                json.dumps({"id": "a", "versions": [SPEC | {"formSchema": {"enum": list(range(20_000))}}]}).encode(),
                b'{"id": ' + b"9" * 5000 + b"}",
                b" " * (BODY + 1),
                b'{"id": "a", "id": "b", "versions": []}',
                b'{"id": "\xed\xa0\x80"}',
                json.dumps({"id": "a", "versions": [SPEC | {"name": self.random.choice(NO_JSON)}]}).encode(),
                json.dumps([SPEC]).encode(),
                b"",
            )
        )

    def spec(self) -> dict[str, Any]:
        pick = self.random
        spec = deepcopy(SPEC) | {
            "id": f"fuzz-{pick.randrange(4)}",
            "v": str(pick.randrange(12)),
            "name": f"n{pick.randrange(3)}",
        }
        if pick.random() < 0.6:
            spec["formSchema"] = self.schema(3) | {"type": "object"}
        if pick.random() < 0.5:
            spec["eval"] = [self.check(str(number)) for number in range(pick.randrange(4))]
        if pick.random() < 0.5:
            spec["fixtures"] = [{"id": str(number), "formData": self.object(2)} for number in range(pick.randrange(3))]
        return spec

    def check(self, id: str) -> dict[str, Any]:
        kind = self.random.choice(("file_exists", "jsonschema", "rowcount_gte", "regex", "diff_le"))
        parts: dict[str, Any] = {
            "file_exists": {"glob": "**/*"},
            "jsonschema": {"artifact": "a", "schema": self.schema(2)},
            "rowcount_gte": {"artifact": "a", "n": self.random.randrange(9)},
            "regex": {"artifact": "a", "re": self.random.choice(("^a+$", r"\d", self.random.choice(HOSTILE)))},
            "diff_le": {
                "artifactA": "a",
                "artifactB": "b",
                "max": self.random.choice((0, 1.5, 7, self.random.choice(NUMBERS_OF_NOTE))),
            },
        }[kind]
        return {"id": id, "kind": kind, **parts}

    def schema(self, levels: int) -> Any:
        """Keywords with values that suit them, mostly."""
        pick = self.random
        if levels == 0 or pick.random() < 0.1:
            return pick.choice((True, False, {}, {"type": "string"}, {"type": ["integer", "null"]})) if levels < 3 else {}
        return {keyword: self.keyword(keyword, levels - 1) for keyword in pick.sample(KEYWORDS, pick.randrange(1, 4))}

    def keyword(self, keyword: str, levels: int) -> Any:
        pick = self.random
        if pick.random() < 0.07:
            return self.value(2)
        if keyword in ("properties", "$defs", "patternProperties", "dependentSchemas"):
            return {pick.choice(("goal", "a", "^x", "account")): self.schema(levels) for _ in range(pick.randrange(3))}
        if keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            return [self.schema(levels) for _ in range(pick.randrange(1, 3))]
        if keyword in ("required", "enum"):
            return pick.sample(("goal", "account", "a", "b"), pick.randrange(1, 3))
        if keyword in ("$ref", "$dynamicRef"):
            return pick.choice(("#", "#/$defs/a", "#/$defs/goal", "#a", pick.choice(HOSTILE)))
        if keyword == "type":
            return pick.choice(("object", "string", "number", "array", "nope"))
        if keyword == "pattern":
            return pick.choice(("^g", "a|b", HOSTILE[pick.randrange(len(HOSTILE))]))
        if keyword.startswith("m") or keyword == "exclusiveMaximum":
            return pick.choice((1, 3, 2, pick.choice(NUMBERS_OF_NOTE)))
        if keyword == "uniqueItems":
            return pick.choice((True, False))
        if keyword == "dependentRequired":
            return {"goal": ["account"]}
        return (
            self.value(1)
            if keyword in ("const", "default", "$id", "$schema", "$anchor", "$dynamicAnchor")
            else self.schema(levels)
        )

    def value(self, levels: int) -> Any:
        pick = self.random
        kind = pick.randrange(6 if levels else 4)
        match kind:
            case 0:
                return pick.choice((None, True, False))
            case 1:
                return pick.choice(NUMBERS_OF_NOTE)
            case 2:
                return pick.choice(HOSTILE)
            case 3:
                return "".join(pick.choices(string.printable, k=pick.randrange(20)))
            case 4:
                return [self.value(levels - 1) for _ in range(pick.randrange(4))]
            case _:
                return self.object(levels)

    def object(self, levels: int) -> dict[str, Any]:
        pick = self.random
        names = ("goal", "account", "a", "id", "kind", *HOSTILE[:6])
        return {pick.choice(names): self.value(levels - 1) for _ in range(pick.randrange(4))}

    def nested(self) -> Any:
        value: Any = 1
        for _ in range(self.random.choice((39, 45, 98, 101, 150, 200))):
            value = {"properties": value} if self.random.random() < 0.5 else [value]
        return value

    def spoiled(self, bundle: Any) -> Any:
        """With one thing in it replaced, left out, or added."""
        pick = self.random
        holders: list[Any] = []
        waiting: list[Any] = [bundle]
        while waiting:
            found = waiting.pop()
            if isinstance(found, (dict, list)) and found:
                holders.append(found)
                waiting.extend(found.values() if isinstance(found, dict) else found)
        if not holders:
            return bundle
        holder = pick.choice(holders)
        key = pick.choice(list(holder)) if isinstance(holder, dict) else pick.randrange(len(holder))
        match pick.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[pick.choice(("more", "", "$ref", "status", "hash", *HOSTILE))] = self.value(1)
            case 2:
                holder[key] = self.nested()
            case _:
                holder[key] = self.value(2)
        return bundle


@pytest.mark.parametrize(("many", "seed"), [(1_000, 6), pytest.param(10_000, 5, marks=pytest.mark.slow)])
def test_generated_bundles_find_no_error_and_no_write_behind_a_refusal(shared_database: str, many: int, seed: int) -> None:
    async def send_all() -> Counter[int]:
        statuses: Counter[int] = Counter()
        generator = Generator(seed)
        with psycopg.connect(shared_database, autocommit=True) as conn:
            contents = Contents(conn)
            known = contents.look()
            async with front_door(shared_database) as client:
                for number in range(many):
                    if number % 100 == 0:
                        conn.execute("delete from app.recipe_versions where status = 'draft'")  # or looking at them takes long
                        known = contents.look()
                    body = generator.bundle()
                    response = await client.post("/api/recipes/import", content=body)
                    statuses[response.status_code] += 1
                    assert response.status_code in (201, 400, 409), (number, body[:2000], response.text[:500])
                    before, known = known, contents.look()
                    if response.status_code != 201:
                        assert response.json()["error"]
                        assert known == before, (number, body[:2000])
        return statuses

    statuses = asyncio.run(send_all())
    assert min(statuses[201], statuses[409]) > many // 50, statuses
    assert statuses[400] > many // 3, statuses
