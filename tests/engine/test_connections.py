"""Connection strings: ours is what they leave open; of several hosts the one that can be written to is found."""

import contextlib
import gc
import tempfile
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine import Engine, connection_string
from engine.connections import PrimaryConnection


def test_what_a_string_leaves_open_is_ours() -> None:
    found = conninfo_to_dict(connection_string("postgresql://me@one,two:6000/shop"))
    assert (found["host"], found["port"], found["user"], found["dbname"]) == ("one,two", ",6000", "me", "shop")
    assert (found["target_session_attrs"], found["connect_timeout"], found["application_name"]) == ("read-write", "3", "holdfast")
    assert int(found["tcp_user_timeout"] or 0) < 10_000, "as long as a lease, or longer"


def test_what_a_string_says_wins() -> None:
    found = conninfo_to_dict(connection_string("host=one connect_timeout=30 target_session_attrs=any", application_name="me"))
    assert (found["connect_timeout"], found["target_session_attrs"], found["application_name"]) == ("30", "any", "me")


def test_a_bad_string_is_refused() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        connection_string("nonsense")


async def test_a_host_that_is_gone_is_passed_over(engine_database: str) -> None:
    parts = conninfo_to_dict(engine_database)
    with tempfile.TemporaryDirectory(prefix="hf-") as nowhere:
        port = parts.get("port") or 5432
        several = make_conninfo(engine_database, host=f"{nowhere},{parts['host']}", port=f"{port},{port}")
        async with Engine.connect(several, pool_size=2) as engine, engine.pool.connection() as conn:
            assert conn.info.host == parts["host"]
        assert not list(Path(nowhere).iterdir())


async def test_without_any_host_the_start_fails_at_once_with_the_reason(engine_database: str) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="hf-") as nowhere,
        pytest.raises(psycopg.OperationalError, match=r"refused|No such file"),
    ):
        async with Engine.connect(make_conninfo(engine_database, host=f"{nowhere},{nowhere}")):
            raise AssertionError


async def test_a_pool_closes_at_once_while_there_is_no_database(engine_database: str) -> None:
    async with Engine.connect(engine_database, pool_size=2) as engine:
        async with engine.pool.connection() as conn:
            engine.pool.conninfo = make_conninfo("", host="/nowhere")
            conn.pgconn.finish()
        assert engine.pool.get_stats()["pool_size"] >= 1


async def test_a_try_to_connect_that_fails_leaves_nothing_for_the_garbage_collector() -> None:
    async def fail() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            await PrimaryConnection.connect("host=/nowhere")

    await fail()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await fail()
        assert gc.collect() < 20, "a process that waits for its database grows"
    finally:
        gc.enable()
