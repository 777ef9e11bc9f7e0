"""The console's files: under an address that changes with them, kept for good, complete, and small."""

import gzip
import re

import httpx
import pytest

from api.console.assets import FOLDER, SHEET, SHEETS, assets, imports_of
from api.console.boot import BOARDS
from api.console.page import MODULE_OF, STATES
from tests.console.page import page_at

OURS = sorted(FOLDER.glob("js/**/*.js"))
LONGEST = 300
#: What would let text become markup or code, or stop the page.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|new Function|\b(eval|alert|confirm|prompt)\("
)
#: As a browser receives them, compressed: what a board loads at first, and all that there is.
BOARD_BYTES = 60_000
ALL_BYTES = 100_000
STYLE_BYTES = 12_000


def named(path: object) -> str:
    return str(path).rpartition("static/")[2]


async def test_every_file_that_a_page_names_is_there_and_may_be_kept_for_good(client: httpx.AsyncClient) -> None:
    for board in BOARDS:
        page = await page_at(client, f"/?board={board}")
        for address in {where for where in page.addresses if where.startswith("/static/")}:
            answer = await client.get(address)
            assert answer.status_code == 200, address
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert all(where.endswith(".js") for where in page.preloaded)
        assert any(where.endswith(f"/js/boards/{MODULE_OF.get(board, board)}.js") for where in page.preloaded)


async def test_a_browser_that_can_gets_them_compressed(client: httpx.AsyncClient) -> None:
    known = assets()
    address = f"/static/{known.hash}/js/main.js"
    zipped = await client.get(address, headers={"accept-encoding": "gzip"})
    plain = await client.get(address, headers={"accept-encoding": "identity"})
    assert (zipped.headers["content-encoding"], zipped.headers["vary"]) == ("gzip", "accept-encoding")
    assert "content-encoding" not in plain.headers
    assert zipped.content == plain.content == gzip.decompress(known.files["js/main.js"].zipped)


@pytest.mark.parametrize("path", ["js/none.js", "../page.py", "..%2fpage.py", "css/tokens.css", ""])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/static/{assets().hash}/{path}")).status_code == 404


async def test_files_of_another_version_are_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/static/000000000000/js/main.js")).status_code == 404


def test_the_hash_is_that_of_the_content() -> None:
    once = assets()
    assets.cache_clear()
    assert assets().hash == once.hash


@pytest.mark.parametrize("path", OURS, ids=named)
def test_a_module_finds_what_it_imports(path: object) -> None:
    name = named(path)
    files = assets().files
    assert [found for found in imports_of(name, files[name].content) if found not in files] == []
    lazy = re.findall(r'import\("(\.[^"]+)"\)', files[name].content.decode())
    folder = (FOLDER / name).parent
    assert [found for found in lazy if not (folder / found).is_file()] == []


@pytest.mark.parametrize("path", OURS, ids=named)
def test_a_module_is_short_and_makes_no_markup_of_text(path: object) -> None:
    text = (FOLDER / named(path)).read_text()
    assert FORBIDDEN.findall(text) == []
    assert text.count("\n") <= LONGEST


def test_no_module_depends_on_itself() -> None:
    """In a circle a module would see others before they are there."""
    files = assets().files
    imported = {name: imports_of(name, asset.content) for name, asset in files.items() if name.endswith(".js")}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' → '.join((*way, name))}"
        if name not in done:
            for other in imported[name]:
                walk(other, (*way, name))
            done.add(name)

    for name in imported:
        walk(name, ())


@pytest.mark.parametrize("board", BOARDS)
def test_what_a_board_loads_is_small(board: str) -> None:
    known = assets()
    modules = known.modules(f"js/boards/{MODULE_OF.get(board, board)}.js")
    assert sum(len(known.files[path].zipped) for path in modules) <= BOARD_BYTES
    assert len(known.files[SHEET].zipped) <= STYLE_BYTES


def test_all_scripts_together_are_small() -> None:
    assert sum(len(file.zipped) for path, file in assets().files.items() if path.endswith(".js")) <= ALL_BYTES


def test_the_page_and_the_scripts_call_states_the_same() -> None:
    text = (FOLDER / "js/ui/parts.js").read_text()
    for state, (tone, word) in STATES.items():
        found = re.search(rf'^  {state}: \["(\w+)", "\w+", "([^"]+)"\]', text, re.MULTILINE)
        assert found is not None, state
        assert (found[1], found[2]) == (tone, word)


def test_every_sheet_is_part_of_the_one_that_is_served() -> None:
    assert {path.stem for path in (FOLDER / "css").glob("*.css")} == set(SHEETS)
