"""The recipes that every database starts with. The default one is stable at once, since the first start needs it before any worker runs;
the others are candidates that their own fixtures promote.
"""

from typing import LiteralString

from engine import Engine
from steps.contracts.intent import RecipeRef
from steps.ingress import DEFAULT_RECIPE
from steps.promotion import begin, locked, make_stable, set_candidate
from steps.recipes import import_bundle, seed_bundles

ONE_AT_A_TIME: LiteralString = "select pg_advisory_xact_lock(hashtext('app.recipe_seeds'))"
IS_THERE: LiteralString = "select from app.recipe_versions where id = %s and v = %s"
#: So that "the newest active recipe" is the default one until somebody imports another.
LIES_BEFORE: LiteralString = "update app.recipe_versions set created_at = '2026-01-01T00:00:00Z' where id = %s and v = %s"

PROMOTING: LiteralString = "select exists (select from app.promotions where actor = %s and status = 'under_way')"

ACTOR = "install"
REASON = "a recipe that every database starts with"


async def install_seeds(engine: Engine, *, only_default: bool = False) -> list[RecipeRef]:
    """Import the seed recipes that are not there yet, and begin their promotion; returns those. Safe to call at every start, also by
    several processes at once. only_default: the others are not wanted, nor the work that their fixtures make.
    """
    installed: list[RecipeRef] = []
    async with engine.transaction() as conn:
        await conn.execute(ONE_AT_A_TIME)
        for bundle in seed_bundles():
            for spec in bundle.versions:
                ref = RecipeRef(id=spec.id, v=spec.v)
                if only_default and ref.id != DEFAULT_RECIPE:
                    continue
                if await (await conn.execute(IS_THERE, (ref.id, ref.v))).fetchone() is not None:
                    continue
                await import_bundle(conn, bundle.model_copy(update={"versions": [spec]}))
                await set_candidate(conn, ref, actor=ACTOR, reason=REASON)
                if ref.id == DEFAULT_RECIPE:
                    await make_stable(conn, await locked(conn, ref))
                else:
                    await conn.execute(LIES_BEFORE, (ref.id, ref.v))
                    await begin(engine, ref, actor=ACTOR, reason=REASON, conn=conn)
                installed.append(ref)
    return installed


async def are_promoting(engine: Engine) -> bool:
    """Whether the promotion of a seed is under way."""
    async with engine.pool.connection() as conn:
        row = await (await conn.execute(PROMOTING, (ACTOR,))).fetchone()
    return row is not None and bool(row[0])
