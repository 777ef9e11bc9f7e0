"""What a step, transaction, child or workflow returns has its declared type, and it is the same thing on the first run and on replay."""

import enum
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import pydantic
import pytest

from engine import StepFailed, UnreadablePayload, WorkflowFailed, step, workflow
from tests.engine.workshop import Workshop


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: float
    at: datetime | None = None


@dataclass(frozen=True)
class Shape:
    name: str
    colour: Colour
    corners: list[Point]
    marks: dict[str, Point] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    value: int
    children: "list[Tree]" = field(default_factory=list)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    id: UUID
    price: Decimal
    long_name: str = pydantic.Field(alias="longName")
    due: date


class Shipment(TypedDict):
    parcel: str
    weight: float


EAST = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
POINT = Point(1, 2.5, MOMENT)
SHAPE = Shape("kite", Colour.BLUE, [POINT, Point(3, -0.0)], {"middle": Point(0, 1e300)})
MODEL = Model(id=UUID(int=7), price=Decimal("12.30"), longName="ball", due=date(2026, 2, 3))

RESULTS: list[tuple[Any, Any]] = [
    (int, 5),
    (float, 2.5),
    (str, "naïve ☃ \x00\x1f\x1e"),
    (type(None), None),
    (list[int], [1, 2]),
    (dict[str, Any], {"a": [1, {"b": None}]}),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=EAST)),
    (date, date(2026, 1, 2)),
    (UUID, UUID(int=99)),
    (Decimal, Decimal("0.10")),
    (Colour, Colour.RED),
    (tuple[int, str], (1, "a")),
    (tuple[Point, ...], (POINT, POINT)),
    (set[int], {3, 1, 2}),
    (Point, POINT),
    (Shape, SHAPE),
    (Point | None, None),
    (Point | None, POINT),
    (list[Shape | None], [SHAPE, None]),
    (dict[str, list[Colour]], {"a": [Colour.RED, Colour.BLUE]}),
    (Model, MODEL),
    (list[Model], [MODEL]),
    (Shipment, {"parcel": "p", "weight": 1.5}),
]


@pytest.mark.parametrize(("annotation", "value"), RESULTS, ids=lambda value: str(value)[:40])
async def test_a_result_is_the_same_on_the_first_run_and_on_replay(shop: Workshop, annotation: Any, value: Any) -> None:
    seen: list[Any] = []

    async def give() -> Any:
        return value

    give.__annotations__["return"] = annotation
    giving = step(give)

    @step
    async def after() -> None:
        pass

    @workflow(name="w")
    async def once() -> None:
        seen.append(await giving())
        await after()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 2)
    await handle.result(10)
    assert seen == [value, value]
    assert {type(v) for v in seen} == {type(value)}


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [(float, 3, 3.0), (Colour, "red", Colour.RED), (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))],
    ids=["int as float", "text as enum", "text as datetime"],
)
async def test_a_plain_value_gets_its_declared_type_on_the_first_run_too(
    shop: Workshop, annotation: Any, value: Any, expected: Any
) -> None:
    seen: list[Any] = []

    async def give() -> Any:
        return value

    give.__annotations__["return"] = annotation
    giving = step(give)

    @workflow(name="w")
    async def once() -> None:
        seen.append(await giving())

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.result("w")
    assert (seen, type(seen[0])) == ([expected], type(expected))


@pytest.mark.parametrize("value", [math.nan, -math.inf, [math.inf], {"a": math.nan}], ids=repr)
async def test_a_number_that_json_cannot_hold_reads_the_same_on_the_first_run_and_on_replay(shop: Workshop, value: Any) -> None:
    seen: list[str] = []

    @step
    async def give() -> Any:
        return value

    @step
    async def after() -> None:
        pass

    @workflow(name="w")
    async def once() -> None:
        try:
            seen.append(repr(await give()))
        except StepFailed as failed:
            seen.append(str(failed))
        await after()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 2)
    await handle.result(10)
    assert len(seen) == 2
    assert len(set(seen)) == 1


