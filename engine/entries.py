"""What a run asks the journal to write, and the statements that write a whole batch of it.

An array travels as one text parameter, a column's values joined by an ASCII separator that neither JSON text nor a valid name can
hold; that costs the client a sixth of psycopg's list adaptation. Counts and numbers travel as text literals too, so that a statement
has one parameter signature and is prepared once.

The statements run after the fence (journal.py) in the same transaction, so a row that the fence locked stays the writer's until commit
and none of them tests the token again. What looks for something that may wake a run (RECEIVE, PARK) must be a later statement than
the fence: only then is its snapshot younger than the lock.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from engine.pipeline import Pipeline, Statement
from engine.records import Rider

FIELD = "\x1f"  # between the values of one column
NULL = "\x1e"  # a value that is SQL NULL
PART = "\x1c"  # between the id and the key in an event's token
ITEM = "\x1d"  # between the items of a list inside one value

# A worker's statements look rows up by id from arrays, or by an index made for them. On a fresh or fast-growing table the
# planner's guesses would choose scans, and the huge cost of a disabled scan would then start the JIT compiler, some 100 ms a statement.
PIN_PLANS: LiteralString = """
select set_config(p.name, p.value, %s::bool)
  from (values ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'),
               ('enable_mergejoin', 'off'), ('jit', 'off')) as p (name, value)
"""
FOR_THE_SESSION = ("false",)
FOR_THE_TRANSACTION = ("true",)

Connection = psycopg.AsyncConnection[Any]
RiderRow = tuple[Rider, str]  # the row as JSON text
Place = tuple[str, str]  # under a cap: (queue, partition key)


class Owner:
    """A claim on a run: the token that fences its writes and the number of journal rows it has."""

    __slots__ = ("alone", "id", "loop", "parent_id", "place", "recorded", "seen_ms", "token", "void")

    def __init__(self, id: str, token: str, seen_ms: int, parent_id: str | None = None, *, place: Place | None = None) -> None:
        self.id = id
        self.token = token
        self.parent_id = parent_id
        self.loop = asyncio.get_running_loop()
        self.place = place  # others may wait for it
        self.recorded = 0
        self.void = False  # the database's history went back: nothing more is written
        self.alone = False  # a transaction of this run is committing; the journal writes nothing of it meanwhile
        self.seen_ms = seen_ms  # the database's clock when it was last heard of


class Entry:
    """One thing to write. `done` resolves after COMMIT, or with the error of this entry alone."""

    __slots__ = ("done", "function_id", "owner", "riders")

    def __init__(self, owner: Owner, riders: list[RiderRow] | None = None) -> None:
        self.owner = owner
        self.riders = riders
        self.function_id = 0
        self.done: asyncio.Future[Any] = owner.loop.create_future()


class Event:
    """An effect of a step: set an event of the run."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.value = value


class Mail:
    """An effect of a step: put a message into a workflow's mailbox, once for its id."""

    __slots__ = ("destination", "id", "message", "topic")

    def __init__(self, destination: str, topic: str, message: str, id: str) -> None:
        self.destination = destination
        self.topic = topic
        self.message = message
        self.id = id


class Child:
    """An effect of a step: enqueue a workflow, unless its id exists. `row` is the record that INSERT_CHILDREN takes, as JSON text."""

    __slots__ = ("row",)

    def __init__(self, row: str) -> None:
        self.row = row


