"""Who is alive. A worker process has a fresh id and one row that it renews; who stops renewing loses its runs to the others.

The renewal runs on a thread with a connection of its own, so that a busy event loop cannot make a living worker look dead. An answer
that does not come within a third of the lease is not waited for: there is time for another connection before the lease is over. All
times are the database's. A worker once marked dead never owns anything again: its renewal fails, it drops what it holds and starts over
under a new id.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import LiteralString

import psycopg
import structlog

from engine.connections import PromptConnection
from engine.entries import Connection
from engine.wakeups import look_again_for_all

log = structlog.get_logger("engine.lease")

AGAIN_S = 0.2
START_S = 10.0  # whoever starts may wait longer for an answer: there is no lease yet to be lost
REST = 8  # in leases: how long the runs of workers that died rest at most

# DBOS's clients look for an application's versions in its table; nothing of ours reads it.
REGISTER: LiteralString = """
with known as (
    insert into dbos.application_versions (version_name)
    select v.name from (values (%(version)s::text)) as v (name) where v.name is not null
    on conflict do nothing)
insert into engine.worker (id, lease_until_ms, started_at_ms, version, place)
select %(id)s, clock.now_ms + %(lease_ms)s, clock.now_ms, %(version)s, %(place)s
  from (select engine.now_ms() as now_ms offset 0) clock
"""
RENEW: LiteralString = """
update engine.worker set lease_until_ms = (select engine.now_ms()) + %s where id = %s and not dead returning lease_until_ms
"""
LEAVE: LiteralString = """
delete from engine.worker w
 where w.id = %s and not exists (select from dbos.workflow_status s where s.executor_id = w.id and s.status = 'PENDING')
"""

CONDEMN: LiteralString = """
update engine.worker w set dead = true
  from (select id from engine.worker where not dead and lease_until_ms < (select engine.now_ms()) order by id
           for no key update skip locked) late
 where w.id = late.id
returning w.id
"""
# A frozen process may hold the locks of a commit it was sending. Its journal connection carries the worker's id as its name.
CUT_OFF: LiteralString = """
select pg_terminate_backend(a.pid) from pg_stat_activity a
 where a.application_name = any (select 'holdfast ' || d.id from unnest(%s::text[]) as d (id)) and a.pid <> pg_backend_pid()
"""
THE_DEAD: LiteralString = "select id from engine.worker where dead order by id limit 100"
# Whose worker has died more than once with it may be what kills them. It sleeps a while, longer each time and at random, so that it takes
# others along less often, and not the same ones each time: they would be given up with it.
RESCUE: LiteralString = """
with theirs as materialized (
    select s.workflow_uuid,
           case when s.recovery_attempts > 1
                then (random() * %(most_ms)s * 2 ^ least(s.recovery_attempts - 8, 0))::bigint else 0 end as rest_ms
      from dbos.workflow_status s
     where s.status = 'PENDING' and s.executor_id = any (%(dead)s)
     order by s.workflow_uuid limit 1000
       for no key update skip locked)
update dbos.workflow_status s
   set status = case when t.rest_ms > 0 then 'PENDING' else 'ENQUEUED' end,
       wake_at_ms = case when t.rest_ms > 0 then (select engine.now_ms()) + t.rest_ms end,
       owner_xid = null, executor_id = null, started_at_epoch_ms = null, updated_at = (select engine.now_ms())
  from theirs t where s.workflow_uuid = t.workflow_uuid and coalesce(s.status, '') = 'PENDING'
returning s.workflow_uuid
"""
# FOR UPDATE waits for a claim of that worker that is under way (it holds KEY SHARE), so the check after it sees what was claimed.
LOCK_GRAVES: LiteralString = "select id from engine.worker where dead and id = any (%s) order by id for update skip locked"
BURY: LiteralString = """
delete from engine.worker w
 where w.id = any (%s) and w.dead
   and not exists (select from dbos.workflow_status s where s.executor_id = w.id and s.status = 'PENDING')
"""


async def rescue(conn: Connection, rest_s: float = 0.0) -> int:
    """Put the runs of workers whose lease has run out back into their queues; how many. One bounded pass.

    rest_s: how long a run sleeps at most before that whose worker has died many times.
    """
    condemned = [row[0] for row in await (await conn.execute(CONDEMN)).fetchall()]
    if condemned:
        log.warning("workers stopped renewing their lease", workers=condemned)
        await look_again_for_all(conn)
        with contextlib.suppress(psycopg.Error):  # not every role may; the locks then go when the process or its connection does
            await conn.execute(CUT_OFF, (condemned,))
    dead = [row[0] for row in await (await conn.execute(THE_DEAD)).fetchall()]
    if not dead:
        return 0
    rescued = len(await (await conn.execute(RESCUE, {"dead": dead, "most_ms": round(rest_s * 1000)})).fetchall())
    if not rescued:
        async with conn.transaction():
            graves = [row[0] for row in await (await conn.execute(LOCK_GRAVES, (dead,))).fetchall()]
            await conn.execute(BURY, (graves,))
    return rescued


class Heartbeat:
    """Renews one worker's lease from a thread. Calls `on_loss` (on that thread) once if the lease was taken away."""

    def __init__(
        self,
        connect: Callable[[], PromptConnection],
        worker_id: str,
        lease_s: float,
        *,
        version: str | None,
        place: str,
        on_loss: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._version = version
        self._place = place
        self._on_loss = on_loss
        self._stop = threading.Event()
        self._conn: PromptConnection | None = None
        self._quarter_s = lease_s / 4
        self.leased_until = 0.0  # by time.monotonic(), never later than the lease itself
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Register the worker and begin to renew. Raises psycopg.Error when the database cannot be reached."""
        self._conn = self._connected(max(self._lease_s, START_S))
        lease_ms = round(self._lease_s * 1000)
        asked = time.monotonic()
        given = {"id": self._worker_id, "lease_ms": lease_ms, "version": self._version, "place": self._place}
        self._conn.execute(REGISTER, given)
        self.leased_until = asked + self._lease_s
        self._conn.answer_s = self._lease_s / 3
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; take the row away if no run names it."""
        self._stop.set()
        self._thread.join(timeout=5)
        if self._conn is not None and not self._thread.is_alive():
            try:
                if not self._conn.closed:
                    self._conn.execute(LEAVE, (self._worker_id,))
                    self._conn.close()
            except psycopg.Error as error:
                log.warning("lease row stays until it runs out", error=str(error))

    def _connected(self, answer_s: float) -> PromptConnection:
        conn = self._connect()
        conn.answer_s = answer_s
        return conn

    def _beat(self) -> None:
        pause_s = self._quarter_s
        while not self._stop.wait(pause_s):
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = self._connected(self._lease_s / 3)
                asked = time.monotonic()
                renewed = self._conn.execute(RENEW, (round(self._lease_s * 1000), self._worker_id)).fetchone()
            except psycopg.Error as error:
                if pause_s == self._quarter_s:  # told once, and then tried again at once and often
                    log.warning("lease could not be renewed", error=str(error).partition("\n")[0])
                if self._conn is not None:
                    self._conn.close()
                pause_s = min(AGAIN_S, self._quarter_s / 2)
                continue
            if renewed is None:
                log.error("lease was lost: this worker was taken for dead", worker=self._worker_id)
                self._on_loss()
                return
            self.leased_until = asked + self._lease_s
            pause_s = self._quarter_s
