"""The page about DBOS's tools does what it says, with the package that it needs."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from engine import recv, step, workflow
from tests.docs.pages import DOCS, Block, blocks
from tests.docs.session import Session
from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignProcess

SAID = "postgresql:///shop"


@step
async def charge(order: str, cents: int) -> str:
    return f"payment of {cents} for {order}"


@workflow
async def fulfil(order: str, cents: int) -> str:
    payment = await charge(order, cents)
    if await recv("approval", timeout_s=86_400) != "yes":
        return "refused"
    return f"shipped after {payment}"


def in_shell(block: Block, url: str) -> Block:
    """The block as a shell runs it that has the package's programs on its path."""
    if block.is_output:
        return block
    python = f"python - <<'PYTHON'\n{block.text.replace(SAID, url)}\nPYTHON"
    return dataclasses.replace(block, language="sh", text=python if block.language == "python" else block.text, reason=None)


@pytest.mark.skipif(shutil.which("jq") is None, reason="the page's commands need jq, which is not installed")
async def test_the_page_does_what_it_says(shop: Workshop, dbos: Dbos, foreign: ForeignProcess, tmp_path: Path) -> None:
    page = blocks(DOCS / "dbos.md")
    assert [block.reason is not None for block in page if not block.is_output] == [True, True]
    await shop.worker(fulfil)
    environ = foreign.environ | {"PATH": f"{foreign.programs}:{os.environ['PATH']}"}
    async with Session(tmp_path, environ, {SAID: dbos.url}) as session:
        for block in page:
            await session.carry_out(in_shell(block, dbos.url))
