"""Replaying a recorded workflow without a database: does the code still do what the history says?

`export_history` reads everything that some workflows recorded, as JSON. `replay` runs a workflow's real code against it. Steps and
transactions are not executed: each gets its recorded outcome. What the code does besides (children with their inputs, messages,
events, stream values, its own end) is compared with what was recorded, and the first difference stops the replay.

An unfinished workflow's code goes as far as its history does; where it would do something new, it stands.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, NoReturn, cast

import orjson

from engine import codec
from engine.entries import Child, Chunk, Connection, Effect, Event, Mail, RiderRow
from engine.errors import UnreadablePayload
from engine.functions import Workflow
from engine.records import ERROR, SUCCESS
from engine.run import Branch, Claimed, Recorded, Run, Services, enter

Row = dict[str, Any]
#: Rows of the dbos tables as JSON objects, by the table's name.
HistoryRows = Mapping[str, Sequence[Row]]

TABLES: Mapping[str, LiteralString] = {
    "workflow_status": """
        select to_jsonb(t) from dbos.workflow_status t where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C"
    """,
    "workflow_input": """
        select to_jsonb(t) from dbos.workflow_input t where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C"
    """,
    "workflow_output": """
        select to_jsonb(t) from dbos.workflow_output t where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C"
    """,
    "operation_outputs": """
        select to_jsonb(t) from dbos.operation_outputs t
         where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C", t.function_id
    """,
    "workflow_events_history": """
        select to_jsonb(t) from dbos.workflow_events_history t
         where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C", t.function_id, t.key collate "C"
    """,
    "streams": """
        select to_jsonb(t) from dbos.streams t
         where t.workflow_uuid = any (%s) order by t.workflow_uuid collate "C", t.key collate "C", t."offset"
    """,
    "notifications": """
        select to_jsonb(t) from dbos.notifications t
         where t.destination_uuid = any (%s) order by t.destination_uuid collate "C", t.created_at_epoch_ms, t.seq
    """,
}

RESULT = "DBOS.getResult"
VALUES = frozenset({"DBOS.setEvent", "DBOS.writeStream", "DBOS.closeStream"})
WRITES = VALUES | {"DBOS.send"}
AT_ITS_END = "its end"
ABSENT = object()


async def export_history(conn: Connection, ids: Sequence[str]) -> dict[str, list[Row]]:
    """Everything that these workflows recorded, and the messages sent to them, as JSON rows by table.

    Read it in one repeatable-read transaction, if they may be running.
    """
    found: dict[str, list[Row]] = {}
    for table, sql in TABLES.items():
        found[table] = [row[0] for row in await (await conn.execute(sql, (list(ids),))).fetchall()]
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """Where code and history part. `path` is the call path, None for the workflow's end; `name` is the call, as recorded if it is."""

    workflow_id: str
    path: str | None
    name: str
    recorded: str
    now: str

    def __str__(self) -> str:
        place = "at its end" if self.path is None else f"at call {self.path}, {self.name!r}"
        return f"{self.workflow_id} {place}: recorded was {self.recorded}; the code now {self.now}"


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of replaying one workflow.

    status: as recorded. calls: how many recorded calls the code made again. stands_at: where an unfinished workflow would go on, in
    words. difference: the first one, None when all is as recorded.
    """

    workflow_id: str
    name: str
    status: str
    calls: int
    stands_at: tuple[str, ...]
    difference: Difference | None


async def replay(workflow: Workflow[Any, Any], history: HistoryRows, id: str) -> Replay:
    """Run the workflow's code against what `id` recorded. Raises LookupError when the history does not hold that workflow."""
    records = Records(history, id)
    run = OfflineRun(records)
    await asyncio.create_task(run.execute(workflow))
    places = tuple(AT_ITS_END if not path else f"{name!r} at call {path}" for path, name in run.standing)
    return Replay(id, run.claimed.name, records.own["status"], run.calls, places, run.difference)


