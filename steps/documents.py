"""Documents as rows and artifacts hold them."""

from typing import Any

import orjson

from steps.contracts.base import JsonObject, Wire


def compact(model: Wire) -> JsonObject:
    """The model as JSON without what is absent, so that it reads the same before and after it went through the journal."""
    return model.model_dump(mode="json", exclude_none=True)


def without_none(document: JsonObject) -> JsonObject:
    """The document without those of its parts that are not there."""
    return {name: value for name, value in document.items() if value is not None}


def json_or_text(stored: str | None) -> Any:
    """A stored payload as JSON; what another client wrote in its own way as text."""
    try:
        return None if stored is None else orjson.loads(stored)
    except orjson.JSONDecodeError:
        return stored
