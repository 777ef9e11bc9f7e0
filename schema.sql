-- Holdfast's whole database, in one file and one transaction.
--
-- Three schemas live side by side, so that one commit can touch them all:
--
--   dbos     what runs and what it recorded. The tables, columns and meanings are those of DBOS (schema version 125), so that
--            SQL written for them, and DBOS's own client, work here. Our own columns stand last in a table, with defaults.
--   engine   what only our workers need: who is alive, who must be woken, the clock.
--   app      the product on top (second part of this file). The engine's part stands alone without it.
--
-- How a workflow moves through them. An enqueue inserts one row into dbos.workflow_status (ENQUEUED). A worker, alive by its row in
-- engine.worker, claims it (PENDING, executor_id = the worker, owner_xid = a token made for this claim). Each finished call becomes
-- one row in dbos.operation_outputs. Every such write first locks the status row where owner_xid is still the token: whoever lost the
-- run writes nothing. A workflow with nothing to do but wait is parked: still PENDING, but without owner and executor; `waits` says
-- for what and `wake_at_ms` until when. What happens to it (a message, a child's end) leaves a row in engine.wake, and any worker
-- turns that into ENQUEUED. The end writes SUCCESS, ERROR, CANCELLED or MAX_RECOVERY_ATTEMPTS_EXCEEDED and takes the owner away.
--
-- Which run a claim takes is decided per queue over its partitions: engine.queue_partition, and engine.claim() below it.
--
-- Times are epoch milliseconds by this database's clock. Payloads are portable JSON text.
-- Lock order, everywhere: status rows by id, then all else. A claim holds a queue's row, then partitions' rows, and then takes only
-- status rows that nobody has locked; a change of limits holds the lock of the limits before anything else.

-- part: engine

create schema dbos;
create schema engine;

-- Written by this file and by each of bin/upgrades/. Code of an older version than works_with may not go on working here.
create table engine.schema_version (
    version     int primary key,
    applied_at  timestamptz not null default now(),
    works_with  int not null
);
insert into engine.schema_version (version, works_with) values (2, 1);

-- Empty in production. A row here stops the clock for everyone, which is how tests own time.
create table engine.clock (
    only_row  boolean primary key default true check (only_row),
    now_ms    bigint not null
);

-- plpgsql, because a SQL function with a subselect is not inlined and starts an executor at every call.
create function engine.now_ms() returns bigint
    language plpgsql stable
    as $$
begin
    return coalesce((select c.now_ms from engine.clock c), (extract(epoch from clock_timestamp()) * 1000)::bigint);
end
$$;

-- Fails the statement, and so the whole transaction, when a condition that the writer relies on does not hold.
create function engine.must(held boolean) returns boolean
    language plpgsql immutable
    as $$
begin
    if held is not true then
        raise exception 'a run of this batch is no longer owned by its writer' using errcode = 'HF001';
    end if;
    return true;
end
$$;

-- One row a workflow: its state, owner and place in a queue.
create table dbos.workflow_status (
    workflow_uuid               text primary key,
    status                      text,
    name                        text,
    authenticated_user          text,
    assumed_role                text,
    authenticated_roles         text,
    request                     text,
    output                      text,
    error                       text,
    executor_id                 text,
    created_at                  bigint not null default (extract(epoch from now()) * 1000)::bigint,
    updated_at                  bigint not null default (extract(epoch from now()) * 1000)::bigint,
    application_version         text,
    application_id              text,
    class_name                  varchar(255),
    config_name                 varchar(255),
    recovery_attempts           bigint default 0,
    queue_name                  text,
    workflow_timeout_ms         bigint,
    workflow_deadline_epoch_ms  bigint,
    inputs                      text,
    started_at_epoch_ms         bigint,
    deduplication_id            text,
    priority                    int not null default 0,
    queue_partition_key         text,
    forked_from                 text,
    owner_xid                   text,
    parent_workflow_id          text,
    serialization               text,
    delay_until_epoch_ms        bigint,
    was_forked_from             boolean not null default false,
    rate_limited                boolean not null default false,
    completed_at                bigint,
    attributes                  jsonb,
    schedule_name               text,
    debounce_deadline_epoch_ms  bigint,
    is_debounced                boolean not null default false,
    application_name            text,
    creator_xid                 text,
    -- ours
    claims                      bigint not null default 0,  -- how often it was claimed; more than once means there is history to load
    waits                       text[],                     -- parked: 't:<topic>', 'c:<workflow>', 'e:<workflow>' + FS + '<key>'; null while it runs
    wake_at_ms                  bigint,                     -- parked: wake at this time even if nothing happened
    held                        boolean not null default false  -- claimed under a cap: counts while somebody owns it
) with (fillfactor = 70);

-- Each index below serves one statement; a status index costs every transition a row version, so there are no others.
-- Those of queues keep an entry a row: equal keys that share one entry can't be cleaned by who reads past them until all are dead.
create index workflow_status_queued on dbos.workflow_status (queue_name, coalesce(queue_partition_key, ''), priority, created_at)
    with (deduplicate_items = off) where status = 'ENQUEUED';
create index workflow_status_begun on dbos.workflow_status (queue_name, priority, created_at)  -- they go on, past a rate limit
    where status = 'ENQUEUED' and started_at_epoch_ms is not null;
create index workflow_status_held on dbos.workflow_status (queue_name, coalesce(queue_partition_key, ''))
    with (deduplicate_items = off) where held and owner_xid is not null;
create index workflow_status_owned on dbos.workflow_status (executor_id) where status = 'PENDING';  -- also counts those that wait
create index workflow_status_timers on dbos.workflow_status (wake_at_ms) where wake_at_ms is not null;
create index workflow_status_delayed on dbos.workflow_status (delay_until_epoch_ms) where status = 'DELAYED';
create index workflow_status_deadlines on dbos.workflow_status (workflow_deadline_epoch_ms)
    where workflow_deadline_epoch_ms is not null and status in ('ENQUEUED', 'DELAYED', 'PENDING');
create unique index workflow_status_dedup on dbos.workflow_status (queue_name, deduplication_id) where deduplication_id is not null;
create index workflow_status_children on dbos.workflow_status (parent_workflow_id) where parent_workflow_id is not null;
create index workflow_status_forks on dbos.workflow_status (forked_from) where forked_from is not null;
create index workflow_status_failed on dbos.workflow_status (status, created_at)
    where status in ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
create index workflow_status_created on dbos.workflow_status (created_at);

-- Payloads as a 3.x client writes them. Read together with the inline columns above; our own writes are inline.
create table dbos.workflow_input (
    workflow_uuid        text primary key constraint workflow_ids_hold_no_control_characters check (workflow_uuid !~ '[[:cntrl:]]'),
    inputs               text,
    retention_timestamp  bigint not null default (extract(epoch from now()) * 1000)::bigint
);
create index workflow_input_retention on dbos.workflow_input (retention_timestamp);

-- Another client's start or fork always leaves a row here, and ours never do: the place to check what ours check themselves (control
-- characters separate values inside the engine), and to hint workers. Our own hints go beside their transactions, because a commit that
-- notifies takes a lock over the whole server.
create function engine.hint_work() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    perform pg_notify('holdfast', 'work');
    return null;
end
$$;
create trigger workflow_input_hint after insert on dbos.workflow_input
    for each statement execute function engine.hint_work();

create table dbos.workflow_output (
    workflow_uuid        text primary key,
    output               text,
    error                text,
    retention_timestamp  bigint not null default (extract(epoch from now()) * 1000)::bigint
);
create index workflow_output_retention on dbos.workflow_output (retention_timestamp);

-- The journal: one row a finished call, in the order of recording (function_id 1, 2, 3 …). call_path is where in the workflow's code
-- the call was made ('3.1.2': second call in the second branch of the third call); replay looks a call up by it.
create table dbos.operation_outputs (
    workflow_uuid          text not null,
    function_id            int not null,
    function_name          text not null default '',
    output                 text,
    error                  text,
    child_workflow_id      text,
    started_at_epoch_ms    bigint,
    completed_at_epoch_ms  bigint,
    serialization          text,
    application_name       text,
    retention_timestamp    bigint not null default (extract(epoch from now()) * 1000)::bigint,
    -- ours
    call_path              text,
    primary key (workflow_uuid, function_id)
);

-- A client that forks by copying rows does not know call_path; the copy takes it from the original.
create function engine.copy_call_path() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    select o.call_path into new.call_path
      from dbos.workflow_status s
      join dbos.operation_outputs o on o.workflow_uuid = s.forked_from and o.function_id = new.function_id
     where s.workflow_uuid = new.workflow_uuid;
    return new;
end
$$;
create trigger operation_outputs_copy_call_path before insert on dbos.operation_outputs
    for each row when (new.call_path is null) execute function engine.copy_call_path();

-- The mailbox. consumed_by_function_id names the journal row of the receive.
create table dbos.notifications (
    message_uuid             text primary key default gen_random_uuid()::text,
    destination_uuid         text not null references dbos.workflow_status (workflow_uuid) on update cascade on delete cascade,
    topic                    text,
    message                  text not null,
    created_at_epoch_ms      bigint not null default (extract(epoch from now()) * 1000)::bigint,
    serialization            text,
    consumed                 boolean not null default false,
    consumed_by_function_id  int,
    -- ours
    seq                      bigint generated always as identity  -- orders messages of one millisecond
);
create index notifications_mailbox on dbos.notifications (destination_uuid, topic);

create table dbos.workflow_events (
    workflow_uuid  text not null references dbos.workflow_status (workflow_uuid) on update cascade on delete cascade,
    key            text not null,
    value          text not null,
    serialization  text,
    primary key (workflow_uuid, key)
);

create table dbos.workflow_events_history (
    workflow_uuid  text not null references dbos.workflow_status (workflow_uuid) on update cascade on delete cascade,
    function_id    int not null,
    key            text not null,
    value          text not null,
    serialization  text,
    primary key (workflow_uuid, function_id, key)
);

create table dbos.streams (
    workflow_uuid  text not null references dbos.workflow_status (workflow_uuid) on update cascade on delete cascade,
    key            text not null,
    value          text not null,
    "offset"       int not null,
    function_id    int not null default 0,
    serialization  text,
    primary key (workflow_uuid, key, "offset")
);

