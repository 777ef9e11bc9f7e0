"""bin/demo: one run from recipe to result, against a running service, and its proof in SQL.

    bin/demo [--base URL] [--start] [--replay]

Imports and promotes a recipe, starts a run of it twice (the second is a replay), waits at its gate, approves its plan twice (likewise),
waits for its end, and then asks the database: each query is printed with its rows, ready to be tried in bin/psql-app. Exit code 1 means
that something was not as it should be. The database is that of the settings, and must be the service's.
"""

import argparse
import re
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, LiteralString

import httpx
import psycopg

from bin.database import connect, require_schema
from bin.service import ServiceFailed, ServiceProcess
from bin.settings import Settings
from bin.wiring import FAILED, complain, database_of, run
from steps.contracts.intent import RecipeRef

PATIENCE_S = 60.0
ENDED = ("SUCCESS", "ERROR", "CANCELLED")
REF = RecipeRef(id="spec09.demo", v="1.0.0")
BUNDLE: dict[str, Any] = {
    "id": REF.id,
    "versions": [
        {
            "id": REF.id,
            "v": REF.v,
            "name": "spec09 demo",
            "tags": ["showcase"],
            "formSchema": {
                "type": "object",
                "properties": {
                    "goal": {"type": "string", "default": "spec09 goal"},
                    "accountId": {"type": "string", "default": "acct-009"},
                },
                "required": [],
            },
            "intentTmpl": {"goal": "{{formData.goal}}", "inputs": {"accountId": "{{formData.accountId}}"}, "constraints": {}},
            "wfEntry": "Runner.runIntent",
            "queue": "intentQ",
            "limits": {"maxSteps": 10, "maxFanout": 1, "maxSbxMin": 5, "maxTokens": 1024},
            "eval": [{"id": "ev1", "kind": "file_exists", "glob": "**/*"}],
            "fixtures": [{"id": "fx1", "formData": {"goal": "fixture-goal", "accountId": "acct-fx1"}}],
            "prompts": {"compile": "compile", "postmortem": "postmortem"},
        }
    ],
}
BY = {"actor": "bin/demo", "reason": "the demonstration"}
PARTITION = "tenant-009"
APPROVAL = {"choice": "yes", "rationale": "approve"}

#: What must be true of every demo run: the query, and its rows.
PROOF: tuple[tuple[LiteralString, list[tuple[Any, ...]]], ...] = (
    (
        "select rv.status, r.active_v from app.recipe_versions rv join app.recipes r using (id) where rv.id = %(recipe)s and rv.v = %(v)s",
        [("stable", REF.v)],
    ),
    ("select count(*) from app.runs where workflow_id = %(wid)s", [(1,)]),
    (
        "select status, last_step, next_action, error from app.runs where workflow_id = %(wid)s",
        [("succeeded", "ExecuteST", None, None)],
    ),
    (
        "select status, name, queue_name, queue_partition_key from dbos.workflow_status where workflow_uuid = %(wid)s",
        [("SUCCESS", "RunIntent", "intentQ", PARTITION)],
    ),
    (
        "select name, status from dbos.workflow_status where parent_workflow_id = %(wid)s",
        [("ExecuteTask", "SUCCESS")],
    ),
    (
        "select count(*) > 0 as recorded, min(function_id) = 1 and max(function_id) = count(*) as without_gaps"
        " from dbos.operation_outputs where workflow_uuid = %(wid)s",
        [(True, True)],
    ),
    (
        "select s.step_id, s.attempt, s.phase from app.run_steps s join app.runs r on r.id = s.run_id"
        " where r.workflow_id = %(wid)s order by s.started_at",
        [
            ("CompileST", 1, "compilation"),
            ("ApplyPatchST", 1, "patching"),
            ("DecideST", 1, "planning"),
            ("ExecuteST", 1, "execution"),
        ],
    ),
    (
        "select gate_key = %(gate)s as this_gate, topic = 'human:' || gate_key as its_topic, dedupe_key, origin,"
        " count(*) over (partition by workflow_id, gate_key, topic, dedupe_key) as n"
        " from app.human_interactions where workflow_id = %(wid)s",
        [(True, True, "demo-yes", "manual", 1)],
    ),
    (
        "select topic, consumed, count(*) as n from dbos.notifications where destination_uuid = %(wid)s group by 1, 2",
        [("human:%(gate)s", True, 1)],
    ),
)


