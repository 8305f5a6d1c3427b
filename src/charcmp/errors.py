"""The ways a command ends early that are not our mistake."""


class UserError(ValueError):
    """Something the user can put right: shown as one line, without a traceback, exit status 2."""


class BusyError(UserError):
    """Another process is at work on the run; exit status 4, and a sweep comes back to it."""


class Interrupted(Exception):
    """The run was asked to stop and has written a checkpoint; exit status 130."""