create table dbos.queues (
    queue_id                         text primary key default gen_random_uuid()::text,
    name                             text not null unique,
    concurrency                      int,
    worker_concurrency               int,
    rate_limit_max                   int,
    rate_limit_period_sec            double precision,
    priority_enabled                 boolean not null default false,
    partition_queue                  boolean not null default false,
    polling_interval_sec             double precision not null default 1.0,
    created_at                       bigint not null default (extract(epoch from now()) * 1000)::bigint,
    updated_at                       bigint not null default (extract(epoch from now()) * 1000)::bigint,
    application_name                 text,
    partition_concurrency            int,
    partition_worker_concurrency     int,
    partition_rate_limit_max         int,
    partition_rate_limit_period_sec  double precision
);

create table dbos.workflow_schedules (
    schedule_id          text primary key default gen_random_uuid()::text,
    schedule_name        text not null unique,
    workflow_name        text not null,
    workflow_class_name  text,
    schedule             text not null,
    status               text not null default 'ACTIVE',
    context              text not null,
    last_fired_at        text,
    automatic_backfill   boolean not null default false,
    cron_timezone        text,
    queue_name           text,
    application_name     text
);

create table dbos.application_versions (
    version_id         text primary key default gen_random_uuid()::text,
    version_name       text not null unique,
    version_timestamp  bigint not null default (extract(epoch from now()) * 1000)::bigint,
    created_at         bigint not null default (extract(epoch from now()) * 1000)::bigint,
    application_name   text
);

create table dbos.event_dispatch_kv (
    service_name      text not null,
    workflow_fn_name  text not null,
    key               text not null,
    value             text,
    update_seq        numeric(38, 0),
    update_time       numeric(38, 15),
    primary key (service_name, workflow_fn_name, key)
);

create table dbos.dbos_migrations (
    version  bigint primary key
);
insert into dbos.dbos_migrations (version) values (125);

-- Plain-SQL ways in, for clients in any language. Same names and parameters as DBOS gives them.
create function dbos.enqueue_workflow(
    workflow_name text, queue_name text, positional_args json[] default array[]::json[], named_args json default '{}',
    class_name text default null, config_name text default null, workflow_id text default null, app_version text default null,
    timeout_ms bigint default null, deadline_epoch_ms bigint default null, deduplication_id text default null,
    priority int default null, queue_partition_key text default null, authenticated_user text default null,
    authenticated_roles text default null, delay_until_epoch_ms bigint default null, application_name text default null
) returns text
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
declare
    id text := coalesce(workflow_id, gen_random_uuid()::text);
begin
    if coalesce(workflow_name, '') = '' or coalesce(queue_name, '') = '' or id = '' then
        raise exception 'enqueue_workflow needs a workflow name, a queue name and, if given, a workflow id that are not empty'
            using errcode = 'invalid_parameter_value';
    end if;
    if id ~ '[[:cntrl:]]' then
        raise exception 'workflow id % holds a control character; use printable characters', quote_literal(id)
            using errcode = 'invalid_parameter_value';
    end if;
    if json_typeof(coalesce(named_args, '{}')) <> 'object' then
        raise exception 'enqueue_workflow takes named_args as a JSON object' using errcode = 'invalid_parameter_value';
    end if;
    insert into dbos.workflow_status as s (
        workflow_uuid, status, inputs, name, class_name, config_name, queue_name, deduplication_id, priority,
        queue_partition_key, application_version, workflow_timeout_ms, workflow_deadline_epoch_ms, authenticated_user,
        authenticated_roles, delay_until_epoch_ms, application_name, creator_xid, serialization)
    values (
        id, case when enqueue_workflow.delay_until_epoch_ms is null then 'ENQUEUED' else 'DELAYED' end,
        json_build_object('positionalArgs', positional_args, 'namedArgs', coalesce(named_args, '{}'))::text,
        workflow_name, enqueue_workflow.class_name, enqueue_workflow.config_name, enqueue_workflow.queue_name,
        enqueue_workflow.deduplication_id, coalesce(enqueue_workflow.priority, 0), enqueue_workflow.queue_partition_key,
        app_version, timeout_ms, deadline_epoch_ms, enqueue_workflow.authenticated_user,
        enqueue_workflow.authenticated_roles, enqueue_workflow.delay_until_epoch_ms, enqueue_workflow.application_name,
        gen_random_uuid()::text, 'portable_json')
    on conflict (workflow_uuid) do nothing;
    perform pg_notify('holdfast', 'work');
    return id;
end
$$;

create function dbos.send_message(destination_id text, message json, topic text default null, message_id text default null)
    returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into dbos.notifications (destination_uuid, topic, message, message_uuid, serialization)
    values (destination_id, coalesce(send_message.topic, '__null__topic__'), send_message.message::text,
            coalesce(message_id, gen_random_uuid()::text), 'portable_json')
    on conflict (message_uuid) do nothing;
end
$$;

-- One row a living worker process: a fresh id each boot. A worker renews lease_until_ms; once `dead`, it never owns anything again,
-- and its row goes when no run names it.
create table engine.worker (
    id              text primary key,
    lease_until_ms  bigint not null,
    started_at_ms   bigint not null,
    dead            boolean not null default false,
    version         text,
    place           text not null default '',  -- host and pid, for people
    paused          boolean not null default false  -- claims nothing
) with (fillfactor = 50);

-- What happened that may wake a parked run: written in the commit of the happening, taken out by any worker afterwards. No writer has
-- to lock a run that is not its own, so no two writers can wait for each other.
create table engine.wake (
    id             bigint generated always as identity primary key,
    workflow_uuid  text not null,
    token          text not null
);

-- Our own connections are named after us; they have checked the topic, and send their hint beside the transaction.
create function engine.wake_mailboxes() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into engine.wake (workflow_uuid, token)
    select distinct m.destination_uuid, 't:' || coalesce(m.topic, '__null__topic__') from arrived m;
    if not starts_with(current_setting('application_name'), 'holdfast') then
        if exists (select from arrived m where m.topic ~ '[[:cntrl:]]') then
            raise exception 'a topic holds a control character; use printable characters' using errcode = 'check_violation';
        end if;
        perform pg_notify('holdfast', 'wake');
    end if;
    return null;
end
$$;
create trigger notifications_wake after insert on dbos.notifications
    referencing new table as arrived for each statement execute function engine.wake_mailboxes();

-- Parked runs that wait for something besides a message, an own child or a clock: an event or the end of any workflow. In "C" order, so
-- that all tokens about one workflow stand together.
create table engine.wait (
    token          text collate "C" not null,
    workflow_uuid  text not null,
    primary key (token, workflow_uuid)
);
create index wait_by_workflow on engine.wait (workflow_uuid);

-- A cancel can come from any client. Whoever waits for the workflow hears of it here, and it waits for nothing itself any more.
create function engine.hear_of_cancel() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into engine.wake (workflow_uuid, token)
    select new.parent_workflow_id, 'c:' || new.workflow_uuid where new.parent_workflow_id is not null
    union
    select w.workflow_uuid, w.token from engine.wait w where w.token = 'c:' || new.workflow_uuid;
    delete from engine.wait w where w.workflow_uuid = new.workflow_uuid;
    return null;
end
$$;
create trigger workflow_status_cancelled after update of status on dbos.workflow_status
    for each row when (new.status = 'CANCELLED' and old.status is distinct from new.status)
    execute function engine.hear_of_cancel();

-- Queues. A queue is served fairly over its partitions (start-time fair queueing, Goyal, Vin and Cheng 1996): each has a virtual time
-- that grows by 1/weight with every run it starts, and a claim takes from those that are furthest behind. The limits that a queue was
-- declared with are in dbos.queues; here is what changes while it works.
--
-- Caps are counted, never kept: a claim that locks the row of what is capped, and then counts in a later statement, counts right; so no
-- counter can drift from what it counts. A rate keeps how many runs started in each 1/32 of its period, in a ring of 33 counts.
create table engine.queue (
    name         text primary key,
    paused       boolean not null default false,
    floor        bigint not null default 0,  -- the virtual time of the queue, kept for when no partition is runnable
    starts       int[],                      -- ring of counts; null: no start under a rate yet
    starts_upto  bigint not null default 0,  -- the newest count's number: time / (period / 32)
    opens_at_ms  bigint                      -- the rate was used up, until then
) with (fillfactor = 50);

