"""A rolling upgrade: API and workers of one version and of the next on one database, while runs go on.

The real code of the last release meets this one; and this code meets the next release, which is this code with one more upgrade.
"""

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from bin.database import SCHEMA_VERSION, connect
from bin.own_server import surroundings
from bin.service import ServiceProcess
from bin.soaks import chaos
from bin.soaks.chaos import ORACLES, Load, kinds
from bin.soaks.oracles import LEFTOVERS, ask
from bin.soaks.stage import ENDED, Client, in_background
from tests.crash.fleet import until
from tests.upgrades import last_release
from tests.upgrades.frozen import ROOT

OPEN: LiteralString = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
WORKER: LiteralString = "select id from engine.worker where place = %s and not dead"
WHO_ENDED: LiteralString = "select s.status, s.executor_id from dbos.workflow_status s where s.workflow_uuid = %s"
SLOW: LiteralString = (
    "select s.executor_id = %s and s.status = 'PENDING' from dbos.workflow_status s where s.workflow_uuid = 'slow'"
)
DIED: LiteralString = "update engine.worker set lease_until_ms = 0 where id = %s"
PREPARE = "import sys; from bin.commands.migrate import prepare; print(prepare(sys.argv[1], only_default_recipe=True))"
KILLS = 6
MOST_OPEN = 30
BY = {"actor": "ops", "reason": "a rolling upgrade"}

NEXT_UPGRADE = """
-- part: engine
alter table dbos.workflow_status add more text;
alter table dbos.operation_outputs add more int not null default 1;
insert into engine.schema_version (version, works_with) values ({version}, {works_with});
-- part: app
create index concurrently if not exists runs_more on app.runs (created_at);
alter table app.runs add more text default 'more';
alter table app.run_steps add constraint more check (attempt > 0) not valid;
"""


def next_release(folder: Path, *, works_with: int) -> Path:
    """This code with one more upgrade, whose schema works with code of that version."""
    for room in ("api", "bin", "engine", "steps"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "schema.sql", folder)
    version = SCHEMA_VERSION + 1
    (folder / f"bin/upgrades/{version:03d}_more.sql").write_text(NEXT_UPGRADE.format(version=version, works_with=works_with))
    file = folder / "bin/database.py"
    text = file.read_text()
    assert text.count(f"SCHEMA_VERSION = {SCHEMA_VERSION}\n") == 1
    file.write_text(text.replace(f"SCHEMA_VERSION = {SCHEMA_VERSION}\n", f"SCHEMA_VERSION = {version}\n"))
    return folder


def prepare(code: Path, dsn: str) -> str:
    """What the migration by this code said."""
    return in_code(code, dsn, "-c", PREPARE, dsn).stdout