class Deviation(Exception):
    """The service did something else than it should; the message says what."""


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:], settings)
    with ExitStack() as open_things:
        try:
            base = reach(settings, asked, open_things)
            dsn = database_of(settings)
            with connect(dsn, autocommit=True) as conn, httpx.Client(base_url=base, timeout=60) as http:
                require_schema(conn)
                wid, gate = drive(http, asked.replay)
                return prove(conn, wid, gate)
        except (Deviation, ServiceFailed, httpx.HTTPError) as error:
            complain(error)
            return FAILED


def read_arguments(arguments: list[str], settings: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/demo", description="One run from recipe to result, and its proof in SQL.")
    default = f"http://{settings.listen_host}:{settings.port}"
    parser.add_argument("--base", default=default, metavar="URL", help=f"the service's front door ({default})")
    parser.add_argument("--start", action="store_true", help="start a service for the demo if none answers there")
    parser.add_argument("--replay", action="store_true", help="the same request every time: converges on one run")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(f"· {text}", flush=True)


def reach(settings: Settings, asked: argparse.Namespace, open_things: ExitStack) -> str:
    """The address of a service that is well, started if need be."""
    try:
        if httpx.get(f"{asked.base}/healthz", timeout=5).json() == {"ok": True}:
            say(f"the service at {asked.base} is well")
            return str(asked.base)
        raise Deviation(f"{asked.base}/healthz is answered, but not by a service that is well")
    except (httpx.HTTPError, ValueError):
        if not asked.start:
            raise Deviation(f"no service answers at {asked.base}: run bin/start first, or use --start") from None
    logs = settings.state_dir.absolute() / "drills"
    logs.mkdir(parents=True, exist_ok=True)
    service = ServiceProcess("start", logs / f"demo-{secrets.token_hex(4)}.log", {"PORT": "0", "ADMIN_PORT": "0"})
    service.start()
    open_things.callback(service.stop)
    url = service.url()
    say(f"started a service at {url}, log in {service.log}")
    return url


# -- the run ----------------------------------------------------------------------------------------------------------------------


def drive(http: httpx.Client, replay: bool) -> tuple[str, str]:
    """Everything up to the end of the run; its workflow id and the key of its gate."""
    publish(http)
    mark = "replay" if replay else secrets.token_hex(6)
    request = {
        "recipeRef": REF.document(),
        "formData": {"goal": f"demo {mark}", "accountId": f"acct-{mark}"},
        "opts": {"queuePartitionKey": PARTITION},
    }
    started = expect(http.post("/api/run", json=request), 200 if replay else 201, 201)
    wid = str(started["workflowID"])
    say(f"started {wid}" + (" (it was there already)" if started["isReplay"] else ""))
    again = expect(http.post("/api/run", json=request), 200)
    identity = ("workflowID", "intentHash", "recipeHash")
    if not again["isReplay"] or any(again[name] != started[name] for name in identity):
        raise Deviation(f"the same request once more is not the same run: {again}")
    say("the same request once more is the same run")
    poll(http, wid, lambda run: run["status"] == "WAITING_INPUT" or run["status"] in ENDED)
    gate = the_gate(http, wid)
    say(f"gate {gate['gateKey']} is {gate['state']} and asks: {gate['prompt']['formSchema']['title']}")
    approve(http, wid, str(gate["gateKey"]))
    run = poll(http, wid, lambda run: run["status"] in ENDED)
    if run["status"] != "SUCCESS":
        raise Deviation(f"the run ended as {run['status']}: {run.get('error')}")
    say("the run ended as SUCCESS")
    return wid, str(gate["gateKey"])


def publish(http: httpx.Client) -> None:
    """The recipe as stable and active version, however far it has come already."""
    version = f"/api/recipes/{REF.id}/versions/{REF.v}"
    versions = expect(http.get(f"/api/recipes/{REF.id}/versions"), 200)
    if not any(version["v"] == REF.v and version["status"] == "stable" for version in versions):
        expect(http.post("/api/recipes/import", json=BUNDLE), 201)
        say(f"imported recipe {REF.id}@{REF.v}")
        expect(http.post(f"{version}/candidate", json=BY), 200)
    if expect(http.post(f"{version}/promote", json=BY), 200, 202)["status"] != "stable":
        promotion = expect(http.get(f"{version}/promotion?timeoutS=30"), 200)
        if promotion["status"] != "promoted":
            raise Deviation(f"recipe {REF.id}@{REF.v} is not promoted but {promotion['status']}: {promotion['refusal']}")
        say("its fixture ran twice, with the same green result")
    say(f"recipe {REF.id}@{REF.v} is stable and active")


def the_gate(http: httpx.Client, wid: str) -> dict[str, Any]:
    gates = expect(http.get(f"/api/runs/{wid}/gates"), 200)
    if len(gates) != 1:
        raise Deviation(f"the run should have one gate, and has {[gate['gateKey'] for gate in gates]}")
    return dict(gates[0])


def approve(http: httpx.Client, wid: str, gate_key: str) -> None:
    reply = {"payload": APPROVAL, "dedupeKey": "demo-yes", "origin": "manual"}
    first = expect(http.post(f"/api/runs/{wid}/gates/{gate_key}/reply", json=reply), 200)
    say("approved" + (" (that was done already)" if first["isReplay"] else ""))
    if not expect(http.post(f"/api/runs/{wid}/gates/{gate_key}/reply", json=reply), 200)["isReplay"]:
        raise Deviation("the same reply once more was taken for a new one")


def expect(answer: httpx.Response, *statuses: int) -> Any:
    """The body of an answer that has one of the statuses."""
    if answer.status_code not in statuses:
        raise Deviation(f"{answer.request.method} {answer.request.url} was answered by {answer.status_code} {answer.text[:300]}")
    return answer.json()


def poll(http: httpx.Client, wid: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The run once it is as asked, telling each status on the way."""
    deadline = time.monotonic() + PATIENCE_S
    told: str | None = None
    while True:
        run: dict[str, Any] = expect(http.get(f"/api/runs/{wid}"), 200)
        if run["status"] != told:
            told = run["status"]
            say(f"status {told}" + (f", last step {run['lastStep']}" if run["lastStep"] else ""))
        if done(run):
            return run
        if time.monotonic() > deadline:
            raise Deviation(f"the run was still {told} after {PATIENCE_S:.0f} s; does a worker run?")
        time.sleep(0.1)


# -- the proof --------------------------------------------------------------------------------------------------------------------


def prove(conn: psycopg.Connection[tuple[Any, ...]], wid: str, gate: str) -> int:
    """Print every query with its rows; the exit code."""
    values = {"wid": wid, "gate": gate, "recipe": REF.id, "v": REF.v}
    deviations = 0
    for query, wanted in PROOF:
        cursor = conn.execute(query, values)
        rows = cursor.fetchall()
        print(f"\n{readable(query, values)};")
        print("   " + " | ".join(column.name for column in cursor.description or ()))
        for row in rows:
            print("   " + " | ".join("" if value is None else str(value) for value in row))
        wanted = [tuple(filled(value, values) for value in row) for row in wanted]
        if rows != wanted:
            deviations += 1
            print(f"   NOT AS IT SHOULD BE: {wanted}")
    print(f"\n{len(PROOF) - deviations} of {len(PROOF)} proofs hold for run {wid}", flush=True)
    return FAILED if deviations else 0


def readable(query: str, values: dict[str, str]) -> str:
    """The query as a person would type it. For the eye only."""
    return re.sub(r"%\((\w+)\)s", lambda found: f"'{values[found[1]]}'", query)


def filled(value: Any, values: dict[str, str]) -> Any:
    return value % values if isinstance(value, str) and "%(" in value else value


if __name__ == "__main__":
    run(main)
