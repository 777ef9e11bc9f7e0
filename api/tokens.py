"""API tokens: who they stand for and what they allow. The text of a token is shown once; the database knows its hash.

A token says `hf_<id>_<secret>`. Its id is no secret and names it in lists and logs.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString, get_args

from psycopg.rows import class_row

from engine import Connection
from steps.contracts.base import Name, Wire, parse
from steps.errors import NotFound

Role = Literal["viewer", "approver", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none of them looks like another


class TokenNames(Wire):
    """What people choose about a token."""

    name: Name
    groups: list[Name]


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret. `name` is the actor of all that is done with it; `last_used_at` is exact to the hour."""

    id: str
    name: str
    roles: list[Role]
    groups: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a token that is good now stands for."""

    id: str
    hash: bytes
    name: str
    roles: list[Role]
    groups: list[str]


CREATE: LiteralString = """
    insert into app.api_tokens (id, hash, name, roles, groups, expires_at)
    values (%s, %s, %s, %s, %s, now() + %s::double precision * interval '1 second')
"""
ALL: LiteralString = """
    select t.id, t.name, t.roles, t.groups, t.created_at, t.expires_at, t.revoked_at, t.last_used_at
      from app.api_tokens t
     order by t.created_at, t.id
"""
GOOD: LiteralString = """
    select t.id, t.hash, t.name, t.roles, t.groups
      from app.api_tokens t
     where t.revoked_at is null and (t.expires_at is null or t.expires_at > now())
"""
ANY: LiteralString = "select exists (select from app.api_tokens)"
REVOKE: LiteralString = "update app.api_tokens set revoked_at = coalesce(revoked_at, now()) where id = %s"
USED: LiteralString = """
    update app.api_tokens set last_used_at = now()
     where id = any (%s) and (last_used_at is null or last_used_at < now() - interval '1 hour')
"""


async def create(conn: Connection, name: str, roles: list[Role], *, groups: list[str], expires_in_s: float | None) -> str:
    """A new token; returns its text, which cannot be had again. Raises InvalidInput for names that cannot be stored."""
    parse(TokenNames, {"name": name, "groups": groups}, "token")
    id = "".join(secrets.choice(ID_LETTERS) for _ in range(8))
    text = f"hf_{id}_{secrets.token_urlsafe(32)}"
    await conn.execute(CREATE, (id, hash_of(text), name, list(dict.fromkeys(roles)), list(dict.fromkeys(groups)), expires_in_s))
    return text


def hash_of(text: str) -> bytes:
    """The secret has 256 random bits, so one round of hashing hides it."""
    return hashlib.sha256(text.encode()).digest()


async def every(conn: Connection) -> list[Token]:
    """All tokens ever made, oldest first."""
    return await _rows(conn, Token, ALL)


async def good(conn: Connection) -> list[Holder]:
    """Those that are neither revoked nor expired."""
    return await _rows(conn, Holder, GOOD)


async def were_made(conn: Connection) -> bool:
    """Whether there was ever a token."""
    row = await (await conn.execute(ANY)).fetchone()
    return row is not None and bool(row[0])


async def revoke(conn: Connection, id: str) -> None:
    """From now on the token is refused, by running services within seconds. Raises NotFound."""
    if (await conn.execute(REVOKE, (id,))).rowcount == 0:
        raise NotFound(f"token not found: {id}")


async def note_use(conn: Connection, ids: list[str]) -> None:
    await conn.execute(USED, (ids,))


async def _rows(conn: Connection, kind: Any, query: LiteralString) -> list[Any]:
    async with conn.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()
