"""The decorators: what makes a plain async function a workflow, a step, or a transaction.

They keep the function's signature, register nothing and need no running engine; a step called outside of a workflow is just its
function. Inside a workflow, calling a step means: take the recorded outcome if there is one, else run it (with its retries), record
the outcome, and go on.
"""

import asyncio
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import psycopg

from engine import codec
from engine.children import start_child
from engine.errors import RunLost, StepFailed, StepTimeout, TerminalError
from engine.names import checked_name
from engine.run import Branch, Recorded, StepScope, calling_branch, check_task, current_scope, enter, is_ours, leave
from engine.transactions import run_transaction

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_MAX_RECOVERY_ATTEMPTS = 10


class Signature:
    """How a function's arguments and result travel as JSON."""

    __slots__ = ("_decoders", "_names", "result", "what")

    def __init__(self, function: Callable[..., Any], what: str, skip: int = 0) -> None:
        hints = typing.get_type_hints(function)
        self.what = what
        self._names = list(inspect.signature(function).parameters)[skip:]
        self._decoders = {name: codec.decoder_for(hints[name]) for name in self._names if name in hints}
        self.result = codec.decoder_for(hints.get("return", object))

    def arguments(self, inputs: str | None, serialization: str | None) -> tuple[list[Any], dict[str, Any]]:
        """Recorded inputs as (args, kwargs) in their declared types. Raises UnreadablePayload."""
        if inputs is not None and serialization is None and inputs.startswith('{"args":'):
            serialization = codec.PORTABLE  # a client whose default it is starts what it schedules like this
        record: Any = codec.decode(inputs, serialization) or {}
        positional: list[Any] = record.get("positionalArgs") or record.get("args") or []
        named: dict[str, Any] = record.get("namedArgs") or record.get("kwargs") or {}
        args = [self._shaped(self._names[i] if i < len(self._names) else "", v) for i, v in enumerate(positional)]
        return args, {name: self._shaped(name, v) for name, v in named.items()}

    def _shaped(self, name: str, value: Any) -> Any:
        decoder = self._decoders.get(name)
        return value if decoder is None else codec.shaped(decoder, value, f"argument {name!r} of {self.what}")


class Workflow(Generic[P, R]):
    """A durable function. Enqueue it with Engine.enqueue; awaited inside a workflow it runs as a child and gives its result."""

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        name: str | None,
        class_name: str | None,
        max_recovery_attempts: int,
    ) -> None:
        self.function = function
        self.name = checked_name(name or function.__qualname__, "workflow name")
        self.class_name = class_name
        self.max_recovery_attempts = max_recovery_attempts
        self.signature = Signature(function, f"workflow {self.name}")
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @property
    def result_decoder(self) -> codec.Decoder:
        """Shapes a recorded result into the annotated type."""
        return self.signature.result

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if current_scope() is None:
            return await self.function(*args, **kwargs)
        handle = await start_child(self, args, dict(kwargs))
        return typing.cast(R, await handle.result())


class Step(Generic[P, R]):
    """A journaled call: its outcome is recorded once and never computed again; its effects happen at least once."""

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        name: str | None,
        max_attempts: int,
        backoff_s: float,
        backoff_factor: float,
        max_backoff_s: float,
        timeout_s: float | None,
        retry_if: Callable[[Exception], bool] | None,
    ) -> None:
        if max_attempts < 1:
            raise ValueError("max_attempts counts the first attempt too, so it is at least 1")
        self.function = function
        self.name = checked_name(name or function.__qualname__, "step name")
        self.max_attempts = max_attempts
        self.backoff_s = backoff_s
        self.backoff_factor = backoff_factor
        self.max_backoff_s = max_backoff_s
        self.timeout_s = timeout_s
        self.retry_if = retry_if
        self.signature = Signature(function, f"the result of step {self.name}")
        self._plain = max_attempts == 1 and timeout_s is None  # nothing stands between the call and the function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        scope = current_scope()
        if scope is None or type(scope) is StepScope:
            return await self.function(*args, **kwargs)
        assert isinstance(scope, Branch)
        check_task(scope, self.name)
        path = scope.next_path()
        if scope.run.history:
            found = scope.replayed(path, self.name)
            if found is not None:
                return typing.cast(R, self._recorded(found))
        services = scope.run.services
        if not services.leased():
            raise RunLost(f"run {scope.run.id} may have been taken over: the worker's lease was not renewed in time")
        started_ms = services.now_ms()
        step = StepScope(scope, path, 1)
        token = enter(step)
        try:
            plain = self._plain and services.observer is None
            result: Any = await (self.function(*args, **kwargs) if plain else self._attempts(step, args, kwargs))
            output, result = codec.settled(result, self.signature.result, self.signature.what)
        except BaseException as error:
            leave(token)
            if is_ours(error, scope.run):
                raise
            await self._record_failure(scope, path, error, started_ms, step)
            raise StepFailed(*codec.decode_error(codec.encode_error(error))) from error
        leave(token)
        await scope.record(path, self.name, output, started_ms=started_ms, riders=step.ridden())
        return typing.cast(R, result)

    def _recorded(self, found: Recorded) -> Any:
        if found.error is not None:
            raise StepFailed(*codec.decode_error(found.error, found.serialization))
        value = codec.decode(found.output, found.serialization)
        return codec.shaped(self.signature.result, value, f"the recorded result of {self.name}")

    async def _record_failure(self, branch: Branch, path: str, error: BaseException, started_ms: int, step: StepScope) -> None:
        text = codec.encode_error(error)
        await branch.record(path, self.name, None, text, started_ms=started_ms, riders=step.kept)

    async def _attempts(self, step: StepScope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function: Callable[..., Coroutine[Any, Any, Any]] = self.function
        pause_s = min(self.backoff_s, self.max_backoff_s)
        while True:
            try:
                with step.watched(self.name):
                    if self.timeout_s is None:
                        return await function(*args, **kwargs)
                    return await self._timed(args, kwargs)
            except Exception as error:
                step.riders = None
                if step.attempt >= self.max_attempts or not self._worth_retrying(error):
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * self.backoff_factor, self.max_backoff_s)
                step.attempt += 1

    async def _timed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function: Callable[..., Coroutine[Any, Any, Any]] = self.function
        timer = asyncio.timeout(self.timeout_s)
        try:
            async with timer:
                return await function(*args, **kwargs)
        except TimeoutError:
            if timer.expired():
                raise StepTimeout(f"an attempt of {self.name} took longer than {self.timeout_s} s") from None
            raise

    def _worth_retrying(self, error: Exception) -> bool:
        if isinstance(error, (TerminalError, StepFailed)):
            return False
        return self.retry_if is None or self.retry_if(error)


