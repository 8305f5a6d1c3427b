"""What Hydra finds wrong with a command line, in one line and in this program's words.

Hydra's own advice (`+key=value`, `--multirun`) leads nowhere here: no key can be added, and several
values are for `charcmp sweep`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException

from charcmp.check import unknown_key

# With it Hydra raises its errors, else it prints them and exits.
TRACEBACKS_VARIABLE = "HYDRA_FULL_ERROR"


@contextmanager
def in_one_line() -> Iterator[None]:
    """Ends the program with one line for Hydra's errors; with HYDRA_FULL_ERROR=1, a traceback."""
    if TRACEBACKS_VARIABLE in os.environ:
        yield
        return
    os.environ[TRACEBACKS_VARIABLE] = "1"
    try:
        yield
    except CompactHydraException as error:
        print(f"charcmp: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        del os.environ[TRACEBACKS_VARIABLE]


def explain(error: CompactHydraException) -> str:
    """One line for what Hydra says in several."""
    lines = str(error).splitlines()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: one of {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            return f"{error.override}: not understood; keys are set by key=value"
        return f"{error.override}: not understood ({lines[-2] if len(lines) > 1 else lines[0]})"
    if several := re.match(
        r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)'", lines[0]
    ):
        override = several[1] or several[2]
        return f"{override} is several runs: charcmp sweep {override}"
    if unknown := re.search(r"Could not override '(.*)'", lines[0]):
        return unknown_key(unknown[1])
    if merging := re.match(r"Error merging override (.*)", lines[0]):
        return f"{merging[1]}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(" ".join(lines).split())
