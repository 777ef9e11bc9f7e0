"""ApplyPatchST: change the workspace's files as the plan says, in a way that can be taken back.

First the ledger: what every file holds now is a row of app.patch_history, committed before any file is touched. Then the files.
Taking them back reads the ledger, not the plan. Each of the three is a step that may be made again after a crash at any moment.

Two workers never touch a run's files at once: who does so holds the run's advisory lock, and looks under it whether the run may
still go on. Nor do two runs touch one file at once. A run that is cancelled can take nothing back itself; the workflow RollbackRun
does it in its place.

A run and its forks work on the same files. Nobody takes back what another one of them still works with, or has succeeded with. The
run of a recipe's fixture works in a folder of its own, which goes when its patches are taken back, also after a success.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

from psycopg import AsyncConnection

from engine import Rider, TerminalError, ride, step, workflow, workflow_info
from steps import patches
from steps.artifacts import ASIDE, ride_artifact
from steps.contracts.base import JsonObject
from steps.contracts.plan import Plan
from steps.documents import compact
from steps.patches import LedgerRow
from steps.ports import patient, ports
from steps.records import begin_step, finish_step
from steps.run_record import Run, load_run

STEP = "ApplyPatchST"

PATCH_PLANNED = Rider("""
    insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_existed, preimage_hash, postimage_hash,
                                   diff_hash, preimage_content, postimage_content)
    select n.run_id, 'ApplyPatchST', n.patch_index, n.target_path, n.preimage_existed, n.preimage_hash, n.postimage_hash,
           n.diff_hash, n.preimage_content, n.postimage_content
      from json_to_recordset(%s) as n (run_id text, patch_index int, target_path text, preimage_existed boolean,
                                       preimage_hash text, postimage_hash text, diff_hash text, preimage_content text,
                                       postimage_content text)
    on conflict do nothing
""")

# A patch that was taken back and is made again starts a new life; otherwise the first time stands.
PATCH_APPLIED = Rider("""
    update app.patch_history p
       set applied_at = now(), rolled_back_at = null
      from json_to_recordset(%s) as n (run_id text, patch_index int)
     where p.run_id = n.run_id and p.step_id = 'ApplyPatchST' and p.patch_index = n.patch_index
       and (p.applied_at is null or p.rolled_back_at is not null)
""")

PATCH_ROLLED_BACK = Rider("""
    update app.patch_history p
       set applied_at = coalesce(p.applied_at, now()), rolled_back_at = now()
      from json_to_recordset(%s) as n (run_id text, patch_index int)
     where p.run_id = n.run_id and p.step_id = 'ApplyPatchST' and p.patch_index = n.patch_index and p.rolled_back_at is null
""")

LEDGER: LiteralString = """
    select patch_index, target_path, case when preimage_existed then preimage_content end, postimage_content, diff_hash,
           applied_at is not null
      from app.patch_history
     where run_id = %s and step_id = 'ApplyPatchST'
     order by patch_index
"""

WORKSPACE_LOCK: LiteralString = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"

#: In the order of the paths, so that nobody waits in a circle.
FILE_LOCKS: LiteralString = """
    select pg_advisory_xact_lock(hashtextextended('file:' || f.path, 0)) from unnest(%s::text[]) f (path)
"""

ENGINE_STATUS: LiteralString = "select status from dbos.workflow_status where workflow_uuid = %s"

#: Whether another execution of the run needs its files; what a fixture's run has succeeded with, nobody does.
IN_USE: LiteralString = """
    with recursive execution (id, status) as (
        select s.workflow_uuid, s.status from dbos.workflow_status s where s.workflow_uuid = %s
         union
        select f.workflow_uuid, f.status from execution e join dbos.workflow_status f on f.forked_from = e.id)
    select exists (select from execution e
                    where e.id <> %s and (e.status in ('ENQUEUED', 'DELAYED', 'PENDING') or (e.status = 'SUCCESS' and %s <> 'fixture')))
"""


@step(name="recordPreimages")
async def record_preimages(run: Run, plan: Plan) -> int:
    """Write the plan's patches and what their files hold now into the ledger; how many there are."""
    root = await asyncio.to_thread(root_of, run)
    entries = [(p.targetPath, p.postimageContent, p.diffText) for p in plan.patchPlan]
    current = await asyncio.to_thread(patches.read_all, root, [target for target, _, _ in entries])
    rows = patches.ledger_for(entries, current)
    for row in rows:
        ride(
            PATCH_PLANNED,
            {
                "run_id": run.run_id,
                "patch_index": row.index,
                "target_path": row.target_path,
                "preimage_existed": row.preimage is not None,
                "preimage_hash": row.preimage_hash,
                "postimage_hash": row.postimage_hash,
                "diff_hash": row.diff_hash,
                "preimage_content": row.preimage or "",
                "postimage_content": row.postimage,
            },
        )
    return len(rows)


