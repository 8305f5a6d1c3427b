"""`charcmp lanes`, which a sweep starts for runs that share a GPU."""

from __future__ import annotations

from charcmp.cli.one_line import one_line_errors
from charcmp.errors import (
    require,
)


def lanes(args: list[str]) -> None:
    """What a sweep starts for runs that share a GPU: `charcmp lanes`, with the number of a pipe."""
    from multiprocessing.connection import Connection

    with one_line_errors():
        is_number = len(args) == 1 and args[0].isdecimal()
        require(is_number, "lanes is a sweep's own command: charcmp --help lists the others")
    from charcmp.sweeping.lanes import work

    with Connection(int(args[0])) as connection:
        work(connection)
