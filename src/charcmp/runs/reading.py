"""Safe reading of files in a folder that may come from a stranger, or from a disk that failed.

Anything that is not a regular file (a folder, a pipe, a link), or is larger than such a file can
be, is not read. What is read is decoded into a record that says which keys it has, of which types
and in which ranges; msgspec refuses everything else.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from charcmp.errors import StorageError

MAX_MESSAGE = 500  # characters: a message may quote what it found

Record = TypeVar("Record")


def printable(text: str) -> str:
    """Replaces the characters of a stranger's text that could control a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class CorruptFileError(ValueError):
    """A file of a run exists but is not valid; the message is one line that is safe to print."""

    def __init__(self, message: str) -> None:
        text = printable(message)
        super().__init__(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}...")


class UnreadableFileError(CorruptFileError):
    """A file of a run exists, but the disk or its server fails to deliver it at the moment.

    Code that only reads treats it as corrupt. Code that would replace it must not: it may be fine.
    """

    @property
    def storage_error(self) -> StorageError:
        return StorageError(
            f"{self}; nothing was changed: run the same command again when the file can be read"
        )


def open_file(file: Path, max_bytes: int) -> IO[bytes] | None:
    """Opens a file of a run for reading; returns None if there is none.

    Raises:
        CorruptFileError: if it is not a regular file, or larger than `max_bytes`.
        UnreadableFileError: if the disk fails to deliver it.
    """
    # O_NOFOLLOW: a link may lead out of the folder. O_NONBLOCK: opening a pipe would wait.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        if error.errno == errno.ELOOP:
            raise CorruptFileError(f"{file}: a symbolic link") from None
        if error.errno == errno.ENXIO:
            raise CorruptFileError(f"{file}: a pipe, socket or device, not a file") from None
        raise UnreadableFileError(f"{file}: {error.strerror}") from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise CorruptFileError(
            f"{file}: {found.st_size:,} bytes, but at most {max_bytes:,} are allowed"
        )
    kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
    raise CorruptFileError(f"{file}: {kind}, not a file")


def read_file(file: Path, max_bytes: int) -> bytes | None:
    """Reads a file of a run; returns None if there is none. Raises what `open_file` does."""
    if (opened := open_file(file, max_bytes)) is None:
        return None
    with opened:
        try:
            return opened.read(max_bytes)  # not more, even if the file has grown meanwhile
        except OSError as error:
            raise UnreadableFileError(f"{file}: {error.strerror}") from None


def read_json(file: Path, decoder: msgspec.json.Decoder[Record], max_bytes: int) -> Record | None:
    """Reads a file of a run as its record; returns None if there is none.

    Raises:
        CorruptFileError: if the file exists but is not such a record.
    """
    contents = read_file(file, max_bytes)
    return None if contents is None else decode(file, contents, decoder)


def decode(file: Path, contents: bytes, decoder: msgspec.json.Decoder[Record]) -> Record:
    """Decodes the contents of a run's file; raises CorruptFileError if they are not its record."""
    try:
        return decoder.decode(contents)
    except msgspec.ValidationError as error:
        raise CorruptFileError(f"{file}: {_reason(error)}") from None
    except ValueError as error:  # also UnicodeDecodeError
        raise CorruptFileError(f"{file}: not valid JSON ({error})") from None
    except RecursionError:
        raise CorruptFileError(f"{file}: nested too deeply") from None


def as_record(value: Any, kind: type[Record], file: Path, what: str) -> Record:
    """Converts plain data to a record; raises CorruptFileError, which says `what`, if it cannot."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CorruptFileError(f"{file}: {what} ({_reason(error)})") from None


def check_version(found: int, wanted: int, name: str = "version") -> None:
    """Raises ValueError, which a decoder turns into its own error, if the versions differ."""
    if found != wanted:
        raise ValueError(f"{name} {found}, but only {wanted} can be read")


def _reason(error: Exception) -> str:
    """Returns msgspec's message with the place first: `hidden_size: Expected int, got str`."""
    text, _, place = str(error).replace("`", "").partition(" - at $")
    text = text.replace("Object missing required field ", "without ")
    return f"{place.lstrip('.')}: {text}" if place else text
