"""Pages that list something list all of it, and nothing else."""

import inspect
import re

import psycopg

import engine
import steps.errors
from api.app import ROUTES
from engine import records
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
    checked = re.search(r"create table app\.runs \(.*?check \(status in \((.*?)\)\)", (ROOT / "schema.sql").read_text(), re.DOTALL)
    assert checked
    runs = set(re.findall(r"'(\w+)'", checked[1]))
    assert len(runs) == 8
    assert [status for status in engines | runs if f"| `{status}`" not in text("states.md")] == []


def test_the_page_about_errors_has_every_error() -> None:
    every = {name for name in engine.__all__ if inspect.isclass(found := getattr(engine, name)) and issubclass(found, BaseException)}
    every |= {name for name, found in vars(steps.errors).items() if inspect.isclass(found) and issubclass(found, steps.errors.ProductError)}
    assert [name for name in every if f"`{name}`" not in text("errors.md")] == []


def test_the_guide_to_the_engine_names_everything_public() -> None:
    pages = text("engine.md") + text("errors.md")
    unnamed = [name for name in engine.__all__ if not re.search(rf"\b{name}\b", pages)]
    assert unnamed == []


def test_the_views_for_operators_are_those_of_the_schema(database: str) -> None:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select viewname from pg_views where schemaname = 'app' order by 1").fetchall()
    named = re.search(r"for view in ([\w ]+);", text("operating.md"))
    assert named
    assert [view for (view,) in rows] == sorted(f"app.v_ops_{name}".removeprefix("app.") for name in named[1].split())
