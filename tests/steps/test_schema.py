"""The schema of the product: runs follow the engine in its commit, ledgers stay as written, views show the rows of the engine."""

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

TERMINAL = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into app.intents (id, goal, payload) values ('w', 'g', '{}')")
        conn.execute("insert into app.runs (id, intent_id, workflow_id, status) values ('r', 'w', 'w', 'queued')")
        conn.execute(
            """
            insert into dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name, queue_partition_key, priority)
            values ('w', 'ENQUEUED', 'RunIntent', 'IntentWorkflow', 'intentQ', 'tenant', 1)
            """
        )
        yield conn


def rows(conn: psycopg.Connection[Any], query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    return conn.execute(query, values).fetchall()


def engine_says(conn: psycopg.Connection[Any], *statuses: str, error: str | None = None) -> None:
    for status in statuses:
        conn.execute("update dbos.workflow_status set status = %s, error = %s", (status, error))


def run(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    [found] = rows(conn, "select status, next_action, error from app.runs")
    return found


def run_says(conn: psycopg.Connection[Any], status: str) -> int:
    return conn.execute("update app.runs set status = %s", (status,)).rowcount


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("SUCCESS", ("succeeded", None, None)),
        ("CANCELLED", ("canceled", "NONE", None)),
        ("ERROR", ("retries_exceeded", "REPAIR", "no disk")),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", ("retries_exceeded", "REPAIR", "no disk")),
    ],
)
def test_a_run_ends_as_its_workflow_ends(conn: psycopg.Connection[Any], status: str, expected: tuple[Any, ...]) -> None:
    engine_says(conn, "PENDING")
    engine_says(conn, status, error='{"name":"OSError","message":"no disk"}')
    assert run(conn) == expected