def in_code(code: Path, dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(code), "DATABASE_URL": dsn}
    return subprocess.run(
        [sys.executable, "-P", *arguments], env=environment, cwd=code, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class Service:
    """Processes of any code on one database."""

    dsn: str
    folder: Path
    conn: psycopg.Connection[Any]
    running: list[ServiceProcess] = field(default_factory=list[ServiceProcess])

    def begin(self, command: str, code: Path) -> ServiceProcess:
        settings = surroundings(self.dsn, self.folder / "state") | {"PYTHONPATH": str(code)}
        self.running.append(ServiceProcess(command, self.folder / f"{command}-{len(self.running)}.log", settings))
        self.running[-1].start()
        return self.running[-1]

    async def id_of(self, worker: ServiceProcess) -> str:
        place = f"{socket.gethostname()}:{worker.pid}"
        await until(lambda: self.ask(worker, WORKER, place), "a worker to start")
        return str(self.ask(worker, WORKER, place))

    def ask(self, alive: ServiceProcess, query: LiteralString, *values: object) -> Any:
        alive.require_alive()
        row = self.conn.execute(query, values).fetchone()
        return row[0] if row else None


@contextmanager
def service(dsn: str, folder: Path) -> Iterator[Service]:
    with connect(dsn, autocommit=True) as conn:
        found = Service(dsn, folder, conn)
        try:
            yield found
        finally:
            for process in found.running:
                if process.exit_code is None:
                    process.kill()


def pause(client: Client, worker: str, what: str = "pause") -> None:
    client.ask("POST", f"/api/ops/workers/{worker}/{what}", BY).raise_for_status()


async def play(on: Service, older: Path, newer: Path) -> None:
    """The older code has a database of its version. In the end both have begun, and both have finished, runs of the other."""
    with ExitStack() as stack:
        api, worker = on.begin("api", older), on.begin("worker", older)
        old = Client(api.url())
        stack.callback(old.close)
        load = Load(old)

        def start(client: Client, *numbers: int) -> list[str]:
            begun: list[str] = []
            for number in numbers:
                kind, constraints = kinds(number)
                wid = client.start(f"{kind} {number}", f"tenant-{number % 3}", dict(constraints))
                load.accepted[wid] = f"{kind} {number}"
                begun.append(wid)
            return begun

        async def gates(*wids: str) -> dict[str, str]:
            await until(lambda: {*wids} <= {*dict(old.inbox())}, "gates to open")
            return dict(old.inbox())

        async def finish(client: Client, wids: list[str], by: str) -> None:
            load.client = client
            for wid, gate in (await gates(*wids)).items():
                if wid in wids:
                    load.answer(wid, gate)
            ends = {"SUCCESS", "ERROR"}
            for wid in wids:
                await until(lambda wid=wid: on.ask(worker, WHO_ENDED, wid) in ends, f"the end of {wid}")
                assert on.conn.execute(WHO_ENDED, (wid,)).fetchone() in [(end, by) for end in ends]

        begun_by_old = start(old, 0, 1, 3, 5)
        await gates(*begun_by_old)
        assert "is at version" in prepare(newer, on.dsn)
        api, new_worker = on.begin("api", newer), on.begin("worker", newer)
        old_id, new_id = await on.id_of(worker), await on.id_of(new_worker)
        new = Client(api.url())
        stack.callback(new.close)

        pause(new, old_id)
        begun_by_new = start(old, 6, 7, 9, 11)
        await gates(*begun_by_new)
        await finish(new, begun_by_old[1:], by=new_id)
        pause(old, old_id, "resume")
        pause(new, new_id)
        await finish(old, begun_by_new[1:], by=old_id)
        new.ask("POST", "/slowstep?wf=slow&sleep=1000").raise_for_status()
        await until(lambda: on.ask(worker, SLOW, old_id), "a step to be under way")
        worker.kill()
        on.conn.execute(DIED, (old_id,))
        pause(old, new_id, "resume")
        await finish(old, [begun_by_old[0], begun_by_new[0]], by=new_id)
        await until(lambda: on.ask(new_worker, OPEN) == 0, "all to end")
    judge(on.conn, load)


def judge(conn: psycopg.Connection[Any], load: Load) -> None:
    refused = sum(goal.startswith("refuse") for goal in load.accepted.values())
    tasks = len(load.accepted) - refused
    facts = {"runs": len(load.accepted), "accepted": list(load.accepted), "tasks": tasks, "answers": len(load.answered)}
    assert [verdict.line for verdict in ask(conn, ORACLES, facts) if not verdict.holds] == []


async def test_the_last_release_and_this_one_share_a_database(bare_old_database: str, tmp_path: Path) -> None:
    older = last_release.checkout(tmp_path / "older")
    with service(bare_old_database, tmp_path) as on:
        await play(on, older, ROOT)


# -- slower -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_this_version_and_the_next_share_a_database(database: str, tmp_path: Path) -> None:
    newer = next_release(tmp_path / "newer", works_with=SCHEMA_VERSION)
    with service(database, tmp_path) as on:
        await play(on, ROOT, newer)
        late = on.begin("worker", ROOT)
        await on.id_of(late)  # it starts: the newer schema works with its code
    checked = in_code(ROOT, database, "-m", "bin.commands.migrate", "--check")
    assert (checked.returncode, f"schema version {SCHEMA_VERSION + 1} is there" in checked.stdout) == (0, True), checked.stderr


@pytest.mark.slow
async def test_code_that_a_new_schema_leaves_behind_drains_and_does_not_start_again(database: str, tmp_path: Path) -> None:
    newer = next_release(tmp_path / "newer", works_with=SCHEMA_VERSION + 1)
    with service(database, tmp_path) as on:
        processes = [on.begin("worker", ROOT), on.begin("api", ROOT)]
        await on.id_of(processes[0])
        processes[1].url()
        prepare(newer, database)
        for process in processes:
            await until(lambda process=process: process.exit_code is not None, "a process to drain")
            assert process.exit_code == 0, process.log.read_text()
            assert "the schema is too new for this code" in process.log.read_text()
    for role in ("worker", "api"):
        refused = in_code(ROOT, database, "-m", f"bin.commands.{role}")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert refused.stderr.endswith(f"and this code is of version {SCHEMA_VERSION}: run newer code\n")


@pytest.mark.slow
@pytest.mark.parametrize("hop", ["last release", "next release"])
async def test_load_goes_on_through_a_rolling_upgrade_with_kills(
    hop: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of both versions are killed -9 at random, and begun again, while clients start runs and answer gates at both APIs."""
    if hop == "last release":
        older, newer = last_release.checkout(tmp_path / "older"), ROOT
        dsn = request.getfixturevalue("bare_old_database")
    else:
        older, newer = ROOT, next_release(tmp_path / "newer", works_with=SCHEMA_VERSION)
        dsn = request.getfixturevalue("database")
    monkeypatch.setattr(chaos, "MOST_OPEN", MOST_OPEN)
    dice = random.Random(8)
    with service(dsn, tmp_path) as on, ExitStack() as stack:
        api, old_workers = on.begin("api", older), [on.begin("worker", older) for _ in range(2)]
        client = Client(api.url())
        stack.callback(client.close)
        load = Load(client)
        with in_background(load.answer_gates):
            with in_background(load.start_runs, load.start_runs):
                await asyncio.sleep(3)
                prepare(newer, dsn)
                workers = [*old_workers, on.begin("worker", newer)]
                start_again = workers[2:] if hop == "last release" else workers  # that release starts on its own schema alone
                load.client = Client(on.begin("api", newer).url(), api.url())
                stack.callback(load.client.close)
                for _ in range(KILLS):
                    await asyncio.sleep(dice.uniform(0.5, 3))
                    victim = dice.choice(workers)
                    await on.id_of(victim)
                    is_enough(on, load)
                    victim.kill()
                    if victim in start_again:
                        victim.start()
                    else:
                        workers.remove(victim)
                await until(lambda: is_enough(on, load), "more runs to begin", 120)
            survivor = on.begin("worker", newer)
            await until(lambda: on.ask(survivor, OPEN) == 0, "all to end", 120)
            await until(lambda: on.conn.execute(LEFTOVERS.query).fetchall() == [], "nothing to be left over")
    with connect(dsn, autocommit=True) as conn:
        judge(conn, load)


def is_enough(on: Service, load: Load) -> bool:
    """Lets clients start a run for each that has ended."""
    load.ended = on.ask(on.running[0], ENDED)
    return len(load.accepted) > 2 * MOST_OPEN