class Transaction(Generic[P, R]):
    """A step whose statements and journal record are one commit: its effects on this database happen exactly once."""

    def __init__(
        self, function: Callable[Concatenate[psycopg.AsyncConnection[Any], P], Coroutine[Any, Any, R]], name: str | None
    ) -> None:
        self.function = function
        self.name = checked_name(name or function.__qualname__, "step name")
        self.signature = Signature(function, f"transaction {self.name}", skip=1)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @property
    def body(self) -> Callable[..., Any]:
        """The function itself, which takes the connection first."""
        return self.function

    @property
    def result_decoder(self) -> codec.Decoder:
        """Shapes a recorded result into the annotated type."""
        return self.signature.result

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        branch = calling_branch(self.name)
        path = branch.next_path()
        found = branch.replayed(path, self.name)
        if found is None:
            return typing.cast(R, await run_transaction(self, branch, path, args, dict(kwargs)))
        if found.error is not None:
            raise StepFailed(*codec.decode_error(found.error, found.serialization))
        value = codec.decode(found.output, found.serialization)
        return typing.cast(R, codec.shaped(self.signature.result, value, f"the recorded result of {self.name}"))


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, class_name: str | None = None, max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    class_name: str | None = None,
    max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
) -> Any:
    """Make an async function a workflow.

    name: what rows and journals call it (default: its qualified name); keep it when you rename the function.
    max_recovery_attempts: claims without progress, after the first, before the run ends as MAX_RECOVERY_ATTEMPTS_EXCEEDED.
    """

    def made(f: Callable[..., Any]) -> Any:
        return Workflow(f, name, class_name, max_recovery_attempts)

    return made if function is None else made(function)


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    max_attempts: int = 1,
    backoff_s: float = 1.0,
    backoff_factor: float = 2.0,
    max_backoff_s: float = 60.0,
    timeout_s: float | None = None,
    retry_if: Callable[[Exception], bool] | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Step[P, R]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_attempts: int = 1,
    backoff_s: float = 1.0,
    backoff_factor: float = 2.0,
    max_backoff_s: float = 60.0,
    timeout_s: float | None = None,
    retry_if: Callable[[Exception], bool] | None = None,
) -> Any:
    """Make an async function a step.

    max_attempts: tries in all, with backoff_s, then times backoff_factor, up to max_backoff_s between them. timeout_s: for each
    attempt. retry_if: whether an error is worth another attempt; TerminalError never is. What is recorded is the last outcome only.
    A failure reaches the workflow as StepFailed. The step's effects happen at least once: hand step_info().key to whoever can use it.
    """

    def made(f: Callable[..., Any]) -> Any:
        return Step(f, name, max_attempts, backoff_s, backoff_factor, max_backoff_s, timeout_s, retry_if)

    return made if function is None else made(function)


@overload
def transaction(
    function: Callable[Concatenate[psycopg.AsyncConnection[Any], P], Coroutine[Any, Any, R]], /
) -> Transaction[P, R]: ...
@overload
def transaction(
    *, name: str | None = None
) -> Callable[[Callable[Concatenate[psycopg.AsyncConnection[Any], P], Coroutine[Any, Any, R]]], Transaction[P, R]]: ...
def transaction(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make an async function that takes a connection first a step with a transaction of its own.

    It is called without the connection. Its statements and the journal record commit together, so they happen exactly once, and
    not at all if the run was lost meanwhile. Serialization failures and deadlocks are tried again. Do not commit inside.
    """

    def made(f: Callable[..., Any]) -> Any:
        return Transaction(f, name)

    return made if function is None else made(function)