-- A partition with work, or with limits of its own. Only runnable ones are in the claim's index, so that the others cost it nothing:
--   r  runnable: has work, as far as anybody knows
--   e  empty, as the last visit found. Whoever enqueues leaves a nudge
--   g  gated: as many at work as its cap allows. Whoever ends or parks one of them leaves a nudge
--   t  gated by its rate until due_at_ms
--   s  has work for other workers only (their version, their workflows); looked at again at due_at_ms
--   p  paused
-- A letter is a hint, and a visit that finds it wrong puts it right; e and g need care, because nobody visits those: see engine.look_again.
create table engine.queue_partition (
    queue          text not null,
    key            text not null,  -- '' of workflows without a partition key
    state          text not null default 'r' check (state in ('r', 'e', 'g', 't', 's', 'p')),
    vtime          bigint not null default 0,
    tie            bigint not null default 0,  -- between equals: when it became runnable, in microseconds or so
    due_at_ms      bigint,         -- look at it again then
    check_xid      xid8,           -- e, g: whoever may have missed the verdict has a smaller transaction id
    misses         int not null default 0,  -- s: visits in vain
    since_floor    int not null default 0,  -- starts since the last one of a less urgent class
    floor_class    int,            -- the priority of that one
    starts         int[],
    starts_upto    bigint not null default 0,
    -- set by people; null: as the queue says
    weight         real not null default 1 check (weight > 0),
    concurrency    int,
    rate_limit_max int,
    rate_limit_period_sec double precision,
    primary key (queue, key)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index queue_partition_runnable on engine.queue_partition (queue, vtime, tie) where state = 'r';
create index queue_partition_due on engine.queue_partition (due_at_ms) where due_at_ms is not null;

-- Partitions to look at again: they got work, or a place under their cap came free. Written in the commit of what happened, taken out by
-- any worker, so that nobody who enqueues or finishes has to lock a partition.
create table engine.nudge (
    id     bigint generated always as identity primary key,
    queue  text not null,
    key    text not null
);

-- A runnable, gated or paused partition needs no nudge for new work. This must be a later statement than the insert: then either it sees
-- that the partition became empty, or whoever makes sure of that (look_again) sees this transaction. The scalar subselects are looked up
-- row by row; as a join they could become a scan of all partitions.
create function engine.nudge_enqueued() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if exists (select from fresh n
                where n.status = 'ENQUEUED' and n.queue_name is not null
                  and coalesce((select p.state from engine.queue_partition p
                                 where p.queue = n.queue_name and p.key = coalesce(n.queue_partition_key, '')), 'e') in ('e', 's')) then
        insert into engine.nudge (queue, key)
        select f.queue_name, f.key
          from (select n.queue_name, coalesce(n.queue_partition_key, '') as key, min(n.created_at) as since from fresh n
                 where n.status = 'ENQUEUED' and n.queue_name is not null group by 1, 2) f
         where coalesce((select p.state from engine.queue_partition p where p.queue = f.queue_name and p.key = f.key), 'e') in ('e', 's')
         order by f.since, f.key;
    end if;
    return null;
end
$$;
create trigger workflow_status_enqueued after insert on dbos.workflow_status
    referencing new table as fresh for each statement execute function engine.nudge_enqueued();

-- A place that came free is told of where its writer leaves `held`; who takes that away leaves the nudges of all its rows at once.
create function engine.nudge_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    if new.status = 'ENQUEUED' and new.queue_name is not null
       and (old.status, old.queue_name, old.queue_partition_key) is distinct from (new.status, new.queue_name, new.queue_partition_key) then
        insert into engine.nudge (queue, key)
        select new.queue_name, coalesce(new.queue_partition_key, '')
         where coalesce((select p.state from engine.queue_partition p
                          where p.queue = new.queue_name and p.key = coalesce(new.queue_partition_key, '')), 'e') in ('e', 's', 't');
    end if;
    if old.held and new.held and old.owner_xid is not null and new.owner_xid is null and old.queue_name is not null then
        insert into engine.nudge (queue, key)
        select old.queue_name, coalesce(old.queue_partition_key, '')
         where (select p.state from engine.queue_partition p
                 where p.queue = old.queue_name and p.key = coalesce(old.queue_partition_key, '')) = 'g';
    end if;
    return null;
end
$$;
-- One trigger, because every update of the table parses each trigger's condition.
create trigger workflow_status_changed after update of status, queue_name, queue_partition_key, owner_xid on dbos.workflow_status
    for each row when (new.status = 'ENQUEUED' or old.held and new.held and old.owner_xid is not null and new.owner_xid is null)
    execute function engine.nudge_changed();

create function engine.nudge_gone() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into engine.nudge (queue, key)
    select old.queue_name, coalesce(old.queue_partition_key, '')
     where (select p.state from engine.queue_partition p
             where p.queue = old.queue_name and p.key = coalesce(old.queue_partition_key, '')) = 'g';
    return null;
end
$$;
create trigger workflow_status_gone after delete on dbos.workflow_status
    for each row when (old.held and old.owner_xid is not null and old.queue_name is not null)
    execute function engine.nudge_gone();

-- The virtual time at which a partition joins those that are runnable: it saves up nothing while it is not.
create function engine.entry_vtime(queue text) returns bigint
    language plpgsql stable
    as $$
begin
    return greatest(
        coalesce((select q.floor from engine.queue q where q.name = entry_vtime.queue), 0),
        coalesce((select p.vtime from engine.queue_partition p where p.queue = entry_vtime.queue and p.state = 'r'
                   order by p.vtime, p.tie limit 1), 0));
end
$$;

-- Whether a partition has anything queued, for whatever worker. A function, because inside of a larger statement `exists` could become a
-- hash of all that is queued.
create function engine.has_queued(queue text, key text) returns boolean
    language plpgsql stable
    as $$
begin
    return exists (select from dbos.workflow_status w
                    where w.status = 'ENQUEUED' and w.queue_name = has_queued.queue
                      and coalesce(w.queue_partition_key, '') = has_queued.key);
end
$$;

-- How many of a partition's workflows somebody owns, of those that were claimed under a cap.
create function engine.held_by(queue text, key text) returns int
    language plpgsql stable
    as $$
begin
    return (select count(*) from dbos.workflow_status w
             where w.held and w.owner_xid is not null and w.queue_name = held_by.queue
               and coalesce(w.queue_partition_key, '') = held_by.key);
end
$$;

-- Makes nudged and due partitions runnable; how many it looked at. That a partition is empty, or full, is looked at until it is certain:
-- somebody may have read 'r' before the verdict and not have committed yet, and so left no nudge. Such a transaction had its id before
-- the first look; once all ids that were given out before that look are over, what they did is in sight. A long read has no id.
-- Any worker, any time, as the first thing of a transaction: it waits for partitions in the order of their keys.
create function engine.look_again() returns int
    language plpgsql
    as $$
declare
    now_at constant bigint := engine.now_ms();
    looked int := 0;
    found_due int;
begin
    if exists (select from engine.nudge) then
        with taken as (
            delete from engine.nudge n where n.id in (select x.id from engine.nudge x order by x.id limit 1000 for update skip locked)
            returning n.id, n.queue, n.key),
        told as (
            insert into engine.queue_partition as p (queue, key, vtime, tie)
            select t.queue, t.key, engine.entry_vtime(t.queue), t.tie
              from (select n.queue, n.key, now_at * 1000 + row_number() over (order by min(n.id)) as tie from taken n group by 1, 2) t
             order by t.queue, t.key
                on conflict (queue, key) do update
               set state = 'r', due_at_ms = null, check_xid = null, misses = 0, vtime = greatest(p.vtime, excluded.vtime), tie = excluded.tie
             where p.state not in ('r', 'p')
            returning 1)
        select count(*) into looked from told;
    end if;
    if exists (select from engine.queue_partition p where p.due_at_ms <= now_at) then
        with due as materialized (
            select p.ctid as place, p.check_xid,
                   case p.state
                       when 'e' then not engine.has_queued(p.queue, p.key)
                       when 'g' then engine.held_by(p.queue, p.key) >= coalesce(
                           p.concurrency, (select d.partition_concurrency from dbos.queues d where d.name = p.queue))
                       end is true as stays
              from engine.queue_partition p where p.due_at_ms <= now_at order by p.due_at_ms limit 1000
               for no key update of p skip locked)
        update engine.queue_partition p
           set state = case when d.stays then p.state else 'r' end,
               vtime = case when d.stays then p.vtime else greatest(p.vtime, engine.entry_vtime(p.queue)) end,
               tie = case when d.stays then p.tie else now_at * 1000 end,
               due_at_ms = case when d.stays and (d.check_xid is null or pg_snapshot_xmin(pg_current_snapshot()) < d.check_xid)
                                then now_at + 100 end,
               check_xid = case when d.stays then coalesce(d.check_xid, pg_snapshot_xmax(pg_current_snapshot())) end
          from due d where p.ctid = d.place;
        get diagnostics found_due = row_count;
        looked := looked + found_due;
    end if;
    return looked;
end
$$;

-- A ring of counts, one for each 1/32 of a period; 33 of them cover any window of that length, wherever it begins. `upto` is the number of
-- the newest one. A clock that was set back by more than that forgets them.
create function engine.starts_left(ring int[], upto bigint, at bigint, most int) returns int
    language sql immutable
    as $$
select case when most is null then null
            when ring is null or upto - at > 33 then most
            else greatest(0, most - coalesce((select sum(ring[(b % 33) + 1])
                                                from generate_series(greatest(at, upto) - 32, upto) b), 0))::int end
$$;
create function engine.starts_after(ring int[], upto bigint, at bigint, started int) returns int[]
    language plpgsql immutable
    as $$
begin
    if ring is null or abs(at - upto) > 33 then
        ring := array_fill(0, array[33]);
    else
        for n in 1 .. (at - upto)::int loop
            ring[((upto + n) % 33) + 1] := 0;
        end loop;
        at := greatest(at, upto);
    end if;
    ring[(at % 33) + 1] := ring[(at % 33) + 1] + started;
    return ring;
end
$$;
create function engine.starts_newest(upto bigint, at bigint) returns bigint
    language sql immutable
    return case when abs(at - upto) > 33 then at else greatest(at, upto) end;
create function engine.bucket_ms(period_s double precision) returns bigint
    language sql immutable
    return ceil(period_s * 1000 / 32)::bigint;
-- The number of the moment at which the oldest counted start leaves the window.
create function engine.starts_open(ring int[], upto bigint, at bigint) returns bigint
    language sql immutable
    as $$
select coalesce((select min(b) + 33 from generate_series(greatest(at, upto) - 32, upto) b where ring[(b % 33) + 1] > 0), at + 1)
$$;

create type engine.claimed as (
    workflow_uuid text, name text, class_name text, inputs text, serialization text, attempts bigint, claims bigint, forked_from text,
    parent_workflow_id text, queue_name text, queue_partition_key text, priority int, version text, deadline_ms bigint,
    attributes jsonb, held boolean, now_ms bigint);

-- Whoever changes limits waits for the claims that are under way under the old ones, and claims wait for the change: so what is at work
-- when a cap comes is known. An advisory lock, because a row that all claims lock together would need a multixact for each.
create function engine.share_limits() returns void
    language sql
    return pg_advisory_xact_lock_shared(hashtextextended('holdfast.limits', 0));
create function engine.change_limits() returns void
    language sql
    return pg_advisory_xact_lock(hashtextextended('holdfast.limits', 0));

-- Whether a partition has no limit of its own and workflows of one priority only: then the first come is the next.
create function engine.is_plain(queue text, key text) returns boolean
    language plpgsql stable
    as $$
begin
    return exists (select from engine.queue_partition p
                    where p.queue = is_plain.queue and p.key = is_plain.key and p.concurrency is null and p.rate_limit_max is null)
       and (select w.priority from dbos.workflow_status w
             where w.status = 'ENQUEUED' and w.queue_name = is_plain.queue and coalesce(w.queue_partition_key, '') = is_plain.key
             order by w.priority, w.created_at limit 1)
         is not distinct from
           (select w.priority from dbos.workflow_status w
             where w.status = 'ENQUEUED' and w.queue_name = is_plain.queue and coalesce(w.queue_partition_key, '') = is_plain.key
             order by w.priority desc, w.created_at desc limit 1);
end
$$;

-- Claims up to rooms[i] workflows of queues[i] for a worker that knows these workflows and serves this application version. One
-- transaction; at most one claim at a time is at work on a queue with a limit of its own, and on a partition. Queue by queue, in the order
-- of their names:
--   with one runnable partition and no limits there is nothing to share out: its first workflows are taken, its row is not touched
--   else, under the lock of its row, what the queue's cap and rate leave room for
--   the eight partitions that are furthest behind, locked. Those that another claim holds are passed over. If it holds all, and this
--   one none, one is waited for
--   each one's part of the room: the n-th workflow of a partition has the tag vtime + n/weight, and the smallest tags are served
--   its workflows, urgent first; one start of a partition in 16 is of the next less urgent class, so that no class starves
--   and what that makes of the partition. If there is room left, the next eight: some more, and many more if nothing was found yet, for
--   there may be a crowd that only other workers can serve
-- What is counted under a lock is counted in a later statement than the lock, and the time of the starts is read after the counting, so
-- that nothing starts before what made room for it has ended. A worker's row is held meanwhile, so that it is not deleted under a claim: a
-- workflow whose executor has no row would wait for ever.
create function engine.claim(me text, my_token text, my_version text, workflows text[], queues text[], rooms int[])
    returns setof engine.claimed
    language plpgsql
    as $$
declare
    q record;
    ring record;
    holding boolean;  -- partitions' rows
    now_at bigint;
    room int;      -- that this claim still has for the queue
    wanted int;    -- of that, what the queue's limits allow now
    opens int;     -- how many may start under the queue's rate; null: any
    capped boolean;
    -- locked in this transaction, so they stay where they are
    rows tid[];
    spots tid[];   -- partitions
    -- by partition: its key, how many to take, what its own rate allowed, what its cap left before, of a less urgent class, the last one
    keys text[];
    wants int[];
    owns int[];
    places int[];
    floors int[];
    floor_classes int[];
    -- by row: its partition, whether it starts, the class of one that the floor gave
    ns bigint[];
    news boolean[];
    classes int[];
begin
    perform from engine.worker w where w.id = me and not w.dead and not w.paused for key share;
    if not found then
        return;
    end if;
    -- A claim may be lost with a crash of the server: whatever its worker writes later is behind it in the log, or is refused by its token.
    perform set_config('synchronous_commit', 'off', true);
    perform engine.share_limits();
    holding := false;
    if exists (select from engine.nudge) or exists (select from engine.queue_partition p where p.due_at_ms <= engine.now_ms()) then
        holding := engine.look_again() > 0;
    end if;
    for q in
        select n.name, n.room, d.concurrency, d.partition_concurrency, d.rate_limit_max, d.partition_rate_limit_max,
               engine.bucket_ms(d.rate_limit_period_sec) as bucket_ms, d.partition_rate_limit_period_sec as partition_period_s,
               d.concurrency is not null or d.rate_limit_max is not null as limited,
               d.partition_concurrency is not null or d.partition_rate_limit_max is not null as partitions_limited
          from unnest(queues, rooms) as n (name, room)
          left join engine.queue e on e.name = n.name
          left join dbos.queues d on d.name = n.name
         where n.room > 0 and not coalesce(e.paused, false)
           and exists (select from engine.queue_partition p where p.queue = n.name and p.state = 'r')
         order by n.name
    loop
        room := q.room;
        for pass in 1 .. 64 loop
            rows := null;
            spots := null;
            ns := null;
            news := null;
            classes := null;
            opens := null;
            wanted := room;
            capped := q.concurrency is not null or q.partition_concurrency is not null;
            if q.limited then
                insert into engine.queue (name) select q.name where not exists (select from engine.queue e where e.name = q.name)
                    on conflict do nothing;
                select e.starts, e.starts_upto into ring from engine.queue e where e.name = q.name for no key update;
                if q.concurrency is not null then
                    wanted := least(room, q.concurrency - (
                        select count(*) from dbos.workflow_status w
                         where w.held and w.owner_xid is not null and w.queue_name = q.name));
                end if;
                opens := engine.starts_left(ring.starts, ring.starts_upto, engine.now_ms() / q.bucket_ms, q.rate_limit_max);
                wanted := least(wanted, nullif(opens, 0));
                exit when wanted <= 0;
            end if;

            if opens = 0 then
                -- Those that have started go on. They are few, and found by themselves.
                select array_agg(h.ctid) into spots
                  from (select p.ctid from engine.queue_partition p
                         where p.queue = q.name and p.state = 'r'
                           and p.key in (select coalesce(b.queue_partition_key, '')
                                           from (select w.queue_partition_key from dbos.workflow_status w
                                                  where w.status = 'ENQUEUED' and w.started_at_epoch_ms is not null
                                                    and w.queue_name = q.name
                                                  order by w.priority, w.created_at limit 4 * wanted) b)
                         order by p.key for no key update skip locked) h;
            else
                if not q.limited and not q.partitions_limited and pass = 1 then
                    select array_agg(h.key) into keys
                      from (select p.key from engine.queue_partition p
                             where p.queue = q.name and p.state = 'r' order by p.vtime, p.tie limit 2) h;
                    if cardinality(keys) = 1 and engine.is_plain(q.name, keys[1]) then
                        select array_agg(h.ctid) into rows
                          from (select w.ctid from dbos.workflow_status w
                                 where w.status = 'ENQUEUED' and w.queue_name = q.name
                                   and coalesce(w.queue_partition_key, '') = keys[1] and w.name = any (workflows)
                                   and (w.application_version is null or w.application_version = my_version)
                                 order by w.priority, w.created_at limit wanted
                                   for no key update skip locked) h;
                        exit when rows is null;
                    end if;
                end if;
                if rows is null then
                    select array_agg(h.ctid) into spots
                      from (select p.ctid from engine.queue_partition p
                             where p.queue = q.name and p.state = 'r' order by p.vtime, p.tie limit 8
                               for no key update skip locked) h;
                    if spots is null and not holding then
                        -- Who waits for a partition holds none. It is one only, found by its key: else one that is no longer runnable after
                        -- the wait would stay locked beside the next.
                        select array[h.ctid] into spots
                          from (select p.ctid from engine.queue_partition p
                                 where p.queue = q.name and p.state = 'r'
                                   and p.key = (select r.key from engine.queue_partition r
                                                 where r.queue = q.name and r.state = 'r' order by r.vtime, r.tie limit 1)
                                   for no key update) h;
                    end if;
                end if;
            end if;
            exit when spots is null and rows is null;
            holding := true;

            if spots is not null then
                with visited as materialized (
                    select p.ctid as spot, p.key, p.vtime, p.tie, (1000000 / p.weight)::bigint as stride, p.since_floor, p.floor_class,
                           p.concurrency is not null as has_cap,
                           ceil(2 * wanted * p.weight / sum(p.weight) over ())::int + 1 as most,
                           case when coalesce(p.concurrency, q.partition_concurrency) is not null
                                then coalesce(p.concurrency, q.partition_concurrency) - (
                                    select count(*) from dbos.workflow_status w
                                     where w.held and w.owner_xid is not null and w.queue_name = q.name
                                       and coalesce(w.queue_partition_key, '') = p.key)::int end as place,
                           case when coalesce(p.rate_limit_max, q.partition_rate_limit_max) is not null
                                then engine.starts_left(
                                    p.starts, p.starts_upto,
                                    engine.now_ms() / engine.bucket_ms(coalesce(p.rate_limit_period_sec, q.partition_period_s)),
                                    coalesce(p.rate_limit_max, q.partition_rate_limit_max)) end as own
                      from engine.queue_partition p where p.ctid = any (spots))
                select array_agg(v.spot), array_agg(v.key), array_agg(coalesce(t.want, 0)), array_agg(v.own), array_agg(v.place),
                       array_agg(case when v.own is distinct from 0 then (v.since_floor + t.want) / 16 end), array_agg(v.floor_class),
                       capped or bool_or(v.has_cap)
                  into spots, keys, wants, owns, places, floors, floor_classes, capped
                  from visited v
                  left join (
                    select t.key, count(*)::int as want
                      from (select x.key
                              from visited x cross join lateral generate_series(0, least(x.most, x.place, nullif(x.own, 0)) - 1) n
                             order by x.vtime + x.stride * n, x.tie limit wanted) t
                     group by t.key) t on t.key = v.key;

                if opens is distinct from 0 and 0 < any (floors) then
                    select array_agg(v.n), array_agg(t.ctid), array_agg(t.is_fresh), array_agg(t.priority)
                      into ns, rows, news, classes
                      from unnest(keys, floors, floor_classes) with ordinality as v (key, floor, floor_class, n)
                     cross join lateral (
                        select w.priority as head from dbos.workflow_status w
                         where w.status = 'ENQUEUED' and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key
                         order by w.priority, w.created_at limit 1) u
                     cross join lateral (
                        select coalesce(
                            (select w.priority from dbos.workflow_status w
                              where w.status = 'ENQUEUED' and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key
                                and w.priority > greatest(u.head, v.floor_class) and w.name = any (workflows)
                                and (w.application_version is null or w.application_version = my_version)
                              order by w.priority limit 1),
                            (select w.priority from dbos.workflow_status w
                              where w.status = 'ENQUEUED' and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key
                                and w.priority > u.head and w.name = any (workflows)
                                and (w.application_version is null or w.application_version = my_version)
                              order by w.priority limit 1)) as priority) c
                     cross join lateral (
                        select w.ctid, w.priority, w.started_at_epoch_ms is null as is_fresh from dbos.workflow_status w
                         where w.status = 'ENQUEUED' and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key
                           and w.priority = c.priority and w.name = any (workflows)
                           and (w.application_version is null or w.application_version = my_version)
                         order by w.priority, w.created_at limit v.floor
                           for no key update of w skip locked) t
                     where v.floor > 0;
                end if;

                if opens is distinct from 0 then
                    select ns || array_agg(v.n), rows || array_agg(t.ctid), news || array_agg(t.is_fresh) into ns, rows, news
                      from unnest(keys, wants, owns) with ordinality as v (key, want, own, n)
                     cross join lateral (
                        select w.ctid, w.started_at_epoch_ms is null as is_fresh from dbos.workflow_status w
                         where w.status = 'ENQUEUED' and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key
                           and w.name = any (workflows) and (w.application_version is null or w.application_version = my_version)
                           and w.ctid <> all (coalesce(rows, '{}'))
                         order by w.priority, w.created_at
                         limit case when v.own is distinct from 0 then v.want - coalesce(cardinality(array_positions(ns, v.n)), 0) else 0 end
                           for no key update of w skip locked) t;
                end if;

                if opens = 0 or 0 = any (owns) then
                    select ns || array_agg(v.n), rows || array_agg(t.ctid), news || array_agg(false) into ns, rows, news
                      from unnest(keys, wants, owns) with ordinality as v (key, want, own, n)
                     cross join lateral (
                        select w.ctid from dbos.workflow_status w
                         where w.status = 'ENQUEUED' and w.started_at_epoch_ms is not null
                           and w.queue_name = q.name and coalesce(w.queue_partition_key, '') = v.key and w.name = any (workflows)
                           and (w.application_version is null or w.application_version = my_version)
                         order by w.priority, w.created_at limit v.want
                           for no key update of w skip locked) t
                     where opens = 0 or v.own = 0;
                end if;
            end if;

            now_at := engine.now_ms();
            if rows is not null then
                return query
                update dbos.workflow_status w
                   set status = 'PENDING', owner_xid = my_token, executor_id = me,
                       started_at_epoch_ms = coalesce(w.started_at_epoch_ms, now_at), updated_at = now_at,
                       recovery_attempts = coalesce(w.recovery_attempts, 0) + 1, claims = w.claims + 1, waits = null, wake_at_ms = null,
                       held = capped, workflow_deadline_epoch_ms = least(w.workflow_deadline_epoch_ms, now_at + w.workflow_timeout_ms)
                 where w.ctid = any (rows)
                returning w.workflow_uuid, w.name, w.class_name::text,
                          coalesce(w.inputs, (select i.inputs from dbos.workflow_input i where i.workflow_uuid = w.workflow_uuid)),
                          w.serialization, w.recovery_attempts, w.claims, w.forked_from, w.parent_workflow_id, w.queue_name,
                          w.queue_partition_key, w.priority, w.application_version, w.workflow_deadline_epoch_ms, w.attributes, w.held,
                          now_at;
                room := room - cardinality(rows);
            end if;
            exit when spots is null;

            update engine.queue_partition p
               set vtime = p.vtime + n.got * (1000000 / p.weight)::bigint, state = n.state, check_xid = null,
                   misses = case when n.state = 's' then p.misses + 1 else 0 end,
                   due_at_ms = case n.state when 'e' then now_at + 50
                                            when 'g' then now_at + 50
                                            when 's' then now_at + (50 + 100 * random())::int  -- at random: the others must have their turn
                                                          + (100 * (2 ^ least(greatest(p.misses - 10, 0), 9) - 1))::int
                                            when 't' then engine.starts_open(p.starts, p.starts_upto, now_at / engine.bucket_ms(
                                                              coalesce(p.rate_limit_period_sec, q.partition_period_s)))
                                                          * engine.bucket_ms(coalesce(p.rate_limit_period_sec, q.partition_period_s)) end,
                   since_floor = (p.since_floor + n.got) % 16, floor_class = coalesce(n.class, p.floor_class),
                   starts = case when n.own is null then p.starts
                                 else engine.starts_after(p.starts, p.starts_upto, now_at / engine.bucket_ms(
                                          coalesce(p.rate_limit_period_sec, q.partition_period_s)), n.started) end,
                   starts_upto = case when n.own is null then p.starts_upto
                                      else engine.starts_newest(p.starts_upto, now_at / engine.bucket_ms(
                                               coalesce(p.rate_limit_period_sec, q.partition_period_s))) end
              from (select v.spot, v.own, coalesce(t.got, 0) as got, coalesce(t.started, 0) as started, t.class,
                           case when v.cap_left <= coalesce(t.got, 0) then 'g'
                                when coalesce(t.got, 0) >= v.want or opens = 0 then 'r'
                                when v.own = 0 then 't'
                                when engine.has_queued(q.name, v.key) then 's'
                                else 'e' end as state
                      from unnest(spots, keys, wants, owns, places) with ordinality as v (spot, key, want, own, cap_left, n)
                      left join (
                        select x.n, count(*)::int as got, count(*) filter (where x.is_new)::int as started, max(x.class) as class
                          from unnest(ns, news, classes) as x (n, is_new, class) group by x.n) t on t.n = v.n offset 0) n
             where p.ctid = n.spot;
            if opens is not null then
                update engine.queue e
                   set starts = n.starts, starts_upto = n.upto,
                       opens_at_ms = case when engine.starts_left(n.starts, n.upto, n.bucket, q.rate_limit_max) = 0
                                          then engine.starts_open(n.starts, n.upto, n.bucket) * q.bucket_ms end
                  from (select engine.starts_after(ring.starts, ring.starts_upto, now_at / q.bucket_ms,
                                                   coalesce(cardinality(array_positions(news, true)), 0)) as starts,
                               engine.starts_newest(ring.starts_upto, now_at / q.bucket_ms) as upto, now_at / q.bucket_ms as bucket) n
                 where e.name = q.name;
            end if;
            exit when room <= 0 or (pass >= 8 and room < q.room);
        end loop;
    end loop;
end
$$;

-- part: app

-- The product. An intent (what somebody wants) becomes a run (one durable attempt at it, workflow id = intent id), and everything
-- the run does leaves a row:
--
--   recipes, recipe_versions, recipe_fixtures     what can be asked for: data, imported and promoted by people, pinned by a run
--   intents -> runs                               the ask and its run; made together, in the commit that enqueues the workflow
--   run_steps, artifacts                          what each step produced; written once, by the step, in the commit of its journal row
--   opencode_calls, sbx_runs, sbx_templates       what the two outside tools were asked and answered
--   patch_history                                 every file change with what was there before, so that it can be taken back
--   human_gates, human_interactions               what people were asked, and the ledger of what they answered, each answer once
--   plan_approvals, mock_receipts, eval_results   approvals given ahead, side effects counted, checks passed
--   workflow_runs, marks                          the crash demonstration's two tables
--
-- runs.status is moved by the run itself while it works. The engine's own verdict (cancelled, failed, out of attempts, resumed)
-- reaches it through the trigger follow_engine, in the same commit, so that the two can't disagree.
-- Times are timestamptz; hashes are sha256 in lower hex; JSON is stored as jsonb, its hash is taken over canonical JSON.

create schema app;

-- Crash demonstration: progress flags of its workflows, one row a workflow. Written by its steps.
create table app.workflow_runs (
    workflow_id  text primary key,
    step1_done   boolean not null default false,
    step2_done   boolean not null default false,
    completed    boolean not null default false,
    updated_at   timestamptz not null default now()
);

-- Crash demonstration: proof that a step ran; a second run of a step is no second row.
create table app.marks (
    run_id      text not null,
    step        text not null check (step in ('s1', 's2')),
    created_at  timestamptz not null default now(),
    primary key (run_id, step)
);

-- What somebody wants. Written by ingress. A canonical row's id is 'ih_' + intent_hash and json = payload; a row of the older
-- two-call way ('it_…') has neither hash nor recipe.
create table app.intents (
    id           text primary key,
    goal         text not null,
    payload      jsonb not null,
    created_at   timestamptz not null default now(),
    intent_hash  text,
    recipe_id    text,
    recipe_v     text,
    recipe_hash  text,
    json         jsonb,
    form         jsonb  -- as it was given; null for an intent that was posted on its own
);
create unique index intents_intent_hash_uq on app.intents (intent_hash) where intent_hash is not null;

-- Numbers the intents whose ids follow from a seed, so that a restart with the same seed makes others.
create sequence app.intent_seq;

-- One durable run of an intent. Written by ingress (queued), the run, and follow_engine.
--   queued         waits in intentQ                          -> running
--   running        a worker is on it                         -> waiting_input, succeeded, retries_exceeded, canceled
--   waiting_input  a gate is open                            -> running, retries_exceeded, canceled (and back when resumed)
--   repairing      a person asked for another try            -> running
--   succeeded, failed, retries_exceeded, canceled            final; only a retry (repairing) or a resume (queued) reopens
create table app.runs (
    id                   text primary key,
    intent_id            text not null references app.intents (id),
    workflow_id          text not null unique,
    status               text not null check (status in ('queued', 'running', 'waiting_input', 'succeeded', 'failed', 'canceled',
                                                         'retries_exceeded', 'repairing')),
    trace_id             text,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    last_step            text,
    error                text,
    retry_count          int not null default 0,
    next_action          text,
    tenant_id            text,
    queue_partition_key  text,
    intent_hash          text,
    recipe_id            text,
    recipe_v             text,
    recipe_hash          text,
    budget               jsonb,
    purpose              text not null default 'run' check (purpose in ('run', 'fixture', 'improvement'))  -- fixture: a recipe tries itself out
);
create index runs_intent_hash_idx on app.runs (intent_hash);
create index runs_by_intent on app.runs (intent_id);

-- What each step of a run produced, one row an attempt. Written by the step, never changed. output carries `attempt` too.
create table app.run_steps (
    run_id       text not null references app.runs (id),
    step_id      text not null,
    phase        text not null,
    output       jsonb,
    trace_id     text,
    started_at   timestamptz,
    finished_at  timestamptz,
    attempt      int not null default 1,
    span_id      text,
    primary key (run_id, step_id, attempt)
);

-- Everything a run leaves to look at. Written by steps (and by operators as step 'OPS', by budgets as step 'BUDGET'). sha256 is of
-- canonical inline. `payload` is another name for inline.
create table app.artifacts (
    run_id      text not null references app.runs (id) on delete cascade,
    step_id     text not null,
    idx         int not null,
    kind        text not null,
    uri         text,
    inline      jsonb,
    sha256      text not null,
    created_at  timestamptz not null default now(),
    task_key    text not null default '',
    attempt     int not null default 1,
    payload     jsonb generated always as (inline) stored,
    primary key (run_id, step_id, task_key, idx, attempt)
);
create index artifacts_by_step on app.artifacts (step_id, created_at) where step_id in ('OPS', 'BUDGET');

-- Numbers operators' actions, so that two in one millisecond are two artifacts.
create sequence app.op_seq;

-- Who may come in at the front door, by bin/token. Only the hash of a token's text is here.
create table app.api_tokens (
    id            text primary key,
    hash          bytea not null unique,
    name          text not null check (name <> ''),
    roles         text[] not null check (cardinality(roles) > 0 and roles <@ array['viewer', 'approver', 'operator', 'admin']),
    groups        text[] not null default '{}',
    created_at    timestamptz not null default now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz  -- exact to the hour
);

-- What operators did to queues, partitions and workers, by whom and why. Written beside the change, never changed. What they did to
-- workflows stands in artifacts of step OPS.
create table app.queue_actions (
    id             bigint generated always as identity primary key,
    op             text not null check (op in ('pause', 'resume', 'weight', 'limit', 'pause-worker', 'resume-worker')),
    queue_name     text,
    partition_key  text,
    worker_id      text,
    given          jsonb not null default '{}',  -- weight, concurrency, rate: what was set
    actor          text not null check (actor <> ''),
    reason         text not null check (reason <> ''),
    created_at     timestamptz not null default clock_timestamp()
);
create index queue_actions_by_time on app.queue_actions (created_at);

-- A recipe's mutable half: which version is active, and the limits that a start by name is held to. Written by promotion.
create table app.recipes (
    id                   text primary key,
    name                 text not null,
    version              int not null check (version > 0),
    queue_name           text not null check (queue_name in ('compileQ', 'sbxQ', 'controlQ', 'intentQ')),
    max_concurrency      int not null check (max_concurrency > 0),
    max_steps            int not null check (max_steps > 0),
    max_sandbox_minutes  int not null check (max_sandbox_minutes > 0),
    spec                 jsonb not null default '{}',
    created_at           timestamptz not null default now(),
    active_v             text,
    unique (name, version)
);

-- A recipe's immutable half: one row a version, draft -> candidate -> stable. Written by import (draft) and promotion (status, and
-- who made it a candidate and why).
create table app.recipe_versions (
    id                text not null,
    v                 text not null,
    hash              text not null,
    status            text not null check (status in ('draft', 'candidate', 'stable')),
    json              jsonb not null,
    created_at        timestamptz not null default now(),
    candidate_actor   text,
    candidate_reason  text,
    primary key (id, v),
    unique (id, hash)
);

