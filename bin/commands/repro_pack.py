"""bin/repro-pack: everything that is recorded about a run, as one JSON document.

    bin/repro-pack --run ID [--out FILE]

ID is a workflow id or a run id. Without a file the document goes to standard output. It is canonical JSON, the same bytes that
GET /api/runs/ID/repro answers. An unknown run is one line on standard error and exit code 1.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from psycopg import AsyncConnection

from bin.settings import Settings
from bin.wiring import FAILED, USAGE, complain, migrated_database, run
from engine import connection_string
from steps.repro import pack_bytes, repro_pack


def main(settings: Settings) -> int:
    given = read_arguments(sys.argv[1:])
    document = asyncio.run(export(migrated_database(settings), given.run))
    if document is None:
        complain(f"there is no run {given.run}")
        return FAILED
    if given.out is None:
        sys.stdout.buffer.write(document)
        return 0
    try:
        given.out.write_bytes(document)
    except OSError as error:
        complain(f"cannot write {given.out}: {error.strerror}")
        return USAGE
    return 0


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/repro-pack", description="Everything that is recorded about a run, as JSON.")
    parser.add_argument("--run", required=True, metavar="ID", help="workflow id or run id")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it; default: standard output")
    return parser.parse_args(arguments)


async def export(dsn: str, id: str) -> bytes | None:
    """The pack of a run; None when there is none."""
    async with await AsyncConnection.connect(connection_string(dsn), prepare_threshold=None) as conn:
        pack = await repro_pack(conn, id)
    return None if pack is None else pack_bytes(pack)


if __name__ == "__main__":
    run(main)
