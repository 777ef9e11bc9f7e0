"""Each course is walked as a reader would: its own commands start the system, and every block does what the page says.

`pytest -rP` shows which blocks were carried out, in which topology, and how long each took.
"""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks, named
from tests.docs.session import BlockFailed
from tests.docs.walkthrough import ANY, TOPOLOGIES, is_due, steps, topologies, walk, walkthroughs

#: The steps of each course, by the first word of their headings.
COURSES = {
    "001-first-run.md": "Fast A B C D E F G H I J Triage Bar",
    "002-gates-and-legacy.md": "B0 B1 A B C D E F G Tactics Triage Bar",
    "003-canonical.md": "L00 L01 L02 L10 L11 L12 L13 L14 L15 L16 L17 L18 L20 L21 L22 L23 L24 L25 L30",
    "004-operations-and-signoff.md": "L00 L01 L02 L03 L10 L11 L12 L13 L14 L15 L16 L17 L18 L19 L20 L21 L22 L30 Daily",
    "005-flywheel.md": "F0 F1 F2 F3 F4 F5 F6 F7",
}
#: How a block says what it expects, when no output follows it.
EXPECTS = re.compile(r"jq -e|\[ |\btest |\bgrep |\bdiff |\bcmp |\bwait_\w+ |! ")

WALKS = [(page, topology) for page in walkthroughs() for topology in topologies(page)]
SLOW = [(page, topologies(page)[-1]) for page in walkthroughs() if any(block.slow for block in blocks(page))]


def as_params(walks: list[tuple[Path, str]]) -> list[object]:
    return [pytest.param(page, topology, id=f"{page.stem}-{topology}") for page, topology in walks]


@pytest.mark.usefixtures("needed_tools")
@pytest.mark.parametrize(("page", "topology"), as_params(WALKS))
async def test_a_walkthrough_does_what_it_says(
    page: Path, topology: str, server: str, empty_database: str, tmp_path: Path
) -> None:
    for block in steps(page):
        if block.slow is not None:
            print(f"left to bin/full: {block.place}: {block.slow}")
    done = await walk(page, topology, tmp_path / "checkout", empty_database, server)
    assert [one.block for one in done] == [block for block in steps(page) if is_due(block, topology, slow=False)]


@pytest.mark.slow
@pytest.mark.usefixtures("needed_tools")
@pytest.mark.parametrize(("page", "topology"), as_params(SLOW))
async def test_so_do_its_slow_blocks(page: Path, topology: str, server: str, empty_database: str, tmp_path: Path) -> None:
    done = await walk(page, topology, tmp_path / "checkout", empty_database, server, slow=True)
    assert [one.block for one in done if one.block.slow] == [block for block in steps(page) if block.slow]


# -- the pages ------------------------------------------------------------------------------------------------------------


def test_every_course_has_its_page() -> None:
    assert [page.name for page in walkthroughs()] == sorted(COURSES)


@pytest.mark.parametrize("page", walkthroughs(), ids=named)
def test_every_step_of_a_course_is_on_its_page_with_something_to_do(page: Path) -> None:
    with_blocks = [re.split(r"\W", block.step)[0] for block in steps(page) if block.runs]
    assert list(dict.fromkeys(with_blocks)) == COURSES[page.name].split()


@pytest.mark.parametrize("page", walkthroughs(), ids=named)
def test_no_block_of_a_walkthrough_is_left_out(page: Path) -> None:
    walked = topologies(page)
    left = [block.place for block in steps(page) if not any(is_due(block, topology, slow=True) for topology in walked)]
    assert left == []
    assert {block.terminal or block.only or ANY for block in steps(page)} <= {*TOPOLOGIES, ANY}
    assert [block.place for block in steps(page) if block.slow and (block.only or block.terminal)] == []


@pytest.mark.parametrize("page", walkthroughs(), ids=named)
def test_every_block_says_what_to_expect(page: Path) -> None:
    found = blocks(page)
    silent = [
        block.place
        for block, after in zip(found, [*found[1:], None], strict=True)
        if not (block.is_output or block.terminal or (after and after.is_output) or EXPECTS.search(block.text))
    ]
    assert silent == []


# -- a page that does not do what it says is found out ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "trouble"),
    [
        ("<!-- terminal: monolith -->\n```sh\nPORT=3001 ADMIN_PORT=3002 bin/no-such-command\n```", "did not come up"),
        ("<!-- terminal: monolith -->\n```sh\nPORT=3001 bin/start\n```", "no ADMIN_PORT"),
        ("```sh\ncurl -sS http://127.0.0.1:3001/healthz\n```", "failed"),
        ("```sh\necho one\n```\n<!-- output -->\n```text\ntwo\n```", "another output"),
    ],
)
async def test_a_block_that_does_not_work_fails_the_walk(block: str, trouble: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{block}\n")
    with pytest.raises(BlockFailed, match=trouble):
        await walk(page, "monolith", tmp_path / "checkout", "postgresql:///none", "postgresql:///none")


def test_blocks_are_due_in_their_topology(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = [
        "terminal: monolith",
        "terminal: split",
        "terminal: any",
        "only: split",
        "slow: it takes its time",
        "not run: no way",
    ]
    page.write_text("# A\n```sh\nplain\n```\n" + "".join(f"## B\n<!-- {mark} -->\n```sh\n{mark}\n```\n" for mark in marks))
    due = {topology: [block.text for block in steps(page) if is_due(block, topology, slow=False)] for topology in TOPOLOGIES}
    assert due == {
        "monolith": ["plain", "terminal: monolith", "terminal: any"],
        "split": ["plain", "terminal: split", "terminal: any", "only: split"],
    }
    assert [block.text for block in steps(page) if is_due(block, "split", slow=True)][-1] == "slow: it takes its time"
    assert topologies(page) == ["monolith", "split"]
    assert {block.step for block in steps(page)} == {"A", "B"}


def test_the_index_names_every_walkthrough() -> None:
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in walkthroughs() if f"(walkthroughs/{page.name})" not in index] == []
