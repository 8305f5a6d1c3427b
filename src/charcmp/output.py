"""Standard output and error that may be closed early: `charcmp train | head` keeps training."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from charcmp.errors import EXIT_STORAGE, EXIT_USER_ERROR

# Time between two lines of progress, where there is no terminal to show a bar.
PROGRESS_SECONDS = 30.0

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def fail(message: str) -> NoReturn:
    """Ends the program with one line and the exit status of a user's mistake."""
    print(f"charcmp: {message}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def counted(number: int, noun: str) -> str:
    """Returns `1 run`, `72 runs` and so on."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def first_few(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Returns `a, b and 3 more` or, with "; " between the items, `a; b; and 3 more`."""
    shown = separator.join(items[:most])
    more = len(items) - most
    if more <= 0:
        return shown
    comma = "" if separator == ", " else separator.rstrip()
    return f"{shown}{comma} and {more} more"


def length_text(epochs: float) -> str:
    """Returns the length of a training: `0.33 epochs`, `1 epoch`."""
    return f"{epochs_text(epochs)} epoch{'s' * (epochs != 1)}"


def epochs_text(epochs: float) -> str:
    """Returns a number of epochs, which are whole from the first one on: `0.33`, `100`."""
    return f"{epochs:.2g}" if epochs < 10 else f"{epochs:.0f}"


def bits(nats: float) -> float:
    """Returns a loss in bits."""
    return nats / math.log(2)


def duration(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours, whichever reads best."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def say(line: str) -> None:
    """Prints a line and flushes it, for readers who follow a pipe or a file."""
    print(line, flush=True)


def note(text: str, file: TextIO | None = None) -> None:
    """Prints a note to the user; on standard error if standard output is for something else."""
    print(f"note: {text}", file=file)


class LastingOutput(io.FileIO):
    """A file descriptor that becomes the null device once nothing can be written to it.

    Args:
        fd: the descriptor of standard output or standard error; it stays open.
        essential: whether the command is useless without it. If so, a failed write ends the
            program, with one line unless the reader has just gone away.
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
    """Makes sys.stdout and sys.stderr outlast their readers, and print what cannot be encoded
    as \\u79c1."""
    for descriptor in range(3):  # else the next file opened takes the number of a closed one
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
        raw.essential = essential  # from an earlier call in this process: keep what is buffered
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:  # main's caller has put a buffer there: it stays
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(LastingOutput(descriptor, essential)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