-- A version's sample forms, which must give the same result twice before it may be promoted. Written by import.
create table app.recipe_fixtures (
    recipe_id   text not null,
    v           text not null,
    fixture_id  text not null,
    json        jsonb not null,
    created_at  timestamptz not null default now(),
    primary key (recipe_id, v, fixture_id),
    foreign key (recipe_id, v) references app.recipe_versions (id, v) on delete cascade
);

-- Each try to make a version stable, who asked for it and what came of it. Written by promotion; the end also by follow_promotion. It
-- stays as evidence when the runs of its fixtures are deleted.
--   under_way  its workflow runs the fixtures  -> promoted, refused; one a version at a time
create table app.promotions (
    recipe_id    text not null,
    v            text not null,
    attempt      int not null check (attempt > 0),
    workflow_id  text not null unique,
    actor        text not null check (actor <> ''),
    reason       text not null check (reason <> ''),
    status       text not null default 'under_way' check (status in ('under_way', 'promoted', 'refused')),
    outcome      jsonb,
    created_at   timestamptz not null default now(),
    ended_at     timestamptz,
    primary key (recipe_id, v, attempt),
    check ((status = 'under_way') = (ended_at is null))
);
create unique index promotions_under_way on app.promotions (recipe_id, v) where status = 'under_way';

