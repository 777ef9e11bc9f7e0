"""Long polls and live streams that wait without asking.

Clients that wait for a gate, or follow a run, wait on a flag in memory. One connection a process listens for the
events that workflows set, the streams that they write and the messages that they get, and raises the flags; who is
woken reads the database once. A notification is only a hint, and most of what a run does is not told at all, so a
re-check, one statement for everybody who waits, finds the rest. While nobody waits, nothing listens.
"""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
import structlog

from api.pace import TooMany
from engine import connection_string

LISTEN_TO_STREAMS: LiteralString = "listen dbos_streams_channel"
LISTEN_TO_MESSAGES: LiteralString = "listen dbos_notifications_channel"
LISTEN: LiteralString = "listen dbos_workflow_events_channel"
UNLISTEN: LiteralString = "unlisten *"

#: What a workflow has set, recorded and become so far, and how many workers are alive, as one text that changes with it.
FINGERPRINTS: LiteralString = """
    select w.id, concat_ws(' ',
           (select sum(hashtext(e.key || ' ' || e.value)) from dbos.workflow_events e where e.workflow_uuid = w.id),
           (select max(o.function_id) from dbos.operation_outputs o where o.workflow_uuid = w.id),
           (select s.status || ' ' || s.updated_at from dbos.workflow_status s where s.workflow_uuid = w.id),
           (select count(*) from engine.worker k where not k.dead and k.lease_until_ms > (select engine.now_ms())))
      from unnest(%s::text[]) as w (id)
"""

#: A statement this small that takes longer runs on a connection whose other end is gone.
STATEMENT_TIMEOUT_S = 10.0

#: Long polls and live streams of one process. Each holds a socket and a task.
MOST_WATCHERS = 2000
RETRY_WATCH_S = 5.0

#: To watch for whatever any workflow tells.
ANY_WORKFLOW = ""

log = structlog.get_logger("api.waiting")


@dataclass(slots=True)
class Watched:
    """One workflow that somebody waits for. `fingerprint` is what the last re-check saw."""

    flags: set[asyncio.Event] = field(default_factory=set[asyncio.Event])
    fingerprint: str | None = None


class EventWaits:
    """Raises the flag of everyone who watches a workflow whenever one of its events is set."""

    def __init__(self, database_url: str, *, listen: bool = True, recheck_s: float = 1.0, retry_s: float = 1.0) -> None:
        """listen: False where sessions are not ours alone, behind a pooler; then there are re-checks only."""
        self._database_url = database_url
        self._listen = listen
        self._recheck_s = recheck_s
        self._retry_s = retry_s
        self._watched: dict[str, Watched] = {}
        self._wanted = asyncio.Event()
        self._closing = False

    @asynccontextmanager
    async def running(self, *, until: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Flags are raised inside of this block, until the event is set, if there is one."""
        tasks = [asyncio.create_task(self._keep_listening(), name="event-waits")]
        if until is not None:
            tasks.append(asyncio.create_task(self._close_at(until), name="event-waits-end"))
        try:
            yield
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _close_at(self, end: asyncio.Event) -> None:
        await end.wait()
        self.close()

    def close(self) -> None:
        """End every wait, now and later: who waits makes do with what there is."""
        self._closing = True
        self._wake_all()

    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def watcher_count(self) -> int:
        return sum(len(watched.flags) for watched in self._watched.values())

    def require_room(self) -> None:
        """For whoever is about to watch for a client. Raises TooMany when as many watch already as one process can serve."""
        if self.watcher_count >= MOST_WATCHERS:
            said = f"{MOST_WATCHERS} clients wait or listen here already; try again, or ask without waiting"
            raise TooMany(said, RETRY_WATCH_S)

    @asynccontextmanager
    async def watch(self, workflow_id: str) -> AsyncIterator[asyncio.Event]:
        """A flag that is raised after every change. Clear it, read, then wait for it: nothing is missed.

        For ANY_WORKFLOW by notifications alone; who needs the rest has to look.
        """
        flag = asyncio.Event()
        watched = self._watched.setdefault(workflow_id, Watched())
        watched.flags.add(flag)
        self._wanted.set()
        try:
            yield flag
        finally:
            watched.flags.discard(flag)
            if not watched.flags:
                del self._watched[workflow_id]

    def _wake(self, workflow_id: str) -> None:
        if watched := self._watched.get(workflow_id):
            for flag in watched.flags:
                flag.set()

    def _wake_all(self) -> None:
        for workflow_id in self._watched:
            self._wake(workflow_id)

    async def _keep_listening(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                # A pooler in transaction mode knows nothing of prepared statements.
                async with await psycopg.AsyncConnection.connect(
                    connection_string(self._database_url), autocommit=True, prepare_threshold=None
                ) as connection:
                    await self._serve(connection)
            except Exception as error:  # whatever it is, the next try may do better
                log.warning("waiting for events without a listener; trying again", error=repr(error))
                traceback.clear_frames(
                    error.__traceback__
                )  # they hold the error, and it them, as long as nobody collects garbage
                await asyncio.sleep(self._retry_s)

    async def _serve(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            await self._wanted.wait()
            if self._listen:
                await self._execute(connection, LISTEN_TO_STREAMS)
                await self._execute(connection, LISTEN_TO_MESSAGES)
                await self._execute(connection, LISTEN)
            self._wake_all()  # what was set before LISTEN took hold was told to nobody
            while self._watched:
                async for note in connection.notifies(timeout=self._recheck_s):
                    self._wake(note.payload.partition("::")[0])
                    self._wake(ANY_WORKFLOW)
                await self._recheck(connection)
            self._wanted.clear()
            if self._listen:
                await self._execute(connection, UNLISTEN)

    async def _recheck(self, connection: psycopg.AsyncConnection) -> None:
        """Wake whose events changed since the last look; a first look, with nothing to compare, wakes too."""
        asked = [workflow_id for workflow_id in self._watched if workflow_id != ANY_WORKFLOW]
        found = dict[str, str](await (await self._execute(connection, FINGERPRINTS, asked)).fetchall())
        for workflow_id in asked:
            if not (watched := self._watched.get(workflow_id)):
                continue
            fingerprint = found.get(workflow_id, "")
            if fingerprint != watched.fingerprint:
                watched.fingerprint = fingerprint
                self._wake(workflow_id)

    async def _execute(self, connection: psycopg.AsyncConnection, query: LiteralString, *values: object) -> psycopg.AsyncCursor:
        async with asyncio.timeout(STATEMENT_TIMEOUT_S):
            return await connection.execute(query, values)
