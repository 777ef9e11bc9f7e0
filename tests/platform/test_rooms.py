"""The house rules, read from the syntax trees: who may import whom, who may read the environment, and which words the engine knows.

bin -> api -> steps -> engine          an arrow may skip a room; none goes back
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.source import ROOMS, ROOT, imports

ENGINES_LIBRARIES = {"croniter", "orjson", "psycopg", "psycopg_pool", "structlog"}
SHOP_EXAMPLE = "engine/__init__.py"  # its docstring tells of a shop, where an approval is anybody's
PRODUCT_WORDS = re.compile(
    r"(?<![a-z])(runs list|intents?|recipes?|gates?|sandbox(es)?|opencode|approvals?)(?![a-z])|\bapi/|\bapp\.|\bsteps/",
    re.IGNORECASE,
)


def modules(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def trees(*rooms: str) -> Iterator[tuple[Path, ast.Module]]:
    for room in rooms:
        for path in modules(room):
            yield path, ast.parse(path.read_text(), filename=str(path))


def reads_environment(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb", "putenv"):
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for alias in node.names if "env" in alias.name)


def words(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Identifiers and texts of a module. Docstrings too: they are what its reader learns."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, line
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield name, line
            case ast.keyword(arg=str(name)):
                yield name, line
            case ast.Constant(value=str(text)):
                yield text, line
            case _:
                pass


def apart(text: str) -> str:
    """Words of an identifier or text, set apart: snake_case and camelCase fall into their words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ")


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_goes_back(room: str) -> None:
    later = {*ROOMS[ROOMS.index(room) + 1 :], "tests"} | (set() if room == "bin" else {"benchmarks"})
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path, tree in trees(room)
        for module, line in imports(tree)
        if module.split(".")[0] in later
    ]
    assert wrong == []


def test_the_engine_imports_its_few_libraries_and_itself() -> None:
    allowed = ENGINES_LIBRARIES | set(sys.stdlib_module_names) | {"engine"}
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path, tree in trees("engine")
        for module, line in imports(tree)
        if module.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_the_other_rooms_use_the_engine_by_its_public_names() -> None:
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path, tree in trees("steps", "api", "bin")
        for module, line in imports(tree)
        if module.startswith("engine.")
    ]
    assert wrong == []


def test_only_commands_read_the_environment() -> None:
    wrong = [f"{named(path)}:{line}" for path, tree in trees("engine", "steps", "api") for line in reads_environment(tree)]
    assert wrong == []


def test_the_engine_knows_no_word_of_the_product() -> None:
    wrong = [
        f"{named(path)}:{line} says {found[0]!r}"
        for path, tree in trees("engine")
        for text, line in words(tree)
        if text != ast.get_docstring(tree, clean=False) or named(path) != SHOP_EXAMPLE
        if (found := PRODUCT_WORDS.search(apart(text)))
    ]
    assert wrong == []


def test_the_engines_part_of_the_schema_knows_no_table_of_the_product() -> None:
    script = (ROOT / "schema.sql").read_text()
    engine = script[script.index("-- part: engine") : script.index("-- part: app")]
    assert re.findall(r"\bapp\.\w+", engine) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): tree for path, tree in trees(*ROOMS)
    }
    assert list(circles({name: set(at_start(tree, set(found))) for name, tree in found.items()})) == []


def at_start(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Which modules a module needs when it is loaded. `from package import name` may mean a module of the package."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module or "" for name in inner)


def circles(graph: dict[str, set[str]]) -> Iterator[str]:
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> Iterator[str]:
        if module in way:
            yield " -> ".join((*way[way.index(module) :], module))
            return
        if module in finished:
            return
        for other in sorted(graph[module] & graph.keys() - {module}):
            yield from visit(other, (*way, module))
        finished.add(module)

    for module in sorted(graph):
        yield from visit(module, ())


@pytest.mark.parametrize("text", ["the recipe", "RunIntent", "gate_key", "app.runs", "load_recipes", "see api/app.py"])
def test_a_product_word_is_found_in_any_spelling(text: str) -> None:
    assert PRODUCT_WORDS.search(apart(text))


@pytest.mark.parametrize("text", ["aggregate", "investigate", "intention", "mapp.x", "gather", "intently"])
def test_a_word_that_only_contains_one_is_none(text: str) -> None:
    assert not PRODUCT_WORDS.search(apart(text))
