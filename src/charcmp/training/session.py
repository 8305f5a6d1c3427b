"""What a run takes from the process that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from charcmp.output import say


def never() -> bool:
    return False


@dataclass(frozen=True)
class Session:
    """One attempt at a run, as the process around it sees it."""

    should_stop: Callable[[], bool] = never  # asked after every step; if so, a checkpoint, the end
    say: Callable[[str], None] = say  # receives lines for the user
    command: str | None = None  # that trains the run, for its record; None: this process's own
    num_lanes: int = 1  # runs that share this process
