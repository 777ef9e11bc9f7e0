"""What all wire models share.

A model's fields carry the names of the wire, camel case included, so that reading it is reading the JSON and
no alias stands between. Validation is strict: unknown keys are refused and nothing is converted, because a
converted value would hash differently from the one that was sent.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from steps.canonical import NotCanonical, require_storable
from steps.errors import InvalidInput, invalid_input

Model = TypeVar("Model", bound="Wire")


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must hold printable characters only")
    return name


JsonObject = dict[str, Any]
Text = Annotated[str, Field(min_length=1)]
# Names end up in index rows, which PostgreSQL limits to 2704 bytes for all columns together.
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Hash = Annotated[str, Field(pattern=r"^[a-f0-9]{64}$")]
Millis = Annotated[int, Field(ge=0, le=2**53 - 1)]
Duration = Annotated[int, Field(ge=1, le=2**53 - 1)]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Wire(BaseModel):
    """Base of everything that comes in from or goes out to other programs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)

    def document(self) -> JsonObject:
        """The model as the JSON it was read from: what was not given is not there."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse(model: type[Model], data: object, context: str | None = None) -> Model:
    """The data as a model. Raises InvalidInput that names the context (by default the model) and every place
    that is wrong.
    """
    context = context or model.__name__
    try:
        parsed = model.model_validate(data)
        require_storable(data)
    except ValidationError as error:
        raise invalid_input(context, error, data) from None
    except NotCanonical as error:
        raise InvalidInput(f"invalid {context}: data {error}") from None
    return parsed
