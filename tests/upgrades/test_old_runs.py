"""Runs that the first version's code left behind end on today's code, after the upgrade, as if nothing had happened."""

from pathlib import Path
from typing import LiteralString

from bin.database import connect, migrate
from bin.soaks.oracles import DIVERGED, GAPS, HALFWAY, LEFTOVERS, STRANDED, TWICE, ask
from engine import Engine
from steps.opencode import ReplayOpenCode
from steps.sandbox import MockSandbox
from tests.crash.fleet import until
from tests.steps.product import Product

#: A minute after the rows were frozen.
STOP_THE_CLOCK: LiteralString = "insert into engine.clock (now_ms) select max(s.updated_at) + 60000 from dbos.workflow_status s"
OPEN: LiteralString = """
select s.workflow_uuid, s.name, s.status from dbos.workflow_status s
 where s.status in ('ENQUEUED', 'DELAYED', 'PENDING') order by s.name, s.status, s.workflow_uuid
"""
ENDED: LiteralString = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
END: LiteralString = """
select r.status, array(select s.step_id || ' ' || s.attempt from app.run_steps s where s.run_id = r.id order by s.started_at) as steps,
       (select sum(m.seen_count)::int from app.mock_receipts m where m.run_id = r.id) as effects
  from app.runs r where r.workflow_id = %s
"""
MARKS: LiteralString = "select m.run_id, m.step from app.marks m where m.run_id in ('asleep', 'slow') order by 1, 2"
FOUR_STEPS = ["CompileST 1", "ApplyPatchST 1", "DecideST 1", "ExecuteST 1"]


async def test_runs_of_an_older_version_end_well(old_database: str, tmp_path: Path) -> None:
    with connect(old_database, autocommit=True) as conn:
        migrate(conn)
        conn.execute(STOP_THE_CLOCK)
        found = conn.execute(OPEN).fetchall()
        assert [row[1:] for row in found] == [
            ("CrashDemo", "PENDING"),  # it slept when its worker died
            ("RunIntent", "ENQUEUED"),
            ("RunIntent", "PENDING"),  # it waits at its gate
            ("SlowStep", "PENDING"),  # its worker died in the step
        ]
        queued, waiting = (found[n][0] for n in (1, 2))
        async with Engine.connect(old_database, pool_size=4) as engine:
            product = Product(engine, tmp_path, ReplayOpenCode(), MockSandbox(), version="v1")
            await product.start_worker()
            for wid in (waiting, queued):
                await product.approve(wid)
            await until(lambda: conn.execute(ENDED).fetchone() == (0,), "all to end")
            await until(lambda: conn.execute(LEFTOVERS.query).fetchall() == [], "nothing to be left over")
            await product.stop_worker()
        for wid in (waiting, queued):
            assert conn.execute(END, (wid,)).fetchone() == ("succeeded", FOUR_STEPS, 1)
        assert conn.execute(MARKS).fetchall() == [("asleep", "s1"), ("asleep", "s2"), ("slow", "s1"), ("slow", "s2")]
        verdicts = ask(conn, (STRANDED, HALFWAY, LEFTOVERS, GAPS, DIVERGED, TWICE), {})
        assert [verdict.line for verdict in verdicts if not verdict.holds] == []
