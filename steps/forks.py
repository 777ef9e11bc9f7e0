"""What a workflow and its forks have in common: what they are told.

A fork repeats its original's way from one point on, in a journal and a mailbox of its own. Nobody asks it anything again: it finds in its
mailbox what its original was told behind that point, and hears what the original is told from then on. It waits for nobody else's
children either, since those may be cancelled with their parent.
"""

from typing import Any, LiteralString

from engine import Connection, Engine

#: The children that have ended for good can be read by anybody, any time.
FIRST_OPEN_CHILD: LiteralString = """
    select min(o.function_id)
      from dbos.operation_outputs o
      join dbos.workflow_status c on c.workflow_uuid = o.child_workflow_id
     where o.workflow_uuid = %s and o.function_id < %s and c.status not in ('SUCCESS', 'ERROR')
"""
#: A message that was sent under a key keeps it, so that it is not heard twice.
COPY_MAIL: LiteralString = """
    insert into dbos.notifications (destination_uuid, topic, message, serialization, created_at_epoch_ms, message_uuid)
    select %(fork)s, n.topic, n.message, n.serialization, n.created_at_epoch_ms,
           case when right(n.message_uuid, length(n.destination_uuid) + 2) = '::' || n.destination_uuid
                then left(n.message_uuid, -length(n.destination_uuid)) || %(fork)s
                else gen_random_uuid()::text end
      from dbos.notifications n
     where n.destination_uuid = %(id)s and (not n.consumed or n.consumed_by_function_id >= %(start_step)s)
     order by n.created_at_epoch_ms, n.seq
"""
LISTENERS: LiteralString = """
    with recursive fork (id, status) as (
        select s.workflow_uuid, s.status from dbos.workflow_status s where s.forked_from = %s
         union
        select s.workflow_uuid, s.status from fork f join dbos.workflow_status s on s.forked_from = f.id)
    select f.id from fork f where f.status not in ('SUCCESS', 'ERROR') order by f.id
"""


async def make_fork(engine: Engine, conn: Connection, id: str, step: int, version: str | None) -> str:
    """Fork a workflow, whose row the caller holds FOR UPDATE; the fork's id. step: the first record to make anew."""
    found = await (await conn.execute(FIRST_OPEN_CHILD, (id, step))).fetchone()
    start_step = step if found is None or found[0] is None else found[0]
    fork = await engine.fork(id, start_step, version=version, conn=conn)
    await conn.execute(COPY_MAIL, {"id": id, "fork": fork, "start_step": start_step})
    return fork


async def tell(engine: Engine, conn: Connection, id: str, message: Any, *, topic: str, key: str) -> None:
    """Send a message to a workflow and to its forks that have not ended, in the caller's transaction. Raises NoSuchWorkflow."""
    # Sending needs the workflow's row, which the maker of a fork holds: so a new fork either copies this message or is seen below.
    await engine.send(id, message, topic=topic, key=key, conn=conn)
    for (fork,) in await (await conn.execute(LISTENERS, (id,))).fetchall():
        await engine.send(fork, message, topic=topic, key=key, conn=conn)
