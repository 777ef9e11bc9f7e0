"""Bytes that are no HTTP, or nearly: the front door answers or hangs up, never with 500, in time, and keeps nothing of it.

Each piece is a valid request that was damaged: bits turned, parts doubled, left out, put elsewhere, cut short. What is done to it comes
from a seeded generator, so that a failure can be had again.
"""

import asyncio
import contextlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bin.service import ServiceProcess
from bin.soaks.samples import MB, look_at
from tests.ports import free_port

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
PATIENCE_S = 20.0
AT_ONCE = 16
PARTS = 20
MOST_GROWTH_MB = 10.0
BODY = b'{"recipeRef":{"id":"compile-default","v":"v1"},"formData":{"goal":"raw"},"opts":{"queuePartitionKey":"raw"}}'
VALID = [
    b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /api/ops/wf?limit=1&status=ERROR HTTP/1.1\r\nhost: x\r\naccept: */*\r\ncookie: holdfast=a; b=c\r\n\r\n",
    b"GET /?wid=a&board=run&tab=proof HTTP/1.1\r\nhost: x\r\nsec-fetch-site: none\r\n\r\n",
    b"POST /api/run HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY),
    b'POST /api/runs/a/gates/b/reply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
    b"POST /api/events/hitl HTTP/1.1\r\nhost: x\r\nwebhook-id: m\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,a\r\n"
    b"content-length: 2\r\n\r\n{}",
    b"DELETE /api/session HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
]
SPICES = [
    b"\x00",
    b"\r\n",
    b"\r\n\r\n",
    b"%00",
    b"%ff",
    b"\xff\xfe",
    b": ",
    b"..%2f",
    b"{",
    b"[" * 2000,
    b"\xed\xa0\x80",
    b"chunked",
    b"-1",
]


def damaged(chance: random.Random) -> bytes:
    said = bytearray(chance.choice(VALID))
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(said) + 1)
        end = min(len(said), start + chance.randint(1, 20))
        match chance.randrange(6):
            case 0:
                said[start:start] = chance.choice(SPICES)
            case 1:
                del said[start:end]
            case 2:
                said[start:start] = said[start:end] * chance.randint(1, 3)
            case 3:
                said[start:end] = chance.randbytes(end - start)
            case 4:
                del said[start:]
            case _:
                said += chance.choice(VALID)
    return bytes(said)


async def answers(port: int, said: bytes) -> list[int]:
    """The codes of all that is answered, until the server hangs up or, as we have said all, has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(said)
            await writer.drain()
            async with asyncio.timeout(PATIENCE_S):
                heard = await reader.read(1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        while more := await reader.read(65536):
                            heard += more
    finally:
        writer.close()
    return [int(code) for code in STATUS.findall(heard)]


@dataclass
class FrontDoor:
    """bin/api with little patience; what it answered so far, by code, 0 where it hung up without one; its memory after each press."""

    process: ServiceProcess
    codes: Counter[int] = field(default_factory=Counter[int])
    memory_mb: list[float] = field(default_factory=list[float])

    async def press(self, count: int, seed: int) -> None:
        chance, port = random.Random(seed), int(self.process.url().rpartition(":")[2])
        pieces = (damaged(chance) for _ in range(count))

        async def one_after_the_other() -> None:
            for said in pieces:
                self.codes.update(await answers(port, said) or [0])

        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
        found = look_at(self.process.pid)
        assert found is not None, "the service has ended"
        self.memory_mb.append(found.memory / MB)
        assert [code for code in self.codes if code >= 500] == []
        assert await answers(port, VALID[0]) == [200]

    def __str__(self) -> str:
        answered = {code or "hung up": count for code, count in sorted(self.codes.items())}
        first, middle, last = (self.memory_mb[n] for n in (0, len(self.memory_mb) // 2, -1))
        return (
            f"answers {answered}, memory {first:.1f} MB after the first press, {middle:.1f} in the middle, {last:.1f} at the end"
        )


@pytest.fixture(scope="module")
def front_door(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    folder = tmp_path_factory.mktemp("door")
    own = {"DATABASE_URL": shared_database, "PORT": "0", "ADMIN_PORT": str(free_port()), "STATE_DIR": str(folder / "state")}
    process = ServiceProcess("api", folder / "api.log", own, module="tests.platform.hasty_api")
    process.start()
    door = FrontDoor(process)
    try:
        yield door
    finally:
        process.stop()
    print(f"\n{door}")
    assert {200, 400} <= set(door.codes)
    assert door.memory_mb[-1] < door.memory_mb[len(door.memory_mb) // 2] + MOST_GROWTH_MB
    assert "request failed" not in process.log.read_text()


async def test_two_thousand_damaged_requests_are_answered_or_hung_up_on(front_door: FrontDoor) -> None:
    await front_door.press(1_000, seed=1)
    await front_door.press(1_000, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
async def test_a_hundred_thousand_damaged_requests_are_too(front_door: FrontDoor, part: int) -> None:
    await front_door.press(int(os.environ.get("RAW_FUZZ", "100000")) // PARTS, seed=3 + part)
