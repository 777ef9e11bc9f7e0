"""What every command needs first: its settings, its database, and a decent end when one of them is wrong."""

import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from psycopg.conninfo import make_conninfo

from bin.database import DatabaseUnusable, connect, create_if_missing, require_schema
from bin.logs import set_up_logs
from bin.postgres import ensure
from bin.postgres_programs import CannotRunPostgres
from bin.settings import Settings, read_settings
from bin.variables import BadSetting
from steps.errors import InvalidInput, ProductError

USAGE = 2  # exit code for a setting or an argument that is wrong
FAILED = 1

COLLECT_S = 30.0


def run(command: Callable[[Settings], int]) -> NoReturn:
    """Ends the process with the command's exit code."""
    set_up_logs()
    sys.exit(exit_code(lambda: command(read_settings(os.environ))))


def exit_code(command: Callable[[], int]) -> int:
    """The exit code of a command that was called now. A known refusal is one line, without a traceback."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except (BadSetting, InvalidInput) as error:
        complain(error)
        return USAGE
    except (CannotRunPostgres, DatabaseUnusable, ProductError) as error:
        complain(error)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has a place to go
        return 141


def complain(text: object) -> None:
    print(f"holdfast: {text}", file=sys.stderr, flush=True)


def database_of(settings: Settings, *, create: bool = True) -> str:
    """DSN of the database, which exists: the configured one, else the embedded one, held until this process ends. create: make it if
    its server has none of that name.
    """
    dsn = settings.database
    if dsn is None:
        dsn = make_conninfo(ensure(settings.state_dir, bindir=settings.pg_bindir), dbname=settings.app_db_name)
    if create:
        create_if_missing(dsn, maintenance_database=settings.system_db_name)
    return dsn


def migrated_database(settings: Settings) -> str:
    """The same, once it is sure that this code's schema is in there. Raises DatabaseUnusable."""
    dsn = database_of(settings)
    with connect(dsn) as conn:
        require_schema(conn)
    return dsn


def calm_garbage_collector() -> None:
    """For a process that works for long: leave alone what the imports made, and look seldom through what it makes and drops.

    But by the clock, too: a process with little to do would keep unreachable cycles for hours.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    threading.Thread(target=_collect_by_the_clock, name="garbage", daemon=True).start()


def _collect_by_the_clock() -> None:
    for n in itertools.count(1):
        time.sleep(COLLECT_S)
        gc.collect(1 if n % 20 else 2)
