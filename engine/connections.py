"""How the engine reaches its database, in one place: which server of several, how soon a dead one is noticed, and what is tried again.

A connection string may name several hosts; the one that may be written to is taken (libpq's `target_session_attrs=read-write`). A
server that may only be read, a standby or a primary of yesterday, is as good as away: connecting to it fails, and a connection whose
server turned read-only is closed by the statement that finds out. What the string itself says about any of this wins.
"""

import asyncio
import contextlib
import random
import select
import traceback
from typing import Any, ClassVar, LiteralString, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

#: A dead server, or a dead way to it, is noticed within ten seconds: no answer to connecting, to a statement, or to probes when idle.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 9_000,
    "target_session_attrs": "read-write",
    "application_name": "holdfast",
}

RETRY_S = 0.25
LAST_WORDS = 4
READ_ONLY = (b"in_hot_standby", b"default_transaction_read_only")

WHO: LiteralString = "select pg_backend_pid()"


def connection_string(dsn: str, **overrides: Any) -> str:
    """The connection string with our defaults for what it leaves open. Raises psycopg.ProgrammingError for a bad one."""
    given = {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
    return make_conninfo("", **{**DEFAULTS, **given, **overrides})


def one_by_one(conninfo: str) -> list[str]:
    """A connection string for each host that this one names, in the order in which they are to be tried.

    psycopg goes through them too, but what failed on its way to one that succeeds stays behind in a cycle, along with the connection.
    """
    given = conninfo_to_dict(conninfo)
    places = {name: str(given[name]).split(",") for name in ("host", "hostaddr", "port") if given.get(name)}
    count = max((len(values) for values in places.values()), default=1)
    found = [make_conninfo(conninfo, **{name: values[n % len(values)] for name, values in places.items()}) for n in range(count)]
    return random.sample(found, count) if given.get("load_balance_hosts") == "random" else found


class PrimaryConnection(psycopg.AsyncConnection[Any]):
    """A connection that ends when its server turns read-only, or takes longer than `answer_s` for an answer. enough: whoever connects
    goes on trying until this is set.
    """

    enough: ClassVar[asyncio.Event | None] = None
    answer_s: float | None = None

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        while True:
            *others, last = one_by_one(conninfo)
            for other in others:
                with contextlib.suppress(psycopg.OperationalError):
                    return await cls._connect_to(other, **kwargs)
            try:
                return await cls._connect_to(last, **kwargs)
            except psycopg.OperationalError:
                if cls.enough is None or cls.enough.is_set():
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await cls.enough.wait()

    @classmethod
    async def _connect_to(cls, conninfo: str, **kwargs: Any) -> Self:
        try:
            return await super().connect(conninfo, **kwargs)
        except psycopg.OperationalError as error:
            # psycopg's frames hold the error, which holds them: while a database is away, that is all a process makes.
            traceback.clear_frames(error.__traceback__)
            raise

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().wait(gen, *args, **{"timeout": self.answer_s, **kwargs})
        except psycopg.errors.ReadOnlySqlTransaction:
            self.pgconn.finish()
            raise
        except psycopg.errors._WaitTimeout:  # pyright: ignore[reportPrivateUsage]
            if "timeout" in kwargs:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer in {self.answer_s} s") from None


class PromptConnection(psycopg.Connection[Any]):
    """For a thread: a connection that ends when an answer takes longer than `answer_s`, whatever the network says. A way that swallows all
    that is sent, or a server that stands still, breaks nothing by itself.
    """

    answer_s: float | None = None

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        *others, last = one_by_one(conninfo)
        for other in others:
            with contextlib.suppress(psycopg.OperationalError):
                return cls._connect_to(other, **kwargs)
        return cls._connect_to(last, **kwargs)

    @classmethod
    def _connect_to(cls, conninfo: str, **kwargs: Any) -> Self:
        try:
            return super().connect(conninfo, **kwargs)
        except psycopg.OperationalError as error:
            traceback.clear_frames(error.__traceback__)  # as above
            raise

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().wait(gen, *args, **{"timeout": self.answer_s, **kwargs})
        except psycopg.errors._WaitTimeout:  # pyright: ignore[reportPrivateUsage]
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer in {self.answer_s} s") from None


class Pool(AsyncConnectionPool[PrimaryConnection]):
    """Connections that are looked at as they are taken, and made again for as long as it takes."""

    def __init__(self, dsn: str, max_size: int, *, prepare: bool) -> None:
        self._closing = asyncio.Event()

        class Patient(PrimaryConnection):
            enough = self._closing

        super().__init__(
            connection_string(dsn),
            connection_class=Patient,
            kwargs={"prepare_threshold": 2 if prepare else None, "autocommit": True},
            min_size=1,
            max_size=max_size,
            check=self._look_at,
            open=False,
        )

    async def close(self, timeout: float = 5.0) -> None:
        self._closing.set()
        await super().close(timeout)

    async def _look_at(self, conn: PrimaryConnection) -> None:
        """If the server has ended this connection, it has ended the others: new ones for all."""
        if not is_there(conn):
            await self.drain()
            raise psycopg.OperationalError("the connection was ended while nobody used it")


def is_there(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Whether an idle connection is still one to a server that may be written to.

    It asks the kernel and not the server, so it costs nothing. A server that went without a word is found by the timeouts above.
    """
    poll = select.poll()
    try:
        poll.register(conn.pgconn.socket, select.POLLIN)
        for _ in range(LAST_WORDS):  # the end comes behind them
            if not poll.poll(0):
                break
            conn.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not any(conn.pgconn.parameter_status(name) == b"on" for name in READ_ONLY)


async def has_own_session(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Whether this connection is one to the server itself; a pooler between them gives a process id of its own making."""
    row = await (await conn.execute(WHO)).fetchone()
    return row is not None and row[0] == conn.info.backend_pid
