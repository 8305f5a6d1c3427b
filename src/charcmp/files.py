"""Reading and writing of files. A write leaves the old file or the new one, never half of it."""

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

# Errors for which no run is to blame: every run would fail the same way.
STORAGE_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # not ours to write
    *(errno.EIO, errno.ESTALE),  # broken, or a file server gone
}
BESIDE_PREFIX = ".new-"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a name that cannot lead out of its folder


def write_error(path: Path, error: OSError) -> UserError:
    """Returns the error to raise when `path` cannot be written, a StorageError if no file could."""
    kind = StorageError if error.errno in STORAGE_ERRNOS else UserError
    if isinstance(error, FileNotFoundError):
        kind = VanishedError
    return kind(f"{path}: cannot be written ({error.strerror}); existing files are intact")


def read_error(path: Path, error: OSError) -> UserError:
    """Returns the error to raise when `path` cannot be read."""
    match error:
        case FileNotFoundError():
            return UserError(f"{path}: no such file")
        case IsADirectoryError():
            return UserError(f"{path}: a folder, not a file")
        case _:
            return UserError(f"{path}: {error.strerror}")


def is_there(path: Path, is_kind: Callable[[int], bool] = bool) -> bool:
    """Returns whether the path exists and is of a kind such as stat.S_ISDIR; False if unknown.

    Path.exists() and is_dir() raise in a folder that may not be searched, and for too long a name.
    """
    try:
        return is_kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def open_text(path: Path, or_pipe: bool = False) -> IO[bytes]:
    """Opens a user's text for reading; never waits for the other end of a pipe.

    Args:
        path: a file, or a link to one.
        or_pipe: accept a pipe too, for a reader that need not know the size in advance.

    Raises:
        UserError: if nothing is there, or something that is no file (a device has no end).
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
    """Returns the bytes of a user's text, as they were at one moment.

    Raises:
        UserError: if it cannot be read, is larger than `max_bytes` or changes meanwhile.
    """
    with open_text(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > max_bytes:
            raise UserError(
                f"{path}: {before.st_size:,} bytes, but this machine has room for at most "
                f"{max_bytes:,} (several copies are held in memory); use a part of it: "
                f"head -c {max_bytes} FILE > part.txt"
            )
        try:
            text = file.read(max_bytes + 1)  # a limit, in case it keeps growing
        except OSError as error:
            raise read_error(path, error) from None
        after = os.fstat(file.fileno())
    if (len(text), after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise UserError(f"{path} changed while it was read; try again when it is complete")
    return text


def try_folder(path: Path) -> None:
    """Makes a folder if it is not there, and tries to write to it; OSError if either fails."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def make_folder(path: Path) -> None:
    """Makes a folder if it is not there, and checks that files can be written to it.

    Raises:
        UserError, StorageError: if it cannot be made or written.
    """
    try:
        try_folder(path)
    except OSError as error:
        raise write_error(path, error) from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], flush: bool = True) -> None:
    """Writes a temporary file beside `path`, flushes it to disk and renames it to `path`.

    Args:
        path: the file to replace.
        write: called with the open file.
        flush: False if losing the file in a power cut would cost nothing.

    Raises:
        StorageError: if no file can be written there (disk full, read-only); the old file is
            intact.
        VanishedError: if the folder, or the file being written, was removed meanwhile.
        UserError: if this file cannot be written for another reason; the old file is intact.
    """
    # Not the process id: processes of two containers or hosts may have the same one.
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
    except BaseException as error:
        with contextlib.suppress(OSError):  # read-only folder; the error above is reported
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_error(path, error) from None
        raise


def _flush_folder(folder: Path) -> None:
    """Flushes a folder, where the file system can, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS flushes files, not folders
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, contents: bytes | memoryview, flush: bool = True) -> None:
    """Writes these bytes by `write_atomically`."""
    write_atomically(path, lambda file: file.write(contents), flush)


def as_json(value: Any, indent: int | None = 2) -> bytes:
    """Returns a value as strictly valid JSON; ValueError for a number that is not finite."""
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")  # a path that is not UTF-8 has surrogates in it


def write_json(path: Path, value: Any, flush: bool = True) -> None:
    """Writes a value as indented JSON by `write_bytes`."""
    write_bytes(path, as_json(value), flush)


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed processes left half-written. Only for the holder of the lease."""
    for beside in folder.glob(f"{BESIDE_PREFIX}*"):
        with contextlib.suppress(OSError):  # a folder of that name is not ours and stays
            beside.unlink(missing_ok=True)


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_dir() -> Path:
    """Returns conf/ of the checkout this module lies in, else of the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def cache_dir() -> Path:
    """Returns the folder of the user's cache for downloads and for what the doctor found out."""
    import pooch

    return Path(pooch.os_cache("charcmp"))
