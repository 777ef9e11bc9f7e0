"""bin/prune: delete what has been over for long enough.

    bin/prune                       says what would go, and why the rest stays; RETENTION_DAYS says how long things are kept
    bin/prune --yes                 deletes it, in batches that are a commit each
    bin/prune --older-than 30d      for another age than that of the setting: 30d, 12w
    bin/prune --batch 200 --json    how many workflows a batch looks at; the summary as JSON

A run goes with its workflows and all their rows. Workers may work meanwhile, several of these may run at once, and one that is stopped
has lost nothing: what it deleted is gone, the rest waits for the next. Without an age it says so, and the exit code is 0.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from datetime import timedelta

from bin.operators import cell, is_number, on_an_engine, pretty, table
from bin.settings import Settings
from bin.wiring import run
from engine import Engine, retention
from steps.retention import Pruned, moment, prune
from steps.times import iso_of, moment_of

DAYS = {"d": 1, "w": 7}


def main(settings: Settings) -> int:
    given = read_arguments(sys.argv[1:])
    age: timedelta | None = given.older_than or (timedelta(days=settings.retention_days) if settings.retention_days else None)
    if age is None:
        print("RETENTION_DAYS is 0, so everything is kept; to prune once, say --older-than 30d")
        return 0
    done = on_an_engine(settings, lambda engine: carry_out(engine, age, given.batch, delete=given.yes))
    print(pretty(document(done, delete=given.yes)) if given.json else summary(done, delete=given.yes))
    return 0


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/prune", description="Delete what has been over for long enough.")
    parser.add_argument("--older-than", type=is_age, metavar="AGE", help="30d or 12w, for example (RETENTION_DAYS)")
    parser.add_argument("--yes", action="store_true", help="delete; without it, only say what would go")
    parser.add_argument(
        "--batch", type=is_number, default=retention.BATCH, metavar="N", help="workflows to look at in a commit (1000)"
    )
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    return parser.parse_args(arguments)


def is_age(text: str) -> timedelta:
    """For argparse: days or weeks."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([dw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not an age such as 30d or 12w")
    return timedelta(days=int(found[1]) * DAYS[found[2]])


async def carry_out(engine: Engine, age: timedelta, limit: int, *, delete: bool) -> Pruned:
    """Goes through the table once. What is only looked at is read in transactions that cannot write."""
    done = Pruned()
    async with engine.pool.connection() as conn:
        before_ms = await moment(conn, age)
        after: retention.Position | None = None
        while True:
            async with conn.transaction():
                if not delete:
                    await conn.execute("set transaction read only")
                batch, after = await prune(conn, before_ms, limit=limit, after=after, delete=delete)
            done += batch
            if delete and batch.workflows:
                print(f"holdfast: {done.workflows} workflows deleted so far", file=sys.stderr, flush=True)
            if after is None:
                return done


def document(done: Pruned, *, delete: bool) -> dict[str, object]:
    """The summary for programs."""
    return {
        "deleted": delete,
        "workflows": done.workflows,
        "runs": done.runs,
        "rows": done.rows,
        "kept": done.kept,
        "firstEndedAt": iso(done.first_ended_ms),
        "lastEndedAt": iso(done.last_ended_ms),
    }


def summary(done: Pruned, *, delete: bool) -> str:
    """The summary for people: what goes, by table, and what stays, by reason."""
    ends = f", which ended from {iso(done.first_ended_ms)} to {iso(done.last_ended_ms)}" if done.workflows else ""
    parts = [f"{'deleted' if delete else 'would delete'} {done.workflows} workflows, {done.runs} with a run{ends}"]
    parts += [counts(done.rows, "ROWS", "OF")] if done.rows else []
    parts += [counts(done.kept, "KEPT", "BECAUSE")] if done.kept else []
    parts += ["nothing is deleted yet; --yes does it"] if done.rows and not delete else []
    return "\n\n".join(parts)


def counts(of: Mapping[str, int], number: str, name: str) -> str:
    return table([[str(count), cell(what)] for what, count in sorted(of.items())], [number, name])


def iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_of(moment_of(at_ms))


if __name__ == "__main__":
    run(main)
