"""Rules for what comes in, what goes out, and who may do what: each thing that the program promises at its edges has one place."""

import ast
import re
from collections.abc import Iterator

from tests.platform.source import Sources, called, calls, functions, imports, is_decorated, keywords, module_of, names_in, trees

DDL = re.compile(
    r"\b(create|alter|drop|truncate)\s+(unlogged\s+|or\s+replace\s+|unique\s+)*"
    r"((table|view|sequence|type|function|schema)\s+(if\s+(not\s+)?exists\s+)?dbos\b|index\s+(\w+\s+)?on\s+dbos\.)",
    re.IGNORECASE,
)
SDKS = {"e2b", "e2b_code_interpreter", "microsandbox", "opencode", "opencode_ai"}
NETWORKS = {"httpx", "requests", "urllib.request", "http.client", "http.server", "socket", "subprocess", "pty"}
PORTS = re.compile(r"steps/((opencode|sandbox)\w*|(sandboxes|opencode_server)/\w+)\.py")
PARENT = re.compile(r"\bparentI[dD]s?\b|(?i:\bparent_?session)")
#: They look for them in what agents were given, and in what their server says.
GUARD_PARENTS = ("steps/agent.py", "steps/opencode_server/replies.py")
PLACEHOLDER = re.compile(r"\b([0-9a-f])\1{63}\b|\b(deadbeef){8}\b|\b(0123456789abcdef){4}\b")
GATE_NAME = re.compile(r"(human|sys|ui|decision|esc):.", re.DOTALL)
OPS_ROUTES = {
    ("GET", "/api/ops/wf"),
    ("GET", "/api/ops/wf/{}"),
    ("GET", "/api/ops/wf/{}/steps"),
    ("POST", "/api/ops/wf/{}/cancel"),
    ("POST", "/api/ops/wf/{}/resume"),
    ("POST", "/api/ops/wf/{}/fork"),
}
SOURCES_OF_PROOF = ("sql", "api", "dbos", "artifact", "k6", "policy", "test")


def bodies_and_queries_are_parsed(sources: Sources) -> Iterator[str]:
    """What a client sent becomes a strict model in the function that reads it."""
    for path, tree in trees(sources, "api"):
        for function in functions(tree) if path != "api/http.py" else ():
            parsed = [node for call in calls(function) if called(call) == "parse" for node in ast.walk(call)]
            names = {node.id for node in parsed if isinstance(node, ast.Name)}
            kept = {
                id(node)
                for line in ast.walk(function)
                if isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id in names for t in line.targets)
                for node in ast.walk(line.value)
            }
            for call in calls(function):
                if called(call) in ("read_json", "query_of") and call not in parsed and id(call) not in kept:
                    yield f"{path}:{call.lineno} reads what a client sent without a model"


def wire_models_are_strict(sources: Sources) -> Iterator[str]:
    """Every model of the contracts is a Wire, which forbids unknown keys and converts nothing; an agent's envelope alone is open."""
    for path, tree in trees(sources, "steps", "api"):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or (path, node.name) == ("steps/contracts/base.py", "Wire"):
                continue
            if path.startswith(("steps/contracts/", "api/")) and any(
                isinstance(b, ast.Name) and b.id == "BaseModel" for b in node.bases
            ):
                yield f"{path}:{node.lineno} {node.name} is a model and no Wire"
            if node.name != "OCOutput" and path.startswith("steps/contracts/") and "model_config" in _assigned(node):
                yield f"{path}:{node.lineno} {node.name} has rules of its own"


def _assigned(node: ast.ClassDef) -> set[str]:
    return {
        target.id for line in node.body if isinstance(line, ast.Assign) for target in line.targets if isinstance(target, ast.Name)
    }


def the_front_door_never_works(sources: Sources) -> Iterator[str]:
    """It enqueues and reads. It runs no worker, configures no ports and calls no step."""
    steps = _steps(sources)
    for path, tree in trees(sources, "api"):
        for call in calls(tree):
            if called(call) in ("run_worker", "worker", "configure", "workflows"):
                yield f"{path}:{call.lineno} works: {called(call)}()"
        for name, full in names_in(tree).items():
            if full in steps or full.startswith(("steps.worker", "steps.ports")):
                yield f"{path} imports {name}, which is for workers"


def _steps(sources: Sources) -> set[str]:
    """Everything that is a step, and the modules that hold steps, dotted."""
    found: set[str] = set()
    for path, tree in trees(sources, "steps"):
        inside = [function.name for function in functions(tree) if is_decorated(function, "step", "transaction")]
        found |= {f"{module_of(path)}.{name}" for name in inside} | ({module_of(path)} if inside else set())
    return found


def foreign_things_stay_behind_their_port(sources: Sources) -> Iterator[str]:
    """Agents, sandboxes, networks and processes are reached from their adapters alone; commands may start processes and use networks."""
    for path, tree in trees(sources, "steps", "api", "bin"):
        foreign = SDKS if path.startswith("bin/") else {*SDKS, *NETWORKS}
        for module, line in imports(tree):
            if foreign & {module, module.split(".")[0]} and not PORTS.fullmatch(path):
                yield f"{path}:{line} imports {module}"


