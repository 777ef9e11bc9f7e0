"""GET /: the console's page. Its header is drawn here, so that the first paint says what the run does; scripts take over from there."""

import functools
from collections.abc import Mapping
from pathlib import Path

import orjson
from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.access import Unauthorized
from api.console.assets import SHEET, assets
from api.console.boot import Place, base_of, boot_data, place_of
from api.http import Door
from steps.contracts.base import JsonObject

TEMPLATES = Path(__file__).with_name("templates")
HEADERS: Mapping[str, str] = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
NAV = (
    ("run", "Runs"),
    ("hitl-inbox", "Inbox"),
    ("ops", "Ops"),
    ("throughput", "Throughput"),
    ("recipe", "Recipes"),
    ("signoff", "Sign-off"),
)
MODULE_OF = {"hitl-inbox": "inbox"}
#: How a run's state is drawn: its tone and its word, as js/ui/parts.js has them.
STATES: Mapping[str, tuple[str, str]] = {
    "ENQUEUED": ("mute", "Queued"),
    "PENDING": ("run", "Running"),
    "WAITING_INPUT": ("wait", "Waiting for a person"),
    "SUCCESS": ("ok", "Succeeded"),
    "ERROR": ("bad", "Failed"),
    "CANCELLED": ("mute", "Cancelled"),
}


async def get_console(door: Door, request: Request) -> Response:
    """The page of any board, tab and run; 404, with the same frame, for an address that names what is not there.

    For somebody whom we do not know it is the page to sign in at, and holds nothing else.
    """
    place = place_of(request)
    try:
        caller = await door.keeper.admit(request, "read")
    except Unauthorized:
        caller = None
    async with door.reading() as conn:
        boot = await boot_data(conn, door.config, base_of(request), place, caller)
    status = 401 if caller is None else 404 if boot["missing"] else 200
    return HTMLResponse(html_of(place, boot), status_code=status, headers=dict(HEADERS))


def html_of(place: Place, boot: JsonObject) -> str:
    known = assets()
    board_module = f"js/boards/{MODULE_OF.get(place.board, place.board)}.js"
    run = boot["run"]["header"] if boot["run"] else None
    tone, word = STATES.get(run["status"], ("mute", run["status"])) if run else ("mute", "")
    return template().render(
        static=f"{boot['base']}/static/{known.hash}",
        base=boot["base"],
        sheet=SHEET,
        modules=known.modules(board_module),
        nav=NAV,
        place=place,
        boot=json_in_html(boot),
        missing=boot["missing"],
        session=boot["session"],
        inbox=boot["inbox"],
        run=run,
        tone=tone,
        word=word,
    )


def json_in_html(value: JsonObject) -> Markup:
    """JSON that can't end the element that it stands in."""
    return Markup(orjson.dumps(value).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@functools.cache
def template() -> Template:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("console.html")
