"""Who is at work on a run: a lease with host, process and heartbeat, on any shared file system.

The lease is filelock's SoftFileLease: a file created exclusively, that names its owner and whose
time stamp the owner renews every few seconds. An owner that died on this host is found out at once;
one on another host when its stamp has stood still for the lease's whole length on the observer's
own monotonic clock, so that no two clocks are ever compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import filelock

from charcmp.errors import BusyError, Interrupted, LostLeaseError, UserError
from charcmp.files import write_error
from charcmp.runs.result import printable

LEASE_SECONDS = 60.0
HEARTBEATS_PER_LEASE = 12
PATIENCE_SECONDS = 10.0  # a child of a killed sweep needs about one second to notice and let go
POLL_SECONDS = 0.1


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
            BusyError: if its owner shows that it lives.
            Interrupted: if `should_stop` said so while waiting.
        """
        begun = time.monotonic()
        stamp = self.stamp()
        while not self._acquired():
            if should_stop():
                raise Interrupted(f"{self.path.parent.name}: interrupted before it began")
            waited = time.monotonic() - begun
            if waited >= self.seconds and self.stamp() == stamp and self._is_empty():
                # Its owner died before it had written its name. filelock keeps such a one for ever.
                self.path.unlink(missing_ok=True)
            if waited >= patience and self.stamp() != stamp:
                raise BusyError(
                    f"{self.path.parent.name}: {self.owner() or 'another process'} is training it"
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
        if not self.path.parent.is_dir():
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
        return None if stamp is None else max(0.0, time.time() - stamp / 1e9)

    def _acquired(self) -> bool:
        try:
            return self._try_acquire()
        except OSError as error:
            raise write_error(self.path, error) from None

    def _try_acquire(self) -> bool:
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

    def _is_empty(self) -> bool:
        try:
            return self.path.lstat().st_size == 0
        except OSError:
            return False

    def stamp(self) -> int | None:
        """What every heartbeat changes; None where there is no owner."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None
