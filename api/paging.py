"""Pages of a list that is ordered by time: the header `x-cursor` of one is the `cursor` of the next. Opaque, and safe in an address."""

import base64
import binascii
import re

from starlette.responses import Response

from api.http import BadRequest

PLACE = re.compile(r"(\d{1,18})\.(.+)", re.DOTALL | re.ASCII)

Place = tuple[int, str]  # when the last row was made, and its key


def place_of(cursor: str | None) -> Place | None:
    """Raises BadRequest for what is no cursor."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    found = PLACE.fullmatch(text)
    if found is None or "\x00" in text:
        raise BadRequest("cursor is not one that an answer's x-cursor gave")
    return int(found[1]), found[2]


def paged(answer: Response, more: Place | None) -> Response:
    """The answer with the place where the next page begins; None when there is none."""
    if more is not None:
        text = f"{more[0]}.{more[1]}"
        answer.headers["x-cursor"] = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return answer
