"""Reads SQL files of ours: their parts, and the statements in them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|(\$\w*\$).*?\1|;|[^;'\"$-]+|.", re.DOTALL)


def read_parts(file: Path, parts: Sequence[str]) -> str:
    """The parts of the file that were asked for. A part starts at its line `-- part: NAME` and ends where the next starts."""
    chosen: list[str] = []
    taken = False
    for line in file.read_text().splitlines(keepends=True):
        if line.startswith("-- part: "):
            taken = line.removeprefix("-- part: ").strip() in parts
        if taken:
            chosen.append(line)
    return "".join(chosen)


def statements(script: str) -> Iterator[str]:
    """One by one, without the semicolons and without the comments between and in them; the bodies of functions stay as they are."""
    words = ""
    for token in TOKEN.finditer(script):
        if token[0] == ";":
            yield words.strip()
            words = ""
        elif not token[0].startswith("--"):
            words += token[0]
    if words.strip():
        yield words.strip()
