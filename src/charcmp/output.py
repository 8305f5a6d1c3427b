"""Standard output and error that may go away: `charcmp train | head` trains on."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from charcmp.errors import EXIT_STORAGE, EXIT_USER_ERROR

# Between two lines of progress, where no terminal shows a bar.
PROGRESS_SECONDS = 30.0

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def fail(message: str) -> NoReturn:
    """Ends the program with one line, as for any mistake of a user's."""
    print(f"charcmp: {message}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def counted(number: int, noun: str) -> str:
    """`1 run`, `72 runs`"""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def say(line: str) -> None:
    """Prints a line at once, also into a pipe or a file that somebody follows."""
    print(line, flush=True)


class LastingOutput(io.FileIO):
    """A file descriptor that becomes the null device once nothing can be written to it.

    Args:
        fd: of standard output or standard error; stays open.
        essential: whether a command is of no use without it. If so, the failure ends the program
            with one line.
    """

    def __init__(self, fd: int, essential: bool) -> None:
        super().__init__(fd, "w", closefd=False)
        self.essential = essential

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            is_reader_gone = isinstance(error, BrokenPipeError)
            if self.fileno() == 1 and not is_reader_gone:
                print(f"charcmp: standard output: {error.strerror}", file=sys.stderr)
            if self.essential:
                sys.exit(EXIT_STORAGE)
            return len(memoryview(data).cast("B"))


def make_lasting(essential: bool) -> None:
    """Replaces sys.stdout and sys.stderr; what their encoding lacks is written as \\u79c1."""
    for descriptor in range(3):  # one that the shell has closed would be the next file's
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _lasting(sys.stdout, essential)
    sys.stderr = _lasting(sys.stderr, False)


def _lasting(stream: Any, essential: bool) -> Any:
    if stream is None:  # closed by the shell: charcmp train >&-
        return Path(os.devnull).open("w")
    if isinstance(raw := getattr(getattr(stream, "buffer", None), "raw", None), LastingOutput):
        raw.essential = essential  # of an earlier call in this process: nothing in it is lost
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:  # a buffer of whoever called main: it stays
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(LastingOutput(descriptor, essential)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
