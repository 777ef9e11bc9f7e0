"""Statements sent together and answered together: one transaction, one round trip, few system calls.

psycopg's own pipeline hands each statement to the socket as it is added and looks for answers in between; for a writer that has all
its statements ready that is most of its time. Here they are queued in libpq, flushed once, and their results read in one go. On an
autocommit connection a pipeline with one sync at its end is an implicit transaction: any error undoes all of it.
"""

import functools
from collections.abc import Generator, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import errors, pq
from psycopg.waiting import WAIT_R, WAIT_RW, Ready, Wait

Row = tuple[bytes | None, ...]
Waiting = Generator[Wait, Ready | int, None]

OK = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})


@functools.cache
def numbered(sql: LiteralString) -> bytes:
    """The statement with `%s` as `$1`, `$2`, …, as the server knows them."""
    parts = sql.split("%s")
    text = parts[0] + "".join(f"${n}{part}" for n, part in enumerate(parts[1:], 1))
    return text.replace("%%", "%").encode()


def text_of(value: bytes | None) -> str:
    return (value or b"").decode()


def number_of(value: bytes | None) -> int:
    return int(value or b"0")


class Statement:
    """One statement of a pipeline; `rows` holds its answer after the run, values as the server's text."""

    __slots__ = ("params", "rows", "sql")

    def __init__(self, sql: LiteralString, params: Sequence[str]) -> None:
        self.sql = sql
        self.params = params
        self.rows: list[Row] = []


class Pipeline:
    """Collects statements for one connection and runs them as one transaction. The connection must be in autocommit mode."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], prepared: dict[str, bytes] | None) -> None:
        """prepared: names of the statements that this connection has prepared, kept by the caller; None prepares nothing."""
        self._conn = conn
        self._prepared = prepared
        self._statements: list[Statement] = []

    def add(self, sql: LiteralString, params: Sequence[str]) -> Statement:
        """Queue a statement; parameters are text, as their types write it."""
        statement = Statement(sql, params)
        self._statements.append(statement)
        return statement

    async def run(self) -> None:
        """Run all, in order. Raises the first error, and then nothing was done. Closes the connection if it is cancelled."""
        async with self._conn.lock:
            try:
                await self._conn.wait(self._exchange(self._conn.pgconn))
            except psycopg.Error:
                raise
            except BaseException:
                self._conn.pgconn.finish()
                raise

    def _exchange(self, pgconn: pq.abc.PGconn) -> Waiting:
        pgconn.enter_pipeline_mode()
        answers = self._send(pgconn)
        pgconn.pipeline_sync()
        while pgconn.flush():
            ready = yield WAIT_RW
            if ready & Ready.R:
                pgconn.consume_input()
        failure: psycopg.Error | None = None
        for statement, preparing in answers:
            result = yield from self._next(pgconn)
            if result is None:
                raise psycopg.OperationalError("the server gave no answer to a statement of a pipeline")
            yield from self._next(pgconn)  # each statement's answers end with nothing
            if result.status in OK:
                self._take(statement, preparing, result)
            elif failure is None and result.status == pq.ExecStatus.FATAL_ERROR:
                failure = errors.error_from_result(result)
        yield from self._next(pgconn)  # the sync
        pgconn.exit_pipeline_mode()
        if failure is not None:
            raise failure

    def _send(self, pgconn: pq.abc.PGconn) -> list[tuple[Statement, bytes | None]]:
        """Queue everything in libpq; what answers to expect: (statement, name if it is the answer to its preparation)."""
        answers: list[tuple[Statement, bytes | None]] = []
        named = self._prepared
        new: dict[str, bytes] = {}
        for statement in self._statements:
            params = [p.encode() for p in statement.params]
            if named is None:
                pgconn.send_query_params(numbered(statement.sql), params)
            else:
                name = named.get(statement.sql) or new.get(statement.sql)
                if name is None:
                    name = new[statement.sql] = b"holdfast_%d" % (len(named) + len(new))
                    pgconn.send_prepare(name, numbered(statement.sql))
                    answers.append((statement, name))
                pgconn.send_query_prepared(name, params)
            answers.append((statement, None))
        return answers

    def _take(self, statement: Statement, preparing: bytes | None, result: pq.abc.PGresult) -> None:
        if preparing is not None and self._prepared is not None:
            self._prepared[statement.sql] = preparing
        elif result.ntuples:
            columns = range(result.nfields)
            statement.rows = [tuple(result.get_value(row, c) for c in columns) for row in range(result.ntuples)]

    @staticmethod
    def _next(pgconn: pq.abc.PGconn) -> Generator[Wait, Ready | int, pq.abc.PGresult | None]:
        while pgconn.is_busy():
            yield WAIT_R
            pgconn.consume_input()
        return pgconn.get_result()
