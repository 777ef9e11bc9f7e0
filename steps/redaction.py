"""Keeps secrets out of what is stored: the ones that we know, and what looks like one."""

import re
from collections.abc import Iterable
from typing import Any, TypeVar, cast

import orjson

HIDDEN = "[redacted]"
#: Shorter values would be found in ordinary words.
SHORTEST = 6

#: Keys and tokens by the form that their issuers give them, and words that introduce one.
LOOKS_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]*?(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"
    r"|\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\be2b_[A-Za-z0-9]{20,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|(?<=://)[^\s/:@]{1,200}:[^\s/@]{1,200}(?=@)"
    r"|(?:(?<=[Bb]earer )|(?<=BEARER )|(?<=[Bb]asic )|(?<=BASIC ))[A-Za-z0-9._~+/-]{16,}=*"
)

#: Every text that the pattern finds holds one of these, and few others do: looking for them is much quicker.
MARKS = (
    "-----BEGIN ",
    "sk-",
    "pk-",
    "rk-",
    "gh",
    "e2b_",
    "AKIA",
    "ASIA",
    "xox",
    "AIza",
    "eyJ",
    "://",
    "earer ",
    "EARER ",
    "asic ",
    "ASIC ",
)

Document = TypeVar("Document")


class Redaction:
    """Hides the given secrets, and what looks like one, in texts and documents."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        self._marks = (*MARKS, *(orjson.dumps(secret)[1:-1].decode() for secret in known))

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return LOOKS_SECRET.sub(HIDDEN, text)

    def document(self, document: Document) -> Document:
        """The same JSON document, keys included, with each secret hidden."""
        try:
            written = orjson.dumps(document).decode()
        except TypeError:  # a number of more than 64 bits
            written = None
        if written is not None and not any(mark in written for mark in self._marks):
            return document
        return cast(Document, self._hidden(document))

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self._hidden(item) for key, item in cast("dict[str, Any]", value).items()}
        if isinstance(value, (list, tuple)):
            return [self._hidden(item) for item in cast("list[Any]", value)]
        return value