def test_a_run_and_its_workflow_end_in_one_commit(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction(force_rollback=True):
        engine_says(conn, "SUCCESS")
        assert run(conn)[0] == "succeeded"
    assert run(conn)[0] == "queued"


@pytest.mark.parametrize("error", [None, "not JSON", "[]", '{"name":"x"}', '"text"'])
def test_an_error_without_a_sentence_is_named_by_the_status(conn: psycopg.Connection[Any], error: str | None) -> None:
    engine_says(conn, "ERROR", error=error)
    assert run(conn) == ("retries_exceeded", "REPAIR", "ERROR")


def test_the_runs_own_error_stands(conn: psycopg.Connection[Any]) -> None:
    conn.execute("update app.runs set error = 'budget:maxFanout: …'")
    engine_says(conn, "ERROR", error='{"message":"other"}')
    assert run(conn)[2] == "budget:maxFanout: …"


@pytest.mark.parametrize("status", ["PENDING", "ENQUEUED", "DELAYED"])
def test_a_workflow_that_goes_on_does_not_move_its_run(conn: psycopg.Connection[Any], status: str) -> None:
    engine_says(conn, "PENDING")
    run_says(conn, "waiting_input")
    engine_says(conn, status)
    assert run(conn)[0] == "waiting_input"


@pytest.mark.parametrize("status", TERMINAL)
def test_a_resumed_workflow_puts_its_run_back_into_the_queue(conn: psycopg.Connection[Any], status: str) -> None:
    engine_says(conn, status, "ENQUEUED")
    assert run(conn) == ("queued", None, None)
    engine_says(conn, "SUCCESS")
    assert run(conn)[0] == "succeeded"


def test_a_workflow_of_another_class_moves_no_run(conn: psycopg.Connection[Any]) -> None:
    conn.execute("update dbos.workflow_status set class_name = 'Other'")
    engine_says(conn, "CANCELLED")
    assert run(conn)[0] == "queued"


def test_a_run_that_ended_by_itself_keeps_its_end(conn: psycopg.Connection[Any]) -> None:
    run_says(conn, "retries_exceeded")
    engine_says(conn, "SUCCESS")
    assert run(conn)[0] == "retries_exceeded"


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled", "retries_exceeded"])
def test_no_late_write_changes_a_final_status(conn: psycopg.Connection[Any], end: str) -> None:
    run_says(conn, end)
    for status in {"running", "waiting_input", "repairing", "succeeded", "canceled"} - {end}:
        assert run_says(conn, status) == 0
    assert run(conn)[0] == end


def test_a_retry_that_counts_itself_reopens_a_run(conn: psycopg.Connection[Any]) -> None:
    run_says(conn, "retries_exceeded")
    reopened = conn.execute("update app.runs set status = 'repairing', retry_count = retry_count + 1")
    assert reopened.rowcount == 1
    engine_says(conn, "PENDING", "ERROR", "ENQUEUED")
    assert run(conn)[0] == "queued"


def test_a_status_that_nobody_knows_is_refused(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        run_says(conn, "PENDING")


def test_a_client_that_may_only_write_the_engines_tables_can_cancel_a_run(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("create role holdfast_test_client")
        conn.execute("grant usage on schema dbos to holdfast_test_client")
        conn.execute("grant select, insert, update, delete on all tables in schema dbos to holdfast_test_client")
        conn.execute("set local role holdfast_test_client")
        engine_says(conn, "CANCELLED")
        conn.execute("reset role")
        assert run(conn)[0] == "canceled"


def reply(conn: psycopg.Connection[Any], payload_hash: str = "a" * 64, origin: str = "manual") -> None:
    conn.execute(
        """
        insert into app.human_interactions (workflow_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
        values ('w', 'g', 'human:g', 'k', %s, '{}', %s)
        """,
        (payload_hash, origin),
    )


def test_the_ledger_of_replies_takes_each_key_once_and_is_never_changed(conn: psycopg.Connection[Any]) -> None:
    reply(conn)
    with pytest.raises(psycopg.errors.UniqueViolation):
        reply(conn)
    with pytest.raises(psycopg.errors.RestrictViolation):
        conn.execute("update app.human_interactions set payload = '{}'")
    with pytest.raises(psycopg.errors.RestrictViolation):
        conn.execute("delete from app.human_interactions")


@pytest.mark.parametrize(("payload_hash", "origin"), [("A" * 64, "manual"), ("a" * 63, "manual"), ("a" * 64, "nobody")])
def test_the_ledger_refuses_a_hash_or_origin_that_is_none(conn: psycopg.Connection[Any], payload_hash: str, origin: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        reply(conn, payload_hash, origin)


def test_an_artifacts_payload_is_its_inline_content(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        """
        insert into app.artifacts (run_id, step_id, idx, kind, inline, sha256)
        values ('r', 'BUDGET', 0, 'json_diagnostic', '{"json": 1}', 'x')
        """
    )
    assert rows(conn, "select run_id, step_id, payload, task_key, attempt from app.artifacts") == [
        ("r", "BUDGET", {"json": 1}, "", 1)
    ]


def test_the_views_show_what_is_queued_failed_and_slow(conn: psycopg.Connection[Any]) -> None:
    conn.execute("insert into engine.clock (now_ms) values (1000000000)")
    conn.execute("update dbos.workflow_status set created_at = 5, updated_at = 15")
    conn.execute(
        """
        insert into dbos.workflow_status (workflow_uuid, status, name, created_at, updated_at, error) values
        ('new', 'ERROR', 'a', 1, 1000000000 - 86400000, 'e'), ('old', 'ERROR', 'a', 1, 1000000000 - 86400001, 'e'),
        ('direct', 'PENDING', 'a', 1, 1, null)
        """
    )
    conn.execute("insert into dbos.workflow_output (workflow_uuid, error) values ('new', 'other')")
    conn.execute(
        """
        insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms)
        values ('w', 1, 'slow', 0, 5001), ('w', 2, 'quick', 0, 5000)
        """
    )
    assert rows(conn, "select * from app.v_ops_queue_depth") == [("intentQ", "ENQUEUED", 1, 5, 5)]
    assert rows(conn, "select * from app.v_ops_queue_fairness") == [("intentQ", "tenant", "ENQUEUED", 1, 5, 5)]
    assert rows(conn, "select * from app.v_ops_queue_priority") == [("intentQ", 1, "ENQUEUED", 1, 10)]
    assert rows(conn, "select workflow_uuid, error, recovery_attempts from app.v_ops_failures_24h") == [("new", "e", 0)]
    assert rows(conn, "select workflow_uuid, function_name, duration_ms from app.v_ops_slow_steps") == [("w", "slow", 5001)]