class Chunk:
    """An effect of a step: append a value to a stream of the run."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.value = value


Effect = Event | Mail | Child | Chunk


class Step(Entry):
    """A finished call: its outcome and what is written with it. Resolves to None."""

    __slots__ = ("child_id", "effect", "error", "name", "output", "path", "started_ms")

    def __init__(
        self,
        owner: Owner,
        path: str,
        name: str,
        output: str | None,
        error: str | None,
        started_ms: int,
        child_id: str | None = None,
        effect: Effect | None = None,
        riders: list[RiderRow] | None = None,
    ) -> None:
        self.owner = owner  # not by way of super(): there is a step record for every step of every run
        self.riders = riders
        self.function_id = 0
        self.done = owner.loop.create_future()
        self.path = path
        self.name = name
        self.output = output
        self.error = error
        self.started_ms = started_ms
        self.child_id = child_id
        self.effect = effect


class Said(Entry):
    """A chunk from the body of a step that still runs. It is no record: a step that runs again says it again. Resolves to None.

    Its function_id is the next that its run would get, at most the one that its step will get.
    """

    __slots__ = ("effect",)

    def __init__(self, owner: Owner, effect: Chunk) -> None:
        super().__init__(owner)
        self.effect = effect


class Timer(Entry):
    """A moment `delay_ms` after the database's present, journaled. Resolves to that moment in epoch milliseconds."""

    __slots__ = ("delay_ms", "name", "path")

    def __init__(self, owner: Owner, path: str, name: str, delay_ms: int, riders: list[RiderRow] | None = None) -> None:
        super().__init__(owner, riders)
        self.path = path
        self.name = name
        self.delay_ms = delay_ms


class Receive(Entry):
    """Take the oldest message of a topic. Resolves to (text, serialization), or None when there is none and nothing was recorded."""

    __slots__ = ("path", "topic")

    def __init__(self, owner: Owner, path: str, topic: str, riders: list[RiderRow] | None) -> None:
        super().__init__(owner, riders)
        self.path = path
        self.topic = topic


class Park(Entry):
    """Give the run back until one of its tokens happens or `wake_at_ms` comes. Resolves to False when that is already so.

    shared: those of the tokens whose happening does not name this run: events, and the end of workflows that are not its children.
    """

    __slots__ = ("shared", "tokens", "wake_at_ms")

    def __init__(
        self,
        owner: Owner,
        tokens: Sequence[str],
        shared: Sequence[str],
        wake_at_ms: int | None,
    ) -> None:
        super().__init__(owner)
        self.tokens = tokens
        self.shared = shared
        self.wake_at_ms = wake_at_ms


class Finish(Entry):
    """The run's end. Resolves to None."""

    __slots__ = ("error", "output", "status")

    def __init__(self, owner: Owner, status: str, output: str | None, error: str | None, riders: list[RiderRow] | None) -> None:
        super().__init__(owner, riders)
        self.status = status
        self.output = output
        self.error = error


def event_token(workflow_id: str, key: str) -> str:
    return f"e:{workflow_id}{PART}{key}"


def texts(values: Sequence[str | None]) -> str:
    return FIELD.join([NULL if v is None else v for v in values])


def json_array(items: Sequence[str]) -> str:
    return "[" + ",".join(items) + "]"


def numbers(values: Sequence[int | None]) -> str:
    return "{" + ",".join(["NULL" if v is None else str(v) for v in values]) + "}"


# coalesce() hides the status from the planner: with `s.status = 'PENDING'` in plain sight it picks the partial index of owned rows,
# which looks tiny, and joins by filter, quadratically.
FENCE: LiteralString = r"""
with mine as materialized (
    select s.workflow_uuid
      from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as b (id, token)
      join dbos.workflow_status s
        on s.workflow_uuid = b.id and s.owner_xid = b.token and coalesce(s.status, '') = 'PENDING'
     order by s.workflow_uuid
       for no key update of s)
select engine.must(count(*) = %s::int) from mine
"""


def fence(pipe: Pipeline, owners: Sequence[Owner]) -> None:
    """Lock the status rows of all owners, in id order, or fail with SQLSTATE HF001."""
    pipe.add(FENCE, (FIELD.join([o.id for o in owners]), FIELD.join([o.token for o in owners]), str(len(owners))))


INSERT_STEPS: LiteralString = r"""
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, error, child_workflow_id,
                                    started_at_epoch_ms, completed_at_epoch_ms, serialization)
select r.id, r.function_id, r.path, r.name, r.output, r.error, r.child, r.started, clock.now_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'),
              string_to_array(%s, E'\x1f', E'\x1e'), string_to_array(%s, E'\x1f', E'\x1e'),
              string_to_array(%s, E'\x1f', E'\x1e'), %s::bigint[])
           as r (id, function_id, path, name, output, error, child, started)
"""


