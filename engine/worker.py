"""One worker process: claims runs, runs their code, keeps its lease, and does its share of the housekeeping.

Three loops share the event loop with the runs: `_claims` takes queued runs as slots come free; `_housekeeping` wakes parked runs,
fires timers, rescues the runs of dead workers and notices runs that were taken away; the journal (journal.py) commits. The lease is
renewed on a thread. Each loop has a connection of its own and gets a new one when it breaks.

A worker is started once. `drain` lets running work finish and takes no more; `stop` gives unfinished runs back at once.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from engine import claims, codec, entries, hints, leases, queues, schedules, wakeups
from engine.connections import PrimaryConnection, PromptConnection
from engine.control import INTERNAL_QUEUE
from engine.entries import Connection
from engine.errors import ReplayMismatch, RunLost, Suspended, TerminalError
from engine.functions import Workflow
from engine.journal import Journal, Parts
from engine.observer import Observer
from engine.queues import Findings
from engine.records import ERROR, SUCCESS, TOO_MANY_ATTEMPTS
from engine.run import Branch, Claimed, Recorded, Run, Services, enter, is_ours

log = structlog.get_logger("engine.worker")

Connect = Callable[..., Awaitable[PrimaryConnection]]
ConnectSync = Callable[..., PromptConnection]

CLAIM_GAP_S = 0.005  # between claims while work keeps coming, so that one claim takes several
MOST_CLAIM_GAP_S = 0.015
TICK_S = 1.0
RECONCILE_S = 30.0
TELL_EVERY_S = 5.0  # of the same trouble


class Worker:
    """Runs workflows from queues. Made by Engine.worker."""

    def __init__(
        self,
        connect: Connect,
        connect_sync: ConnectSync,
        pool: AsyncConnectionPool[Any],
        workflows: Sequence[Workflow[Any, Any]],
        *,
        queues: Mapping[str, int],
        slots: int,
        version: str | None,
        lease_s: float,
        poll_s: float,
        listen: bool,
        prepare: bool,
        observer: Observer | None = None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.workflows = {w.name: w for w in workflows}
        if len(self.workflows) != len(workflows):
            raise ValueError("two workflows have the same name; give one of them name=…")
        self.queues = {**queues, INTERNAL_QUEUE: slots}
        self.slots = slots
        self.version = version
        self.lease_s = lease_s
        self.rest_s = leases.REST * lease_s
        self.poll_s = poll_s
        self.paused = False
        self.running: dict[str, Run] = {}  # by id and token
        self.ended: Counter[str] = Counter()  # runs by how they left: SUCCESS, ERROR, parked, lost …
        self.findings = Findings()  # of the checks of the queues' books
        self._connect = connect
        self._connect_sync = connect_sync
        self._observer = observer
        self._listen = listen
        self._busy: Counter[str] = Counter()
        self._work = asyncio.Event()
        self._freed = asyncio.Event()
        self._chores = asyncio.Event()
        self._idle = asyncio.Event()
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        self._claiming: str | None = None  # the token of a claim under way
        self._tokens: list[str] = []  # of what happened, for those who wait in engine.wait
        self._parked: list[str] = []  # runs to look at once more
        self._told: set[tuple[Any, ...]] = set()
        self._watch_at = 0.0
        self._timers_ms = 0  # when housekeeping looks at timers next
        self._clock_ms = 0
        self._clock_at = 0.0
        self._heartbeat: leases.Heartbeat | None = None
        self._reborn: asyncio.Task[None] | None = None
        self._own_sessions = prepare
        self.journal = Journal(
            self._journal_connection,
            prepare=prepare,
            after_commit=self._after_commit,
            held=lambda: list(self.running.values()),
            on_move=self._on_move,
        )
        self.notifier = hints.Notifier(pool.connection)
        self._services = Services(self.journal, pool, self.now_ms, self._leased, observer)

    def now_ms(self) -> int:
        """The database's clock as last seen plus the time since; for columns that people read, never for decisions."""
        return self._clock_ms + int((time.monotonic() - self._clock_at) * 1000)

    def _leased(self) -> bool:
        return self._heartbeat is not None and time.monotonic() < self._heartbeat.leased_until

    async def run(self, *, signals: bool = False) -> None:
        """Work until drained or stopped. Raises psycopg.Error when the database cannot be reached at the start.

        signals: TERM and INT drain, a second one stops.
        """
        loop = asyncio.get_running_loop()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)
        await self._enlist()
        self.journal.start()
        listener = hints.Listener(self._connect, (hints.CHANNEL,), self._heard) if self._listen else None
        if listener is not None:
            listener.start()
        loops = [
            loop.create_task(self._forever(self._claims, "claims"), name="claims"),
            loop.create_task(self._forever(self._housekeeping, "housekeeping"), name="housekeeping"),
        ]
        log.info("worker started", worker=self.id, queues=self.queues, version=self.version)
        try:
            await self._draining.wait()
            await self._drained()
        finally:
            await self._shut_down(loops, listener)
            log.info("worker stopped", worker=self.id, **self.ended)

    def drain(self) -> None:
        """Take no more runs; `run` returns when the running ones have ended or parked."""
        self._draining.set()
        self._freed.set()
        self._work.set()

    def stop(self) -> None:
        """Give every running run back and return from `run`."""
        self.drain()
        self._stopping.set()

    def _on_signal(self) -> None:
        if self._draining.is_set():
            self.stop()
        else:
            log.info("worker drains; another signal stops it", running=len(self.running))
            self.drain()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def _enlist(self) -> None:
        """Take an identity and keep its lease."""
        loop = asyncio.get_running_loop()

        def on_loss() -> None:  # called on the heartbeat's thread
            loop.call_soon_threadsafe(self._on_lease_loss)

        heartbeat = leases.Heartbeat(
            self._connect_sync,
            self.id,
            self.lease_s,
            version=self.version,
            place=f"{socket.gethostname()}:{os.getpid()}",
            on_loss=on_loss,
        )
        await asyncio.to_thread(heartbeat.start)
        self._heartbeat = heartbeat

    def _on_lease_loss(self) -> None:
        """Others have this worker's runs: forget them, and start over as somebody new."""
        if self._observer is not None:
            self._observer.lease_lost()
        for run in list(self.running.values()):
            run.abandon("this worker was taken for dead")
        self.id = str(uuid.uuid4())
        self._reborn = asyncio.create_task(self._forever(self._enlist_again, "enlisting"))

    async def _enlist_again(self) -> None:
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)
        await self._enlist()
        self._work.set()

    def _on_move(self, went_back: bool) -> None:
        """The database is another server, or another life of it. If it lacks something that was committed, everything in memory may
        rest on that: it is dropped, housekeeping puts it back into its queue, and it is taken up from the journal that there is.
        """
        if self._observer is not None:
            self._observer.failed_over(went_back)
        if not went_back:
            log.warning("the database has failed over, with all that this worker has committed", running=len(self.running))
            return
        log.error(
            "the database's history went back: runs in hand are taken up again from there", worker=self.id, runs=len(self.running)
        )
        for run in list(self.running.values()):
            run.abandon("the database's history went back")
        self._watch_at = 0.0
        self._chores.set()

    async def _pin_plans(self, conn: Connection) -> None:
        """Where the session is ours; elsewhere the settings would reach strangers."""
        if self._own_sessions:
            await conn.execute(entries.PIN_PLANS, entries.FOR_THE_SESSION)

    async def _forever(self, loop_body: Callable[[], Awaitable[None]], name: str) -> None:
        """Run a loop; when the database fails it, start it anew with a new connection."""
        told_at_s = float("-inf")
        while not self._stopping.is_set():
            try:
                await loop_body()
                return
            except (psycopg.Error, OSError) as error:
                if time.monotonic() >= told_at_s + TELL_EVERY_S:
                    log.warning("database trouble, trying again", loop=name, error=str(error).partition("\n")[0])
                    told_at_s = time.monotonic()
            except Exception:
                log.exception("unexpected trouble, trying again", loop=name)
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _drained(self) -> None:
        """Until no run is left, or `stop`."""
        stopping = asyncio.create_task(self._stopping.wait())
        while self.running and not self._stopping.is_set():
            self._idle.clear()
            idle = asyncio.create_task(self._idle.wait())
            await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        stopping.cancel()

    async def _shut_down(self, loops: Sequence[asyncio.Task[None]], listener: hints.Listener | None) -> None:
        self._draining.set()
        self._stopping.set()
        self._freed.set()
        self._work.set()
        self._chores.set()
        _, still = await asyncio.wait(loops, timeout=1)  # before the runs: housekeeping would take what leaves memory for strays
        for task in still:
            task.cancel()
        if still:
            await asyncio.wait(still)
        for run in list(self.running.values()):
            run.abandon("the worker stops")
        tasks = [task for run in self.running.values() for task in run.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await self.journal.close()
        with contextlib.suppress(psycopg.Error, OSError):  # else the lease runs out
            async with await self._connect() as conn:
                await claims.release(conn, self.id)
            self.notifier.tell(hints.CHANNEL, hints.WORK)
        await self.notifier.close()
        if listener is not None:
            await listener.close()
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)

    async def _journal_connection(self) -> Connection:
        """Named after the worker, so that a rescue can cut it off; a pooler would leave that name on a session that serves others."""
        return await (self._connect(application_name=f"holdfast {self.id}") if self._own_sessions else self._connect())

    # -- claiming -----------------------------------------------------------------------------------------------------

    def _room(self) -> dict[str, int]:
        """Free slots by queue, together no more than the worker's."""
        left = self.slots - len(self.running)
        room: dict[str, int] = {}
        for queue, limit in self.queues.items():
            room[queue] = max(0, min(limit - self._busy[queue], left))
        return room

    async def _claims(self) -> None:
        async with await self._connect() as conn:
            await self._pin_plans(conn)
            await queues.know(conn, list(self.queues))
            pause_s = self.poll_s
            wanted = 1  # free slots worth a claim: a quarter of all while the queues give more than there is room for
            while not self._draining.is_set():
                room = self._room()
                free = self.slots - len(self.running)
                if self.paused or not any(room.values()):
                    self._freed.clear()
                    await self._wait(self._freed, TICK_S)
                    continue
                if free < wanted:
                    wanted = 1  # no longer than this: who waits for a slot should have it
                    await asyncio.sleep(CLAIM_GAP_S)
                    continue
                self._work.clear()
                began_s = time.monotonic()
                taken = await self._claim(conn, room)
                took_s = time.monotonic() - began_s
                wanted = max(self.slots // 4, 1) if taken == free else 1
                if taken:
                    pause_s = CLAIM_GAP_S
                    # Who waits for a slot gets it soon. With slots left over, a claim takes a fifth of the time or less: what comes in
                    # while the database is busy is taken by fewer claims.
                    await asyncio.sleep(CLAIM_GAP_S if taken == free else min(max(4 * took_s, CLAIM_GAP_S), MOST_CLAIM_GAP_S))
                    continue
                await self._wait(self._work, pause_s * random.uniform(0.9, 1.1))
                pause_s = min(max(pause_s * 2, 0.05), self.poll_s)

    async def _claim(self, conn: Connection, room: dict[str, int]) -> int:
        self._claiming = str(uuid.uuid4())
        try:
            claimed = await claims.claim(conn, self.id, self._claiming, room, list(self.workflows), self.version)
            if not claimed:
                return 0
            self._saw_clock(claimed[0].now_ms)
            histories: dict[str, list[tuple[str | None, Recorded]]] = {}
            known = [c.id for c in claimed if c.has_history]
            if known:
                histories = await claims.histories(conn, known)
            for one in claimed:
                self._begin(one, histories.get(one.id, []))
            return len(claimed)
        finally:
            self._claiming = None

    @staticmethod
    async def _wait(event: asyncio.Event, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await event.wait()

    # -- running ------------------------------------------------------------------------------------------------------

    def _begin(self, claimed: Claimed, history: list[tuple[str | None, Recorded]]) -> None:
        run = Run(claimed, self._services)
        run.load(history)
        self.running[run.id + run.token] = run
        self._busy[claimed.queue or ""] += 1
        task = run.loop.create_task(self._execute(run))
        run.tasks.add(task)
        task.add_done_callback(lambda _: self._ended(run))

    def _ended(self, run: Run) -> None:
        run.let_go()
        del self.running[run.id + run.token]
        self._busy[run.claimed.queue or ""] -= 1
        self._freed.set()
        if not self.running:
            self._idle.set()

    async def _execute(self, run: Run) -> None:
        """The life of a run in this process, from claim to finish, park or loss."""
        branch = Branch(run, "", asyncio.current_task())
        enter(branch)
        observer = self._observer
        if observer is not None:
            observer.run_started(run.claimed.info)
        how = "lost"
        try:
            status, output, error = await self._outcome(run, self.workflows[run.claimed.name])
            if run.gone is not None:
                raise run.gone
            await self._finish(run, branch, status, output, error)
            how = status
        except Suspended:
            how = "parked"
        except (RunLost, asyncio.CancelledError):
            run.abandon("its workflow was lost")
        finally:
            branch.task = None
            self.ended[how] += 1
            if observer is not None:
                observer.run_ended(run.claimed.info, how)

    async def _outcome(self, run: Run, workflow: Workflow[Any, Any]) -> tuple[str, str | None, str | None]:
        """(status, output, error) of the workflow's code."""
        try:
            if run.claimed.attempts > workflow.max_recovery_attempts + 1:
                message = f"claimed {run.claimed.attempts} times without progress"
                return TOO_MANY_ATTEMPTS, None, codec.encode_error(TerminalError(message, name="TooManyAttempts"))
            args, kwargs = workflow.signature.arguments(run.claimed.inputs, run.claimed.serialization)
            output = codec.encode(await workflow.function(*args, **kwargs))
            if run.mismatch is not None:
                raise run.mismatch
            if run.history:
                path, left = next(iter(run.history.items()))
                raise ReplayMismatch(
                    f"the journal of {run.id} holds {left.name!r} at call {path}, which the code no longer makes; "
                    "run this workflow with the code it was started with, or rewind it"
                )
            return SUCCESS, output, None
        except BaseException as error:
            if is_ours(error, run):
                raise
            error = run.mismatch or error
            if isinstance(error, ReplayMismatch):
                log.error("replay mismatch", workflow=run.id, error=str(error))
            return ERROR, None, codec.encode_error(error)

    async def _finish(self, run: Run, branch: Branch, status: str, output: str | None, error: str | None) -> None:
        try:
            await self.journal.add(entries.Finish(run, status, output, error, branch.take_riders()))
        except Exception as refused:
            log.error("the end of a run was refused", workflow=run.id, error=str(refused))
            await self.journal.add(entries.Finish(run, ERROR, None, codec.encode_error(refused), None))

    def _after_commit(self, parts: Parts) -> None:
        """Pass on what others may wait for: hints to other processes, chores for this one."""
        if self._observer is not None:
            self._observer.committed(parts.count)
        for entry in parts.effects:
            self._pass_on(entry.owner.id, entry.effect)
        for entry in parts.ends:
            self._tokens.append(f"c:{entry.owner.id}")
            if entry.owner.parent_id is not None:
                self._chores.set()
        for entry in parts.parks:
            self._after_park(entry)
        if parts.places:
            self._on_work()

    def _after_park(self, entry: entries.Park) -> None:
        if entry.shared:
            self._parked.append(entry.owner.id)
            self._chores.set()
        if entry.wake_at_ms is not None and entry.wake_at_ms < self._timers_ms:
            self._chores.set()  # sooner than housekeeping would look

    def _pass_on(self, run_id: str, effect: entries.Effect | None) -> None:
        if isinstance(effect, entries.Event):
            self._tokens.append(entries.event_token(run_id, effect.key))
            self._chores.set()
            self.notifier.tell(hints.EVENTS_CHANNEL, f"{run_id}::{effect.key}")
        elif isinstance(effect, entries.Mail):
            self._chores.set()
            self.notifier.tell(hints.MAIL_CHANNEL, f"{effect.destination}::{effect.topic}")
        elif isinstance(effect, entries.Chunk):
            self.notifier.tell(hints.STREAMS_CHANNEL, f"{run_id}::{effect.key}")
        elif isinstance(effect, entries.Child):
            self._work.set()
            self.notifier.tell(hints.CHANNEL, hints.WORK)

    # -- housekeeping -------------------------------------------------------------------------------------------------

    def _heard(self, _channel: str, payload: str) -> None:
        if payload != hints.WAKE:
            self._work.set()
        if payload != hints.WORK:
            self._chores.set()
        if payload.startswith("x:"):
            self._watch_at = 0.0

    def _saw_clock(self, now_ms: int) -> None:
        self._clock_ms, self._clock_at = now_ms, time.monotonic()

    async def _housekeeping(self) -> None:
        async with await self._connect() as conn:
            await self._pin_plans(conn)
            await self.journal.compare(conn)  # the journal itself looks when it writes, which may be long after
            rescue_at = look_at = 0.0
            reconcile_at = time.monotonic() + RECONCILE_S * random.random()
            while not self._stopping.is_set():
                self._chores.clear()
                await self._wake(conn)
                if await queues.look_again(conn):
                    self._on_work()
                moment = time.monotonic()
                if moment >= self._watch_at:
                    self._watch_at = moment + TICK_S
                    await self._watch(conn)
                    await wakeups.overdue(conn)
                    await schedules.fire(conn, self._on_work)
                    await queues.tidy(conn)
                if moment >= rescue_at:
                    rescue_at = moment + min(self.lease_s / 4, 0.5)
                    if await leases.rescue(conn, self.rest_s):
                        self._on_work()
                if moment >= look_at:
                    look_at = moment + 10
                    await self._name_strangers(conn)
                if moment >= reconcile_at:
                    await queues.reconcile(conn, self.findings)
                    reconcile_at = moment + max(RECONCILE_S, 50 * (time.monotonic() - moment))
                due_s = await wakeups.next_due_s(conn)
                open_s = await queues.next_look_s(conn)
                if open_s is not None and open_s < TICK_S:
                    asyncio.get_running_loop().call_later(open_s, self._look)
                pause_s = min(due_s if due_s is not None else TICK_S, TICK_S, self.lease_s / 4, 0.5)
                self._timers_ms = self.now_ms() + int(pause_s * 1000)
                await self._wait(self._chores, pause_s)

    def _look(self) -> None:
        """A partition is to be looked at, or a rate allows a start again."""
        self._work.set()

    def _on_work(self) -> None:
        self._work.set()
        self.notifier.tell(hints.CHANNEL, hints.WORK)

    async def _wake(self, conn: Connection) -> None:
        """Everything that may bring a run back: shared tokens, wake-ups, timers."""
        tokens, self._tokens = self._tokens, []
        parked, self._parked = self._parked, []
        try:
            if tokens:
                await wakeups.spread(conn, tokens)
            if parked:
                await wakeups.look_again(conn, parked)
        except psycopg.Error:
            self._tokens, self._parked = tokens + self._tokens, parked + self._parked
            raise
        woken = 0
        while (taken := await wakeups.wake(conn)) > 0:
            woken += taken
            if taken < 1000:
                break
        if woken + await wakeups.timers(conn):
            self._on_work()

    async def _watch(self, conn: Connection) -> None:
        """Stop the tasks of runs that were cancelled or taken over, even in a long step; give back what is owned and not run here."""
        if await claims.put_back_strays(conn, self.id, self._knows):
            self._on_work()
        held = [run for run in self.running.values() if run.gone is None]
        if not held:
            return
        gone = set(await claims.lost(conn, [(run.id, run.token) for run in held]))
        for run in held:
            if run.id in gone and run.gone is None and run.id + run.token in self.running:
                run.abandon("it was cancelled or taken over")

    def _knows(self, run_id: str, token: str) -> bool:
        return run_id + token in self.running or token == self._claiming

    async def _name_strangers(self, conn: Connection) -> None:
        """Say once what is queued here that no claim of this worker will take."""
        for name, queue, version, count in await claims.strangers(conn, list(self.queues), list(self.workflows), self.version):
            if (name, queue, version) in self._told:
                continue
            self._told.add((name, queue, version))
            if name not in self.workflows:
                log.error("queued for a workflow that this worker does not know", workflow=name, queue=queue, count=count)
            else:
                log.warning("queued for another application version", workflow=name, queue=queue, version=version, count=count)