class Records:
    """A history's rows, found by what the replay of one workflow knows of them."""

    def __init__(self, rows: HistoryRows, id: str) -> None:
        self.workflows = {row["workflow_uuid"]: row for row in rows["workflow_status"]}
        if id not in self.workflows:
            raise LookupError(f"the history holds no workflow {id!r}")
        self.own = self.workflows[id]
        self.journal = [row for row in rows["operation_outputs"] if row["workflow_uuid"] == id]
        self.events = {row["function_id"]: row for row in rows["workflow_events_history"] if row["workflow_uuid"] == id}
        self.values: dict[int, list[Row]] = {}
        for row in rows["streams"]:
            if row["workflow_uuid"] == id:
                self.values.setdefault(row["function_id"], []).append(row)
        self.messages = {row["message_uuid"]: row for row in rows["notifications"]}
        self._inputs = {row["workflow_uuid"]: row for row in rows["workflow_input"]}
        self._outputs = {row["workflow_uuid"]: row for row in rows["workflow_output"]}

    def inputs_of(self, row: Row) -> str | None:
        return _inline_or_aside(row, self._inputs, "inputs")

    @property
    def output(self) -> str | None:
        return _inline_or_aside(self.own, self._outputs, "output")

    @property
    def error(self) -> str | None:
        return _inline_or_aside(self.own, self._outputs, "error")

    def value_at(self, function_id: int, wanted: Chunk) -> Row | None:
        """What the record of that number appended to a stream. What a step said while it ran may bear the same number."""
        rows = self.values.get(function_id, [None])
        return next((row for row in rows if row and (row["key"], row["value"]) == (wanted.key, wanted.value)), rows[0])

    def latest_ms(self) -> int:
        """The time up to which this workflow is known to have come."""
        if self.own["wake_at_ms"] is not None:
            return self.own["wake_at_ms"] - 1  # parked, and none of its timers has fired
        return max([self.own["updated_at"], *(row["started_at_epoch_ms"] or 0 for row in self.journal)])


def _inline_or_aside(row: Row, aside: Mapping[str, Row], column: str) -> str | None:
    """A payload of a workflow: in its row, or in the table where some clients put it."""
    return row[column] if row[column] is not None else aside.get(row["workflow_uuid"], {}).get(column)


class Standing(BaseException):
    """The code is where the history ends."""


class Parted(BaseException):
    """The code and the history have parted."""


class Tape(dict[str, Recorded]):
    """A run's history that is never empty: a step looks into it even when nothing is left, and so never runs its body."""

    def __bool__(self) -> bool:
        return True


