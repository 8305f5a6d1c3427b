"""Reports what Hydra finds wrong with a command line, in one line and in this program's words.

Hydra's own advice (`+key=value`, `--multirun`) does not help here: no key can be added, and several
values are for `charcmp sweep`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from charcmp.config.rules import not_resolved, unknown_key
from charcmp.errors import EXIT_INTERRUPTED, Interrupted, UserError, exit_status, first_line
from charcmp.output import fail
from charcmp.values import did_you_mean

# If it is set, Hydra raises its errors; else it prints them and exits.
TRACEBACKS_VARIABLE = "HYDRA_FULL_ERROR"
# How the messages begin of the plain ValueErrors that Hydra raises for some wrong lines.
PLAIN_ERRORS = (
    "Config group override must be",
    "Only one of --",
    "Exceeds the limit",
)


@contextmanager
def in_one_line(prints: bool = False) -> Iterator[None]:
    """Ends the program with one line for an error of Hydra's, or a traceback if the user set
    HYDRA_FULL_ERROR=1.

    Args:
        prints: whether Hydra only prints the configuration.
    """
    if TRACEBACKS_VARIABLE in os.environ:
        yield
        return
    os.environ[TRACEBACKS_VARIABLE] = "1"
    usage_and_error, argparse.ArgumentParser.error = argparse.ArgumentParser.error, _parser_error  # type: ignore[method-assign]
    try:
        yield
    except CompactHydraException as error:
        fail(explain(error, prints))
    except OmegaConfBaseException as error:
        fail(not_resolved(error))
    except ValueError as error:
        if not str(error).startswith(PLAIN_ERRORS):
            raise
        advice = "; charcmp train --help lists the choices" if "group" in str(error) else ""
        fail(first_line(error) + advice)
    finally:
        argparse.ArgumentParser.error = usage_and_error  # type: ignore[method-assign]
        del os.environ[TRACEBACKS_VARIABLE]


def _parser_error(self: argparse.ArgumentParser, message: str) -> NoReturn:
    fail(f"{message}; charcmp --help")


def explain(error: CompactHydraException, prints: bool = False) -> str:
    """Returns one line for what Hydra says in several; `prints`: with --cfg on the line."""
    lines = str(error).splitlines()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        meant = did_you_mean(name, error.options)
        return f"{group}={name}: one of {', '.join(error.options)}{meant}"
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            return f"{error.override}: not understood; keys are set by key=value"
        if lines[0].startswith("LexerNoViableAlt"):
            key, _, value = error.override.partition("=")
            quoted = f"\"{key}='{value}'\""
            return f"{error.override}: not understood; such characters need quotes: {quoted}"
        return f"{error.override}: not understood ({lines[-2] if len(lines) > 1 else lines[0]})"
    if several := re.match(
        r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)'", lines[0]
    ):
        override = several[1] or several[2]
        if prints:
            return f"{override} is several runs, and --cfg prints the configuration of one"
        return f"{override} is several runs: charcmp sweep {override}"
    if unknown := re.search(r"Could not override '(.*)'", lines[0]):
        return unknown_key(unknown[1])
    if merging := re.match(r"Error merging override (.*)", lines[0]):
        return f"{merging[1]}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(" ".join(lines).split())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with one line for a user's mistake; other errors keep their traceback."""
    try:
        yield
    except UserError as error:
        print(f"charcmp: {error}", file=sys.stderr)
        sys.exit(exit_status(error))
    except Interrupted as stop:
        print(f"charcmp: {stop}; the same command continues from there", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
