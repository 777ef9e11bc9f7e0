"""Processes that migrate, and may kill themselves while they do."""

import itertools
import multiprocessing
import os
import signal
from typing import Any

from bin.database import connect, migrate


def migrator(dsn: str, dies_after: int = 0) -> Any:
    """A process that migrates. dies_after: so many statements it kills itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_migrate, args=(dsn, dies_after), daemon=True)
    process.start()
    return process


def _migrate(dsn: str, dies_after: int) -> None:
    with connect(dsn, autocommit=True) as conn:
        execute, done = conn.execute, itertools.count(1)

        def execute_and_die(*arguments: Any, **options: Any) -> Any:
            cursor = execute(*arguments, **options)
            if next(done) == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return cursor

        conn.execute = execute_and_die
        migrate(conn)
