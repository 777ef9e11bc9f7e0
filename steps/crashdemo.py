"""The crash demonstration: two marks with a durable sleep between them.

Kill the process in the sleep, start another, and each mark is there once: the marks are rows that ride with their steps'
records.
"""

from typing import Literal

from engine import Rider, ride, sleep, step, workflow

MARK = Rider("""
    insert into app.marks (run_id, step)
    select n.run_id, n.step from json_to_recordset(%s) as n (run_id text, step text)
    on conflict do nothing
""")

FLAGS = Rider("""
    insert into app.workflow_runs as w (workflow_id, step1_done, step2_done, completed)
    select n.workflow_id, n.step1_done, n.step2_done, n.completed
      from json_to_recordset(%s) as n (workflow_id text, step1_done boolean, step2_done boolean, completed boolean)
    on conflict (workflow_id) do update
       set step1_done = w.step1_done or excluded.step1_done, step2_done = w.step2_done or excluded.step2_done,
           completed = w.completed or excluded.completed, updated_at = now()
""")


@workflow(name="CrashDemo", max_recovery_attempts=10)
async def crash_demo(run_id: str, sleep_s: float = 5.0) -> str:
    await mark(run_id, "s1")
    await sleep(sleep_s)
    await mark(run_id, "s2")
    return "marked"


@step(name="mark")
async def mark(run_id: str, name: Literal["s1", "s2"]) -> None:
    ride(MARK, {"run_id": run_id, "step": name})
    last = name == "s2"
    ride(FLAGS, {"workflow_id": run_id, "step1_done": True, "step2_done": last, "completed": last})
