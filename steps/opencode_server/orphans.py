"""Calls that nobody waits for any more: their worker died, and their run ended before another took it over.

The server goes on with them for as long as it likes. The ledger knows them, because what is going to be asked is written down before.
"""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from steps.opencode import OutsideOpenCode

MOST_AT_ONCE = 100

ORPHANS: LiteralString = """
    select c.op_key
      from app.opencode_calls c
      join app.runs r on r.id = c.run_id
     where c.state = 'asked' and r.status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
     order by c.created_at, c.op_key
     limit %s
"""
ENDED: LiteralString = """
    update app.opencode_calls
       set state = 'failed', error = '{"name":"oc_abandoned","message":"the run ended while the agent was being asked"}'
     where op_key = %s and state = 'asked'
"""


async def end_orphans(pool: AsyncConnectionPool[AsyncConnection[Any]], opencode: OutsideOpenCode) -> int:
    """Stop them, a hundred at most, and say so in the ledger; how many there were. One that can't be stopped stays for the next time."""
    async with pool.connection() as conn:
        found = [key for (key,) in await (await conn.execute(ORPHANS, (MOST_AT_ONCE,))).fetchall()]
    stopped = [key for key in found if await opencode.abandon(key)]
    async with pool.connection() as conn:
        for key in stopped:
            await conn.execute(ENDED, (key,))
    return len(stopped)
