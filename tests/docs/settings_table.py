"""The table of settings in docs/operating.md, made from bin/settings.py.

    python -m tests.docs.settings_table      brings the page up to date

Names, values and defaults come from the code, and so does the mark of those that nothing acts on. The sentences in the last column are
written by hand, in the page itself, and stay.
"""

import ast
import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bin.settings import ROOT, Settings
from bin.variables import Weights
from tests.docs.pages import DOCS

PAGE = DOCS / "operating.md"
BEGIN, END = "<!-- settings -->", "<!-- end of settings -->"
HEAD = ["| setting | values | default | meaning |", "|---|---|---|---|"]
IDLE = "*No effect.* "
UNWRITTEN = "(to be written)"


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    values: str
    default: str
    acts: bool


def settings() -> Iterator[Setting]:
    """Every setting, in the order of the code."""
    used = used_names()
    yield from _settings(Settings, Settings(), "", used)


def _settings(of: Any, defaults: Any, prefix: str, used: set[str]) -> Iterator[Setting]:
    kinds = get_type_hints(of)
    for one in dataclasses.fields(of):
        default: Any = getattr(defaults, one.name)
        if "prefix" in one.metadata:
            yield from _settings(type(default), default, one.metadata["prefix"], used)
            continue
        name = prefix + one.metadata.get("env", one.name.upper())
        yield Setting(name, _values(kinds[one.name], one.metadata), _shown(default), one.name in used)


def _values(kind: Any, metadata: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(choice for choice in get_args(kind) if choice is not types.NoneType)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    if kind is int:
        least, most = metadata.get("least"), metadata.get("most")
        if most is not None and most < 2**31 - 1:
            return f"{least} to {most}"
        return "integer" if least is None else f"from {least}"
    if kind is timedelta:
        return "time"
    if kind == Weights:
        return "weights"
    if kind is Path:
        return "folder"
    kinds = {"check_url": "URL", "check_urls": "URLs", "check_webhook_secrets": "secrets"}
    return kinds[metadata["check"].__name__] if "check" in metadata else "text"


def _shown(default: Any) -> str:
    if default is None or default == "":
        return "-"
    if isinstance(default, bool):
        return "`true`" if default else "`false`"
    if isinstance(default, timedelta):
        return f"`{default.total_seconds():g}s`"
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT)}`"
    return f"`{default}`"


def used_names() -> set[str]:
    """Attributes of the settings that some module of bin reads, directly or through a property."""
    used: set[str] = set()
    for path in (ROOT / "bin").rglob("*.py"):
        if path.name != "settings.py":
            used |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    tree = ast.parse((ROOT / "bin/settings.py").read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if function.name in used:
            used |= {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return used


def written(page: str) -> dict[str, str]:
    """The hand-written sentences by setting."""
    meanings: dict[str, str] = {}
    for line in page[page.index(BEGIN) : page.index(END)].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[0].startswith("`"):
            meanings[cells[0].strip("`")] = cells[3].removeprefix(IDLE.strip()).strip()
    return meanings


def table(page: str) -> str:
    """The table as it should stand in the page."""
    meanings = written(page)
    rows = [
        f"| `{one.name}` | {one.values} | {one.default} | {'' if one.acts else IDLE}{meanings.get(one.name, UNWRITTEN)} |"
        for one in settings()
    ]
    return "\n".join([*HEAD, *rows])


def brought_up_to_date(page: str) -> str:
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{table(page)}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text()))
