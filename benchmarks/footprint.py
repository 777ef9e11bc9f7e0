"""What a service needs: memory, connections and processor time of its processes, and what each run leaves in the database and its log.

    .venv/bin/python -m benchmarks.footprint [--runs N] [--set NAME=VALUE …]

One API and one worker on a server of their own, with the mock agent and mock sandboxes: what is measured is Holdfast. Each run is started
over HTTP, waits at its gate, is answered over HTTP, and executes one task. Figures of a run are averages; bytes are of the tables after
`vacuum analyze`. --set changes settings of PostgreSQL that need no restart, to see what they do.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks.processes import cpu_s
from benchmarks.report import Table
from bin.own_server import own_server
from bin.progress import Bar
from bin.service import ServiceProcess
from bin.soaks.stage import ENDED, Stage, in_turn

IDLE_S = 5.0
PARTITIONS = 8
ROOMY = {
    "INTENT_QUEUE_WORKER_CONCURRENCY": "50",
    "INTENT_QUEUE_CONCURRENCY": "1000",
    "SBX_QUEUE_WORKER_CONCURRENCY": "50",
    "SBX_QUEUE_CONCURRENCY": "1000",
}

CONNECTIONS: LiteralString = """
    select count(*) filter (where application_name = 'holdfast'),
           count(*) filter (where application_name = 'worker' or application_name like 'holdfast %') from pg_stat_activity
"""
BACKENDS: LiteralString = "select pid from pg_stat_activity where pid <> pg_backend_pid()"
LOG: LiteralString = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
PARKED: LiteralString = "select count(*) from app.runs where status = 'waiting_input'"
TABLES: LiteralString = """
    select t.oid::regclass::text, (select s.n_live_tup from pg_stat_user_tables s where s.relid = t.oid),
           pg_table_size(t.oid), pg_indexes_size(t.oid)
      from pg_class t join pg_namespace n on n.oid = t.relnamespace
     where t.relkind = 'r' and n.nspname in ('dbos', 'engine', 'app') order by pg_total_relation_size(t.oid) desc, 1
"""
CHANGES: LiteralString = """
    select s.schemaname || '.' || s.relname, s.n_tup_ins, s.n_tup_upd, s.n_tup_hot_upd, s.n_tup_del, s.autovacuum_count
      from pg_stat_user_tables s where s.n_tup_upd + s.n_tup_del > 0 order by s.n_tup_upd + s.n_tup_del desc, 1
"""
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at a moment: memory in MB (its own part of what is shared), the most it had, and processor seconds so far."""

    memory_mb: float
    most_mb: float
    cpu_s: float


def look_at(process: ServiceProcess) -> Seen:
    shared = _field(Path(f"/proc/{process.pid}/smaps_rollup"), "Pss:")
    return Seen(shared, _field(Path(f"/proc/{process.pid}/status"), "VmHWM:"), cpu_s(process.pid) or 0.0)


def _field(file: Path, name: str) -> float:
    return next(int(row.split()[1]) / 1024 for row in file.read_text().splitlines() if row.startswith(name))


def measure(folder: Path, runs: int, changed: Mapping[str, str], bar: Bar) -> list[Table]:
    with own_server(folder / "database") as server, ExitStack() as open_things:
        conn = open_things.enter_context(psycopg.connect(server.dsn, autocommit=True))
        for name, value in changed.items():
            conn.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        conn.execute("select pg_reload_conf()")
        stage = Stage(server.dsn, folder, bar, 0, 0, 0)
        open_things.callback(stage.stop)
        return play(stage, conn, runs)


def play(stage: Stage, conn: psycopg.Connection[Any], runs: int) -> list[Table]:
    client = stage.client()
    api = stage.processes[0]
    named = make_conninfo(stage.dsn, application_name="worker")
    worker = stage.begin("worker", **ROOMY, DATABASE_URL=named)
    stage.wait_for_workers([worker])
    time.sleep(IDLE_S)  # first use of this and that
    connections = [connected(conn)]
    idle, log = [look_at(api), look_at(worker)], number(conn, LOG)
    time.sleep(IDLE_S)
    resting = [look_at(api), look_at(worker)]
    idle_log = (number(conn, LOG) - log) / IDLE_S
    served = server_cpu_s(conn)
    empty, log, began = sizes(conn), number(conn, LOG), time.monotonic()

    in_turn([lambda n=n: client.start(f"plain {n}", f"tenant-{n % PARTITIONS}") for n in range(runs)])
    connections.append(connected(conn))
    stage.wait(lambda: number(conn, PARKED), runs, "runs wait")
    started = time.monotonic()
    answered: set[str] = set()
    while len(answered) < runs:
        asking = [(wid, gate) for wid, gate in client.inbox() if wid not in answered]
        codes = in_turn([lambda wid=wid, gate=gate: client.reply(wid, gate, "yes").status_code for wid, gate in asking])
        connections.append(connected(conn))
        answered.update(wid for (wid, _), code in zip(asking, codes, strict=True) if code == 200)
        stage.bar.show(len(answered) / runs, f"{len(answered)} of {runs} answered")
    stage.wait(lambda: number(conn, ENDED), runs, "runs have ended")
    stage.settle()
    ended = time.monotonic()
    busy = [look_at(api), look_at(worker)]
    served = server_cpu_s(conn) - served
    logged = number(conn, LOG) - log
    time.sleep(IDLE_S)  # backends tell of their rows with delay
    changes = conn.execute(CHANGES).fetchall()
    conn.execute("vacuum analyze")
    full = sizes(conn)
    return [
        of_processes(idle, resting, busy, connections, served, runs),
        of_runs(empty, full, logged, idle_log, runs, (started - began, ended - started)),
        of_tables(empty, full, runs),
        Table(
            f"changes of rows a run, {runs} runs",
            ["table", "inserts", "updates", "of them HOT", "deletes", "autovacuums"],
            [[row[0], *(f"{part / runs:.1f}" for part in row[1:5]), str(row[5])] for row in changes[:SHOWN]],
        ),
    ]