# Most batches hold neither a failure nor a child: two arrays less to take apart.
INSERT_PLAIN_STEPS: LiteralString = r"""
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, started_at_epoch_ms,
                                    completed_at_epoch_ms, serialization)
select r.id, r.function_id, r.path, r.name, r.output, r.started, clock.now_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'),
              string_to_array(%s, E'\x1f'), %s::bigint[]) as r (id, function_id, path, name, output, started)
"""


def insert_steps(pipe: Pipeline, steps: Sequence[Step]) -> None:
    ids = FIELD.join([s.owner.id for s in steps])
    function_ids = numbers([s.function_id for s in steps])
    paths = FIELD.join([s.path for s in steps])
    names = FIELD.join([s.name for s in steps])
    started = numbers([s.started_ms for s in steps])
    outputs = [s.output for s in steps]
    children = [s.child_id for s in steps]
    if None in outputs or children.count(None) < len(children):
        errors = texts([s.error for s in steps])
        pipe.add(INSERT_STEPS, (ids, function_ids, paths, names, texts(outputs), errors, texts(children), started))
    else:
        pipe.add(
            INSERT_PLAIN_STEPS, (ids, function_ids, paths, names, FIELD.join([o for o in outputs if o is not None]), started)
        )


# Seconds with milliseconds, as DBOS records the end of a sleep.
INSERT_TIMERS: LiteralString = r"""
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, started_at_epoch_ms,
                                    completed_at_epoch_ms, serialization)
select r.id, r.function_id, r.path, r.name, ((clock.now_ms + r.delay_ms) / 1000.0)::numeric(20, 3)::text, clock.now_ms,
       clock.now_ms + r.delay_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::bigint[])
           as r (id, function_id, path, name, delay_ms)
returning workflow_uuid, function_id, completed_at_epoch_ms, started_at_epoch_ms
"""


def insert_timers(pipe: Pipeline, timers: Sequence[Timer]) -> Statement:
    return pipe.add(
        INSERT_TIMERS,
        (
            FIELD.join([t.owner.id for t in timers]),
            numbers([t.function_id for t in timers]),
            FIELD.join([t.path for t in timers]),
            FIELD.join([t.name for t in timers]),
            numbers([t.delay_ms for t in timers]),
        ),
    )


UPSERT_EVENTS: LiteralString = r"""
insert into dbos.workflow_events (workflow_uuid, key, value, serialization)
select r.id, r.key, r.value, 'portable_json'
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as r (id, key, value)
on conflict (workflow_uuid, key) do update set value = excluded.value, serialization = excluded.serialization
"""
INSERT_EVENT_HISTORY: LiteralString = r"""
insert into dbos.workflow_events_history (workflow_uuid, function_id, key, value, serialization)
select r.id, r.function_id, r.key, r.value, 'portable_json'
  from unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'))
           as r (id, function_id, key, value)
"""


def write_events(pipe: Pipeline, events: Sequence[tuple[Step, Event]]) -> None:
    last = {(s.owner.id, e.key): e.value for s, e in events}  # a statement may upsert a key once only
    pipe.add(
        UPSERT_EVENTS,
        (FIELD.join([k[0] for k in last]), FIELD.join([k[1] for k in last]), FIELD.join(last.values())),
    )
    pipe.add(
        INSERT_EVENT_HISTORY,
        (
            FIELD.join([s.owner.id for s, _ in events]),
            numbers([s.function_id for s, _ in events]),
            FIELD.join([e.key for _, e in events]),
            FIELD.join([e.value for _, e in events]),
        ),
    )


INSERT_MAIL: LiteralString = r"""
insert into dbos.notifications (destination_uuid, topic, message, message_uuid, serialization, created_at_epoch_ms)
select r.destination, r.topic, r.message, r.id, 'portable_json', clock.now_ms
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'),
              string_to_array(%s, E'\x1f')) as r (destination, topic, message, id)
on conflict (message_uuid) do nothing
"""


def insert_mail(pipe: Pipeline, mail: Sequence[Mail]) -> None:
    pipe.add(
        INSERT_MAIL,
        (
            FIELD.join([m.destination for m in mail]),
            FIELD.join([m.topic for m in mail]),
            FIELD.join([m.message for m in mail]),
            FIELD.join([m.id for m in mail]),
        ),
    )


