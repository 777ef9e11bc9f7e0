"""Notices when the database's history went back: a failover that lost the last commits, a restore.

A worker builds on what it has committed: a run in its memory goes on at record 8 because seven are there. On a server that has only
five of them the run's row may still name this worker as its owner, so the fence would let record 8 pass, over a gap. One connection
has one history, so it is enough to look whenever the journal has a new one: is the last record of each run in hand there, and the last
that this worker has committed at all? What a run does on other connections looks for itself (transactions.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from engine.entries import FIELD, Connection, Owner, numbers

# The name of the log's file begins with the timeline, which is another one after each promotion and each restore to a point in time.
IDENTITY: LiteralString = """
select s.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) from pg_control_system() s
"""

# Only of runs that are still in our name; the fence tells of the others.
CUT_SHORT: LiteralString = r"""
select s.workflow_uuid
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::int[]) as b (id, token, recorded)
  join dbos.workflow_status s on s.workflow_uuid = b.id and s.owner_xid = b.token and coalesce(s.status, '') = 'PENDING'
 where not exists (select from dbos.operation_outputs o where o.workflow_uuid = b.id and o.function_id = b.recorded)
 order by s.workflow_uuid
"""
IS_THERE: LiteralString = "select exists (select from dbos.operation_outputs o where o.workflow_uuid = %s and o.function_id = %s)"


@dataclass(frozen=True, slots=True)
class Look:
    """What a new connection showed. moved: this is another server, or another life of it, than the last one. went_back: something
    that was committed is missing.
    """

    moved: bool
    went_back: bool


class History:
    """What one worker knows of the history that it writes."""

    __slots__ = ("_identity", "_last", "_seen")

    def __init__(self) -> None:
        self._seen = False
        self._identity: str | None = None
        self._last: tuple[str, int] | None = None

    def committed(self, run_id: str, function_id: int) -> None:
        """This is the last record that was committed."""
        self._last = run_id, function_id

    async def look(self, conn: Connection, held: Sequence[Owner]) -> Look:
        """Compare a new connection's history with what is known. Raises psycopg.Error."""
        first, self._seen = not self._seen, True
        before, identity = self._identity, await identity_of(conn)
        self._identity = identity or before
        moved = not first and identity != before
        cut = [owner for owner in held if owner.recorded]
        if cut:
            given = FIELD.join([o.id for o in cut]), FIELD.join([o.token for o in cut]), numbers([o.recorded for o in cut])
            if await (await conn.execute(CUT_SHORT, given)).fetchone() is not None:
                return Look(moved, went_back=True)
        # A record may also have been taken away by a rewind, so it proves something only where the server is another one.
        if self._last is not None and (moved or identity is None):
            row = await (await conn.execute(IS_THERE, self._last)).fetchone()
            if row is not None and not row[0]:
                self._last = None
                return Look(moved, went_back=True)
        return Look(moved, went_back=False)


async def identity_of(conn: Connection) -> str | None:
    """Cluster and timeline; None where the server does not say."""
    try:
        row = await (await conn.execute(IDENTITY)).fetchone()
    except psycopg.Error:
        if conn.closed:
            raise
        return None
    return None if row is None else row[0]
