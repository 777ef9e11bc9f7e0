"""Links lead somewhere, and few blocks are kept from being run."""

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, EXECUTED, ROOT, anchors, blocks, links, named, pages

MOST_NOT_RUN = 5
FOREIGN = ("http://", "https://", "mailto:")


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_link_leads_to_a_page_and_heading_that_exist(page: Path) -> None:
    wrong: list[str] = []
    for link in links(page):
        if link.startswith(FOREIGN):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_a_page_has_few_blocks_that_are_not_run(page: Path) -> None:
    kept = [block for block in blocks(page) if block.reason is not None]
    for block in kept:
        print(f"not run: {block.place}: {block.reason}")
    assert len(kept) <= MOST_NOT_RUN
    assert [block.place for block in kept if block.language not in EXECUTED] == [], "these would not be run anyway"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if not link.startswith(FOREIGN) and target.suffix == ".md" and target.is_relative_to(DOCS):
                ahead.append(target)
    assert {named(page) for page in pages()} - {named(page) for page in reached} == set()
