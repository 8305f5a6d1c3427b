"""The console script: finds the command and hands it the rest of the line unchanged."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from charcmp import __version__
from charcmp.cli.commands import COMMANDS, Command
from charcmp.cli.help import command_help, overview
from charcmp.errors import EXIT_INTERRUPTED
from charcmp.output import fail, make_lasting
from charcmp.values import did_you_mean


def main() -> None:
    """Runs the console script."""
    make_lasting(essential=not trains(sys.argv[1:]))
    try:
        dispatch()
    except KeyboardInterrupt:  # came before a command had its own handler
        sys.exit(EXIT_INTERRUPTED)
    finally:
        sys.stdout.flush()  # so that a full disk is reported: see charcmp.output


def dispatch() -> None:
    command, *args = sys.argv[1:] or ["--help"]
    if not trains(sys.argv[1:]) and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # charcmp report | head ends quietly
    if command in ("sample", "score"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends them without a traceback
    if command == "--version":
        print(f"charcmp {__version__}")
    elif command in ("--help", "-h") or (command == "help" and not args):
        print(overview(), end="")
    elif command == "help":
        print(command_help(known_command(args[0])), end="")
    elif {"--help", "-h"} & set(args):
        print(command_help(known_command(command)), end="")
    else:
        module = importlib.import_module(f"charcmp.cli.{known_command(command).name}")
        getattr(module, command)(args)


def trains(line: Sequence[str]) -> bool:
    """Returns whether a line's command trains: then it goes on when its reader has gone away."""
    return any(COMMANDS[name].trains for name in line[:1] if name in COMMANDS)


def known_command(name: str) -> Command:
    """Returns the command of this name; if there is none, ends the program with a message."""
    if name in COMMANDS:
        return COMMANDS[name]
    meant = did_you_mean(name, list(COMMANDS)) or ";"
    fail(f"unknown command '{name}'{meant} charcmp --help lists them")
