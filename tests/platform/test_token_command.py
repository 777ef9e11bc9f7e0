"""bin/token, and the start of a service that other machines can reach."""

import json
import os
import re
import subprocess
import sys
import urllib.request

import pytest

from bin.settings import ROOT
from tests.platform.test_commands import Start, addresses, start

__all__ = ["start"]  # the fixture
TEXT = re.compile(r"hf_([a-z2-9]{8})_[\w-]{43}\n")


def token(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "bin.commands.token", *arguments],
        env=os.environ | {"DATABASE_URL": database, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_token_is_made_listed_and_revoked_and_its_text_is_shown_once(database: str) -> None:
    made = token(database, "create", "ben", "--role", "operator", "--role", "approver", "--group", "finance")
    found = TEXT.fullmatch(made.stdout)
    assert found, made
    (listed,) = json.loads(token(database, "list", "--json").stdout)
    assert (listed["id"], listed["name"], listed["state"]) == (found[1], "ben", "good")
    assert (listed["roles"], listed["groups"]) == (["operator", "approver"], ["finance"])
    assert token(database, "revoke", found[1]).returncode == 0
    table = token(database, "list").stdout
    assert "revoked" in table
    assert made.stdout.strip() not in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "ben"], "--role"),
        (["create", "ben", "--role", "king"], "invalid choice: 'king'"),
        (["create", "ben", "--role", "admin", "--expires", "soon"], "soon is no time span; write 90d, 12h or never"),
        (["create", "", "--role", "admin"], "invalid token: data/name must NOT have fewer than 1 characters"),
        (["revoke", "nobody"], "token not found: nobody"),
    ],
)
def test_what_cannot_be_done_is_one_line(database: str, arguments: list[str], said: str) -> None:
    refused = token(database, *arguments)
    assert refused.returncode != 0
    assert said in refused.stderr.splitlines()[-1]
    assert json.loads(token(database, "list", "--json").stdout) == []


def test_a_secret_that_is_none_stops_the_start_without_being_shown(start: Start, database: str) -> None:
    code, _, err = start(
        "api", DATABASE_URL=database, HITL_WEBHOOK_SECRETS="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,hunter2"
    ).rest()
    assert (code, err.count("\n")) == (2, 1)
    assert "HITL_WEBHOOK_SECRETS: invalid secret env value (not shown), number 2 of the list" in err
    assert "hunter2" not in err


def test_a_service_that_others_can_reach_wants_a_token_first(start: Start, database: str) -> None:
    open_to_all = {"DATABASE_URL": database, "LISTEN_HOST": "0.0.0.0"}
    code, _, err = start("api", **open_to_all).rest()
    assert (code, err.splitlines()[-1].split(";")[0]) == (
        2,
        "holdfast: LISTEN_HOST: other machines can reach 0.0.0.0, and there is no token that they would have to show",
    )
    text = token(database, "create", "ben", "--role", "viewer", "--expires", "never").stdout.strip()
    door, _ = addresses(start("api", **open_to_all).line())
    request = urllib.request.Request(
        f"{door.replace('0.0.0.0', '127.0.0.1')}/api/session", headers={"authorization": f"Bearer {text}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["name"] == "ben"
