"""The source as rules about it see it: texts by path, and what their syntax trees say.

A rule takes any such mapping, the checkout's or a few lines made up to be wrong, and yields a sentence for each place that breaks it.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("engine", "steps", "api", "bin")

Sources: TypeAlias = Mapping[str, str]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def checkout() -> Sources:
    """All Python of the rooms, the schema, and the recipes that come along."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts]
    files += [ROOT / "schema.sql", *(ROOT / "steps/recipes").glob("*.json")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(files)}


@cache
def parsed(path: str, text: str) -> ast.Module:
    return ast.parse(text, filename=path)


def trees(sources: Sources, *rooms: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of the rooms, by path."""
    for path, text in sources.items():
        if path.endswith(".py") and path.split("/")[0] in rooms:
            yield path, parsed(path, text)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module, also those imported inside functions and for types only, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield node.module or "", node.lineno


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """The last word of what is called: `start` of `engine.start(…)`."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def is_decorated(function: Function, *names: str) -> bool:
    for decorator in function.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(target, ast.Name) and target.id in names:
            return True
    return False


def names_in(tree: ast.AST) -> dict[str, str]:
    """What a module's own names stand for, dotted: `now` is `engine.now`, `identity` is `steps.identity`."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                (alias.asname or alias.name).split(".")[0]: (alias.asname and alias.name) or alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def dotted(node: ast.AST, known: Mapping[str, str]) -> str | None:
    """The full name of an expression that is one: `datetime.datetime.now` of `datetime.now`."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        left = dotted(node.value, known)
        return None if left is None else f"{left}.{node.attr}"
    return None


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
