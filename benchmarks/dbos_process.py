"""The DBOS side of the comparison, run by the Python of the benchmark's own venv: it may import nothing of this project.

`worker` serves the queue until its standard input closes; `enqueue` submits workflows one commit at a time with eight in flight;
`backlog` submits all in one commit. Each prints `ready`; the last two then wait for a line on standard input before they start.
"""
# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false, reportUnknownParameterType=false

import argparse
import os
import sys
import threading

import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

QUEUE = "bench"
VERSION = "bench"


@DBOS.step()
def one(n: int) -> int:
    return n + 1


@DBOS.step()
def two(n: int) -> int:
    return n + 1


@DBOS.step()
def three(n: int) -> int:
    return n + 1


@DBOS.step()
def four(n: int) -> int:
    return n + 1


@DBOS.workflow(name="four_steps")
def four_steps(n: int) -> int:
    return four(three(two(one(n))))


def say_ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def worker(dsn: str, concurrency: int, poll_s: float, core: int) -> None:
    """Serve the queue, pinned to one core: its threads fight over the interpreter lock, and on one core they lose least."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": dsn,
        "application_version": VERSION,
        "sys_db_pool_size": concurrency,
        "max_executor_threads": concurrency,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=concurrency, polling_interval_sec=poll_s)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def options(prefix: str, n: int) -> EnqueueOptions:
    return {"queue_name": QUEUE, "workflow_name": "four_steps", "workflow_id": f"{prefix}-{n}", "app_version": VERSION}


def enqueue(dsn: str, prefix: str, count: int, flight: int) -> None:
    """Submit from `flight` threads, each with a client of its own, so that no connection pool is the bottleneck."""
    gate = threading.Barrier(flight + 1)

    def submit(lot: int) -> None:
        client = DBOSClient(system_database_url=dsn)
        gate.wait()
        gate.wait()
        for n in range(lot, count, flight):
            client.enqueue(options(prefix, n), n)

    threads = [threading.Thread(target=submit, args=(lot,)) for lot in range(flight)]
    for thread in threads:
        thread.start()
    gate.wait()
    say_ready()
    gate.wait()
    for thread in threads:
        thread.join()
    print("done", flush=True)


def backlog(dsn: str, prefix: str, count: int) -> None:
    """Submit all in one commit and print the server's clock just before it."""
    client = DBOSClient(system_database_url=dsn)
    with sqlalchemy.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1)).connect() as connection:
        say_ready()
        for n in range(count):
            client.enqueue_in_transaction(connection, options(prefix, n), n)
        clock = sqlalchemy.text("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
        now_ms = connection.execute(clock).scalar_one()
        connection.commit()
    print(f"done {now_ms}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["worker", "enqueue", "backlog"])
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--prefix", default="w")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--flight", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--poll-s", type=float, default=0.02)
    parser.add_argument("--core", type=int, default=-1)
    asked = parser.parse_args()
    if asked.role == "worker":
        worker(asked.dsn, asked.concurrency, asked.poll_s, asked.core)
    elif asked.role == "enqueue":
        enqueue(asked.dsn, asked.prefix, asked.count, asked.flight)
    else:
        backlog(asked.dsn, asked.prefix, asked.count)


if __name__ == "__main__":
    main()
