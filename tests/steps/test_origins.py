"""Who an answer may come from is said once, and the database agrees."""

import ast
import re
from pathlib import Path
from typing import get_args

import psycopg

from steps.contracts import gate
from steps.contracts.gate import EventOrigin, Origin, ReplyOrigin

ROOT = Path(__file__).parents[2]
ROOMS = ("engine", "steps", "api", "bin")
#: Words that can mean nothing but an origin, unlike "manual" or "unknown".
UNMISTAKABLE = {"engine-dbos", "webhook-ci", "poller-ci"}


def test_the_ledger_takes_exactly_the_origins_of_the_contract(database: str) -> None:
    with psycopg.connect(database) as conn:
        row = conn.execute(
            """select pg_get_constraintdef(c.oid) from pg_constraint c
                where c.conrelid = 'app.human_interactions'::regclass and pg_get_constraintdef(c.oid) like '%origin%'"""
        ).fetchone()
    assert row is not None
    assert sorted(re.findall(r"'([^']+)'", row[0])) == sorted(get_args(Origin))


def test_no_other_file_lists_origins() -> None:
    listing = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if UNMISTAKABLE & {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    ]
    assert listing == [Path(gate.__file__).relative_to(ROOT).as_posix()]


def test_what_comes_in_from_outside_may_not_claim_to_be_one_of_ours() -> None:
    assert set(get_args(EventOrigin)) - set(get_args(ReplyOrigin)) == {"engine-dbos"}
    assert set(get_args(Origin)) - set(get_args(EventOrigin)) == {"legacy-event", "poller-ci", "legacy-approve"}
