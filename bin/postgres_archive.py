"""Servers on this machine for restoring: one whose log is archived, and one that is made from a backup of it and that log.

What is here is what a drill needs. An archive that is to survive the machine is the business of a tool that is made for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

from psycopg import sql
from psycopg.conninfo import make_conninfo

from bin.postgres_pair import Node, wait
from bin.postgres_programs import Programs, find_programs

ARCHIVED: LiteralString = "select coalesce(last_archived_wal >= %s, false) from pg_stat_archiver"
SWITCH: LiteralString = "select pg_walfile_name(pg_switch_wal())"
RECOVERING: LiteralString = "select pg_is_in_recovery()"


class ArchivedNode(Node):
    """A server that gives each finished file of its log away, into a folder beside its data."""

    def __init__(self, name: str, folder: Path, programs: Programs) -> None:
        self.archive = folder.absolute().resolve() / name / "archive"
        keep = f"mkdir -p '{self.archive}' && test ! -f '{self.archive}/%f' && cp '%p' '{self.archive}/%f'"
        super().__init__(name, folder, programs, {"archive_mode": "on", "archive_command": keep, "fsync": "on"})

    def dump(self) -> Path:
        """A logical backup, of one moment, while the server works."""
        file = self._server.home / "holdfast.dump"
        self._run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={self.dsn}")
        return file

    def archive_all(self) -> None:
        """Returns when all that was committed before is in the archive."""
        with self.connect() as conn:
            row = conn.execute(SWITCH).fetchone()
            assert row is not None
            wait(lambda: conn.execute(ARCHIVED, row).fetchone() == (True,), "the log to be archived")


class RestoredNode(Node):
    """A server that begins as a base backup of another, made by `copy`, and goes on from there by that one's archive."""

    def recover(self, archive: Path, until: str) -> None:
        """Start, and do again what was committed up to this time and nothing after it. Returns when it may be written to."""
        self.configure(None)
        wanted = {
            "restore_command": f'cp "{archive}/%f" "%p"',
            "recovery_target_time": until,
            "recovery_target_action": "promote",
        }
        with (self._server.data / "pair.conf").open("a") as conf:
            conf.write("".join(f"{name} = '{value}'\n" for name, value in wanted.items()))
        (self._server.data / "recovery.signal").touch()
        self.start()
        wait(self._may_be_written, f"the recovery up to {until}; see {self.log}")

    def load(self, dump: Path, database: str) -> None:
        """Make a database of this name from a logical backup."""
        with self.connect() as conn:
            conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(database)))
        self._run(
            "pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={make_conninfo(self.dsn, dbname=database)}", dump
        )

    def _may_be_written(self) -> bool:
        with self.connect() as conn:
            return conn.execute(RECOVERING).fetchone() == (False,)


class Archived:
    """The running server, the one that is to replace it, and a connection string that finds whichever of the two is there."""

    def __init__(self, folder: Path, bindir: Path | None = None) -> None:
        self.programs = find_programs(bindir)
        self.live = ArchivedNode("live", folder, self.programs)
        self.restored = RestoredNode("restored", folder, self.programs, {"fsync": "on"})

    def dsn(self, database: str = "postgres") -> str:
        return make_conninfo(host=f"{self.live.host},{self.restored.host}", user="postgres", dbname=database)

    def close(self) -> None:
        self.live.stop()
        self.restored.stop()

    def remove(self) -> None:
        """Take away the files of both, which must not run any more."""
        self.live.remove()
        self.restored.remove()


@contextmanager
def running_archived(folder: Path, bindir: Path | None = None) -> Iterator[Archived]:
    """A server with its archive for the length of the block. Its files are left."""
    servers = Archived(folder, bindir)
    try:
        servers.live.initialise()
        servers.live.configure(None)
        servers.live.start()
        yield servers
    finally:
        servers.close()
