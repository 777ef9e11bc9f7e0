"""Cron schedules: each interval of each schedule starts one workflow, whichever worker notices, and after however long a pause.

A schedule is a row of dbos.workflow_schedules. A firing enqueues the workflow under the id 'sched-<name>-<time in its zone>' and moves
last_fired_at, in one transaction that holds the schedule's row; so an interval fires once. With automatic_backfill every interval
missed meanwhile is started, otherwise only the latest.

The table is also written by DBOS's client. Its schedules may name no queue, and their context may be a pickle, which is never loaded.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import structlog
from croniter import croniter

from engine import codec
from engine.control import INTERNAL_QUEUE
from engine.entries import Connection
from engine.errors import UnreadablePayload

log = structlog.get_logger("engine.schedules")

CATCH_UP = 1000  # intervals of one schedule started in one transaction
#: How a client that pickles stores the context that nobody gave: None, in the two protocols of our day.
NO_CONTEXT = ("gAROLg==", "gAVOLg==")

ACTIVE: LiteralString = """
select s.schedule_id, s.schedule_name, s.workflow_name, s.workflow_class_name, s.schedule, s.context, s.last_fired_at,
       s.automatic_backfill, s.cron_timezone, s.queue_name, (select engine.now_ms())
  from dbos.workflow_schedules s where s.status = 'ACTIVE'
 order by s.schedule_id
"""
LOCK: LiteralString = """
select s.last_fired_at from dbos.workflow_schedules s
 where s.schedule_id = %s and s.status = 'ACTIVE' for no key update skip locked
"""
FIRE: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, inputs, queue_name, schedule_name, creator_xid,
                                  created_at, updated_at, serialization)
select %(id)s, 'ENQUEUED', %(name)s, %(class_name)s, %(inputs)s, coalesce(%(queue)s, %(internal)s), %(schedule)s, %(id)s,
       clock.now_ms, clock.now_ms, %(serialization)s
  from (select engine.now_ms() as now_ms offset 0) clock
on conflict do nothing
"""
MOVE: LiteralString = "update dbos.workflow_schedules set last_fired_at = %s where schedule_id = %s"

CREATE: LiteralString = """
insert into dbos.workflow_schedules (schedule_name, workflow_name, workflow_class_name, schedule, context, last_fired_at,
                                     automatic_backfill, cron_timezone, queue_name)
values (%(name)s, %(workflow)s, %(class_name)s, %(cron)s, %(context)s,
        to_char(to_timestamp(engine.now_ms() / 1000.0) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'),
        %(backfill)s, %(timezone)s, %(queue)s)
on conflict (schedule_name) do update
   set workflow_name = excluded.workflow_name, workflow_class_name = excluded.workflow_class_name, schedule = excluded.schedule,
       context = excluded.context, automatic_backfill = excluded.automatic_backfill, cron_timezone = excluded.cron_timezone,
       queue_name = excluded.queue_name, status = 'ACTIVE'
"""


def check_cron(cron: str, timezone: str | None) -> None:
    """Raises ValueError with one sentence for a cron line or zone that cannot be read."""
    if not croniter.is_valid(cron, second_at_beginning=True):
        raise ValueError(
            f"{cron!r} is not a cron line; write five fields such as '*/5 * * * *', or six of which the first is seconds"
        )
    if timezone is not None:
        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{timezone!r} is not a time zone; write a name such as 'Europe/Berlin'") from None


def moments(cron: str, timezone: str | None, after: datetime, until: datetime) -> list[datetime]:
    """The schedule's times in (after, until], oldest first, UTC; at most CATCH_UP of them."""
    zone = ZoneInfo(timezone) if timezone else UTC
    times = croniter(cron, after.astimezone(zone), second_at_beginning=True)
    found: list[datetime] = []
    while len(found) < CATCH_UP:
        at: datetime = times.get_next(datetime)
        if at > until:
            break
        found.append(at.astimezone(UTC))
    return found


def latest(cron: str, timezone: str | None, after: datetime, until: datetime) -> list[datetime]:
    """The schedule's last time in (after, until], if there is one, UTC."""
    zone = ZoneInfo(timezone) if timezone else UTC
    moment = (until + timedelta(milliseconds=1)).astimezone(zone)
    at: datetime = croniter(cron, moment, second_at_beginning=True).get_prev(datetime)
    return [at.astimezone(UTC)] if at > after else []


async def create(
    conn: Connection,
    name: str,
    workflow: str,
    cron: str,
    *,
    queue: str,
    class_name: str | None = None,
    context: Any = None,
    backfill: bool = True,
    timezone: str | None = None,
) -> None:
    """Make or change a schedule. Its workflow is called with (time as ISO text, context). It first fires after now."""
    check_cron(cron, timezone)
    given = {
        "name": name,
        "workflow": workflow,
        "class_name": class_name,
        "cron": cron,
        "context": codec.encode(context),
        "backfill": backfill,
        "timezone": timezone,
        "queue": queue,
    }
    await conn.execute(CREATE, given)


async def fire(conn: Connection, on_work: Callable[[], None]) -> None:
    """Start what is due of every active schedule. One that cannot be read or started holds up no other."""
    for row in await (await conn.execute(ACTIVE)).fetchall():
        schedule_id, name, _, _, cron, _, last, _, timezone, _, now_ms = row
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        try:
            due = latest(cron, timezone, datetime.fromisoformat(last) if last else now, now)
            if due or last is None:
                await _fire(conn, row, schedule_id, now)
                on_work()
        except Exception as error:
            if conn.closed:
                raise
            log.error("a schedule cannot be started", schedule=name, cron=cron, error=str(error))


async def _fire(conn: Connection, row: tuple[Any, ...], schedule_id: str, now: datetime) -> None:
    _, name, workflow, class_name, cron, context, _, backfill, timezone, queue, _ = row
    async with conn.transaction():
        locked = await (await conn.execute(LOCK, (schedule_id,))).fetchone()
        if locked is None:
            return
        last = datetime.fromisoformat(locked[0]) if locked[0] else now
        due = (moments if backfill else latest)(cron, timezone, last, now)
        for at in due:
            inputs, serialization = _inputs(at, context)
            given = {
                "id": f"sched-{name}-{at.astimezone(ZoneInfo(timezone) if timezone else UTC).isoformat()}",
                "name": workflow,
                "class_name": class_name,
                "inputs": inputs,
                "serialization": serialization,
                "queue": queue,
                "internal": INTERNAL_QUEUE,
                "schedule": name,
            }
            await conn.execute(FIRE, given)
        await conn.execute(MOVE, ((due[-1] if due else now).isoformat(), schedule_id))


def _inputs(at: datetime, context: str) -> tuple[str, str | None]:
    """The arguments of a start and how they are stored. A context that only its writer can read is passed on: the run then says so."""
    try:
        given = None if context in NO_CONTEXT else codec.decode(context)
    except UnreadablePayload:
        return context, None
    return codec.encode({"positionalArgs": [at.isoformat(), given], "namedArgs": {}}), codec.PORTABLE