class OfflineRun(Run):
    """A run whose every call is answered from its history."""

    __slots__ = ("calls", "difference", "ended", "forked", "records", "standing")

    def __init__(self, records: Records) -> None:
        nothing = cast(Any, None)  # OfflineBranch answers whatever would use a journal or a database
        super().__init__(_claimed(records), Services(nothing, nothing, now_ms=lambda: 0, leased=lambda: False))
        self.records = records
        self.ended = records.own["status"] in (SUCCESS, ERROR)  # by its own code
        self.forked = records.own["forked_from"] is not None  # names in its records may be the original's
        self.standing: list[tuple[str, str]] = []  # (path, name) of calls that are not recorded
        self.difference: Difference | None = None
        self.calls = 0
        self.history = Tape()
        self.load([(row["call_path"], _recorded(row)) for row in records.journal])
        self.seen_ms = 2**63 - 1 if self.ended else records.latest_ms()

    async def execute(self, workflow: Workflow[Any, Any]) -> None:
        """Run the code to its end, to where it stands, or to the first difference."""
        branch = OfflineBranch(self, "", asyncio.current_task())
        enter(branch)
        try:
            output, error = await self._outcome(workflow)
            self._compare_end(output, error)
        except Standing:
            self._compare_place()
        except Parted:
            pass
        finally:
            branch.task = None

    async def _outcome(self, workflow: Workflow[Any, Any]) -> tuple[str | None, str | None]:
        """(output, error) of the code, one of them None."""
        try:
            args, kwargs = workflow.signature.arguments(self.claimed.inputs, self.claimed.serialization)
            outcome = codec.encode(await workflow.function(*args, **kwargs)), None
        except Exception as error:
            outcome = None, codec.encode_error(error)
        if self.gone is not None:  # the code kept to itself that it was stopped
            raise self.gone
        if self.standing:
            raise Standing
        return outcome

    def part(self, path: str | None, name: str, recorded: str, now: str) -> NoReturn:
        """Note the difference and stop the code."""
        self.difference = self.difference or Difference(self.id, path, name, recorded, now)
        self.gone = Parted()
        raise self.gone

    def compare(self, path: str | None, name: str, what: str, recorded: str | None, now: str | None) -> None:
        """Part over two JSON texts that differ."""
        found = first_difference(value_of(recorded), value_of(now))
        if found is not None:
            at, was, gives = found
            self.part(path, name, f"{what}{at and ' at ' + at}: {brief(was)}", f"gives {brief(gives)}")

    def compare_value(self, path: str, name: str, row: Row | None, key: str, value: str) -> None:
        if row is None:
            self.part(path, name, "no value", f"sets {key!r}")
        if row["key"] != key:
            self.part(path, name, f"the key {row['key']!r}", f"uses {key!r}")
        self.compare(path, name, f"the value of {key!r}", row["value"], value)

    def compare_mail(self, path: str, name: str, mail: Mail) -> None:
        if mail.destination not in self.records.workflows:
            return  # nor is its mailbox in this history
        row = self.records.messages.get(mail.id)
        if row is None:
            self.part(path, name, "another message or destination", f"sends {mail.id!r}")
        if not mail.id.startswith(f"{self.id}:{path}::"):
            return  # a key that others may have used first, with a message of theirs
        if row["topic"] != mail.topic:
            self.part(path, name, f"the topic {row['topic']!r}", f"sends to {mail.topic!r}")
        self.compare(path, name, "the message", row["message"], mail.message)

    def compare_child(self, path: str, found: Recorded, now: Row) -> None:
        if found.child_id != now["id"]:
            self.part(path, found.name, f"the child {found.child_id!r}", f"starts {now['id']!r}")
        row = self.records.workflows.get(now["id"])
        if row is None or row["parent_workflow_id"] != self.id:
            return  # not in this history, or attached to: somebody else chose its inputs
        self.compare(path, found.name, "the child's inputs", self.records.inputs_of(row), now["inputs"])
        own = self.claimed
        inherited = {"queue": own.queue, "partition": own.partition, "priority": own.priority}
        for what, column in (("queue", "queue_name"), ("partition", "queue_partition_key"), ("priority", "priority")):
            # An operator may have moved either since, so only a value that the code chose itself counts.
            if row[column] != now[what] != inherited[what]:
                self.part(path, found.name, f"the child's {what} {row[column]!r}", f"gives {now[what]!r}")

    def _compare_end(self, output: str | None, error: str | None) -> None:
        ending = f"ends with {'the error ' if output is None else ''}{brief(value_of(error if output is None else output))}"
        for path, left in self.history.items():
            self.part(path, left.name, "this call", f"{ending} before it")
        if not self.ended:
            self.standing.append(("", AT_ITS_END))
            return
        was = self.records
        if (was.error is None) != (error is None):
            self.part(
                None, self.claimed.name, f"its end as {was.own['status']} {brief(value_of(was.error or was.output))}", ending
            )
        self.compare(None, self.claimed.name, "the output", was.output, output)
        self.compare(None, self.claimed.name, "the error", was.error, error)

    def _compare_place(self) -> None:
        """The code stands. That is right only where the history ends too, and for a workflow that has not ended."""
        path, name = self.standing[0]
        for further, left in self.history.items():
            found = Difference(self.id, path, name, f"nothing here, but {left.name!r} at call {further}", "makes this call")
            self.difference = self.difference or found
        if self.ended:
            end = f"nothing more, but the end as {self.records.own['status']}"
            self.difference = self.difference or Difference(self.id, path, name, end, "makes this call")


