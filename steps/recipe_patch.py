"""From a patch to a new version of a recipe: pure functions over its JSON.

A patch changes what the recipe says, never what it is: its id, version, entry and queue are out of reach. Whatever is wrong with a patch
is one sentence, and then there is no new version.
"""

import copy
import difflib
import json
import re
from collections.abc import Collection, Sequence
from typing import Any, cast

from steps import identity, recipes
from steps.canonical import NotCanonical, canonical_json
from steps.contracts.base import JsonObject, parse
from steps.contracts.improvement import PatchOperation
from steps.contracts.recipe import MOST_FIXTURES, RecipeBundle, RecipeSpec
from steps.errors import InvalidInput

PATCHABLE = ("formSchema", "intentTmpl", "limits", "eval", "fixtures", "prompts", "name", "tags")
MOST_LEVELS = 32

#: A list index as RFC 6901 writes it.
_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")
_LAST_NUMBER = re.compile(r"(.*\.)([0-9]{1,9})", re.DOTALL)


class BadPatch(Exception):
    """The patch makes no new version; the message says why."""


# The patch -------------------------------------------------------------------------------------------------------------------


def patched(recipe: JsonObject, operations: Sequence[PatchOperation]) -> JsonObject:
    """The recipe's JSON with the operations applied in their order; the recipe itself stays. Raises BadPatch."""
    document = copy.deepcopy(recipe)
    for operation in operations:
        _apply(document, operation)
    return document


def _apply(document: JsonObject, operation: PatchOperation) -> None:
    path = operation.path
    *parents, last = _tokens(path)
    here: Any = document
    for token in parents:
        here = _inside(here, token, path)
    if isinstance(here, dict):
        _change_object(cast(JsonObject, here), last, operation)
    elif isinstance(here, list):
        _change_list(cast("list[Any]", here), last, operation)
    else:
        raise BadPatch(f"{path} lies in a value that is neither an object nor a list")


def _tokens(path: str) -> list[str]:
    first, *escaped = path.split("/")
    if first or any(re.search(r"~(?![01])", token) for token in escaped):
        raise BadPatch(f"{path} is not a JSON pointer")
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in escaped]
    if tokens[0] not in PATCHABLE:
        raise BadPatch(f"{path} is out of reach; a patch may change {', '.join(PATCHABLE)}")
    if len(tokens) > MOST_LEVELS:
        raise BadPatch(f"{path} is deeper than {MOST_LEVELS} levels")
    return tokens


def _inside(here: Any, token: str, path: str) -> Any:
    if isinstance(here, dict) and token in here:
        return cast(JsonObject, here)[token]
    if isinstance(here, list):
        items = cast("list[Any]", here)
        return items[_index(token, len(items), path)]
    raise BadPatch(f"{path} does not exist")


def _change_object(here: JsonObject, key: str, operation: PatchOperation) -> None:
    if operation.op != "add" and key not in here:
        raise BadPatch(f"{operation.path} does not exist")
    if operation.op == "remove":
        del here[key]
    else:
        here[key] = copy.deepcopy(operation.value)


def _change_list(here: list[Any], token: str, operation: PatchOperation) -> None:
    if operation.op == "add":
        here.insert(len(here) if token == "-" else _index(token, len(here) + 1, operation.path), copy.deepcopy(operation.value))
        return
    index = _index(token, len(here), operation.path)
    if operation.op == "remove":
        del here[index]
    else:
        here[index] = copy.deepcopy(operation.value)


def _index(token: str, below: int, path: str) -> int:
    if not _INDEX.fullmatch(token) or int(token) >= below:
        raise BadPatch(f"{path} does not exist")
    return int(token)


# The new version -------------------------------------------------------------------------------------------------------------


def next_version(v: str, taken: Collection[str]) -> str:
    """The next free name: the last number behind a dot counts up (1.0.0, 1.0.1; v1.9, v1.10), or .1 is added (v1, v1.1)."""
    found = _LAST_NUMBER.fullmatch(v)
    stem, number = (found[1], int(found[2])) if found else (f"{v}.", 0)
    while True:
        number += 1
        if (name := f"{stem}{number}") not in taken:
            return name


def candidate(recipe: JsonObject, operations: Sequence[PatchOperation], v: str, form: JsonObject) -> RecipeSpec:
    """The new version, whole and valid: the patch applied, the form that failed among its fixtures (if there is room), and another
    intent for that form, so that running it again is another run. Raises BadPatch.
    """
    document = patched(recipe, operations)
    try:
        if canonical_json(document) == canonical_json(recipe):
            raise BadPatch("the patch changes nothing")
        document["v"] = v
        _checked(document)
        _keep_as_fixture(document, form)
        if _intent_hash(document, form) == _intent_hash(recipe, form):
            _tell_apart(document)
        return _checked(document)
    except InvalidInput as error:
        raise BadPatch(f"the patch makes no recipe that this form can run: {error.message}") from error
    except NotCanonical as error:
        raise BadPatch(f"the patch makes no recipe: {error}") from error


def _checked(document: JsonObject) -> RecipeSpec:
    """Within the bounds of what may be imported."""
    return parse(RecipeBundle, {"id": document["id"], "versions": [document]}).versions[0]


def _keep_as_fixture(document: JsonObject, form: JsonObject) -> None:
    """Unless it is one of them, or there are as many as may be."""
    fixtures: list[JsonObject] = document["fixtures"]
    text = canonical_json(form)
    if len(fixtures) < MOST_FIXTURES and all(canonical_json(fixture["formData"]) != text for fixture in fixtures):
        fixtures.append({"id": f"failed-{identity.payload_hash(form)[:12]}", "formData": form})


def _tell_apart(document: JsonObject) -> None:
    """Let the intent name the version: a patch of limits or checks alone leaves it as it was, and with it the name of its run."""
    constraints = document["intentTmpl"].get("constraints")
    if not isinstance(constraints, dict):
        raise BadPatch("the form's intent, and so its run, would be the same as before; change the template's constraints")
    cast(JsonObject, constraints)["recipeV"] = document["v"]


def _intent_hash(recipe: JsonObject, form: JsonObject) -> str:
    version = recipes.RecipeVersion(recipe["id"], recipe["v"], identity.recipe_hash(recipe), "draft", recipe)
    return identity.intent_hash(recipes.intent_of(version, form))


def recipe_diff(old: JsonObject, new: JsonObject) -> str:
    """What the new version has otherwise, as a unified diff of both in canonical order; ends with a newline."""
    old_name, new_name = (f"{recipe['id']}@{recipe['v']}" for recipe in (old, new))
    return "".join(difflib.unified_diff(_lines(old), _lines(new), old_name, new_name))


def _lines(recipe: JsonObject) -> list[str]:
    text = json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False)
    return [f"{line}\n" for line in text.split("\n")]
