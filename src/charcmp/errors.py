"""The two ways a command ends early that are not our mistake."""


class UserError(ValueError):
    """Something the user can put right: shown as one line, without a traceback, exit status 2."""


class Interrupted(Exception):
    """The run was asked to stop and has written a checkpoint; exit status 130."""
