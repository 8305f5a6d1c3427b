"""What a run gets from the process that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from charcmp.output import say


def never() -> bool:
    return False


@dataclass(frozen=True)
class Session:
    """The process around one attempt at a run: asks it to stop, prints its lines, names itself."""

    # Called after every step and between the chunks of an evaluation; if it returns True, the run
    # writes a checkpoint and ends.
    should_stop: Callable[[], bool] = never
    say: Callable[[str], None] = say  # prints a line for the user
    command: str | None = None  # the command to record in the run; None: this process's own
    num_lanes: int = 1  # runs that share this process
