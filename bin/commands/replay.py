"""bin/replay: run the code again, against the history in a repro pack.

    bin/replay PACK      a file of bin/repro-pack ('-' reads standard input)

Needs no database and no network: steps are not executed, each gets its recorded outcome. Prints what it replayed, then 'identical', or
every difference, one a line. Exit code 0: identical; 1: different; 2: no pack that can be replayed.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import cast

import orjson

from bin.settings import Settings
from bin.wiring import FAILED, USAGE, complain, run
from engine import Replay
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput
from steps.replaying import Verdict, replay_pack


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/replay", description="Runs the code again, against the history in a repro pack.")
    parser.add_argument("pack", help="a file of bin/repro-pack, or - for standard input")
    try:
        verdict = asyncio.run(replay_pack(read_pack(parser.parse_args().pack)))
    except InvalidInput as error:
        complain(error.message)
        return USAGE
    print("\n".join(report(verdict)), flush=True)
    return 0 if verdict.identical else FAILED


def read_pack(file: str) -> JsonObject:
    try:
        document = orjson.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{file} is no repro pack: it is not a JSON object")
    return cast(JsonObject, document)


def report(verdict: Verdict) -> list[str]:
    return [
        *(line_of(one) for one in verdict.replays),
        *(f"different: {difference}" for difference in verdict.differences),
        *(["identical"] if verdict.identical else []),
    ]


def line_of(one: Replay) -> str:
    place = f", stands before {' and '.join(one.stands_at)}" if one.stands_at else ""
    return f"{one.workflow_id}  {one.name}  {one.status}  {one.calls} calls{place}"


if __name__ == "__main__":
    run(main)
