"""Pages that list something list all of it, and nothing else."""

import inspect
import re
from types import ModuleType

import psycopg

import engine
import steps.errors
from api.app import ROUTES
from engine import EngineError, records
from steps.errors import ProductError
from tests.docs.pages import DOCS, ROOT

HEADED_ROUTE = re.compile(r"^### `(?P<method>[A-Z]+) (?P<path>\S+)`$", re.MULTILINE)
CONVERTER = re.compile(r":\w+}")


def text(page: str) -> str:
    return (DOCS / page).read_text()


def test_the_page_about_http_has_every_route_and_no_other() -> None:
    served = {(method, CONVERTER.sub("}", path)) for method, path, _ in ROUTES}
    assert {(found["method"], found["path"]) for found in HEADED_ROUTE.finditer(text("http.md"))} == served


def test_the_page_about_states_has_every_status() -> None:
    engines = {*records.FINAL, records.ENQUEUED, records.DELAYED, records.PENDING}
    schema = (ROOT / "schema.sql").read_text()
    checked = re.search(r"create table app\.runs \(.*?check \(status in \((.*?)\)\)", schema, re.DOTALL)
    assert checked
    runs = set(re.findall(r"'(\w+)'", checked[1]))
    assert len(runs) == 8
    assert [status for status in engines | runs if f"| `{status}`" not in text("states.md")] == []


def test_the_page_about_errors_has_every_error() -> None:
    every = [*errors_in(engine, EngineError), *errors_in(steps.errors, ProductError), "Suspended", "RunLost"]
    assert [name for name in every if f"`{name}`" not in text("errors.md")] == []


def errors_in(module: ModuleType, base: type[Exception]) -> list[str]:
    return [name for name, found in vars(module).items() if inspect.isclass(found) and issubclass(found, base)]


def test_every_text_that_the_page_about_errors_quotes_is_said_somewhere() -> None:
    code = "".join(path.read_text() for room in ("api", "steps", "bin") for path in (ROOT / room).rglob("*.py"))
    quoted = [
        said for row in re.findall(r"^\| (`.+?`) \|", text("errors.md"), re.MULTILINE) for said in re.findall("`(.+?)`", row)
    ]
    fragments = [part.strip() for said in quoted if " " in said for part in re.split(r"…|<\w+>|;", said)]
    assert len(fragments) > 20
    assert [part for part in fragments if part not in code] == []


def test_the_guide_to_the_engine_names_everything_public() -> None:
    pages = text("engine.md") + text("errors.md")
    unnamed = [name for name in engine.__all__ if not re.search(rf"\b{name}\b", pages)]
    assert unnamed == []


def test_the_views_for_operators_are_those_of_the_schema(database: str) -> None:
    with psycopg.connect(database) as conn:
        rows = conn.execute(
            "select viewname from pg_views where schemaname = 'app' and viewname like 'v_ops_%' order by 1"
        ).fetchall()
    named = re.search(r"for view in ([\w ]+);", text("operating.md"))
    assert named
    assert [view for (view,) in rows] == sorted(f"v_ops_{name}" for name in named[1].split())
