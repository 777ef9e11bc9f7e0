"""Rules for what workflows are made of: it must replay the same way, and be named by what it is."""

import ast
import re
from collections.abc import Iterator

from tests.platform.source import (
    Function,
    Sources,
    called,
    calls,
    dotted,
    functions,
    imports,
    is_decorated,
    keywords,
    module_of,
    names_in,
    trees,
)

#: What gives another answer the next time, or reaches out of the process.
IMPURE = re.compile(
    r"(time|random|secrets|uuid|subprocess|socket|httpx|psycopg|psycopg_pool|threading|asyncio)\..+"
    r"|datetime\.(datetime|date)\.(now|utcnow|today)"
    r"|os\.(environ|getenv|urandom|getpid|open|listdir|stat).*"
    r"|steps\.ports\.ports|open|input"
)
#: Modules that only compute: identities, templates, canonical JSON, the checks of an evaluation.
PURE = ("steps/identity.py", "steps/canonical.py", "steps/template.py", "steps/decisions.py", "steps/policy.py", "steps/eval.py")
IMPURE_MODULES = ("time", "random", "secrets", "uuid", "os", "subprocess", "socket", "httpx", "psycopg", "asyncio", "engine")
#: The adapter that turns goals of older clients into constraints, before anything is stored.
KNOWS_GOALS = ("steps/compat.py",)
RETRIED = {"steps/execute_task.py:run_in_sandbox"}
#: Work that belongs to no tenant.
NOBODYS = ("steps/timers.py",)


def workflow_code_is_pure(sources: Sources) -> Iterator[str]:
    """From each @workflow follow every call to a function of the room that is no step: what runs again at a replay."""
    known = {module_of(path): names_in(tree) for path, tree in trees(sources, "steps")}
    bodies = {
        f"{module_of(path)}.{function.name}": (path, function)
        for path, tree in trees(sources, "steps")
        for function in tree.body
        if isinstance(function, Function)
    }
    ahead = sorted(name for name, (_, function) in bodies.items() if is_decorated(function, "workflow"))
    reached = set(ahead)
    while ahead:
        path, function = bodies[ahead.pop()]
        names = known[module_of(path)]
        for node in ast.walk(ast.Module(function.body, [])):
            if not isinstance(node, ast.Name | ast.Attribute) or (name := dotted(node, names)) is None:
                continue
            if IMPURE.fullmatch(name):
                yield f"{path}:{node.lineno} {function.name} is workflow code and uses {name}"
            full = name if name in bodies else f"{module_of(path)}.{name}"
            if full in bodies and full not in reached and not is_decorated(bodies[full][1], "step", "transaction"):
                reached.add(full)
                ahead.append(full)


def pure_modules_import_nothing_impure(sources: Sources) -> Iterator[str]:
    for path, tree in trees(sources, "steps"):
        if path in PURE:
            yield from (f"{path}:{line} imports {name}" for name, line in imports(tree) if name.split(".")[0] in IMPURE_MODULES)


def nothing_branches_on_a_goal(sources: Sources) -> Iterator[str]:
    """A goal is text for people and agents: nobody compares it, searches it, or looks something up by it."""
    for path, tree in trees(sources, "steps", "api"):
        if path in KNOWS_GOALS:
            continue
        for node in ast.walk(tree):
            if any(_is_goal(part) for part in _asked(node)):
                yield f"{path}:{getattr(node, 'lineno', 0)} branches on a goal"


def _asked(node: ast.AST) -> list[ast.AST]:
    match node:
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
        case ast.Match(subject=subject):
            return [subject]
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=arguments) if method in SEARCHES:
            return [value, *arguments]
        case ast.Subscript(slice=index):
            return [index]
        case _:
            return []


SEARCHES = (
    *("startswith", "endswith", "find", "index", "count", "lower", "upper", "split", "partition", "removeprefix", "removesuffix"),
    *("match", "search", "fullmatch", "findall", "get"),
)


def _is_goal(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="goal") | ast.Attribute(attr="goal"):
            return True
        case ast.Subscript(slice=ast.Constant(value="goal")):
            return True
        case ast.Call(func=ast.Attribute(value=value)):
            return _is_goal(value)
        case _:
            return False


def only_the_sandbox_task_is_retried(sources: Sources) -> Iterator[str]:
    """A second try of anything else would act a second time: agents are asked once, people are asked once."""
    for path, tree in trees(sources, "steps"):
        for function in functions(tree):
            for decorator in function.decorator_list:
                if not isinstance(decorator, ast.Call) or called(decorator) not in ("step", "transaction"):
                    continue
                if "max_attempts" in keywords(decorator) and f"{path}:{function.name}" not in RETRIED:
                    yield f"{path}:{function.lineno} {function.name} is tried more than once"


def work_keeps_its_partition(sources: Sources) -> Iterator[str]:
    """Whose share of a queue a run takes, its tasks take too. Drills and schedules belong to nobody."""
    for path, tree in trees(sources, "steps"):
        for call in calls(tree) if path not in NOBODYS else ():
            if called(call) in ("start", "enqueue") and "queue" in keywords(call) and "partition" not in keywords(call):
                yield f"{path}:{call.lineno} puts work into a queue without its partition"


def dedupe_keys_follow_from_content(sources: Sources) -> Iterator[str]:
    """What is called a dedupe key is never made of a clock or of chance, or it would dedupe nothing."""
    for path, tree in trees(sources, "steps", "api", "bin"):
        known = names_in(tree)
        for value in _dedupe_keys(tree):
            for node in ast.walk(value):
                name = dotted(node, known) if isinstance(node, ast.Name | ast.Attribute) else None
                if name and (IMPURE.fullmatch(name) or name == "engine.now"):
                    yield f"{path}:{value.lineno} makes a dedupe key with {name}"


def _dedupe_keys(tree: ast.Module) -> Iterator[ast.expr]:
    def is_one(name: object) -> bool:
        return isinstance(name, str) and re.search(r"dedupe_?key|deduplication_?id|dedup_id", name, re.IGNORECASE) is not None

    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=name, value=value) if is_one(name):
                yield value
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_one(name):
                yield value
            case ast.Dict(keys=keys, values=values):
                yield from (v for k, v in zip(keys, values, strict=True) if isinstance(k, ast.Constant) and is_one(k.value))
            case ast.FunctionDef(name=name) if is_one(name):
                yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value)
            case _:
                pass
