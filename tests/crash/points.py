"""Crash points: moments of a worker process, named by what is being written, at which the process signals itself.

Installed into a worker by wrapping the engine's own functions from outside. With `files`, the points are the system calls at the
workspace's files instead, `file open #1`. Else a point is `<moment> <write>`. The moment is `ready`
(nothing sent), `before` (all statements sent, their COMMIT not), or `after` (committed, the answer not yet used). The write names the
workflow (`.` for the run under test, else the rest of its child's id), the kind of entry and its call path, and how often this process
has passed it: `. Step 3 #1`.
"""

import contextvars
import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus

from engine import claims, transactions, wakeups
from engine.entries import Entry
from engine.journal import Journal
from steps import workspace

_path: contextvars.ContextVar[str] = contextvars.ContextVar("path_of_transaction", default="")


class Points:
    """Watches the writes of this process; at `point` it sends itself `number`. `trace` collects the names of all points passed."""

    def __init__(self, root: str, point: str | None, number: signal.Signals, trace: Path | None, *, files: bool = False) -> None:
        self.root = root
        self.point = point
        self.number = number
        self.trace = trace
        self.files = files
        self.seen: Counter[str] = Counter()

    def passing(self, moment: str, writes: Iterable[str]) -> None:
        for write in writes:
            name = f"{moment} {write}"
            self.seen[name] += 1
            name = f"{name} #{self.seen[name]}"
            if self.trace is not None:
                with self.trace.open("a") as file:
                    file.write(f"{name}\n")
            if name == self.point:
                os.kill(os.getpid(), self.number)

    def of(self, workflow_id: str) -> str:
        return workflow_id.removeprefix(self.root) or "."

    def named(self, entry: Entry) -> str:
        path = getattr(entry, "path", "")
        return f"{self.of(entry.owner.id)} {type(entry).__name__} {path}".rstrip()

    def install(self) -> None:
        if self.files:
            setattr(workspace, "os", WatchedOs(lambda call: self.passing("file", [call])))  # noqa: B010
            return
        self._watch_journal()
        self._watch_transactions()
        self._watch_claims()
        for name in ("wake", "timers"):
            self._watch_housekeeping(name)

    def _watch_journal(self) -> None:
        commit = Journal._commit

        async def watched(journal: Journal, conn: Any, batch: list[Entry]) -> None:
            writes = [self.named(entry) for entry in batch]
            self.passing("ready", writes)
            await commit(journal, cast(Any, Tapped(conn, self, writes)), batch)

        setattr(Journal, "_commit", watched)  # noqa: B010

    def _watch_transactions(self) -> None:
        attempt = transactions._attempt
        commit = psycopg.AsyncConnection.commit

        async def named(call: Any, branch: Any, path: str, *rest: Any) -> Any:
            token = _path.set(f"{self.of(branch.run.id)} Transaction {path}")
            try:
                return await attempt(call, branch, path, *rest)
            finally:
                _path.reset(token)

        async def watched(conn: psycopg.AsyncConnection[Any]) -> None:
            name = _path.get()
            if not name or conn.info.transaction_status != TransactionStatus.INTRANS:
                return await commit(conn)
            self.passing("before", [name])
            await commit(conn)
            self.passing("after", [name])

        transactions._attempt = named
        setattr(psycopg.AsyncConnection, "commit", watched)  # noqa: B010

    def _watch_claims(self) -> None:
        claim = claims.claim

        @functools.wraps(claim)
        async def watched(*args: Any) -> Any:
            claimed = await claim(*args)
            self.passing("after", [f"{self.of(one.id)} Claim" for one in claimed])
            return claimed

        claims.claim = watched

    def _watch_housekeeping(self, name: str) -> None:
        original: Callable[..., Any] = getattr(wakeups, name)

        @functools.wraps(original)
        async def watched(*args: Any) -> int:
            done = await original(*args)
            if done:
                self.passing("after", [f". {name}"])
            return done

        setattr(wakeups, name, watched)


class WatchedOs:
    """The module os, as whoever moves files sees it. Before each call that changes something, its name is passed to `passing`."""

    CHANGES = frozenset({"fchmod", "fsync", "mkdir", "open", "replace", "unlink", "write"})

    def __init__(self, passing: Callable[[str], object]) -> None:
        self._passing = passing

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in self.CHANGES:
            return call

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._passing(name)
            if name == "write":
                written = os.write(args[0], args[1][: len(args[1]) // 2])
                self._passing("half a write")
                return written + os.write(args[0], args[1][written:])
            return call(*args, **kwargs)

        return watched


class Tapped:
    """The journal's connection. Its pipeline's sync is what commits; the connection's wait ends with the answers read."""

    def __init__(self, conn: Any, points: Points, writes: list[str]) -> None:
        self._conn = conn
        self._points = points
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    @property
    def pgconn(self) -> Any:
        return TappedProtocol(self._conn.pgconn, lambda: self._points.passing("before", self._writes))

    async def wait(self, exchange: Any) -> Any:
        done = await self._conn.wait(exchange)
        self._points.passing("after", self._writes)
        return done


class TappedProtocol:
    """libpq's connection, which sends all that is queued before it tells of the sync."""

    def __init__(self, pgconn: Any, before_sync: Callable[[], None]) -> None:
        self._pgconn = pgconn
        self._before_sync = before_sync

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pgconn, name)

    def pipeline_sync(self) -> None:
        while self._pgconn.flush():
            pass
        self._before_sync()
        self._pgconn.pipeline_sync()