-- Each turn of the flywheel: a run of a recipe failed, and its improvement, a workflow and a run of its own, makes a new version. Written by
-- whoever asks for it and by the improvement; the end only by follow_improvement. The rows stay as evidence when the runs are deleted.
--   under_way  looks for the cause, drafts a version, asks, proves it -> published, rejected, failed, canceled; one a version at a time
create table app.improvements (
    workflow_id           text primary key,
    failed_workflow_id    text not null,
    recipe_id             text not null,
    from_v                text not null,
    to_v                  text,
    actor                 text not null check (actor <> ''),
    reason                text not null check (reason <> ''),
    status                text not null default 'under_way'
                          check (status in ('under_way', 'published', 'rejected', 'failed', 'canceled')),
    failure               text,
    postmortem            text,
    promotion_workflow_id text,
    rerun_workflow_id     text,
    error                 text,
    created_at            timestamptz not null default now(),
    ended_at              timestamptz,
    check ((status = 'under_way') = (ended_at is null))
);
create unique index improvements_under_way on app.improvements (recipe_id, from_v) where status = 'under_way';
create index improvements_by_version on app.improvements (recipe_id, from_v);
create index improvements_by_new_version on app.improvements (recipe_id, to_v) where to_v is not null;
create index improvements_by_failure on app.improvements (failed_workflow_id);
create index improvements_by_rerun on app.improvements (rerun_workflow_id) where rerun_workflow_id is not null;

