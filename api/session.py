"""Signing in with a token, for browsers: from then on a cookie that scripts cannot read holds it."""

from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from api.access import COOKIE, Caller, Right
from api.http import Door, json_response, read_json
from api.tokens import Role
from steps.contracts.base import Text, Wire, parse

KEPT_S = 30 * 24 * 3600


class SignIn(Wire):
    token: Text


class Session(Wire):
    """Who asks. name: None while nobody is asked for a token. rights: what the roles allow."""

    name: str | None
    roles: list[Role]
    groups: list[str]
    rights: list[Right]


async def get_session(door: Door, request: Request) -> Response:
    return json_response(session_of(request.state.caller).document())


async def sign_in(door: Door, request: Request) -> Response:
    asked = parse(SignIn, await read_json(door, request))
    caller = await door.keeper.whose(asked.token)
    response = json_response(session_of(caller).document())
    response.set_cookie(
        COOKIE,
        asked.token,
        max_age=KEPT_S,
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


async def sign_out(door: Door, request: Request) -> Response:
    response = json_response({"ok": True})
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
    return response


def session_of(caller: Caller) -> Session:
    rights: list[Right] = [right for right in get_args(Right) if caller.may(right)]
    return Session(name=caller.name, roles=list(caller.roles), groups=sorted(caller.groups), rights=rights)