def connected(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    """How many connections the API and the worker have."""
    row = conn.execute(CONNECTIONS).fetchone()
    assert row is not None
    return row[0], row[1]


def server_cpu_s(conn: psycopg.Connection[Any]) -> float:
    """Of the server's processes that live."""
    return sum(cpu_s(pid) or 0.0 for (pid,) in conn.execute(BACKENDS).fetchall())


def number(conn: psycopg.Connection[Any], query: LiteralString, *values: object) -> int:
    row = conn.execute(query, values or None).fetchone()
    assert row is not None
    return int(row[0])


Sizes = Mapping[str, tuple[int, int, int]]


def sizes(conn: psycopg.Connection[Any]) -> Sizes:
    """Rows, bytes of the heap with what is stored beside it, and bytes of the indexes, by table."""
    return {row[0]: (row[1] or 0, row[2], row[3]) for row in conn.execute(TABLES).fetchall()}


def of_processes(
    idle: Sequence[Seen],
    resting: Sequence[Seen],
    busy: Sequence[Seen],
    connections: Sequence[tuple[int, int]],
    served_s: float,
    runs: int,
) -> Table:
    rows = [
        [
            name,
            f"{idle[n].memory_mb:.0f}",
            f"{busy[n].memory_mb:.0f}",
            f"{busy[n].most_mb:.0f}",
            f"{(resting[n].cpu_s - idle[n].cpu_s) / IDLE_S * 100:.1f}",
            f"{(busy[n].cpu_s - resting[n].cpu_s) / runs * 1000:.1f}",
            f"{connections[0][n]}-{max(one[n] for one in connections)}",
        ]
        for n, name in enumerate(("API", "worker"))
    ]
    rows.append(["PostgreSQL", "", "", "", "", f"{served_s / runs * 1000:.1f}", ""])
    return Table("processes", ["process", "MB idle", "MB after", "most MB", "cpu idle %", "cpu ms/run", "connections"], rows)


def of_runs(empty: Sizes, full: Sizes, logged: int, idle_log: float, runs: int, seconds: tuple[float, float]) -> Table:
    rows, heap, indexes = (sum(full[name][n] - empty[name][n] for name in full) / runs for n in range(3))
    return Table(
        f"{runs} runs",
        ["", "value"],
        [
            ["rows a run", f"{rows:.0f}"],
            ["kB of tables a run", f"{heap / 1000:.1f}"],
            ["kB of indexes a run", f"{indexes / 1000:.1f}"],
            ["GB on disk for a million runs", f"{(heap + indexes) / 1000:.0f}"],
            ["kB of log a run", f"{logged / runs / 1000:.1f}"],
            ["kB of log a second, idle", f"{idle_log / 1000:.1f}"],
            ["runs started and parked a second", f"{runs / seconds[0]:.0f}"],
            ["runs answered and ended a second", f"{runs / seconds[1]:.0f}"],
        ],
    )


def of_tables(empty: Sizes, full: Sizes, runs: int) -> Table:
    grown = {name: [full[name][n] - empty[name][n] for n in range(3)] for name in full}
    largest = sorted(grown, key=lambda name: (-(grown[name][1] + grown[name][2]), name))[:SHOWN]
    return Table(
        "a run, by table",
        ["table", "rows", "kB", "kB of indexes"],
        [[name, f"{grown[name][0] / runs:.1f}", *(f"{part / runs / 1000:.2f}" for part in grown[name][1:])] for name in largest],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.footprint", description="What the service needs, and what a run leaves.")
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="how many runs (1000)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of PostgreSQL")
    asked = parser.parse_args()
    changed = dict(one.split("=", 1) for one in asked.set)
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder, Bar("footprint") as bar:
        tables = measure(Path(folder), asked.runs, changed, bar)
    print("\n\n".join(table.text() for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
