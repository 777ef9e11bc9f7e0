"""Models as rows and artifacts hold them."""

from steps.contracts.base import JsonObject, Wire


def compact(model: Wire) -> JsonObject:
    """The model as JSON without what is absent, so that it reads the same before and after it went through the journal."""
    return model.model_dump(mode="json", exclude_none=True)