-- Verdicts of a recipe's checks over a run's artifacts. Written by evaluation; a second evaluation must find the same.
create table app.eval_results (
    run_id      text not null references app.runs (id) on delete cascade,
    check_id    text not null,
    pass        boolean not null,
    reason      text not null,
    payload     jsonb,
    created_at  timestamptz not null default now(),
    primary key (run_id, check_id)
);

-- Every call to the coding agent, with enough to rebuild it. Written by the agent's wrapper; op_key makes a call happen once. Only a
-- row in state answered is one; asked means that somebody outside was going to be asked, and perhaps was.
create table app.opencode_calls (
    id            text primary key,
    run_id        text not null references app.runs (id),
    step_id       text not null,
    request       jsonb not null,
    response      jsonb not null,
    diff          jsonb,
    created_at    timestamptz not null default now(),
    session_id    text,
    agent         text,
    schema_hash   text,
    prompt        text,
    structured    jsonb,
    raw_response  text,
    tool_calls    jsonb,
    duration_ms   int,
    error         jsonb,
    op_key        text constraint opencode_calls_op_key_unique unique,
    state         text not null default 'answered' check (state in ('asked', 'answered', 'failed'))
);
create index opencode_calls_by_step on app.opencode_calls (run_id, step_id, created_at desc);
create index opencode_calls_by_session on app.opencode_calls (session_id, created_at);
create index opencode_calls_asked on app.opencode_calls (created_at) where state = 'asked';

-- Side effects, counted: seen_count over 1 means that one happened twice. Written by the execute step.
create table app.mock_receipts (
    receipt_key       text primary key,
    run_id            text not null references app.runs (id),
    step_id           text not null,
    payload_hash      text not null,
    first_attempt     int not null check (first_attempt > 0),
    last_attempt      int not null check (last_attempt > 0),
    seen_count        int not null default 1 check (seen_count > 0),
    request_payload   jsonb not null,
    response_payload  jsonb,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now()
);
create index mock_receipts_by_run on app.mock_receipts (run_id);
create index mock_receipts_by_time on app.mock_receipts using brin (created_at);

-- Approvals given before the plan's gate opened. Written by the approve-plan route.
create table app.plan_approvals (
    run_id       text primary key references app.runs (id),
    approved_at  timestamptz not null default now(),
    approved_by  text not null default 'system',
    notes        text
);

-- Every sandbox attempt with its request and result. Written by the sandbox task, never changed.
create table app.sbx_runs (
    run_id      text not null references app.runs (id),
    step_id     text not null,
    task_key    text not null,
    provider    text not null,
    request     jsonb not null,
    response    jsonb,
    err_code    text not null,
    metrics     jsonb,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    attempt     int not null default 1,
    primary key (run_id, step_id, task_key, attempt)
);
create index sbx_runs_task_key_idx on app.sbx_runs (task_key);
create index sbx_runs_by_time on app.sbx_runs using brin (created_at);

-- Questions put to people, one row a gate. Written by the run when it opens the gate. The last three columns (ours) let the inbox
-- read open gates by deadline: deadline_at is set with the row, resolved_at with the answer or the timeout, or when a retry withdraws
-- the question; dropped_at while the run is over without an answer (a resume takes it back).
create table app.human_gates (
    run_id       text not null references app.runs (id) on delete cascade,
    gate_key     text not null,
    topic        text not null,
    created_at   timestamptz not null default now(),
    deadline_at  timestamptz,
    resolved_at  timestamptz,
    dropped_at   timestamptz,
    primary key (run_id, gate_key)
);
create index human_gates_open on app.human_gates (deadline_at, created_at) where resolved_at is null and dropped_at is null;

-- The ledger of answers: one row a (workflow, gate, topic, dedupe key), written before the answer is sent on, never changed; it goes
-- only with its run.
create table app.human_interactions (
    id            uuid primary key default gen_random_uuid(),
    workflow_id   text not null,
    gate_key      text not null,
    topic         text not null,
    dedupe_key    text not null,
    payload_hash  text not null check (payload_hash ~ '^[a-f0-9]{64}$'),
    payload       jsonb not null,
    created_at    timestamptz not null default now(),
    run_id        text references app.runs (id) on delete cascade,
    origin        text not null check (origin in ('manual', 'api-shim', 'webhook', 'webhook-ci', 'external', 'unknown',
                                                  'engine-dbos', 'legacy-event', 'poller-ci', 'legacy-approve')),
    unique (workflow_id, gate_key, topic, dedupe_key)
);
create index human_interactions_gate_key_idx on app.human_interactions (gate_key);
create index human_interactions_by_run on app.human_interactions (run_id);

