"""Steps with a transaction of their own.

The function's statements run first, on a pooled connection; then, in the same transaction, the fence and the journal row; then
COMMIT. The fence comes last so that the run's status row is locked only for a moment: the journal writer, which commits other
branches of the same run, would otherwise wait for the whole step, and every run of the process with it.

If the connection is lost at COMMIT, the outcome is unknown. It is looked up before anything else of this run is written.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg_pool import PoolTimeout

from engine import codec
from engine.entries import FENCE, json_array
from engine.errors import RunLost, StepFailed
from engine.journal import NOT_OWNED
from engine.lookups import cannot_now, connection_lost
from engine.run import Branch, StepScope, enter, is_ours, leave

ATTEMPTS = 20
TRY_AGAIN = frozenset({"40001", "40P01", "55P03"})
IN_NEED = "53"  # class of errors of a server that is short of disk, memory or connections

# No row, if the one before it is not there: this connection may be the first that meets a history that went back.
INSERT_OWN_RECORD: LiteralString = """
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, started_at_epoch_ms,
                                    completed_at_epoch_ms, serialization)
select r.id, r.recorded + 1, %s, %s, %s, %s, (select engine.now_ms()), 'portable_json'
  from (values (%s::text, %s::int)) as r (id, recorded)
 where r.recorded = 0
    or exists (select from dbos.operation_outputs o where o.workflow_uuid = r.id and o.function_id = r.recorded)
"""
OWN_RECORD: LiteralString = """
select o.output from dbos.operation_outputs o where o.workflow_uuid = %s and o.function_id = %s and o.call_path = %s
"""


class Away(Exception):
    """The database broke our connection off, or gave us none."""


class HistoryWentBack(Exception):
    """The database lacks something that this run has recorded."""


class Call(Protocol):
    """What is known of a transaction here."""

    name: str

    @property
    def body(self) -> Callable[..., Any]: ...
    @property
    def result_decoder(self) -> codec.Decoder: ...


async def run_transaction(call: Call, branch: Branch, path: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run the function and commit its statements with its record; returns its result.

    Raises StepFailed with the recorded failure (whose statements are undone), RunLost when the run is not ours any more.
    """
    started_ms = branch.run.services.now_ms()
    attempt = refused = 0
    while True:
        attempt += 1
        try:
            return await _attempt(call, branch, path, args, kwargs, started_ms, attempt)
        except Away:
            if branch.run.gone is not None:
                raise branch.run.gone from None
        except HistoryWentBack:
            if not branch.run.void:
                branch.run.journal.went_back()
            raise RunLost(f"the database's history went back, run {branch.run.id} is taken up from there") from None
        except psycopg.Error as error:
            state = error.sqlstate or ""
            if state == NOT_OWNED:
                raise RunLost(f"run {branch.run.id} was cancelled or taken over") from error
            refused += not state.startswith(IN_NEED)  # that ends when it ends
            if refused == ATTEMPTS or not (state in TRY_AGAIN or cannot_now(error)):
                await _record_failure(call, branch, path, error, started_ms)
        except BaseException as error:
            if is_ours(error, branch.run):
                raise
            await _record_failure(call, branch, path, error, started_ms)
        await asyncio.sleep(min(0.01 * 2 ** min(attempt, 7), 1.0))


async def _attempt(
    call: Call, branch: Branch, path: str, args: Any, kwargs: dict[str, Any], started_ms: int, attempt: int
) -> Any:
    run = branch.run
    taken: psycopg.AsyncConnection[Any] | None = None
    committing = False
    value: Any = None
    async with contextlib.AsyncExitStack() as aside:
        try:
            async with run.services.pool.connection() as conn, by_hand(conn):
                taken = conn
                scope = StepScope(branch, path, attempt)
                token = enter(scope)
                try:
                    with scope.watched(call.name):
                        value = await call.body(conn, *args, **kwargs)
                finally:
                    leave(token)
                output, value = codec.settled(value, call.result_decoder, f"the result of {call.name}")
                riders = [*(branch.riders or []), *(scope.ridden() or [])]
                await aside.enter_async_context(run.journal.standing_aside(run))
                committing = True
                await conn.execute(FENCE, (run.id, run.token, "1"))
                given = (path, call.name, output, started_ms, run.id, run.recorded)
                if run.void or not (await conn.execute(INSERT_OWN_RECORD, given)).rowcount:
                    raise HistoryWentBack
                for rider, row in riders:
                    await conn.execute(rider.sql, (json_array([row]),))
                await conn.commit()
        except psycopg.Error as error:  # the broken connection is given back by now: settling may need the pool's only one
            if not connection_lost(error) or not (taken is None or taken.closed):
                raise
            if not committing or not await _was_committed(branch, path):
                raise Away from error
        run.recorded += 1
        branch.riders = None
    return value


async def _was_committed(branch: Branch, path: str) -> bool:
    """Whether a commit whose answer was lost has happened. The fence waits for the old transaction's locks, so it is over then."""
    run = branch.run
    while True:
        try:
            async with run.services.pool.connection() as conn, by_hand(conn):
                await conn.execute(FENCE, (run.id, run.token, "1"))
                row = await (await conn.execute(OWN_RECORD, (run.id, run.recorded + 1, path))).fetchone()
                return row is not None
        except (psycopg.Error, PoolTimeout) as error:
            if not cannot_now(error):
                raise
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def by_hand(conn: psycopg.AsyncConnection[Any]) -> AsyncGenerator[None]:
    """A transaction that the block commits itself, in the middle of another lock; what it leaves uncommitted is undone."""
    was = conn.autocommit
    await conn.set_autocommit(False)
    try:
        yield
    finally:
        if not conn.closed:
            await conn.rollback()
            await conn.set_autocommit(was)


async def _record_failure(call: Call, branch: Branch, path: str, error: BaseException, started_ms: int) -> None:
    text = codec.encode_error(error)
    await branch.record(path, call.name, None, text, started_ms=started_ms)
    raise StepFailed(*codec.decode_error(text)) from error