class OfflineBranch(Branch):
    """A branch that records nothing: what it would write is compared with what was written."""

    __slots__ = ("_written",)

    def __init__(self, run: Run, prefix: str, task: "asyncio.Task[Any] | None") -> None:
        super().__init__(run, prefix, task)
        self._written: Recorded | None = None  # the record of the call that is being compared

    @property
    def _offline(self) -> OfflineRun:
        return cast(OfflineRun, self.run)

    def replayed(self, path: str, name: str) -> Recorded | None:
        run = self._offline
        if any(place.startswith(self.prefix) for place, _ in run.standing):
            raise Standing  # from a block that runs on the way out
        found = run.history.pop(path, None)
        if found is None:
            self._stand(path, name)
        if found.name != name:
            run.part(path, found.name, "this call", f"calls {name!r}")
        run.calls += 1
        writes = name in WRITES or (found.child_id is not None and name != RESULT)
        if not writes or found.error is not None or (run.forked and name not in VALUES):
            return found
        self._written = found
        return None  # so that the call prepares what it writes, and hands it to `record`

    async def record(
        self,
        path: str,
        name: str,
        output: str | None,
        error: str | None = None,
        *,
        started_ms: int | None = None,
        child_id: str | None = None,
        effect: Effect | None = None,
        riders: list[RiderRow] | None = None,
    ) -> None:
        found, self._written = self._written, None
        assert found is not None
        run = self._offline
        match effect:
            case Event():
                run.compare_value(path, name, run.records.events.get(found.function_id), effect.key, effect.value)
            case Chunk():
                row = run.records.value_at(found.function_id, effect)
                run.compare_value(path, name, row, effect.key, effect.value)
            case Mail():
                run.compare_mail(path, name, effect)
            case Child():
                run.compare_child(path, found, orjson.loads(effect.row))
            case None:
                pass

    async def block(self, token: str | None, wake_at_ms: int | None, *, shared: bool = False) -> None:
        self._stand(f"{self.prefix}{self.calls}", "DBOS.sleep")

    def _stand(self, path: str, name: str) -> NoReturn:
        run = self._offline
        run.history.pop(f"{self.prefix}{self.calls}", None)  # when a call that waits would give up; recorded before its answer
        run.standing.append((path, name))
        raise Standing


def _claimed(records: Records) -> Claimed:
    """The workflow as a claim would have returned it."""
    own = records.own
    row = (
        own["workflow_uuid"],
        own["name"],
        own["class_name"],
        records.inputs_of(own),
        own["serialization"],
        own["recovery_attempts"],
        own["claims"],
        own["forked_from"],
        own["parent_workflow_id"],
        own["queue_name"],
        own["queue_partition_key"],
        own["priority"],
        own["application_version"],
        own["workflow_deadline_epoch_ms"],
        own["attributes"],
        False,
        0,
    )
    return Claimed(row, token="")


def _recorded(row: Row) -> Recorded:
    return Recorded(
        row["function_name"],
        row["output"],
        row["error"],
        row["child_workflow_id"],
        row["serialization"],
        row["function_id"],
    )


def value_of(text: str | None) -> Any:
    """The JSON value, or the text itself where it is none: another client may have written it."""
    try:
        return codec.decode(text)
    except UnreadablePayload:
        return text


def first_difference(was: Any, now: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """(JSON pointer, one value, the other) of the first place where two JSON values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        one, other = cast(Row, was), cast(Row, now)
        for key in sorted(one.keys() | other.keys()):
            found = first_difference(one.get(key, ABSENT), other.get(key, ABSENT), f"{at}/{key}")
            if found is not None:
                return found
        return None
    if isinstance(was, list) and isinstance(now, list) and len(cast(list[Any], was)) == len(cast(list[Any], now)):
        pairs = zip(cast(list[Any], was), cast(list[Any], now), strict=True)
        return next((found for n, pair in enumerate(pairs) if (found := first_difference(*pair, f"{at}/{n}"))), None)
    if type(was) is type(now) and was == now:
        return None
    return at, was, now


def brief(value: Any) -> str:
    """A JSON value as text of bounded length."""
    text = "nothing" if value is ABSENT else codec.encode(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