@step(name=STEP)
async def apply_patches(run: Run, plan: Plan) -> JsonObject:
    """Bring the workspace to the plan's state; the step's output is the plan without its patches."""
    attempt = await begin_step(run, STEP)
    rows = await apply_ledger(run, workflow_info().id) if plan.patchPlan else []
    if len(rows) < len(plan.patchPlan):
        raise TerminalError(f"PATCH_HISTORY_NOT_FOUND:{run.run_id}", name="PATCH_HISTORY_NOT_FOUND")
    for row in rows:
        entry: JsonObject = {
            "patchIndex": row.index,
            "targetPath": row.target_path,
            "preimageHash": row.preimage_hash,
            "postimageHash": row.postimage_hash,
            "diffHash": row.diff_hash,
        }
        name = f"patch-{row.index}.json"
        ride_artifact(run.run_id, STEP, "patch_apply", name, {"json": entry}, idx=row.index, attempt=attempt.number)
    if not rows:
        ride_artifact(run.run_id, STEP, "none", "none", {"text": "no patches"}, idx=ASIDE, attempt=attempt.number)
    output = compact(plan)
    output.pop("patchPlan", None)
    return finish_step(run, STEP, attempt, output)


@step(name="rollBackPatches")
async def roll_back_patches(run: Run) -> list[int]:
    """Bring the workspace back to what it was; the indexes of the patches taken back, last first."""
    return await roll_back_ledger(run, workflow_info().id)


@workflow(name="RollbackRun")
async def rollback_run(workflow_id: str) -> list[int]:
    """Takes back the patches of a run that was cancelled or gave out before it could, unless it was resumed meanwhile. The database
    enqueues it.
    """
    return await roll_back_patches(await load_run(workflow_id))


@patient
async def apply_ledger(run: Run, workflow_id: str) -> list[LedgerRow]:
    """Apply every patch of the run that is not in place: the first time, or again after a retry or a resume; inside a step."""
    async with files_of(run.run_id) as conn:
        if await engine_status(conn, workflow_id) != "PENDING":
            raise TerminalError(f"run {run.run_id} was ended from outside", name="RunEnded")
        rows = await ledger(conn, run.run_id)
        await asyncio.to_thread(lambda: patches.apply(root_of(run), rows))
    for row in rows:
        ride(PATCH_APPLIED, {"run_id": run.run_id, "patch_index": row.index})
    return rows


@patient
async def roll_back_ledger(run: Run, me: str) -> list[int]:
    """Take back every patch of the run that is in place, unless the run or a fork of it, other than `me`, needs them; inside a step."""
    async with files_of(run.run_id) as conn:
        if await in_use(conn, run, me):
            return []
        rows = await ledger(conn, run.run_id)
        indexes = await asyncio.to_thread(lambda: patches.roll_back(root_of(run), rows))
        if run.purpose == "fixture":
            await asyncio.to_thread(lambda: shutil.rmtree(root_of(run)))
    for index in indexes:
        ride(PATCH_ROLLED_BACK, {"run_id": run.run_id, "patch_index": index})
    return indexes


@asynccontextmanager
async def files_of(run_id: str) -> AsyncGenerator[AsyncConnection[Any]]:
    """Hold the run's files. The lock is the transaction's, so that it ends with the connection of a worker that died or froze."""
    async with ports().pool.connection() as conn, conn.transaction():
        await conn.execute("set local idle_in_transaction_session_timeout = '60s'")
        await conn.execute(WORKSPACE_LOCK, (run_id,))
        yield conn


async def ledger(conn: AsyncConnection[Any], run_id: str) -> list[LedgerRow]:
    """The run's patches. Until the transaction ends, no other run of this workspace writes the files that they are about, so that what
    is seen in a file still holds when it is written.
    """
    rows = [LedgerRow(*row) for row in await (await conn.execute(LEDGER, (run_id,))).fetchall()]
    await conn.execute(FILE_LOCKS, (sorted(patches.paths_of(rows)),))
    return rows


def root_of(run: Run) -> Path:
    """The folder that the run's patches are held to; a fixture's run has one of its own, made when it is first asked for."""
    root = ports().workspace
    if run.purpose != "fixture":
        return root
    own = root / f".fixture-{run.run_id}"
    own.mkdir(exist_ok=True)
    return own


async def in_use(conn: AsyncConnection[Any], run: Run, me: str) -> bool:
    row = await (await conn.execute(IN_USE, (run.workflow_id, me, run.purpose))).fetchone()
    return bool(row and row[0])


async def engine_status(conn: AsyncConnection[Any], workflow_id: str) -> str | None:
    row = await (await conn.execute(ENGINE_STATUS, (workflow_id,))).fetchone()
    return row[0] if row else None
