"""Where a run stands, said twice in one commit: in app.runs and on the run's `status` stream."""

from engine import close_stream, write_stream
from steps.records import ride_status

STREAM = "status"


async def enter(status: str, *, next_action: str | None = None) -> None:
    """The run goes on in this status."""
    ride_status(status, next_action)
    await write_stream(STREAM, status)


async def leave(status: str) -> None:
    """The run is over. Its row is moved by the engine's own verdict, in the commit that ends the workflow."""
    await write_stream(STREAM, status)
    await close_stream(STREAM)
