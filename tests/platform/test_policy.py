"""The house rules that are more than a matter of style: each holds for the checkout, and is shown to find what breaks it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.platform import policy_boundaries as boundaries
from tests.platform import policy_workflow as workflow
from tests.platform.source import Sources, checkout


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule, and sources that break it and that keep it."""

    name: str
    breaches: Callable[[Sources], Iterator[str]]
    bad: tuple[Sources, ...]
    good: tuple[Sources, ...]


RUN = "@workflow(name='w')\nasync def run(a):\n"
ROUTES = {
    "api/app.py": "ROUTES = (\n"
    + "".join(f"    ('{method}', '{path.replace('{}', '{wid}')}', x.y),\n" for method, path in sorted(boundaries.OPS_ROUTES))
    + ")\n"
}
QUEUES = {
    "steps/contracts/intent.py": 'QueueName = Literal["a", "b"]',
    "schema.sql": "check (queue_name in ('b', 'a'))",
    "steps/worker.py": 'QUEUES: Mapping[str, int] = {"a": 1, "b": 2}',
}


def without(sources: Sources, text: str) -> Sources:
    assert any(text in source for source in sources.values())
    return {path: source.replace(text, "") for path, source in sources.items()}


POLICIES = (
    Policy(
        "wf-purity",
        workflow.workflow_code_is_pure,
        bad=(
            {"steps/w.py": f"import time\n{RUN}    return time.time()\n"},
            {
                "steps/w.py": f"from datetime import datetime\n{RUN}    return helper(a)\ndef helper(a):\n    return datetime.now()\n"
            },
            {
                "steps/w.py": f"from steps.other import late\n{RUN}    return late()\n",
                "steps/other.py": "import os\ndef late():\n    return os.environ['X']\n",
            },
            {
                "steps/w.py": f"from steps import other\n{RUN}    return other.draw()\n",
                "steps/other.py": "from uuid import uuid4\ndef draw():\n    return uuid4()\n",
            },
            {"steps/w.py": f"from steps.ports import ports\n{RUN}    return await ports().read()\n"},
            {"steps/w.py": f"import asyncio\n{RUN}    await asyncio.sleep(1)\n"},
        ),
        good=(
            {"steps/w.py": f"from engine import now\n{RUN}    return await now()\n"},
            {
                "steps/w.py": f"import time\n{RUN}    return await look()\n@step(name='s')\nasync def look():\n    return time.time()\n"
            },
            {"steps/w.py": "import random\ndef not_a_workflow():\n    return random.random()\n"},
        ),
    ),
    Policy(
        "pure-modules",
        workflow.pure_modules_import_nothing_impure,
        bad=({"steps/identity.py": "import secrets\n"}, {"steps/template.py": "def f():\n    from time import time\n"}),
        good=({"steps/identity.py": "import re\nfrom datetime import datetime\n", "steps/ingress.py": "import secrets\n"},),
    ),
    Policy(
        "goal-branching",
        workflow.nothing_branches_on_a_goal,
        bad=(
            {"steps/w.py": "if 'ask' in run.intent.goal:\n    pass\n"},
            {"steps/w.py": "x = run.goal == 'fail me'\n"},
            {"steps/w.py": "x = intent['goal'].startswith('ask')\n"},
            {"steps/w.py": "x = goal.lower().split()\n"},
            {"api/w.py": "x = re.match('ask', run.goal)\n"},
            {"steps/w.py": "x = TABLE[intent.goal]\n"},
            {"steps/w.py": "match goal:\n    case _:\n        pass\n"},
        ),
        good=(
            {"steps/w.py": "prompt = f'do {run.intent.goal}'\nx = {'goal': goal}\n"},
            {"steps/compat.py": "x = REHEARSALS.get(intent.goal)\n"},
        ),
    ),
    Policy(
        "step-retry",
        workflow.only_the_sandbox_task_is_retried,
        bad=(
            {"steps/decide.py": "@step(name='DecideST', max_attempts=2)\nasync def decide(): ...\n"},
            {"steps/execute_task.py": "@step(max_attempts=3)\nasync def another(): ...\n"},
            {"steps/w.py": "@transaction(max_attempts=3)\nasync def write(): ...\n"},
        ),
        good=(
            {
                "steps/execute_task.py": "@step(max_attempts=3)\nasync def run_in_sandbox(): ...\n@step(name='s')\nasync def f(): ...\n"
            },
        ),
    ),
    Policy(
        "queue-partition-propagation",
        workflow.work_keeps_its_partition,
        bad=(
            {"steps/w.py": "await start(task, queue='sbxQ')\n"},
            {"steps/w.py": "await engine.enqueue('w', queue=q, priority=1)\n"},
        ),
        good=({"steps/w.py": "await start(task, queue='sbxQ', partition=run.partition)\nthing.start()\n"},),
    ),
    Policy(
        "dedupe-keys",
        workflow.dedupe_keys_follow_from_content,
        bad=(
            {"steps/w.py": "import time\nf(dedupe_key=f'k{time.time()}')\n"},
            {"api/w.py": "from uuid import uuid4\nx = {'dedupeKey': str(uuid4())}\n"},
            {"steps/w.py": "import secrets\ndedup_id = secrets.token_hex(4)\n"},
            {"steps/w.py": "from datetime import datetime\ndef legacy_dedupe_key(a):\n    return f'{a}{datetime.now()}'\n"},
        ),
        good=({"steps/w.py": "f(dedupe_key=identity.key(a), at=time.time())\n"},),
    ),
    Policy(
        "boundaries",
        boundaries.bodies_and_queries_are_parsed,
        bad=(
            {"api/w.py": "async def f(door, request):\n    return await read_json(door, request)\n"},
            {"api/w.py": "async def f(door, request):\n    a = await read_json(door, request)\n    parse(M, b)\n"},
            {"api/w.py": "async def f(door, request):\n    return query_of(request)['limit']\n"},
        ),
        good=(
            {"api/w.py": "async def f(door, request):\n    return parse(M, await read_json(door, request))\n"},
            {"api/w.py": "async def f(door, request):\n    body = await read_json(door, request)\n    return parse(M, body)\n"},
        ),
    ),
    Policy(
        "strict-models",
        boundaries.wire_models_are_strict,
        bad=(
            {"steps/contracts/x.py": "class M(BaseModel):\n    a: int\n"},
            {"steps/contracts/x.py": "class M(Wire):\n    model_config = ConfigDict(extra='allow')\n"},
        ),
        good=({"steps/contracts/x.py": "class M(Wire):\n    a: int\n"},),
    ),
    Policy(
        "api-no-launch",
        boundaries.the_front_door_never_works,
        bad=(
            {"api/w.py": "await engine.run_worker([])\n"},
            {"api/w.py": "from steps.worker import QUEUES\n"},
            {"api/w.py": "from steps import ports\n"},
            {"api/w.py": "from steps.x import act\n", "steps/x.py": "@step(name='s')\nasync def act(): ...\n"},
            {"api/w.py": "from steps import x\n", "steps/x.py": "@step(name='s')\nasync def act(): ...\n"},
            {"api/w.py": "import steps.x as x\n", "steps/x.py": "@transaction\nasync def act(): ...\n"},
        ),
        good=(
            {
                "api/w.py": "from steps.x import drill\n",
                "steps/x.py": "@step(name='s')\nasync def act(): ...\n@workflow\nasync def drill(): ...\n",
            },
        ),
    ),
    Policy(
        "ports",
        boundaries.foreign_things_stay_behind_their_port,
        bad=(
            {"steps/w.py": "import e2b\n"},
            {"api/w.py": "from httpx import get\n"},
            {"steps/w.py": "import subprocess\n"},
            {"bin/w.py": "from e2b import Sandbox\n"},
        ),
        good=(
            {
                "steps/sandbox_e2b.py": "from e2b import Sandbox\n",
                "steps/opencode_live.py": "import httpx\n",
                "bin/w.py": "import subprocess\n",
                "api/w.py": "from urllib.parse import quote\n",
            },
        ),
    ),
    Policy(
        "no-parent-id",
        boundaries.no_agent_session_has_a_parent,
        bad=(
            {"steps/w.py": "x = {'parentID': 1}\n"},
            {"steps/w.py": "f(parentSessionId=1)\n"},
            {"steps/w.py": "parent_session = 1\n"},
            {"api/w.py": "x.parentId\n"},
        ),
        good=({"steps/w.py": "parent_workflow_id = 1\nf(apparentID=2)\n", "steps/agent.py": "x = 'parentID'\n"},),
    ),
    Policy(
        "no-placeholder-hash",
        boundaries.no_hash_is_made_up,
        bad=({"steps/recipes/x.json": f'{{"hash": "{"0" * 64}"}}'}, {"steps/w.py": f"x = '{'deadbeef' * 8}'\n"}),
        good=(
            {"steps/w.py": "x = '0' * 64\n", "schema.sql": "'14b1e60d448682b7f09269b3d66f4ebe8f04f18784b6396daa79625737b5296e'"},
        ),
    ),
    Policy(
        "no-engine-ddl",
        boundaries.the_engines_tables_are_made_in_one_place,
        bad=(
            {"steps/w.py": "Q = 'CREATE TABLE dbos.mine (a int)'\n"},
            {"bin/w.py": "Q = 'alter table if exists dbos.streams add a int'\n"},
            {"api/w.py": "Q = 'create unique index if_x on dbos.streams (a)'\n"},
            {"schema.sql": "create table dbos.a ();\n-- part: app\ncreate table dbos.b ();\n"},
        ),
        good=(
            {
                "schema.sql": "create table dbos.a ();\n-- part: app\ncreate trigger t after update on dbos.a;\n",
                "steps/w.py": "Q = 'create table app.b ()'\n",
            },
        ),
    ),
    Policy(
        "ops-surface",
        boundaries.operators_have_six_routes,
        bad=(
            without(ROUTES, "    ('POST', '/api/ops/wf/{wid}/fork', x.y),\n"),
            {"api/app.py": ROUTES["api/app.py"].replace("(\n", "(\n    ('DELETE', '/api/ops/wf/{wid}', x.y),\n", 1)},
        ),
        good=(ROUTES,),
    ),
    Policy(
        "queue-class-parity",
        boundaries.queues_are_the_same_everywhere,
        bad=(without(QUEUES, ', "b": 2'), without(QUEUES, ", 'a'"), without(QUEUES, ', "b"]'), {}),
        good=(QUEUES,),
    ),
    Policy(
        "hitl-abi",
        boundaries.names_of_gates_are_built_in_one_place,
        bad=(
            {"steps/w.py": "x = f'human:{gate}'\n"},
            {"api/w.py": "x = f'ui:{gate}:result'\n"},
            {"steps/w.py": "topic = 'human:approve'\n"},
        ),
        good=(
            {
                "steps/identity.py": "x = f'human:{gate}'\n",
                "steps/w.py": "x = topic.startswith('human:')\ny = 'sys: a sentence'\n",
            },
        ),
    ),
    Policy(
        "proof-provenance",
        boundaries.every_proof_says_where_it_is_from,
        bad=(
            {"api/w.py": "ProofCard(id='a', source='sql')\n"},
            {"api/w.py": "ProofCard(id='a', source='sql', provenance=' ')\n"},
            {"steps/w.py": "ProofCard(id=x, source='hearsay', provenance=y)\n"},
            {"steps/w.py": "ProofCard(id='', source=z, provenance=y)\n"},
        ),
        good=({"api/w.py": "ProofCard(id=x, source='sql', provenance='app.runs')\n"},),
    ),
    Policy(
        "no-env-writes",
        boundaries.nobody_changes_the_environment,
        bad=(
            {"bin/w.py": "os.environ['A'] = 'b'\n"},
            {"steps/w.py": "os.environ.update(A='b')\n"},
            {"bin/w.py": "del os.environ['A']\n"},
            {"api/w.py": "os.putenv('A', 'b')\n"},
        ),
        good=({"bin/w.py": "x = {**os.environ, 'A': 'b'}\ny = os.environ['A']\n"},),
    ),
)

by_name = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)


@by_name
def test_the_checkout_keeps(policy: Policy) -> None:
    assert list(policy.breaches(checkout())) == []


@by_name
def test_a_breach_is_found_of(policy: Policy) -> None:
    assert [sources for sources in policy.bad if not list(policy.breaches(sources))] == []


@by_name
def test_nothing_else_is_taken_for_a_breach_of(policy: Policy) -> None:
    assert [found for sources in policy.good for found in policy.breaches(sources)] == []
