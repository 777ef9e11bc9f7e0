"""Walks through a page of docs/walkthroughs: a system that the page itself starts, and a record of every block that was carried out.

Some blocks say more in the line before them:

- `<!-- terminal: TOPOLOGY -->`: the command keeps its terminal. It gets one of its own, and the walk goes on when it is ready.
- `<!-- only: TOPOLOGY -->`: the block makes sense in this topology only. `any`, for a terminal, is every topology.
- `<!-- slow: REASON -->`: it takes too long for the usual suite.

The ports that a page names are exchanged for free ones.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import httpx
import psycopg

from tests.docs.pages import DOCS, ROOT, Block, blocks, named
from tests.docs.session import PATIENCE_S, BlockFailed, Session, clean_environment, make_checkout
from tests.ports import free_port

WALKTHROUGHS = DOCS / "walkthroughs"
TOPOLOGIES = ("monolith", "split")
ANY = "any"

PORT = re.compile(r"\b(?:ADMIN_)?PORT=(\d+)|127\.0\.0\.1:(\d+)")
ADMIN_PORT = re.compile(r"\bADMIN_PORT=(\d+)")
STOP_S = 30.0
PROMOTING: LiteralString = "select from app.promotions where status = 'under_way'"


@dataclass(frozen=True, slots=True)
class Done:
    """A block that was carried out."""

    block: Block
    number: int
    seconds: float


def walkthroughs() -> list[Path]:
    return sorted(WALKTHROUGHS.glob("0*.md"))


def steps(page: Path) -> list[Block]:
    """What there is to do on a page, in order: its blocks without the outputs."""
    return [block for block in blocks(page) if not block.is_output]


def topologies(page: Path) -> list[str]:
    """Those that the page starts a system in."""
    terminals = {block.terminal for block in steps(page)}
    return [topology for topology in TOPOLOGIES if topology in terminals]


def is_due(block: Block, topology: str, *, slow: bool) -> bool:
    """Whether a walk in this topology carries the block out."""
    return (
        block.runs and block.terminal in (None, ANY, topology) and block.only in (None, topology) and (slow or block.slow is None)
    )


async def walk(page: Path, topology: str, folder: Path, database: str, server: str, *, slow: bool = False) -> list[Done]:
    """Carries out the page in a folder that does not exist yet, on an empty database.

    server: where tests that a page starts may create databases. Raises BlockFailed.
    """
    make_checkout(folder)
    (folder / "tests").symlink_to(ROOT / "tests")
    environment = clean_environment(folder, DATABASE_URL=database, TEST_DATABASE_URL=server)
    done: list[Done] = []
    async with Session(folder, environment, free_ports(page)) as session, AsyncExitStack() as terminals:
        was_due = False
        try:
            for number, block in enumerate(blocks(page), 1):
                if not block.is_output:
                    was_due = is_due(block, topology, slow=slow)
                if not was_due:
                    continue
                began = time.monotonic()
                if block.terminal is None:
                    await session.carry_out(block)
                else:
                    await terminals.enter_async_context(terminal(block, session, folder, environment))
                if not block.is_output:
                    done.append(Done(block, number, time.monotonic() - began))
        finally:
            tell(page, topology, done)
    return done


def tell(page: Path, topology: str, done: list[Done]) -> None:
    for one in done:
        print(f"{named(page)}:{one.block.line}  {one.block.step}  block {one.number}  {topology}  {one.seconds:.2f} s")
    print(f"{named(page)}  {topology}: {len(done)} blocks in {sum(one.seconds for one in done):.1f} s")


# -- ports ----------------------------------------------------------------------------------------------------------------


def free_ports(page: Path) -> dict[str, str]:
    """What the page says about ports, and what it is here."""
    said = {first or second for block in blocks(page) for first, second in PORT.findall(block.text)}
    here = {port: str(free_port()) for port in sorted(said)}
    return {form + port: form + free for port, free in here.items() for form in ("PORT=", "127.0.0.1:")}


# -- terminals ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def terminal(block: Block, session: Session, folder: Path, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """The block's command in a terminal of its own. It is ready when its side door says so, and is told to stop at the end."""
    command = session.in_shell(block.text)
    admin = ADMIN_PORT.search(command)
    if admin is None:
        raise BlockFailed(f"{block.place} keeps a terminal, but no ADMIN_PORT tells when it is ready")
    script = folder / f".terminal-{block.line}.sh"
    script.write_text(command + "\n")
    log = script.with_suffix(".log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "bash", "--norc", script,
            cwd=folder, env=environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        if not await becomes_ready(process, f"http://127.0.0.1:{admin[1]}/readyz"):
            raise BlockFailed(f"{block.place} did not come up; it printed:\n{log.read_text(errors='replace')[-3000:]}")
        if "bin/worker" in command:
            await recipes_were_tried(environment["DATABASE_URL"])
        yield
    finally:
        await stop(process)


async def recipes_were_tried(database: str) -> None:
    """A reader has typed on before the first worker is done with the fixtures of a fresh database's recipes; their runs are over then."""
    deadline = time.monotonic() + PATIENCE_S
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        while (await (await conn.execute(PROMOTING)).fetchall()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)


async def becomes_ready(process: asyncio.subprocess.Process, url: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    async with httpx.AsyncClient() as client:
        while process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == 200:
                    return True
            await asyncio.sleep(0.05)
    return False


async def stop(process: asyncio.subprocess.Process) -> None:
    """TERM for all that runs in the terminal, and KILL if it takes too long. Nothing is there to stop if the page killed it itself."""
    if process.returncode is None:
        deadline = time.monotonic() + STOP_S
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                await asyncio.sleep(0.02)
                os.killpg(process.pid, 0)
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
