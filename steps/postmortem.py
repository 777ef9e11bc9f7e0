"""PostmortemST: why did the run fail, or pass with a red check?

The facts come from what the run left: its journal, its row, its verdicts, its sandbox tasks, its broken budgets. The plan agent, told
what the recipe says about post-mortems, makes a cause and a summary of them. In replay the answer follows from the facts alone.
"""

from dataclasses import dataclass
from typing import Any, LiteralString, cast

from engine import TerminalError, step
from steps.agent import ask_agent
from steps.artifacts import ride_artifact
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.improvement import POSTMORTEM_SCHEMA, Postmortem
from steps.documents import compact, json_or_text, without_none
from steps.opencode import AgentRequest
from steps.ports import ports
from steps.records import begin_step, finish_step
from steps.run_record import Run

STEP = "PostmortemST"
SCHEMA_VERSION = 1

#: A failure is told in this many characters and rows at most, so that a question to an agent stays one that can be read.
MOST_TEXT = 2000
EVIDENCE_TEXT = 500
MOST_ROWS = 20

# Without times and random ids, so that the same failure is the same question.
FAILURE: LiteralString = """
    select r.workflow_id, r.recipe_id, r.recipe_v, r.recipe_hash, r.status, r.error, r.last_step, r.budget, i.form, v.json as recipe,
           coalesce(s.error, o.error) as recorded,
           coalesce((select jsonb_agg(c) from (
               select e.check_id as "checkId", e.reason from app.eval_results e
                where e.run_id = r.id and not e.pass order by e.check_id limit 20) c), '[]') as checks,
           coalesce((select jsonb_agg(t) from (
               select left(b.request ->> 'cmd', 2000) as cmd, b.err_code as "errCode", (b.response ->> 'exit')::int as exit,
                      right(b.response ->> 'stderr', 2000) as stderr
                 from app.sbx_runs b
                where b.run_id = r.id and b.err_code <> 'NONE' order by b.attempt desc, b.task_key limit 20) t), '[]') as tasks,
           coalesce((select jsonb_agg(c) from (
               select c.function_name as name, left(c.error, 2000) as error from dbos.operation_outputs c
                where c.workflow_uuid = r.workflow_id and c.error is not null order by c.function_id desc limit 20) c), '[]') as calls,
           coalesce((select jsonb_agg(distinct a.uri) from (
               select a.uri from app.artifacts a
                where a.run_id = r.id and a.kind = 'json_diagnostic' and a.uri is not null
                order by a.created_at desc, a.uri limit 20) a), '[]') as artifacts
      from app.runs r
      join app.intents i on i.id = r.intent_id
      join app.recipe_versions v on v.id = r.recipe_id and v.v = r.recipe_v
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
      left join dbos.workflow_output o on o.workflow_uuid = r.workflow_id
     where r.workflow_id = %s
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed run, and the recipe that it was made from. recorded: the error as the engine has it. budget: that of its
    start.
    """

    workflow_id: str
    recipe_id: str
    recipe_v: str
    recipe_hash: str
    status: str
    error: str | None
    last_step: str | None
    budget: JsonObject | None
    form: JsonObject
    recipe: JsonObject
    recorded: str | None
    checks: list[JsonObject]
    tasks: list[JsonObject]
    calls: list[JsonObject]
    artifacts: list[str]

    @property
    def thrown(self) -> JsonObject:
        """The error's name, message and data; empty for a run that did not end with one."""
        error = json_or_text(self.recorded)
        return cast(JsonObject, error) if isinstance(error, dict) else {}

    @property
    def data(self) -> JsonObject:
        """What the error says besides its sentence."""
        data = self.thrown.get("data")
        return cast(JsonObject, data) if isinstance(data, dict) else {}

    def facts(self) -> JsonObject:
        """All of it for an agent, but the recipe."""
        error = {"name": self.thrown.get("name"), "message": self.error, "data": self.data or None}
        return {
            "status": self.status,
            "lastStep": self.last_step,
            "form": self.form,
            "error": without_none(error),
            "redChecks": self.checks,
            "failedTasks": self.tasks,
            "failedCalls": self.calls,
            "artifacts": self.artifacts,
        }


