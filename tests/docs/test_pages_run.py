"""Every page does what it says: its blocks are carried out, from top to bottom, against one running service."""

from pathlib import Path

import pytest

from tests.docs.conftest import Deployment, Service
from tests.docs.pages import blocks, named, pages
from tests.docs.session import Session, clean_environment
from tests.docs.walkthrough import WALKTHROUGHS

#: Walkthroughs start a service themselves: test_walkthroughs.py.
WITH_BLOCKS = [page for page in pages() if page.parent != WALKTHROUGHS and any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=named)
async def test_a_page_does_what_it_says(page: Path, service: Service, deployment: Deployment) -> None:
    exchanged = {
        "127.0.0.1:3001": service.door,
        "127.0.0.1:3002": service.admin,
        "postgresql:///shop": deployment.owner,
        "postgresql://owner@db.example/holdfast": deployment.owner,
        "postgresql://holdfast_app@db.example/holdfast": deployment.service,
        "holdfast_app": deployment.role,
    }
    async with Session(service.folder, clean_environment(service.folder), exchanged) as session:
        for block in blocks(page):
            if block.reason is not None:
                print(f"not run: {block.place}: {block.reason}")
            await session.carry_out(block)