-- File changes of a run, in order, with both contents. Written before the file is touched; then the two times are set, once each.
create table app.patch_history (
    run_id             text not null,
    step_id            text not null,
    patch_index        int not null,
    target_path        text not null,
    preimage_hash      text not null,
    postimage_hash     text not null,
    diff_hash          text not null,
    preimage_content   text not null,
    postimage_content  text not null,
    applied_at         timestamptz,
    rolled_back_at     timestamptz,
    created_at         timestamptz not null default now(),
    preimage_existed   boolean not null default true,  -- false: the file was not there, so taking the patch back removes it
    primary key (run_id, step_id, patch_index)
);

-- Prebuilt sandboxes by recipe and dependencies. Written by the template build.
create table app.sbx_templates (
    recipe_id     text not null,
    recipe_v      text not null,
    deps_hash     text not null,
    template_key  text not null unique,
    template_id   text not null,
    build_meta    jsonb not null default '{}',
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    primary key (recipe_id, recipe_v, deps_hash)
);

-- What must never change, can't.
create function app.refuse_change() returns trigger
    language plpgsql
    as $$
begin
    raise exception 'app.% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
end
$$;
-- A version comes in as a draft and goes up one status at a time; what it says never changes. Only a draft can be taken out again.
create function app.keep_version() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'INSERT' and new.status = 'draft' then
        return new;
    elsif tg_op = 'DELETE' and old.status = 'draft' then
        return old;
    elsif tg_op = 'UPDATE' and row (old.id, old.v, old.hash, old.json) is not distinct from row (new.id, new.v, new.hash, new.json) then
        if (old.status, new.status) = ('draft', 'candidate') then
            return new;
        elsif row (old.candidate_actor, old.candidate_reason) is not distinct from row (new.candidate_actor, new.candidate_reason)
              and (old.status, new.status) in (('candidate', 'stable'), ('draft', 'draft'), ('candidate', 'candidate')) then
            return new;
        end if;
    end if;
    raise exception 'app.recipe_versions is append-only: % of a % refused', lower(tg_op),
        case tg_op when 'INSERT' then new.status else old.status end using errcode = 'restrict_violation';
end
$$;
create trigger recipe_versions_append_only before insert or update or delete on app.recipe_versions
    for each row execute function app.keep_version();
create trigger recipe_versions_no_truncate before truncate on app.recipe_versions execute function app.refuse_change();

-- A fixture's row repeats what its version says. It is written while that is a draft, and goes with it.
create function app.keep_fixture() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'INSERT' and exists (
        select from app.recipe_versions r, jsonb_array_elements(r.json -> 'fixtures') fixture
         where r.id = new.recipe_id and r.v = new.v and r.status = 'draft'
           and fixture = new.json and fixture ->> 'id' = new.fixture_id) then
        return new;
    elsif tg_op = 'DELETE' and not exists (
        select from app.recipe_versions r where r.id = old.recipe_id and r.v = old.v) then
        return old;
    end if;
    raise exception 'app.recipe_fixtures says what its version says: % refused', lower(tg_op) using errcode = 'restrict_violation';
end
$$;
create trigger recipe_fixtures_append_only before insert or update or delete on app.recipe_fixtures
    for each row execute function app.keep_fixture();
create trigger recipe_fixtures_no_truncate before truncate on app.recipe_fixtures execute function app.refuse_change();

-- What people answered and operators did stays for as long as the run that it was about, and goes with it. The run's row is then gone
-- already, because its end cascades; nobody can bring that about for a single row.
create function app.keep_with_run() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'DELETE' and old.run_id is not null and not exists (select from app.runs r where r.id = old.run_id) then
        return old;
    end if;
    raise exception 'app.% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
end
$$;
create trigger human_interactions_append_only before update or delete on app.human_interactions
    for each row execute function app.keep_with_run();
create trigger queue_actions_append_only before update or delete on app.queue_actions
    for each row execute function app.refuse_change();
create trigger artifacts_ops_append_only before update or delete on app.artifacts
    for each row when (old.step_id = 'OPS') execute function app.keep_with_run();
create trigger eval_results_append_only before update or delete on app.eval_results
    for each row execute function app.keep_with_run();
create trigger eval_results_no_truncate before truncate on app.eval_results execute function app.refuse_change();

-- A run's row goes last: when its workflow is gone, no question of it is open, and it has been over for a day. However short the time
-- is for which an installation keeps its runs, it is never shorter.
create function app.keep_run() returns trigger
    language plpgsql
    as $$
begin
    if old.status not in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
       or old.updated_at > to_timestamp(engine.now_ms() / 1000.0) - interval '1 day'
       or exists (select from app.human_gates g where g.run_id = old.id and g.resolved_at is null and g.dropped_at is null)
       or exists (select from dbos.workflow_status s where s.workflow_uuid = old.workflow_id) then
        raise exception 'app.runs keeps %: it has not been over for a day, or its workflow is still there', old.id
            using errcode = 'restrict_violation';
    end if;
    return old;
end
$$;
create trigger runs_go_last before delete on app.runs for each row execute function app.keep_run();

-- A final status stays: a late write (a cancel that lost against the finish, or the other way round) finds no row to change. Only a
-- retry, which counts itself, and a resume may reopen.
create function app.skip_change() returns trigger
    language plpgsql
    as $$
begin
    return null;
end
$$;
create trigger runs_final_status_stays before update of status on app.runs
    for each row
    when (old.status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
          and new.status <> old.status
          and new.status <> 'queued'
          and not (new.status = 'repairing' and new.retry_count = old.retry_count + 1))
    execute function app.skip_change();

-- The sentence in a recorded error; null for anything that is not portable JSON.
create function app.error_message(recorded text) returns text
    language plpgsql immutable set search_path = pg_catalog, pg_temp
    as $$
begin
    return recorded::jsonb ->> 'message';
exception when others then
    return null;
end
$$;

-- Its name; null likewise.
create function app.error_name(recorded text) returns text
    language plpgsql immutable set search_path = pg_catalog, pg_temp
    as $$
begin
    return recorded::jsonb ->> 'name';
exception when others then
    return null;
end
$$;

-- Carries the engine's verdict on a run's workflow into app.runs, in the commit that gives it. A status that the run has already
-- written for itself stands. ENQUEUED counts only as a way out of a final state: parked runs wake through it all the time. A run that is
-- resumed at an open gate takes answers at once, since its workflow only goes back there and says nothing anew; likewise one that had
-- begun is running.
create function app.follow_run(wf dbos.workflow_status) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
begin
    if wf.status <> 'SUCCESS' then
        update app.human_gates g
           set dropped_at = case when wf.status <> 'ENQUEUED' then now() end
         where g.run_id = (select r.id from app.runs r where r.workflow_id = wf.workflow_uuid) and g.resolved_at is null;
    end if;
    if wf.status = 'ENQUEUED' then
        update app.runs
           set status = 'queued', next_action = null, error = null, updated_at = now()
         where workflow_id = wf.workflow_uuid and status in ('succeeded', 'failed', 'canceled', 'retries_exceeded');
        update app.runs r
           set status = 'waiting_input',
               next_action = case when exists (select from app.human_gates g where g.run_id = r.id and g.resolved_at is null
                                                  and g.gate_key not like 'ask-user-%') then 'APPROVE_PLAN' end
         where r.workflow_id = wf.workflow_uuid and r.status = 'queued'
           and exists (select from app.human_gates g where g.run_id = r.id and g.resolved_at is null);
        update app.runs r
           set status = 'running'
         where r.workflow_id = wf.workflow_uuid and r.status = 'queued'
           and exists (select from dbos.streams t where t.workflow_uuid = r.workflow_id and t.key = 'status');
        return;
    end if;
    update app.runs
       set status = case wf.status when 'SUCCESS' then 'succeeded' when 'CANCELLED' then 'canceled' else 'retries_exceeded' end,
           next_action = case wf.status when 'SUCCESS' then null when 'CANCELLED' then 'NONE' else 'REPAIR' end,
           error = case when wf.status in ('SUCCESS', 'CANCELLED') then error
                        else coalesce(error, app.error_message(wf.error), wf.status) end,
           updated_at = now()
     where workflow_id = wf.workflow_uuid and status not in ('succeeded', 'failed', 'canceled', 'retries_exceeded');
end
$$;

-- A promotion whose workflow ends without a word (cancelled, failed, given up) is refused, in the commit of that end, so that another one
-- can begin. Resuming the workflow does not reopen it.
create function app.follow_promotion(wf dbos.workflow_status) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
begin
    update app.promotions
       set status = 'refused', ended_at = now(),
           outcome = jsonb_build_object('fixtures', '[]'::jsonb, 'reason', 'the promotion ' ||
               case wf.status when 'CANCELLED' then 'was cancelled'
                               when 'ERROR' then 'failed: ' || coalesce(app.error_message(wf.error), 'no reason is recorded')
                               else 'was given up after too many crashes' end || '; promote again')
     where workflow_id = wf.workflow_uuid and status = 'under_way';
end
$$;

-- Carries the end of an improvement's workflow into its row, in the commit of that end, so that another one can begin. A resumed one is
-- under way again, unless another one of its version is.
create function app.follow_improvement(wf dbos.workflow_status) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
begin
    if wf.status = 'ENQUEUED' then
        update app.improvements i
           set status = 'under_way', ended_at = null, error = null
         where i.workflow_id = wf.workflow_uuid and i.status <> 'under_way'
           and not exists (select from app.improvements o
                            where o.recipe_id = i.recipe_id and o.from_v = i.from_v and o.status = 'under_way');
        return;
    end if;
    update app.improvements
       set status = case when wf.status = 'SUCCESS' then 'published' when wf.status = 'CANCELLED' then 'canceled'
                         when app.error_name(wf.error) = 'ImprovementRejected' then 'rejected' else 'failed' end,
           error = case when wf.status in ('SUCCESS', 'CANCELLED') then error
                        else coalesce(app.error_message(wf.error), wf.status) end,
           ended_at = now()
     where workflow_id = wf.workflow_uuid and status = 'under_way';
end
$$;

-- A recipe that is tagged auto-improve asks for its improvement itself when a run of it fails: once a version, and not for a version that
-- an improvement has made, so that no failure keeps the wheel turning; from there on people ask.
create function app.improve_failed(wf dbos.workflow_status) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
declare
    asked text := 'improve:' || wf.workflow_uuid || ':auto';
