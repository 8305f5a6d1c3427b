"""Files that are the old ones or the new ones, never half."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from charcmp.errors import StorageError, UserError

# What no run can be blamed for: all of them would fail the same way.
STORAGE_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # not ours to write
    *(errno.EIO, errno.ESTALE),  # broken, or a file server gone
}
BESIDE_PREFIX = ".new-"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # names a file in any folder, and only there


def write_error(path: Path, error: OSError) -> UserError:
    """The one line for what could not be written; a StorageError if nothing could."""
    kind = StorageError if error.errno in STORAGE_ERRNOS else UserError
    return kind(f"{path}: cannot be written ({error.strerror}); earlier files are intact")


def read_error(path: Path, error: OSError) -> UserError:
    """The one line for a file that could not be read."""
    match error:
        case FileNotFoundError():
            return UserError(f"{path}: no such file")
        case IsADirectoryError():
            return UserError(f"{path}: a folder, not a file")
        case _:
            return UserError(f"{path}: {error.strerror}")


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], flush: bool = True) -> None:
    """Writes beside, flushes to disk, renames.

    Args:
        path: the file to replace.
        write: receives the open file.
        flush: False where a file lost in a power cut costs nothing.

    Raises:
        StorageError: if the disk is full or read-only; the old file is intact.
        UserError: if this file cannot be written for another reason; the old file is intact.
    """
    beside = path.with_name(f"{BESIDE_PREFIX}{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if flush:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only folder; the reason is the one above
            beside.unlink(missing_ok=True)
        raise write_error(path, error) from None


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed processes were writing. Only for whoever holds the folder's lease."""
    for beside in folder.glob(f"{BESIDE_PREFIX}*"):
        with contextlib.suppress(OSError):  # a stranger's folder of that name may stay
            beside.unlink(missing_ok=True)
