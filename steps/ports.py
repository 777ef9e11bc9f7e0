"""What a worker hands to the steps: the two outside tools, the workspace, a way to read the database, and the limits that are
settings.

The value is bound once, before the worker starts, and reaches every step through the context that tasks inherit. Workflow code
must not read it: two workers may be configured differently, so what a setting decides is decided inside a step and journaled
with it.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, ParamSpec, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from engine import cannot_now
from steps.opencode import OpenCode
from steps.policy import QueueRules
from steps.redaction import Redaction
from steps.sandbox import Sandbox

AWAY_PAUSE_S = 0.2

Row = TypeVar("Row")
Pool = AsyncConnectionPool[AsyncConnection[Any]]


P = ParamSpec("P")
R = TypeVar("R")


def patient(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Do again what the database broke off: a server that is away or in need for a while is waited for. For work that may be done twice."""

    @functools.wraps(function)
    async def again(*args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                if not cannot_now(error):
                    raise
                await asyncio.sleep(AWAY_PAUSE_S)

    return again


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings that decide inside of steps."""

    plan_approval_timeout_s: int = 3600
    sandbox_timeout_ms: int = 300_000
    sandbox_net: bool = False
    queue_rules: QueueRules = field(default_factory=QueueRules)


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a step may reach besides its arguments. `workspace` is the folder that patches are held to, `redaction` knows the
    secrets that must not be stored.
    """

    pool: Pool
    opencode: OpenCode
    sandbox: Sandbox
    workspace: Path
    limits: Limits = Limits()
    redaction: Redaction = field(default_factory=Redaction)

    @patient
    async def read(self, row: type[Row], query: LiteralString, *params: object) -> Row | None:
        """The first row of a query, as a dataclass of its columns."""
        async with self.pool.connection() as conn, conn.cursor(row_factory=class_row(row)) as cursor:
            return await (await cursor.execute(query, params)).fetchone()

    @patient
    async def write(self, statement: LiteralString, row: Mapping[str, object]) -> None:
        """Execute one statement on its own, now. It may be executed twice."""
        async with self.pool.connection() as conn:
            await conn.execute(statement, row)


_PORTS: ContextVar[Ports] = ContextVar("holdfast_ports")


def configure(ports: Ports) -> None:
    """Bind the ports for this context and every task started from it."""
    _PORTS.set(ports)


def ports() -> Ports:
    """The bound ports; raises RuntimeError where no worker bound any."""
    try:
        return _PORTS.get()
    except LookupError:
        raise RuntimeError("no ports are configured; call steps.ports.configure(Ports(...)) before the worker starts") from None