def no_agent_session_has_a_parent(sources: Sources) -> Iterator[str]:
    for path, tree in trees(sources, "steps", "api"):
        for node in ast.walk(tree) if path not in GUARD_PARENTS else ():
            for name in _words(node):
                if PARENT.search(name):
                    yield f"{path}:{getattr(node, 'lineno', 0)} says {name!r}"


def _words(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.Constant(value=str(name)):
            return [name]
        case ast.keyword(arg=str(name)):
            return [name]
        case _:
            return []


def no_hash_is_made_up(sources: Sources) -> Iterator[str]:
    for path, text in sources.items():
        yield from (f"{path}: {found[0]}" for found in PLACEHOLDER.finditer(text))


def the_engines_tables_are_made_in_one_place(sources: Sources) -> Iterator[str]:
    """In the engine's part of schema.sql."""
    for path, tree in trees(sources, "engine", "steps", "api", "bin"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and DDL.search(node.value):
                yield f"{path}:{node.lineno} changes the engine's tables"
    products = sources.get("schema.sql", "").partition("-- part: app")[2]
    yield from (f"schema.sql: {found[0]}" for found in DDL.finditer(products))


def operators_have_six_routes(sources: Sources) -> Iterator[str]:
    served = {(method, re.sub(r"{\w+(:\w+)?}", "{}", path)) for method, path in _routes(sources)}
    ours = {route for route in served if route[1].startswith("/api/ops/wf")}
    yield from (f"not served: {method} {path}" for method, path in sorted(OPS_ROUTES - ours))
    yield from (f"one too many: {method} {path}" for method, path in sorted(ours - OPS_ROUTES))


def _routes(sources: Sources) -> Iterator[tuple[str, str]]:
    for path, tree in trees(sources, "api"):
        for node in ast.walk(tree) if path == "api/app.py" else ():
            match node:
                case ast.Tuple(elts=[ast.Constant(value=str(method)), ast.Constant(value=str(route)), _]):
                    yield method, route
                case _:
                    pass


def queues_are_the_same_everywhere(sources: Sources) -> Iterator[str]:
    """The contract, the check of the database and the workers know the same queues."""
    known = {
        "the contract": set(re.findall(r'"(\w+)"', _line(sources, "steps/contracts/intent.py", r"^QueueName = (.*)$"))),
        "schema.sql": set(re.findall(r"'(\w+)'", _line(sources, "schema.sql", r"queue_name in \(([^)]*)\)"))),
        "the worker": set(re.findall(r'"(\w+)":', _line(sources, "steps/worker.py", r"^QUEUES\b.*= ({.*})$"))),
    }
    if len({frozenset(queues) for queues in known.values()}) != 1 or not all(known.values()):
        yield "; ".join(f"{where}: {', '.join(sorted(queues))}" for where, queues in known.items())


def _line(sources: Sources, path: str, pattern: str) -> str:
    found = re.search(pattern, sources.get(path, ""), re.MULTILINE)
    return found[1] if found else ""


def names_of_gates_are_built_in_one_place(sources: Sources) -> Iterator[str]:
    for path, tree in trees(sources, "steps", "api"):
        for node in ast.walk(tree) if path != "steps/identity.py" else ():
            match node:
                case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if GATE_NAME.match(f"{text}…"):
                    yield f"{path}:{node.lineno} builds {text!r}"
                case ast.Constant(value=str(text)) if GATE_NAME.match(text) and " " not in text:
                    yield f"{path}:{node.lineno} says {text!r}"
                case _:
                    pass


def every_proof_says_where_it_is_from(sources: Sources) -> Iterator[str]:
    for path, tree in trees(sources, "steps", "api"):
        for call in calls(tree):
            if called(call) != "ProofCard":
                continue
            given = keywords(call)
            for name in ("id", "source", "provenance"):
                value = given.get(name)
                if value is None or (isinstance(value, ast.Constant) and not str(value.value).strip()):
                    yield f"{path}:{call.lineno} is a proof without {name}"
            source = given.get("source")
            if isinstance(source, ast.Constant) and source.value not in SOURCES_OF_PROOF:
                yield f"{path}:{call.lineno} is a proof from {source.value}"


def nobody_changes_the_environment(sources: Sources) -> Iterator[str]:
    """Settings are read once; a child process is given an environment of its own."""
    for path, tree in trees(sources, "engine", "steps", "api", "bin"):
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Attribute(attr="environ"), ctx=ast.Store() | ast.Del()):
                    yield f"{path}:{node.lineno} changes the environment"
                case ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="update" | "setdefault" | "pop" | "clear")
                ):
                    yield f"{path}:{node.lineno} changes the environment"
                case ast.Attribute(value=ast.Name(id="os"), attr="putenv" | "unsetenv"):
                    yield f"{path}:{node.lineno} changes the environment"
                case _:
                    pass