@pytest.mark.parametrize("value", [object(), {1: "a"}, "\ud800", 1 << 64], ids=["object", "int key", "surrogate", "huge"])
async def test_a_result_that_json_cannot_hold_fails_the_step(shop: Workshop, value: Any) -> None:
    @step
    async def give() -> Any:
        return value

    @workflow(name="w")
    async def once() -> str:
        try:
            return repr(await give())
        except StepFailed as failed:
            return failed.name

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == "TypeError"
    assert len(await shop.journal("w")) == 1


async def test_a_result_that_does_not_fit_its_declared_type_fails_the_step_at_once(shop: Workshop) -> None:
    @step
    async def give() -> Point:
        return {"x": 1, "y": 2, "z": 3}  # type: ignore[return-value]

    @workflow(name="w")
    async def once() -> list[str]:
        try:
            await give()
        except StepFailed as failed:
            return [failed.name, failed.message]
        return []

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    assert await shop.result("w") == ["UnreadablePayload", "Point has no field 'z'"]


async def test_arguments_arrive_in_their_declared_types(shop: Workshop) -> None:
    seen: list[Any] = []

    @workflow(name="w")
    async def once(shape: Shape, model: Model, at: datetime, plain: dict[str, int], more: Point | None) -> Shape:
        seen.extend([shape, model, at, plain, more])
        return shape

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, SHAPE, MODEL, MOMENT, {"a": 1}, None)
    assert await handle.result(10) == SHAPE
    assert seen == [SHAPE, MODEL, MOMENT, {"a": 1}, None]


async def test_arguments_that_do_not_fit_end_the_workflow_with_a_sentence(shop: Workshop) -> None:
    @workflow(name="w")
    async def once(shape: Shape) -> None:
        raise AssertionError("never called")

    await shop.worker(once)
    await shop.engine.enqueue("w", {"name": "kite", "colour": "green", "corners": []}, id="w")
    with pytest.raises(WorkflowFailed) as failed:
        await shop.result("w")
    assert failed.value.name == "UnreadablePayload"
    assert "argument 'shape' of workflow w" in failed.value.message


async def test_a_childs_result_is_the_same_on_the_first_run_and_on_replay(shop: Workshop) -> None:
    seen: list[Any] = []

    @workflow(name="draw")
    async def draw(colour: Colour) -> Shape:
        return Shape("kite", colour, [POINT])

    @step
    async def after() -> None:
        pass

    @workflow(name="w")
    async def once() -> None:
        seen.append(await draw(Colour.RED))
        await after()

    await shop.worker(once, draw)
    handle = await shop.engine.enqueue(once, id="w")
    await handle.result(10)
    await shop.engine.rewind("w", 3)
    await handle.result(10)
    assert seen == [Shape("kite", Colour.RED, [POINT])] * len(seen)
    assert len(seen) >= 2


async def test_a_dataclass_may_hold_itself(shop: Workshop) -> None:
    @step
    async def grow() -> Tree:
        return Tree(1, [Tree(2), Tree(3, [Tree(4)])])

    @workflow(name="w")
    async def once() -> Tree:
        return await grow()

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    assert await handle.result(10) == Tree(1, [Tree(2), Tree(3, [Tree(4)])])


async def test_a_handle_gives_the_declared_type_and_the_engine_plain_json(shop: Workshop) -> None:
    @workflow(name="w")
    async def once() -> Point:
        return Point(1, 2.0)

    await shop.worker(once)
    handle = await shop.engine.enqueue(once, id="w")
    assert await handle.result(10) == Point(1, 2.0)
    assert await shop.engine.result("w") == {"x": 1, "y": 2.0, "at": None}


async def test_a_result_that_the_caller_cannot_read_says_what_did_not_fit(shop: Workshop) -> None:
    @workflow(name="w")
    async def new_code() -> dict[str, int]:
        return {"x": 1, "y": 2, "q": 3}

    @workflow(name="w")
    async def old_code() -> Point: ...

    await shop.worker(new_code)
    handle = await shop.engine.enqueue(old_code, id="w")
    with pytest.raises(UnreadablePayload, match="Point has no field 'q'"):
        await handle.result(10)
