"""Holdfast as a peer: its own engine, worker and client, as a user would run them."""

import inspect

from benchmarks.processes import ROOT, module
from benchmarks.stretch import Peer
from engine import Engine

CONCURRENCY = 256
LEASE_S: float = inspect.signature(Engine.worker).parameters["lease_s"].default
SCHEMA = (ROOT / "schema.sql").read_bytes()


def run(role: str, dsn: str, **options: object) -> list[str]:
    """The command line of one of Holdfast's processes; see holdfast_process."""
    argv = module("holdfast_process", role, "--dsn", dsn)
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    return argv


def workflow(rider: bool) -> str:
    return "four_noted" if rider else "four_steps"


def holdfast() -> Peer:
    return Peer(
        name="holdfast",
        database="bench_holdfast",
        schema=SCHEMA,
        worker=lambda dsn, n, rider: run("worker", dsn, concurrency=CONCURRENCY),
        enqueue=lambda dsn, count, rider: run("enqueue", dsn, count=count, name=workflow(rider)),
        enqueue_shared=lambda dsn, count, rider: run("enqueue-shared", dsn, count=count, name=workflow(rider)),
        backlog=lambda dsn, count, rider: run("backlog", dsn, count=count, name=workflow(rider)),
    )
