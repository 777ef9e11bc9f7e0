"""A connection that falls silent breaks nothing by itself: the network confirms what is sent, and no answer ever comes."""

import asyncio
from functools import partial
from typing import Any

import psycopg
import pytest

from engine import cannot_now, hints, leases, transaction, workflow
from engine.connections import PrimaryConnection, PromptConnection
from engine.journal import STILL_OURS
from tests.engine import claimant
from tests.engine.proxy import proxy_to
from tests.engine.workshop import PATIENCE_S, Trace, Workshop

LEASE_S = 1.0


async def test_a_lease_outlives_the_connection_that_renews_it(shop: Workshop) -> None:
    lost: list[str] = []
    async with proxy_to(shop.dsn) as proxy:
        connect = partial(PromptConnection.connect, proxy.dsn, autocommit=True, prepare_threshold=None)
        heart = leases.Heartbeat(connect, "me", LEASE_S, version=None, place="here", on_loss=lambda: lost.append("lost"))
        await asyncio.to_thread(heart.start)
        proxy.swallow()
        silent_from = heart.leased_until
        async with asyncio.timeout(PATIENCE_S):
            while heart.leased_until < silent_from + LEASE_S:  # a renewal that was asked for after the silence began
                await asyncio.sleep(0.01)
        assert await shop.value("select lease_until_ms > engine.now_ms() and not dead from engine.worker where id = 'me'")
        await asyncio.to_thread(heart.stop)
    assert lost == []


async def test_a_listener_that_hears_nothing_asks_whether_it_is_deaf(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shop.engine.own_sessions:
        pytest.skip("a pooler lets nobody listen")
    monkeypatch.setattr(hints, "LISTEN_S", 0.1)
    monkeypatch.setattr(hints, "ANSWER_S", 0.2)
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with proxy_to(shop.dsn) as proxy:
        listener = hints.Listener(
            lambda: PrimaryConnection.connect(proxy.dsn, autocommit=True),
            (hints.CHANNEL,),
            lambda channel, payload: heard.put_nowait(payload),
        )
        listener.start()
        async with asyncio.timeout(PATIENCE_S):
            assert await heard.get() == ""  # it is there, and asks to look at what was said before
            proxy.swallow()
            assert await heard.get() == ""  # on a new connection
            await shop.run("select pg_notify(%s, 'again')", hints.CHANNEL)
            assert await heard.get() == "again"
        await listener.close()


@pytest.mark.parametrize("error", [psycopg.errors.DiskFull, psycopg.errors.QueryCanceled, psycopg.errors.OutOfMemory])
async def test_what_a_server_in_need_refuses_is_done_later(shop: Workshop, trace: Trace, error: type[psycopg.Error]) -> None:
    @transaction
    async def write(conn: psycopg.AsyncConnection[Any]) -> int:
        if (times := trace("write")) < 3:
            raise error("not now")
        return times

    @workflow(name="w")
    async def once() -> int:
        return await write()

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == 3
    assert cannot_now(error("not now"))


async def test_the_journal_asks_again_who_owns_a_run(shop: Workshop) -> None:
    refused: list[str] = []

    class Slow(PrimaryConnection):
        async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            if query == STILL_OURS and not refused:
                refused.append("statement timeout")
                raise psycopg.errors.QueryCanceled("statement timeout")
            return await super().execute(query, *args, **kwargs)

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await Slow.connect(shop.dsn, autocommit=True, prepare_threshold=None)

    _, owned = await claimant.enqueue_and_claim(shop, "a", "b")
    await claimant.take_over(shop, "a")
    async with claimant.journal(shop, connect) as journal:
        told = await asyncio.gather(*(journal.add(claimant.step(owned[id])) for id in "ab"), return_exceptions=True)
    assert refused and type(told[0]).__name__ == "RunLost" and told[1] is None
    assert len(await shop.journal("b")) == 1