# Children carry many optional columns, so they travel as one JSON parameter.
INSERT_CHILDREN: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, class_name, inputs, queue_name, queue_partition_key, priority,
    application_version, workflow_timeout_ms, workflow_deadline_epoch_ms, delay_until_epoch_ms, parent_workflow_id, attributes,
    creator_xid, created_at, updated_at, serialization)
select r.id, case when r.delay_ms is null then 'ENQUEUED' else 'DELAYED' end, r.name, r.class_name, r.inputs, r.queue, r.partition,
       r.priority, r.version, r.timeout_ms, r.deadline_ms, clock.now_ms + r.delay_ms, r.parent,
       (select p.attributes from dbos.workflow_status p where p.workflow_uuid = r.parent), r.id, clock.now_ms, clock.now_ms,
       'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       json_to_recordset(%s) as r (id text, name text, class_name text, inputs text, queue text, partition text, priority int,
                                   version text, timeout_ms bigint, deadline_ms bigint, delay_ms bigint, parent text)
 order by r.id
on conflict (workflow_uuid) do nothing
"""


def insert_children(pipe: Pipeline, children: Sequence[Child]) -> None:
    pipe.add(INSERT_CHILDREN, (json_array([c.row for c in children]),))


# Only the run's owner appends to its streams, so max + 1 cannot be taken twice.
INSERT_CHUNKS: LiteralString = r"""
insert into dbos.streams (workflow_uuid, key, value, "offset", function_id, serialization)
select r.id, r.key, r.value,
       coalesce((select max(s."offset") from dbos.streams s where s.workflow_uuid = r.id and s.key = r.key), -1)
           + row_number() over (partition by r.id, r.key order by r.place),
       r.function_id, 'portable_json'
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::int[])
           with ordinality as r (id, key, value, function_id, place)
"""


def insert_chunks(pipe: Pipeline, chunks: Sequence[tuple[Step | Said, Chunk]]) -> None:
    pipe.add(
        INSERT_CHUNKS,
        (
            FIELD.join([s.owner.id for s, _ in chunks]),
            FIELD.join([c.key for _, c in chunks]),
            FIELD.join([c.value for _, c in chunks]),
            numbers([s.function_id for s, _ in chunks]),
        ),
    )


RECEIVE: LiteralString = r"""
with wanted as materialized (
    select * from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::int[])
                      as w (id, topic, path, function_id)),
oldest as materialized (
    select distinct on (w.id) w.id, w.path, w.function_id, n.message_uuid, n.message, n.serialization
      from wanted w
      join dbos.notifications n on n.destination_uuid = w.id and n.topic = w.topic and not n.consumed
     order by w.id, n.created_at_epoch_ms, n.seq),
taken as (
    update dbos.notifications n set consumed = true, consumed_by_function_id = o.function_id
      from oldest o where n.message_uuid = o.message_uuid),
noted as (
    insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, started_at_epoch_ms,
                                        completed_at_epoch_ms, serialization)
    select o.id, o.function_id, o.path, 'DBOS.recv', o.message, clock.now_ms, clock.now_ms, o.serialization
      from oldest o, (select engine.now_ms() as now_ms offset 0) clock)
select id, message, serialization from oldest
"""


def receive(pipe: Pipeline, wanted: Sequence[Receive]) -> Statement:
    """At most one entry a run: a row it does not find leaves no gap in function ids."""
    return pipe.add(
        RECEIVE,
        (
            FIELD.join([w.owner.id for w in wanted]),
            FIELD.join([w.topic for w in wanted]),
            FIELD.join([w.path for w in wanted]),
            numbers([w.function_id for w in wanted]),
        ),
    )


PARK: LiteralString = r"""
with given as materialized (
    select g.id, string_to_array(g.tokens, E'\x1d') as tokens, g.wake_at
      from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::bigint[]) as g (id, tokens, wake_at)),
