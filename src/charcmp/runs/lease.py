"""Who is at work on a run: a lease with host, process and heartbeat, on any shared file system.

The lease is filelock's SoftFileLease: a file created exclusively, that names its owner and whose
time stamp the owner renews every few seconds. An owner that died on this host is found out at once;
one on another host when its stamp has stood still for the lease's whole length on the observer's
own monotonic clock, so that no two clocks are ever compared.

filelock takes a dead owner's lease by exchanging two names, which NFS and SMB refuse; it then takes
nothing for ever. There the dead owner's file is renamed aside, and the free name is taken.
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

from charcmp.errors import BusyError, Interrupted, LostLeaseError, UserError
from charcmp.files import is_there, write_error
from charcmp.runs.result import printable

LEASE_SECONDS = 60.0
HEARTBEATS_PER_LEASE = 12
PATIENCE_SECONDS = 10.0  # a child of a killed sweep needs about one second to notice and let go
POLL_SECONDS = 0.1

Stamp = tuple[int, int]  # which file it is, and when it was last touched


@cache
def _this_host() -> str:
    """This host, and the container on it, as filelock names them in a lease."""
    with (
        tempfile.TemporaryDirectory() as folder,
        filelock.SoftFileLease(Path(folder) / "owner") as lock,
    ):
        return lock.owner.hostname if lock.owner else ""


class Lease:
    """The lease of one run folder, as its owner or as somebody who looks at it.

    Args:
        path: the file that marks the owner; its folder exists.
        seconds: after how long without a heartbeat an owner counts as dead; the same for all.
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
        self._seen: tuple[Stamp | None, float] | None = None  # a stamp, and since when it stands

    def acquire(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Takes the lease; waits for an owner that may be dead, not for one that is alive.

        Args:
            should_stop: asked while waiting.
            patience: seconds that an owner which is alive has to let go.

        Raises:
            BusyError: if its owner shows that it lives, or is dead but cannot be followed.
            Interrupted: if `should_stop` said so while waiting.
        """
        begun = time.monotonic()
        stamp = self.stamp()
        while not self._acquired():
            if should_stop():
                raise Interrupted(f"{self.path.parent.name}: interrupted before it began")
            waited = time.monotonic() - begun
            if waited >= patience and self.stamp() != stamp:
                raise BusyError(
                    f"{self.path.parent.name}: {self.owner() or 'another process'} is training it"
                )
            if waited >= self.seconds + patience:
                raise BusyError(
                    f"{self.path.parent.name}: {self.owner() or 'its owner'} gives no sign of "
                    "life, but this file system does not let its lease be taken over; if nobody "
                    f"is at work on it, delete {self.path}"
                )
            time.sleep(POLL_SECONDS)
        self.is_held = True

    def check(self) -> None:
        """LostLeaseError if this process has the lease no longer, having been suspended, say."""
        owner = self._lock.owner
        if self._lock.compromise is not None or owner is None or owner.token != self._lock.token:
            raise LostLeaseError(
                f"{self.path.parent.name}: {self.owner() or 'somebody'} has taken this run over; "
                "this process has stopped and written nothing since"
            )

    def release(self) -> None:
        self._lock.release()
        self.is_held = False

    def is_free(self) -> bool:
        """Whether nobody is at work. To notice an owner that died on another host, the same object
        has to be asked for the length of the lease."""
        if not is_there(self.path.parent, stat.S_ISDIR):
            return True
        try:
            if not self._try_acquire():
                return False
        except OSError:  # a folder that we may not write
            return not self.path.exists()
        self._lock.release()
        return True

    def owner(self) -> str | None:
        """`host:process`, None where there is none."""
        owner = self._lock.owner
        return printable(f"{owner.hostname}:{owner.pid}") if owner else None

    def seconds_since_heartbeat(self) -> float | None:
        """By the file's time stamp and this host's clock: for people to read, not to decide by."""
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
        except filelock.Timeout:
            return False
        except filelock.LeaseSettingsMismatch:
            raise UserError(
                f"{self.path}: another process uses a different lease_seconds here; all must use "
                "the same"
            ) from None
        return True

    def _follow_the_dead(self) -> bool:
        """Frees the name of a lease whose owner is dead and which filelock could not take.

        It takes none where the file system cannot exchange names, nor one whose owner died before
        it had written its name.
        """
        stamp = self.stamp()
        if stamp is None or not self.is_owner_dead():
            return False
        aside = self.path.with_name(f"{self.path.name}.dead-{secrets.token_hex(8)}")
        try:
            if self.stamp() != stamp:  # somebody was quicker
                return False
            self.path.rename(aside)
            if _stamp_of(aside) != stamp:  # quicker still: that one is alive
                with contextlib.suppress(OSError):  # if it is lost, its owner notices and stops
                    os.link(aside, self.path, follow_symlinks=False)
            aside.unlink()
        except OSError:
            return False
        return True

    def is_owner_dead(self) -> bool:
        """Whether it died on this host, or has been silent for the lease's length while this object
        was asked again and again."""
        return self._owner_died_here() or self._seconds_silent() >= self.seconds

    def _owner_died_here(self) -> bool:
        """Whether the owner was a process of this host and is no more."""
        if (owner := self._lock.owner) is None:
            return False
        try:
            if owner.hostname == _this_host():
                os.kill(owner.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's process; or nowhere to write
            pass
        return False

    def _seconds_silent(self) -> float:
        """For how long this object has seen no heartbeat, by this process's own clock."""
        stamp, now = self.stamp(), time.monotonic()
        if self._seen is None or self._seen[0] != stamp:
            self._seen = stamp, now
        return now - self._seen[1]

    def stamp(self) -> Stamp | None:
        """What every heartbeat and every new owner changes; None where there is no owner."""
        return _stamp_of(self.path)


def _stamp_of(path: Path) -> Stamp | None:
    # Opened, since NFS asks its server anew only then; what is no file is not waited for.
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
