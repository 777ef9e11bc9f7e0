"""The yardstick as a peer: a bare group commit of the rows the engine writes, into the engine's own schema."""

from benchmarks.processes import ROOT, module
from benchmarks.stretch import Peer

CONCURRENCY = 256
# It has no partitions to keep.
BARE = b"".join(
    b"alter table dbos.workflow_status disable trigger workflow_status_%s;" % name for name in (b"enqueued", b"changed")
)


def _client(role: str, dsn: str, count: int) -> list[str]:
    return module("ceiling_process", role, "--dsn", dsn, "--count", str(count))


def _worker(dsn: str, _: int, rider: bool) -> list[str]:
    argv = module("ceiling_process", "worker", "--dsn", dsn, "--concurrency", str(CONCURRENCY))
    return [*argv, "--rider"] if rider else argv


def ceiling() -> Peer:
    return Peer(
        name="ceiling",
        database="bench_ceiling",
        schema=(ROOT / "schema.sql").read_bytes() + BARE,
        worker=_worker,
        enqueue=lambda dsn, count, rider: _client("enqueue", dsn, count),
        enqueue_shared=lambda dsn, count, rider: _client("enqueue-shared", dsn, count),
        backlog=lambda dsn, count, rider: _client("backlog", dsn, count),
    )
