"""A page that does not do what it says is found out."""

from pathlib import Path

import pytest

from tests.docs.pages import Block, anchors, blocks, links
from tests.docs.session import BlockFailed, Session, clean_environment, make_checkout


def write(folder: Path, text: str) -> list[Block]:
    page = folder / "page.md"
    page.write_text(text)
    return blocks(page)


def block(text: str, language: str = "sh", *, is_output: bool = False) -> Block:
    return Block(Path(__file__), 1, language, text, None, is_output)


async def carry_out(folder: Path, *given: Block) -> None:
    async with Session(folder, clean_environment(folder), {"said.example": "here.example"}) as session:
        for one in given:
            await session.carry_out(one)


def test_blocks_are_found_with_what_is_said_about_them(tmp_path: Path) -> None:
    found = write(
        tmp_path, "a\n\n<!-- not run: no way -->\n```sh\none\n```\n<!-- output -->\n```text\ntwo\n```\n```sh\nthree\n```\n"
    )
    assert [(b.line, b.language, b.text, b.reason, b.is_output, b.runs) for b in found] == [
        (4, "sh", "one", "no way", False, False),
        (8, "text", "two", None, True, False),
        (11, "sh", "three", None, False, True),
    ]


def test_a_block_without_end_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="has no end"):
        write(tmp_path, "```sh\none\n")


def test_links_in_blocks_are_none_and_headings_have_names(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('# A `b` c/d\n[x](y.md#z)\n```sh\n[not](a-link)\n```\n<img src="i.svg">\n')
    assert list(links(page)) == ["y.md#z", "i.svg"]
    assert anchors(page) == {"a-b-cd"}


@pytest.mark.parametrize(
    "wrong",
    [
        block("false"),
        block("false | cat"),
        block("echo fine; exit 3"),
        block("bin/no-such-command"),
        block("raise ValueError('no')", "python"),
        block("assert 1 == 2", "python"),
        block("import asyncio\nawait asyncio.sleep(0)\nassert False", "python"),
    ],
    ids=lambda one: one.text.replace("\n", "; "),
)
async def test_a_block_that_fails_fails_the_page(tmp_path: Path, wrong: Block) -> None:
    make_checkout(tmp_path / "checkout")
    with pytest.raises(BlockFailed):
        await carry_out(tmp_path / "checkout", block("true"), wrong)


async def test_an_output_that_differs_fails_the_page(tmp_path: Path) -> None:
    await carry_out(tmp_path, block("echo ab cd"), block("ab …", "text", is_output=True))
    with pytest.raises(BlockFailed, match="another output"):
        await carry_out(tmp_path, block("echo ab cd"), block("ab ce", "text", is_output=True))


async def test_blocks_of_a_kind_share_what_they_name_and_addresses_are_exchanged(tmp_path: Path) -> None:
    await carry_out(
        tmp_path,
        block("A=1; f(){ echo $A said.example; }"),
        block("f"),
        block("1 said.example", "text", is_output=True),
        block('where = "said.example"', "python"),
        block('assert where == "here" + ".example"; print(where)', "python"),
        block("said.example", "text", is_output=True),
    )


async def test_a_block_cannot_eat_what_comes_after_it(tmp_path: Path) -> None:
    await carry_out(tmp_path, block("cat"), block("echo still here"), block("still here", "text", is_output=True))
