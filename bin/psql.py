"""Becomes psql on our database, with the caller's arguments. The address goes by environment, where no list of processes shows it."""

import os
import shutil
import sys

from psycopg.pq import Conninfo

from bin.postgres import keep_across_exec
from bin.postgres_programs import CannotRunPostgres, find_programs
from bin.settings import Settings
from bin.wiring import FAILED, complain, database_of
from engine import connection_string


def become_psql(settings: Settings) -> int:
    dsn = database_of(settings)
    program = _program(settings)
    if program is None:
        complain("found no psql: install PostgreSQL's client, or set PG_BINDIR to a folder that has it")
        return FAILED
    address = {
        option.envvar.decode(): option.val.decode()
        for option in Conninfo.parse(connection_string(dsn, application_name="psql").encode())
        if option.envvar is not None and option.val is not None
    }
    keep_across_exec()
    os.execve(program, ["psql", *sys.argv[1:]], {**os.environ, **address})


def _program(settings: Settings) -> str | None:
    """For the embedded server its own psql, else the system's: that one knows TLS and line editing."""
    try:
        own = shutil.which("psql", path=str(find_programs(settings.pg_bindir).bindir))
    except CannotRunPostgres:
        own = None
    of_the_system = shutil.which("psql")
    return (own or of_the_system) if settings.database is None else (of_the_system or own)
