"""Runs inside the environment that has the package dbos, and nothing of ours: makes the calls of `DBOSClient` that tests ask for.

A request is a line of JSON on standard input: {"id", "url", "client": options of the client, "call", "args", "kwargs"}. Its answer is
a line on standard output: {"id", "value"} or {"id", "error": {"type", "message", …}}. Each request has a thread, so that one may wait
while others go on. A client is made once for its options and kept.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Lock
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, DebouncerClient, SendMessage, SetWorkflowID

PATIENCE = {"polling_interval_sec": 0.05}


@functools.cache
def make_client(url: str, options: str) -> Any:
    given: dict[str, Any] = json.loads(options)
    if given.pop("portable", False):
        given["serializer"] = DBOSPortableJSONSerializer()
    return DBOSClient(system_database_url=url, **given)


def get_result(client: Any, id: str, **options: Any) -> Any:
    return client.retrieve_workflow(id).get_result(**{**PATIENCE, **options})


def get_status(client: Any, id: str) -> Any:
    return client.retrieve_workflow(id).get_status()


def fork_workflow(client: Any, id: str, start_step: int, *, new_id: str | None = None, **options: Any) -> Any:
    with SetWorkflowID(new_id) if new_id else contextlib.nullcontext():
        return client.fork_workflow(id, start_step, **options)


def wait_first(client: Any, *ids: str) -> Any:
    return client.wait_first([client.retrieve_workflow(id) for id in ids], **PATIENCE)


def send_bulk(client: Any, messages: list[dict[str, Any]], **options: Any) -> None:
    client.send_bulk([SendMessage(**message) for message in messages], **options)


def backfill_schedule(client: Any, name: str, start: str, end: str) -> Any:
    return client.backfill_schedule(name, datetime.fromisoformat(start), datetime.fromisoformat(end))


def debounce(client: Any, options: dict[str, Any], key: str, period_s: float, *args: Any) -> Any:
    return DebouncerClient(client, options).debounce(key, period_s, *args)


def in_transaction(client: Any, url: str, options: dict[str, Any], destination: str, *, commit: bool) -> None:
    """An enqueue and a send as part of a transaction of the caller's own."""
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as conn:
        client.enqueue_in_transaction(conn, options, 1)
        client.send_in_transaction(conn, destination, "sent", "go", serialization_type="portable")
        if commit:
            conn.commit()
    engine.dispose()


def launch(_: Any, url: str) -> None:
    """Start a worker of DBOS, which looks at the schema and would bring it up to date, and stop it again."""
    DBOS(config={"name": "shop", "system_database_url": url})
    DBOS.launch()
    DBOS.destroy()


SPECIAL: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        get_result, get_status, fork_workflow, wait_first, send_bulk, backfill_schedule, debounce, in_transaction, launch
    )
}  # fmt: skip


def carry_out(request: dict[str, Any]) -> Any:
    client = make_client(request["url"], json.dumps(request["client"], sort_keys=True))
    name: str = request["call"]
    call = functools.partial(SPECIAL[name], client) if name in SPECIAL else getattr(client, name)
    made = call(*request["args"], **request["kwargs"])
    if inspect.iscoroutine(made):
        return asyncio.run(made)
    if inspect.isasyncgen(made):
        return asyncio.run(collected(made))
    return list(made) if inspect.isgenerator(made) else made


async def collected(values: Any) -> list[Any]:
    return [value async for value in values]


def as_json(value: Any) -> Any:
    """What a client returned, for the answer: its handles, statuses and queues by their public fields."""
    if hasattr(value, "__dict__"):
        return {name: field for name, field in vars(value).items() if not name.startswith("_")}
    return str(value)


def told(error: Exception) -> dict[str, Any]:
    more = {name: getattr(error, name) for name in ("name", "data") if hasattr(error, name)}
    return {"type": type(error).__name__, "message": str(error), **more}


def main() -> None:
    writing = Lock()

    def answer(request: dict[str, Any]) -> None:
        try:
            said: dict[str, Any] = {"value": carry_out(request)}
        except Exception as error:
            said = {"error": told(error)}
        line = json.dumps({"id": request["id"], **said}, default=as_json)
        with writing:
            print(line, flush=True)

    with ThreadPoolExecutor(8) as threads:
        for line in sys.stdin:
            threads.submit(answer, json.loads(line))


if __name__ == "__main__":
    main()
