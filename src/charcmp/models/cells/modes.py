"""Whether layers run by a faster form: on their own judgement, always, or never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

Mode = Literal["auto", "always", "never"]


class Dispatch(Protocol):
    """What decides on a form: fused/dispatch.py or compiled/dispatch.py."""

    mode: Mode


@contextmanager
def forced(dispatch: Dispatch, wanted: Mode) -> Iterator[None]:
    """Sets a mode in the block, for all threads; for checks and benchmarks."""
    before, dispatch.mode = dispatch.mode, wanted
    try:
        yield
    finally:
        dispatch.mode = before
