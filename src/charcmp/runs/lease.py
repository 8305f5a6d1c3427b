"""Who is at work on a run: a lease with host, process and heartbeat, on any shared file system.

The lease is filelock's SoftFileLease: a file that is created exclusively and names its owner; the
owner renews its time stamp every few seconds. The death of an owner on this host is noticed at
once. An owner on another host counts as dead when its stamp has not changed for the lease's whole
length. The observer measures that by its own monotonic clock, so two hosts' clocks are never
compared.

filelock takes a dead owner's lease by exchanging two file names. NFS and SMB refuse that, and
filelock would never get the lease. So we rename the dead owner's file, then take the free name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import filelock

from charcmp.errors import BusyError, Interrupted, LostLeaseError
from charcmp.files import is_there, write_error
from charcmp.runs.reading import printable

LEASE_SECONDS = 60.0
HEARTBEATS_PER_LEASE = 12
PATIENCE_SECONDS = 10.0  # a child of a killed sweep releases its lease after about one second
POLL_SECONDS = 0.1

Stamp = tuple[int, int]  # inode, time of last modification in nanoseconds


@cache
def _this_host() -> str:
    """Returns the name that filelock gives this host, and its container, in a lease."""
    with (
        tempfile.TemporaryDirectory() as folder,
        filelock.SoftFileLease(Path(folder) / "owner") as lock,
    ):
        return lock.owner.hostname if lock.owner else ""


class Lease:
    """The lease of one run folder, for its owner and for processes that only look at it.

    Args:
        path: the file that names the owner; its folder exists.
        seconds: time without a heartbeat after which an owner counts as dead; all processes that
            train must use the same.
    """

    def __init__(self, path: Path, seconds: float = LEASE_SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        self._lock = filelock.SoftFileLease(
            path,
            lease_duration=seconds,
            heartbeat_interval=seconds / HEARTBEATS_PER_LEASE,
            thread_local=False,
        )
        self.is_held = False
        self._seen: tuple[Stamp | None, float] | None = None  # last stamp, when we first saw it

    def acquire(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Takes the lease. Waits while the owner may be dead; gives up if it is alive.

        Args:
            should_stop: called while waiting.
            patience: seconds that a living owner is given to release the lease.

        Raises:
            BusyError: if the owner sent a heartbeat, has a lease of another length, or seems dead
                but its lease cannot be taken.
            Interrupted: if `should_stop` returned True while waiting.
        """
        begun = time.monotonic()
        stamp = self.stamp()
        while not self._acquired():
            if self._owners_seconds() not in (None, self.seconds):
                raise BusyError(
                    f"{self.path}: another process uses a different lease_seconds here; all must "
                    "use the same"
                )
            if should_stop():
                raise Interrupted(f"{self.path.parent.name}: interrupted before it began")
            waited = time.monotonic() - begun
            if waited >= patience and self.stamp() != stamp:
                raise BusyError(
                    f"{self.path.parent.name}: {self.owner() or 'another process'} is at work on it"
                )
            if waited >= self.seconds + patience:
                raise BusyError(
                    f"{self.path.parent.name}: {self.owner() or 'its owner'} sends no "
                    "heartbeat, but its lease cannot be taken over on this file system; if no "
                    f"process is at work on the run, delete {self.path}"
                )
            time.sleep(POLL_SECONDS)
        self.is_held = True

    def check(self) -> None:
        """Raises LostLeaseError if this process has lost its lease, for example while suspended."""
        owner = self._lock.owner
        if self._lock.compromise is not None or owner is None or owner.token != self._lock.token:
            raise LostLeaseError(
                f"{self.path.parent.name}: {self.owner() or 'another process'} has taken it "
                "over; this process has stopped and written nothing since"
            )

    def release(self) -> None:
        self._lock.release()
        self.is_held = False

    def is_free(self) -> bool:
        """Returns whether no process is at work on the run.

        An owner that died on another host is noticed only if the same object is asked repeatedly
        for the length of the lease.
        """
        if not is_there(self.path.parent, stat.S_ISDIR):
            return True
        try:
            if not self._try_acquire():
                return False
        except OSError:  # we may not write to the folder
            return not self.path.exists()
        self._lock.release()
        return True

    def owner(self) -> str | None:
        """Returns the owner as `host:process`; None if there is none."""
        owner = self._lock.owner
        return printable(f"{owner.hostname}:{owner.pid}") if owner else None

    def seconds_since_heartbeat(self) -> float | None:
        """Returns the age of the last heartbeat, for display only; None if there is no owner.

        It compares the file's time stamp with this host's clock, so no decision may rest on it.
        """
        stamp = self.stamp()
        return None if stamp is None else max(0.0, time.time() - stamp[1] / 1e9)

    def _acquired(self) -> bool:
        try:
            return self._try_acquire()
        except OSError as error:
            raise write_error(self.path, error) from None

    def _try_acquire(self) -> bool:
        return self._take() or (self._follow_the_dead() and self._take())

    def _take(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except (filelock.Timeout, filelock.LeaseSettingsMismatch):
            return False
        return True

    def _follow_the_dead(self) -> bool:
        """Frees the name of a dead owner's lease that filelock could not take.

        filelock cannot take a lease if the file system cannot exchange names, or if the owner died
        before it wrote its name into the file.
        """
        stamp = self.stamp()
        if stamp is None or not self.is_owner_dead():
            return False
        aside = self.path.with_name(f"{self.path.name}.dead-{secrets.token_hex(8)}")
        try:
            if self.stamp() != stamp:  # another process took it first
                return False
            self.path.rename(aside)
            if _stamp_of(aside) != stamp:  # taken just before the rename: give it back to its owner
                with contextlib.suppress(OSError):  # if this fails, that owner notices and stops
                    os.link(aside, self.path, follow_symlinks=False)
            aside.unlink()
        except OSError:
            return False
        return True

    def is_owner_dead(self) -> bool:
        """Returns whether the owner died on this host or has been silent for `longest_silence`.

        Silence counts from when this object, asked repeatedly, first saw the current stamp.
        """
        return self._owner_died_here() or self._seconds_silent() >= self.longest_silence()

    def longest_silence(self) -> float:
        """Returns the seconds without a heartbeat after which the owner counts as dead.

        If its lease is longer than ours, it counts: then its heartbeats, too, are further apart.
        """
        return max(self.seconds, self._owners_seconds() or 0.0)

    def _owners_seconds(self) -> float | None:
        """Returns the length of the owner's lease; None if there is no owner."""
        owner = self._lock.owner
        return owner.lease_duration if owner else None

    def _owner_died_here(self) -> bool:
        """Returns whether the owner was a process on this host that no longer exists."""
        if (owner := self._lock.owner) is None:
            return False
        try:
            if owner.hostname == _this_host():
                os.kill(owner.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's process, or _this_host() found nowhere to write
            pass
        return False

    def _seconds_silent(self) -> float:
        """Returns how long this object has seen no heartbeat, by this process's own clock."""
        stamp, now = self.stamp(), time.monotonic()
        if self._seen is None or self._seen[0] != stamp:
            self._seen = stamp, now
        return now - self._seen[1]

    def stamp(self) -> Stamp | None:
        """Returns what changes with every heartbeat and every new owner; None without an owner."""
        return _stamp_of(self.path)


def _stamp_of(path: Path) -> Stamp | None:
    # Opens the file because only then NFS asks its server for a fresh stamp. O_NONBLOCK: opening a
    # pipe would wait.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