@step(name="loadFailure")
async def load_failure(workflow_id: str) -> Failure:
    """What the run left. Fails for good when it is gone."""
    found = await ports().read(Failure, FAILURE, workflow_id)
    if found is None:
        raise TerminalError(f"run {workflow_id} or its recipe is gone", name="RunNotFound")
    return found


@step(name=STEP)
async def postmortem(run: Run, failure: Failure) -> JsonObject:
    """The agent's answer, a Postmortem, which is also left as an artifact."""
    attempt = await begin_step(run, STEP)
    _, answer = await ask_agent(postmortem_request(run, failure, attempt.number), Postmortem)
    document = compact(answer)
    address = ride_artifact(
        run.run_id, STEP, "json_diagnostic", "postmortem.json", {"json": document}, idx=0, attempt=attempt.number
    )
    return finish_step(run, STEP, attempt, document | {"artifact": address})


def postmortem_request(run: Run, failure: Failure, attempt: int) -> AgentRequest:
    facts = failure.facts()
    return AgentRequest(
        run_id=run.run_id,
        step_id=STEP,
        attempt=attempt,
        agent="plan",
        prompt=postmortem_prompt(failure, facts),
        schema=POSTMORTEM_SCHEMA,
        schema_version=SCHEMA_VERSION,
        subject={"stepId": STEP, "recipeHash": failure.recipe_hash, "facts": facts},
        produce=lambda: replayed_postmortem(failure),
    )


def postmortem_prompt(failure: Failure, facts: JsonObject) -> str:
    lines = [
        failure.recipe["prompts"]["postmortem"],
        f"Recipe: {failure.recipe_id}@{failure.recipe_v}",
        f"Facts: {canonical_json(facts)}",
        "Say what caused this, as a short code and in words, with the facts that show it; return only JSON that fits the schema.",
    ]
    return "\n".join(lines)


# What follows from the facts alone -------------------------------------------------------------------------------------------


def replayed_postmortem(failure: Failure) -> JsonObject:
    """The post-mortem that a replay makes up when no fixture holds one."""
    answer: JsonObject = {
        "cause": cause_of(failure),
        "summary": summary_of(failure)[:MOST_TEXT],
        "evidence": [line[:EVIDENCE_TEXT] for line in _evidence(failure)][:MOST_ROWS],
    }
    return answer if failure.last_step is None else answer | {"step": failure.last_step}


def cause_of(failure: Failure) -> str:
    """The code of what went wrong, from the most telling fact to the least."""
    if failure.status == "succeeded":
        return f"eval:{kind_of(failure.checks[0])}" if failure.checks else "NONE"
    metric, err_code, name = failure.data.get("metric"), failure.data.get("errCode"), failure.thrown.get("name")
    if name == "BudgetExceeded" and metric is not None:
        return f"budget:{metric}"
    return _code(err_code) or _code(name) or "UNKNOWN"


def kind_of(check: JsonObject) -> str:
    """A red check's kind, with which its reason begins."""
    return str(check["reason"]).partition(":")[0]


def _code(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum() else None


def summary_of(failure: Failure) -> str:
    if failure.status == "succeeded":
        red = ", ".join(str(check["checkId"]) for check in failure.checks)
        return f"The run did what it was told, and what it left is not what it should be: {red}."
    return f"The run ended at {failure.last_step or 'its start'}: {failure.error or failure.status}."


def _evidence(failure: Failure) -> list[str]:
    return [
        *(f"check {check['checkId']}: {check['reason']}" for check in failure.checks),
        *(f"task {task['cmd']!r}: {task['errCode']}, exit code {task['exit']}" for task in failure.tasks),
        *(f"call {call['name']}: {call['error']}" for call in failure.calls),
    ]
