"""Prebuilt sandboxes: what a task's sandbox starts from, and the registry of what was built ahead.

A run of a recipe version starts hot, from a template that was registered for exactly that version and hash, or cold, from the plain
environment. A registered row never changes; other particulars under the same key are refused.
"""

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from engine import TerminalError
from steps import identity
from steps.canonical import canonical_json, sha256_json, sha256_text
from steps.contracts.base import JsonObject
from steps.contracts.sandbox import DEFAULT_ENV_REF
from steps.errors import Conflict, InvalidInput
from steps.ports import ports
from steps.run_record import Run

Connection = AsyncConnection[Any]

LOCAL = ("local", "dev")
MAX_ID = 200


@dataclass(frozen=True, slots=True)
class Template:
    """What a sandbox starts from; hot when it was built ahead (template_id)."""

    key: str
    deps_hash: str
    template_id: str | None

    @property
    def ref(self) -> str:
        return self.template_id or DEFAULT_ENV_REF


@dataclass(frozen=True, slots=True)
class Registered:
    """A row of the registry."""

    recipe_id: str
    recipe_v: str
    deps_hash: str
    template_key: str
    template_id: str
    build_meta: JsonObject


def template_key(recipe_id: str, recipe_v: str, deps_hash: str) -> str:
    return f"{recipe_id}:{recipe_v}:{deps_hash}"


# What a run starts from

TEMPLATE: LiteralString = """
    select recipe_id, recipe_v, deps_hash, template_key, template_id, build_meta
      from app.sbx_templates
     where recipe_id = %s and recipe_v = %s and deps_hash = %s
"""


async def template_of(run: Run) -> Template:
    """The recipe's prebuilt template, or the plain environment; inside a step. Raises TerminalError `TemplateDrift` for a row that
    says it was built for, or as, another one.
    """
    if run.recipe is None:
        return Template(f"env:{DEFAULT_ENV_REF}", identity.env_deps_hash(DEFAULT_ENV_REF), None)
    recipe = run.recipe
    found = await ports().read(Registered, TEMPLATE, recipe.id, recipe.v, recipe.hash)
    return chosen(template_key(recipe.id, recipe.v, recipe.hash), recipe.hash, found)


def chosen(key: str, deps_hash: str, found: Registered | None) -> Template:
    if found is None:
        return Template(key, deps_hash, None)
    if found.template_key != key:
        raise _drift(f"{found.template_key} is registered for {key}")
    built = found.build_meta.get("templateId", found.template_id)
    if built != found.template_id:
        raise _drift(f"{key} is registered as {found.template_id}, but was built as {built}")
    return Template(key, deps_hash, found.template_id)


def _drift(what: str) -> TerminalError:
    return TerminalError(f"sandbox template drift: {what}", name="TemplateDrift")


# The registry

INSERT: LiteralString = """
    insert into app.sbx_templates (recipe_id, recipe_v, deps_hash, template_key, template_id, build_meta)
    values (%(recipe_id)s, %(recipe_v)s, %(deps_hash)s, %(template_key)s, %(template_id)s, %(build_meta)s::jsonb)
    on conflict do nothing
"""
SAME_KEY: LiteralString = """
    select recipe_id, recipe_v, deps_hash, template_key, template_id, build_meta
      from app.sbx_templates
     where (recipe_id = %(recipe_id)s and recipe_v = %(recipe_v)s and deps_hash = %(deps_hash)s) or template_key = %(template_key)s
     order by recipe_id, recipe_v, deps_hash
"""
ALL: LiteralString = """
    select recipe_id, recipe_v, deps_hash, template_key, template_id, build_meta
      from app.sbx_templates
     order by recipe_id collate "C", recipe_v collate "C", deps_hash
     limit %s
"""
MOST_ROWS = 1000


async def register(
    conn: Connection, recipe_id: str, recipe_v: str, deps_hash: str, template_id: str, build_meta: JsonObject
) -> Registered:
    """The template in the registry. Registering it again changes nothing; raises Conflict when another one has its key, and
    InvalidInput for an id that is none or not the one that build_meta names.
    """
    if not template_id.strip() or not template_id.isprintable() or len(template_id) > MAX_ID:
        raise InvalidInput(f"a template's id must be a printable name of at most {MAX_ID} characters")
    if build_meta.get("templateId", template_id) != template_id:
        raise InvalidInput(f"the template was built as {build_meta['templateId']}, not as {template_id}")
    key = template_key(recipe_id, recipe_v, deps_hash)
    values = {"recipe_id": recipe_id, "recipe_v": recipe_v, "deps_hash": deps_hash, "template_key": key}
    values |= {"template_id": template_id, "build_meta": canonical_json(build_meta)}
    await conn.execute(INSERT, values)
    async with conn.cursor(row_factory=class_row(Registered)) as cursor:
        there = await (await cursor.execute(SAME_KEY, values)).fetchone()
    if there is None:
        raise Conflict(f"sandbox template {key} was deleted while it was registered; register it again")
    if (there.template_key, there.template_id) != (key, template_id):
        raise Conflict(f"divergent sandbox template: {there.template_key} is {there.template_id}; {key} can't be {template_id}")
    return there


async def registered(conn: Connection) -> list[Registered]:
    """All prebuilt templates, by recipe."""
    async with conn.cursor(row_factory=class_row(Registered)) as cursor:
        return await (await cursor.execute(ALL, (MOST_ROWS,))).fetchall()


# Building one


@dataclass(frozen=True, slots=True)
class Build:
    """A template for sandboxes on one's own machine, named by the files that say what is in it."""

    deps_hash: str
    hashes: JsonObject

    @property
    def template_id(self) -> str:
        return f"tpl_{self.deps_hash[:24]}"

    def document(self) -> JsonObject:
        """What is known of the build."""
        return {
            "templateKey": template_key(*LOCAL, self.deps_hash),
            "templateId": self.template_id,
            "depsHash": self.deps_hash,
            "files": self.hashes,
        }


def build_of(dockerfile: str, toml: str, lockfile: str) -> Build:
    """The build of these three files' texts; the same texts are the same build."""
    texts = {"dockerfile": dockerfile, "toml": toml, "lockfile": lockfile}
    return Build(sha256_json(texts), {name: sha256_text(text) for name, text in texts.items()})
