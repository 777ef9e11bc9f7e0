"""The documentation as tests see it: pages, their fenced blocks with what is said about them, their links.

A line `<!-- not run: reason -->` right before a block keeps it from being executed; `<!-- output -->` says that the block is what the
block before it printed, with `…` for whatever differs from run to run. In walkthroughs (tests/docs/walkthrough.py) a line before a
block may also say `terminal: TOPOLOGY` (it keeps a terminal of its own), `only: TOPOLOGY`, or `slow: reason`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

EXECUTED = ("sh", "python", "sql")

FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<language>[a-z]*)$")
MARK = re.compile(r"^<!-- (?P<name>not run|terminal|only|slow): (?P<text>.+) -->$")
OUTPUT = "<!-- output -->"
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)|src(?:set)?=\"(?P<source>[^\"]+)\"|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(?P<text>.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `reason`: why it is not run. `is_output`: it shows what the block before it printed.

    `step`: the heading that it stands under. `terminal`, `only`: a topology of a walkthrough. `slow`: why it takes long.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    is_output: bool
    step: str = ""
    terminal: str | None = None
    only: str | None = None
    slow: str | None = None

    @property
    def place(self) -> str:
        return f"{named(self.page)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in EXECUTED and self.reason is None


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    before = step = ""
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    for number, line in lines:
        fence = FENCE.match(line)
        if fence is None:
            before = line.strip() or before
            heading = HEADING.match(line)
            step = heading["text"] if heading else step
            continue
        inside: list[str] = []
        for _, text in lines:
            if text == fence["ticks"]:
                break
            inside.append(text)
        else:
            raise AssertionError(f"{named(page)}:{number}: this block has no end")
        mark = MARK.match(before)
        said = {mark["name"]: mark["text"]} if mark else {}
        found.append(
            Block(
                page,
                number,
                fence["language"],
                "\n".join(inside),
                reason=said.get("not run"),
                is_output=before == OUTPUT,
                step=step,
                terminal=said.get("terminal"),
                only=said.get("only"),
                slow=said.get("slow"),
            )
        )
        before = ""
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    kept: list[str] = []
    inside: str | None = None
    for line in page.read_text().splitlines():
        fence = FENCE.match(line)
        if inside is None and fence is None:
            kept.append(line)
        elif inside is None and fence is not None:
            inside = fence["ticks"]
        elif line == inside:
            inside = None
    return "\n".join(kept)


def links(page: Path) -> Iterator[str]:
    for found in LINK.finditer(prose(page)):
        yield found["target"] or found["source"] or found["image"]


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as repository hosts make them."""
    headings = (HEADING.match(line) for line in prose(page).splitlines())
    return {slug(found["text"]) for found in headings if found}


def slug(heading: str) -> str:
    text = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
