"""The ways a command ends early that are not our mistake."""


class UserError(ValueError):
    """Something the user can put right: shown as one line, without a traceback, exit status 2."""


def require(condition: bool, message: str) -> None:
    """UserError with this line unless the condition holds."""
    if not condition:
        raise UserError(message)


class BusyError(UserError):
    """Another process is at work on the run; exit status 4, and a sweep comes back to it."""


class LostLeaseError(BusyError):
    """This process was at work on the run, but another has taken it over."""


class StorageError(UserError):
    """Nothing can be written, a full disk: exit status 5, and no run can be blamed for it."""


class Interrupted(Exception):
    """The run was asked to stop and has written a checkpoint; exit status 130."""
