"""The operators' console: one page at the root, and the files that it is made of.

The page comes with what it shows first (api.console.boot); everything else it asks of the same routes as any client.
"""

from api.console.assets import get_asset
from api.console.page import get_console
from api.http import Handler

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", get_console),
    ("GET", "/static/{hash}/{path:path}", get_asset),
)