parked as (
    update dbos.workflow_status s
       set owner_xid = null, executor_id = null,
           held = s.held and concat(s.queue_name, E'\x1e', s.queue_partition_key) <> all ((select string_to_array(%s, E'\x1f'))::text[]),
           waits = g.tokens, wake_at_ms = g.wake_at, recovery_attempts = 0,
           updated_at = clock.now_ms
      from given g, (select engine.now_ms() as now_ms offset 0) clock
     where s.workflow_uuid = g.id
       and (g.wake_at is null or g.wake_at > clock.now_ms)
       and not exists (select from dbos.notifications n
                        where n.destination_uuid = g.id and not n.consumed and 't:' || n.topic = any (g.tokens))
       and not exists (select from unnest(g.tokens) t (token)
                         join dbos.workflow_status c on c.workflow_uuid = substr(t.token, 3)
                        where left(t.token, 2) = 'c:'
                          and c.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'))
       and not exists (select from unnest(g.tokens) t (token)
                         join dbos.workflow_events e
                           on e.workflow_uuid = split_part(substr(t.token, 3), E'\x1c', 1)
                          and e.key = split_part(t.token, E'\x1c', 2)
                        where left(t.token, 2) = 'e:')
    returning s.workflow_uuid)
select p.workflow_uuid, null from parked p union all select null, (select engine.now_ms())
"""
# After PARK, for those that it did park.
INSERT_WAITS: LiteralString = r"""
insert into engine.wait (token, workflow_uuid)
select w.token, w.id
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as w (token, id)
  join dbos.workflow_status s on s.workflow_uuid = w.id and s.waits is not null
on conflict do nothing
"""


def park(pipe: Pipeline, parks: Sequence[Park], places: Sequence[Place]) -> Statement:
    """places: under caps, whose coming free the caller makes known."""
    parked = pipe.add(
        PARK,
        (
            FIELD.join([p.owner.id for p in parks]),
            FIELD.join([ITEM.join(p.tokens) for p in parks]),
            numbers([p.wake_at_ms for p in parks]),
            FIELD.join([NULL.join(p) for p in places]),
        ),
    )
    shared = [(t, p.owner.id) for p in parks for t in p.shared]
    if shared:
        pipe.add(INSERT_WAITS, (FIELD.join([t for t, _ in shared]), FIELD.join([i for _, i in shared])))
    return parked


FINISH: LiteralString = r"""
update dbos.workflow_status s
   set status = r.status, output = r.output, error = r.error, serialization = 'portable_json', owner_xid = null,
       held = s.held and concat(s.queue_name, E'\x1e', s.queue_partition_key) <> all (string_to_array(%s, E'\x1f')),
       deduplication_id = null, completed_at = clock.now_ms, updated_at = clock.now_ms
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f', E'\x1e'),
              string_to_array(%s, E'\x1f', E'\x1e')) as r (id, status, output, error)
 where s.workflow_uuid = r.id
"""
WAKE_PARENTS: LiteralString = r"""
insert into engine.wake (workflow_uuid, token)
select r.parent, 'c:' || r.id from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as r (parent, id)
"""


def finish(pipe: Pipeline, ends: Sequence[Finish], places: Sequence[Place]) -> None:
    """places: under caps, whose coming free the caller makes known."""
    pipe.add(
        FINISH,
        (
            FIELD.join([NULL.join(p) for p in places]),
            FIELD.join([f.owner.id for f in ends]),
            FIELD.join([f.status for f in ends]),
            texts([f.output for f in ends]),
            texts([f.error for f in ends]),
        ),
    )
    children = [(f.owner.parent_id, f.owner.id) for f in ends if f.owner.parent_id is not None]
    if children:
        pipe.add(WAKE_PARENTS, (FIELD.join([c[0] for c in children]), FIELD.join([c[1] for c in children])))


# After FINISH and PARK, in a later statement (see engine.look_again in schema.sql). They take `held` away from those whose place is told
# here; of the others, which a cap that came later counts, the trigger tells.
NUDGE_FREED: LiteralString = r"""
insert into engine.nudge (queue, key)
select b.queue, b.key
  from (select split_part(g.place, E'\x1e', 1) as queue, split_part(g.place, E'\x1e', 2) as key
          from unnest(string_to_array(%s, E'\x1f')) as g (place)) b
 where (select p.state from engine.queue_partition p where p.queue = b.queue and p.key = b.key) = 'g'
"""


def nudge_freed(pipe: Pipeline, places: Sequence[Place]) -> None:
    """Tell that these places have been given back."""
    pipe.add(NUDGE_FREED, (FIELD.join([NULL.join(p) for p in places]),))