begin
    if exists (select from app.runs r
                 join app.intents i on i.id = r.intent_id and i.form is not null
                 join app.recipe_versions v on v.id = r.recipe_id and v.v = r.recipe_v and v.hash = r.recipe_hash
                where r.workflow_id = wf.workflow_uuid and r.purpose = 'run' and v.json -> 'tags' ? 'auto-improve'
                  and not exists (select from app.improvements o
                                   where o.recipe_id = r.recipe_id and (o.from_v = r.recipe_v or o.to_v = r.recipe_v))) then
        perform dbos.enqueue_workflow('ImproveRecipe', 'controlQ', array[json_build_object(
                    'id', asked, 'failed_workflow_id', wf.workflow_uuid, 'actor', 'recipe',
                    'reason', 'the recipe is tagged auto-improve', 'version', null)],
                    class_name => 'RecipeWorkflow', workflow_id => asked, queue_partition_key => wf.queue_partition_key);
    end if;
end
$$;

-- Operators' views over the engine's tables. Where they say `or`, each side is read by a partial index of its own.

-- Workflows that ended badly in the last 24 hours.
create view app.v_ops_failures_24h as
    select s.workflow_uuid, s.status, s.name as workflow_name, s.class_name, s.application_version, s.created_at, s.updated_at,
           coalesce(s.error, o.error) as error, s.recovery_attempts
      from dbos.workflow_status s
      left join dbos.workflow_output o using (workflow_uuid)
     where s.status in ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
       and s.updated_at >= engine.now_ms() - 86400000;

-- Recorded calls that took longer than five seconds.
create view app.v_ops_slow_steps as
    select o.workflow_uuid, o.function_id, o.function_name, o.started_at_epoch_ms, o.completed_at_epoch_ms,
           o.completed_at_epoch_ms - o.started_at_epoch_ms as duration_ms, o.error
      from dbos.operation_outputs o
     where o.completed_at_epoch_ms - o.started_at_epoch_ms > 5000;

-- How much is queued or running, by queue.
create view app.v_ops_queue_depth as
    select s.queue_name, s.status, count(*) as workflow_count,
           min(s.created_at) as oldest_created_at, max(s.created_at) as newest_created_at
      from dbos.workflow_status s
     where (s.status = 'ENQUEUED' or s.status = 'PENDING') and s.queue_name is not null
     group by s.queue_name, s.status;

-- The same by partition: is one tenant crowding out the others?
create view app.v_ops_queue_fairness as
    select s.queue_name, s.queue_partition_key, s.status, count(*) as workflow_count,
           min(s.created_at) as oldest_created_at, max(s.created_at) as newest_created_at
      from dbos.workflow_status s
     where (s.status = 'ENQUEUED' or s.status = 'PENDING') and s.queue_name is not null
     group by s.queue_name, s.queue_partition_key, s.status;

-- The same by priority, with how long since a workflow was made that it last moved.
create view app.v_ops_queue_priority as
    select s.queue_name, s.priority, s.status, count(*) as workflow_count, avg(s.updated_at - s.created_at) as avg_latency_ms
      from dbos.workflow_status s
     where (s.status = 'ENQUEUED' or s.status = 'PENDING') and s.queue_name is not null
     group by s.queue_name, s.priority, s.status;

-- The flywheel, one row a turn: what failed, who asked, which version came of it, and how the same form fared under it.
create view app.v_recipe_flywheel as
    select i.recipe_id, i.from_v, i.to_v, v.hash as to_hash, v.status as to_status, i.failed_workflow_id, i.failure,
           i.workflow_id as improvement_workflow_id, i.status, i.error, i.actor, i.reason, i.postmortem, i.promotion_workflow_id,
           i.rerun_workflow_id, r.status as rerun_status, i.created_at, i.ended_at
      from app.improvements i
      left join app.recipe_versions v on v.id = i.recipe_id and v.v = i.to_v
      left join app.runs r on r.workflow_id = i.rerun_workflow_id;

-- What a fresh database holds: a sentinel in the crash demonstration's tables, and the three recipes that a start by name uses.
insert into app.workflow_runs (workflow_id, step1_done, step2_done, completed) values ('seed_sentinel', true, true, true)
    on conflict do nothing;
insert into app.marks (run_id, step) values ('seed_sentinel', 's1'), ('seed_sentinel', 's2') on conflict do nothing;

insert into app.recipes (id, name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes, active_v) values
  ('rcp_compile_default_v1', 'compile-default', 1, 'intentQ', 10, 32, 15, '1'),
  ('rcp_sandbox_default_v1', 'sandbox-default', 1, 'intentQ', 20, 128, 60, '1'),
  ('rcp_control_default_v1', 'control-default', 1, 'intentQ', 5, 16, 10, '1')
on conflict do nothing;

-- Their dates lie before any other version's, so that "the newest active recipe" is never one of them.
insert into app.recipe_versions (id, v, hash, status, json, created_at) values
  ('rcp_compile_default_v1', '1', '14b1e60d448682b7f09269b3d66f4ebe8f04f18784b6396daa79625737b5296e', 'draft',
   '{"eval":[{"glob":"**/*","id":"ev1","kind":"file_exists"}],"fixtures":[{"formData":{},"id":"fx1"}],"formSchema":{},"id":"rcp_compile_default_v1","intentTmpl":{"constraints":{"stepLibrary":["Legacy"]},"goal":"Legacy execution: compile-default","inputs":{}},"limits":{"maxFanout":10,"maxSbxMin":15,"maxSteps":32,"maxTokens":1024},"name":"compile-default","prompts":{"compile":"compile","postmortem":"postmortem"},"queue":"intentQ","tags":["legacy","patched"],"v":"1","wfEntry":"Runner.runIntent"}',
   '2026-01-01T00:00:00Z'),
  ('rcp_sandbox_default_v1', '1', '35157925abec8fd02a530f310495b1018c7dd8af90e2f881cedf1aa219998dc1', 'draft',
   '{"eval":[{"glob":"**/*","id":"ev1","kind":"file_exists"}],"fixtures":[{"formData":{},"id":"fx1"}],"formSchema":{},"id":"rcp_sandbox_default_v1","intentTmpl":{"constraints":{"stepLibrary":["Legacy"]},"goal":"Legacy execution: sandbox-default","inputs":{}},"limits":{"maxFanout":20,"maxSbxMin":60,"maxSteps":128,"maxTokens":1024},"name":"sandbox-default","prompts":{"compile":"compile","postmortem":"postmortem"},"queue":"intentQ","tags":["legacy","patched"],"v":"1","wfEntry":"Runner.runIntent"}',
   '2026-01-01T00:00:00Z'),
  ('rcp_control_default_v1', '1', '86a51694423d39a6a9ea673d56ee42ed9eba7253de1132e6450ce6530637174c', 'draft',
   '{"eval":[{"glob":"**/*","id":"ev1","kind":"file_exists"}],"fixtures":[{"formData":{},"id":"fx1"}],"formSchema":{},"id":"rcp_control_default_v1","intentTmpl":{"constraints":{"stepLibrary":["Legacy"]},"goal":"Legacy execution: control-default","inputs":{}},"limits":{"maxFanout":5,"maxSbxMin":10,"maxSteps":16,"maxTokens":1024},"name":"control-default","prompts":{"compile":"compile","postmortem":"postmortem"},"queue":"intentQ","tags":["legacy","patched"],"v":"1","wfEntry":"Runner.runIntent"}',
   '2026-01-01T00:00:00Z')
on conflict do nothing;
insert into app.recipe_fixtures (recipe_id, v, fixture_id, json) values
  ('rcp_compile_default_v1', '1', 'fx1', '{"formData":{},"id":"fx1"}'),
  ('rcp_sandbox_default_v1', '1', 'fx1', '{"formData":{},"id":"fx1"}'),
  ('rcp_control_default_v1', '1', 'fx1', '{"formData":{},"id":"fx1"}')
on conflict do nothing;
update app.recipe_versions set status = 'candidate' where status = 'draft';
update app.recipe_versions set status = 'stable' where status = 'candidate';

-- A run that was cancelled or ran out of attempts cannot take its own patches back; this starts the workflow that does. Also when a run
-- with forks, or a fork, has failed: it left patches in place that another one was using, and may have been the last.
create function app.roll_back_ended(wf dbos.workflow_status) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
    as $$
declare
    original text;
    undoing text;
begin
    with recursive ancestor (id, origin) as (
        select wf.workflow_uuid, wf.forked_from
         union
        select s.workflow_uuid, s.forked_from from ancestor a join dbos.workflow_status s on s.workflow_uuid = a.origin)
    select a.id into original from ancestor a where a.origin is null;
    if exists (select from app.runs r join app.patch_history p on p.run_id = r.id
                where r.workflow_id = original and p.rolled_back_at is null) then
        undoing := dbos.enqueue_workflow('RollbackRun', 'controlQ', array[to_json(original)]);
        update dbos.workflow_status set parent_workflow_id = original where workflow_uuid = undoing;
    end if;
end
$$;

-- The one trigger of the product on the engine's table, because every update of it parses each trigger's condition. It runs as its owner: a
-- client that may write dbos need not have any right on app.
create function app.follow_engine() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    perform app.follow_run(new);
    if new.name = 'ImproveRecipe' then
        perform app.follow_improvement(new);
    elsif new.name = 'PromoteRecipe' and new.status not in ('SUCCESS', 'ENQUEUED') then
        perform app.follow_promotion(new);
    elsif new.class_name = 'IntentWorkflow' then
        if new.status in ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') then
            perform app.improve_failed(new);
        end if;
        if new.status in ('CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
           or new.status = 'ERROR' and (new.was_forked_from or new.forked_from is not null) then
            perform app.roll_back_ended(new);
        end if;
    end if;
    return null;
end
$$;
create trigger workflow_status_follow_engine after update of status on dbos.workflow_status
    for each row
    when (new.class_name in ('IntentWorkflow', 'RecipeWorkflow')
          and old.status is distinct from new.status
          and (new.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
               or (new.status = 'ENQUEUED'
                   and old.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'))))
    execute function app.follow_engine();
