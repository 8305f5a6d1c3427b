"""Reasons for which a command ends early without a bug in charcmp, and its exit statuses."""

from __future__ import annotations

EXIT_FAILED = 1  # runs of a sweep have failed, or checks of the doctor
EXIT_USER_ERROR, EXIT_DIVERGED, EXIT_BUSY, EXIT_STORAGE, EXIT_INTERRUPTED = 2, 3, 4, 5, 130
EXIT_ALONE = 6  # the GPU failed a run beside others: retry this run in a process of its own
EXIT_AGAIN = 7  # a process shared by several runs failed: retry them, sharing once more


class UserError(ValueError):
    """An error the user can put right: shown as one line, without a traceback; exit status 2."""


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its class's name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """Returns an exception from anyone's code as one line: its class and what it says."""
    return f"{type(error).__name__}: {first_line(error)}"[:300]


def require(condition: bool, message: str) -> None:
    """Raises UserError with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


class WidthError(UserError):
    """A class of the user's cannot be built in this width; perhaps it can in another."""


class BusyError(UserError):
    """Another process is at work on the run; exit status 4, and a sweep tries it again later."""


class LostLeaseError(BusyError):
    """This process was at work on the run, but another has taken it over."""


class StorageError(UserError):
    """No file can be written (a full disk) or read (a file server that is gone): exit status 5, and
    no run is to blame."""


class VanishedError(UserError):
    """The file being written, or its folder, was removed meanwhile."""


class Interrupted(Exception):
    """The run was asked to stop and has written a checkpoint; exit status 130."""


def exit_status(error: UserError) -> int:
    match error:
        case BusyError():
            return EXIT_BUSY
        case StorageError():
            return EXIT_STORAGE
        case _:
            return EXIT_USER_ERROR
