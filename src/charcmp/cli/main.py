"""The console command: names a command and hands the rest of the line to it, whole."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from charcmp import __version__
from charcmp.output import fail, make_lasting

USAGE = """\
charcmp: recurrent cells compared at equal parameter counts

  charcmp recommend my.txt          which model to take for a text: a race of minutes (minutes=30)
  charcmp train   [key=value ...]   train one model, or go on with it
  charcmp sweep   [key=value ...]   a grid of models: what is missing of it
                                    --dry-run [--no-cost]: only list it, and what it will cost
                                    --retry-failed, --fail-fast
  charcmp params  [key=value ...]   hidden sizes and parameter counts of a grid (--json)
  charcmp status  [key=value ...]   what every run is doing, from another shell or machine
                                    (--watch, --json)
  charcmp report  [key=value ...]   tables, statistics, figures, a page, from the finished runs
                  [--format html,csv,md,tex,svg,png] [--output FOLDER]
                  [--published: of the runs that come with a clone of charcmp]
  charcmp baselines [key=value ...] n-grams and compressors on the texts of a grid, for the report
  charcmp sample  run=RUN           text from a trained run, as it is generated
  charcmp score   run=RUN FILE      nats per character of any text under a run (--json)
  charcmp doctor  [device=...]      whether this machine, and its GPU, computes what it should
  charcmp data    [fetch|build-lk]  the corpora: what is here, download, build

  charcmp sweep                     the paper's 72 models
  charcmp sweep experiment=demo     a few minutes, on text that every Python has
  charcmp sweep dataset=text dataset.path=my.txt budget=50k
  charcmp train --help              all keys and their choices
"""

# Each a function in a module of charcmp.cli of the same name.
# Those with overrides in Hydra's grammar, which it completes, and the others.
HYDRA_COMMANDS = ("train", "sweep", "params", "status", "report", "baselines")
OTHER_COMMANDS = ("recommend", "sample", "score", "data", "doctor")


def main() -> None:
    """Entry point of the console script."""
    make_lasting(essential=sys.argv[1:2] not in (["train"], ["sweep"]))
    try:
        dispatch()
    except KeyboardInterrupt:  # before a run or a sweep answers it by itself
        sys.exit(130)
    finally:
        sys.stdout.flush()  # a full disk is told of now: see charcmp.output


def dispatch() -> None:
    command, *args = sys.argv[1:] or ["--help"]
    if command not in ("train", "sweep") and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # charcmp report | head ends quietly
    if command in ("sample", "score"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends them, without a traceback
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
    elif command == "--version":
        print(f"charcmp {__version__}")
    elif command in ("-sc", "--shell-completion"):  # charcmp -sc install=bash
        complete([command, *args])
    elif command in (*HYDRA_COMMANDS, *OTHER_COMMANDS):
        module = importlib.import_module(f"charcmp.cli.{command}")
        getattr(module, command)(args)
    else:
        fail(f"unknown command '{command}'; charcmp --help lists them")


def complete(args: list[str]) -> None:
    """Hydra's shell completion, which knows no commands: takes ours off the line to complete."""
    from charcmp.cli.line import run_hydra

    words = os.environ.get("COMP_LINE", "").split(" ")
    if words[1:2] and words[1] in HYDRA_COMMANDS:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    run_hydra(args)
