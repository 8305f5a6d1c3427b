"""Files that are the old ones or the new ones, never half."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from charcmp.errors import StorageError, UserError, VanishedError

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
    if isinstance(error, FileNotFoundError):
        kind = VanishedError
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


def is_there(path: Path, is_kind: Callable[[int], bool] = bool) -> bool:
    """Whether something is there, of a kind such as stat.S_ISDIR; no where that cannot be told.

    Path.exists() and is_dir() fail in a folder that may not be searched, and for too long a name.
    """
    try:
        return is_kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def open_text(path: Path, or_pipe: bool = False) -> IO[bytes]:
    """Opens a user's text for reading, without waiting for anybody.

    Args:
        path: a file, or a link to one.
        or_pipe: take a pipe too, for a reader that needs to know neither its size nor its end.

    Raises:
        UserError: if nothing is there, or something that is no file (a device never ends).
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise read_error(path, error) from None
    except ValueError:  # a null byte
        raise UserError(f"{str(path)!r}: no file can have this name") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or (or_pipe and stat.S_ISFIFO(mode)):
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise read_error(path, IsADirectoryError())
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a device"
    raise UserError(f"{path}: {kind}, not a regular file")


def read_text(path: Path, max_bytes: int) -> bytes:
    """The bytes of a user's text, all of one moment.

    Raises:
        UserError: if it cannot be read, is larger than `max_bytes` or changes meanwhile.
    """
    with open_text(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > max_bytes:
            raise UserError(
                f"{path}: {before.st_size:,} bytes, but {max_bytes:,} is the most that this "
                f"machine has room for (several copies are held in memory); use a part of it: "
                f"head -c {max_bytes} FILE > part.txt"
            )
        try:
            text = file.read(max_bytes + 1)  # no more, if it grows for ever
        except OSError as error:
            raise read_error(path, error) from None
        after = os.fstat(file.fileno())
    if (len(text), after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise UserError(f"{path} changed while it was read; try again when it is complete")
    return text


def try_folder(path: Path) -> None:
    """Makes a folder, if it is not there, and writes to it; OSError if either fails."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def make_folder(path: Path) -> None:
    """Makes a folder that files can be written to, if it is not there.

    Raises:
        UserError, StorageError: if it cannot be made or written.
    """
    try:
        try_folder(path)
    except OSError as error:
        raise write_error(path, error) from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], flush: bool = True) -> None:
    """Writes beside, flushes to disk, renames.

    Args:
        path: the file to replace.
        write: receives the open file.
        flush: False where a file lost in a power cut costs nothing.

    Raises:
        StorageError: if the disk is full or read-only; the old file is intact.
        VanishedError: if the folder, or what was being written, was removed meanwhile.
        UserError: if this file cannot be written for another reason; the old file is intact.
    """
    # Processes of two containers or hosts may have one number.
    beside = path.with_name(f"{BESIDE_PREFIX}{path.name}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            write(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if flush:
            _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only folder; the reason is the one above
            beside.unlink(missing_ok=True)
        raise write_error(path, error) from None


def _flush_folder(folder: Path) -> None:
    """So that what was renamed in it outlasts a power cut, where the file system can tell."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS flushes files, not folders
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, contents: bytes, flush: bool = True) -> None:
    """`write_atomically` of contents that are at hand."""
    write_atomically(path, lambda file: file.write(contents), flush)


def as_json(value: Any, indent: int | None = 2) -> bytes:
    """A value as JSON that every reader takes; ValueError for a number that is not finite."""
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")  # a path that is not UTF-8 has surrogates in it


def write_json(path: Path, value: Any, flush: bool = True) -> None:
    """`write_bytes` of a value as JSON that people can read, too."""
    write_bytes(path, as_json(value), flush)


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed processes were writing. Only for whoever holds the folder's lease."""
    for beside in folder.glob(f"{BESIDE_PREFIX}*"):
        with contextlib.suppress(OSError):  # a stranger's folder of that name may stay
            beside.unlink(missing_ok=True)


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_dir() -> Path:
    """conf/ of the checkout this module lies in, else the copy inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"
