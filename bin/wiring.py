"""What every command needs first: its settings, its database, and a decent end when one of them is wrong."""

import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from psycopg.conninfo import make_conninfo

from bin.database import DatabaseUnusable, create_if_missing
from bin.logs import set_up_logs
from bin.postgres import ensure
from bin.postgres_programs import CannotRunPostgres
from bin.settings import Settings, read_settings
from bin.variables import BadSetting

USAGE = 2  # exit code for a setting or an argument that is wrong
FAILED = 1


def run(command: Callable[[Settings], int]) -> NoReturn:
    """Ends the process with the command's exit code. A known refusal is one line, without a traceback."""
    set_up_logs()
    try:
        code = command(read_settings(os.environ))
    except BadSetting as error:
        complain(error)
        code = USAGE
    except (CannotRunPostgres, DatabaseUnusable) as error:
        complain(error)
        code = FAILED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def complain(text: object) -> None:
    print(f"holdfast: {text}", file=sys.stderr, flush=True)


def database_of(settings: Settings) -> str:
    """DSN of the database, which exists: the configured one, else the embedded one, held until this process ends."""
    dsn = settings.database
    if dsn is None:
        dsn = make_conninfo(ensure(settings.state_dir, bindir=settings.pg_bindir), dbname=settings.app_db_name)
    create_if_missing(dsn, maintenance_database=settings.system_db_name)
    return dsn


def calm_garbage_collector() -> None:
    """For a process that works for long: leave alone what the imports made, and look seldom through what it makes and drops."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
