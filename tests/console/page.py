"""The console's page, taken apart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
import orjson


@dataclass(slots=True)
class Page(HTMLParser):
    """What the page is made of. inline: text of scripts that a browser would run; styles, handlers: attributes of elements."""

    html: str
    boot: dict[str, Any] = field(default_factory=dict[str, Any])
    addresses: list[str] = field(default_factory=list[str])
    preloaded: list[str] = field(default_factory=list[str])
    inline: list[str] = field(default_factory=list[str])
    styles: list[str] = field(default_factory=list[str])
    handlers: list[str] = field(default_factory=list[str])
    text: str = ""
    _inside: str = ""

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value for name in ("src", "href") if (value := given.get(name))]
        if given.get("rel") == "modulepreload":
            self.preloaded.append(given.get("href") or "")
        self.styles += [given["style"] or ""] if "style" in given else []
        self.handlers += [name for name in given if name.startswith("on")]
        self._inside = (given.get("type") or "run") if tag == "script" and "src" not in given else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.boot = orjson.loads(data)
        elif self._inside in ("run", "module", "style"):
            self.inline.append(data)
        elif self._inside not in ("script",):
            self.text += data


async def page_at(client: httpx.AsyncClient, address: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Page:
    answer = await client.get(address, headers=headers)
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def directives(policy: str) -> dict[str, str]:
    """A content security policy by its directives."""
    return {name: value for name, _, value in (part.strip().partition(" ") for part in re.split(";", policy))}
