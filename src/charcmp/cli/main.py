"""The console command: names a task and hands the rest of the line to Hydra, whole."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from charcmp import __version__
from charcmp.cli.output import fail, make_lasting
from charcmp.config.literal import literal_path, quoted
from charcmp.config.schema import config_dir

USAGE = """\
charcmp: recurrent cells compared at equal parameter counts

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
  charcmp sample  run=RUN           text from a trained run, as it is generated
  charcmp score   run=RUN FILE      nats per character of any text under a run (--json)
  charcmp doctor  [device=...]      whether this machine, and its GPU, computes what it should
  charcmp data    [fetch|build-lk]  the corpora: what is here, download, build

  charcmp sweep                     the paper's 72 models
  charcmp sweep experiment=demo     a few minutes, on text that every Python has
  charcmp sweep dataset=text dataset.path=my.txt budget=50k
  charcmp train --help              all keys and their choices
"""

# The commands that run over a grid of overrides, expanded by the grid sweeper (hydra_plugins), and
# the flags that each of them has.
FLAGS = {
    "sweep": ("--dry-run", "--no-cost", "--retry-failed", "--fail-fast"),
    "params": ("--json",),
    "status": ("--json", "--watch"),
    "report": ("--published",),
}
ALL_FLAGS = tuple(dict.fromkeys(flag for flags in FLAGS.values() for flag in flags))
# Those with arguments of their own, which Hydra does not see: modules of charcmp.cli.
OTHER_COMMANDS = ("data", "sample", "score", "doctor", "lanes")  # lanes: a sweep's own
# `dropout=select` is a grid over these, ordinary runs with ordinary ids; the report picks one per
# model by validation loss.
SELECT_DROPOUT = ("dropout=select", "dropout=0,0.1,0.2,0.3,0.5")
CHOICES = ("cell", "dataset", "optimizer", "experiment")
# Hydra's flags that print something instead of running, and its others.
PRINTING_FLAGS = (
    *("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--version"),
    *("--shell-completion", "-sc"),
)
HYDRA_FLAGS = (
    *PRINTING_FLAGS,
    *("--resolve", "--package", "--run", "--multirun"),
    *("--config-path", "--config-name", "--config-dir"),
    *("-p", "-r", "-m", "-cp", "-cn", "-cd"),
)
FLAGS_WITH_A_VALUE = (
    *("--cfg", "-c", "--info", "-i", "--package", "-p"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)


def main() -> None:
    """Entry point of the console script."""
    make_lasting(essential=sys.argv[1:2] not in (["train"], ["sweep"]))
    try:
        dispatch()
    except KeyboardInterrupt:  # before a run or a sweep answers it by itself
        sys.exit(130)
    finally:
        sys.stdout.flush()  # a full disk is told of now: see charcmp.cli.output


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
        words = os.environ.get("COMP_LINE", "").split(" ")
        if words[1:2] and words[1] in (*FLAGS, "train"):
            os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        run_hydra([command, *args])
    elif command == "train" and SELECT_DROPOUT[0] in args:
        fail("dropout=select is several runs: charcmp sweep dropout=select ...")
    elif command == "train":
        check_flags(command, args)
        run_hydra(overrides_first(args))
    elif command in FLAGS:
        run_hydra(grid_arguments(command, args))
    elif command in OTHER_COMMANDS:
        module = importlib.import_module(f"charcmp.cli.{command}")
        getattr(module, command)(args)
    else:
        fail(f"unknown command '{command}'; charcmp --help lists them")


# Options of `charcmp report`, and the sweeper's field that each one fills.
REPORT_OPTIONS = {"--format": "formats", "--output": "output"}


def report_arguments(args: list[str]) -> list[str]:
    """The line with its options as overrides of the sweeper, which Hydra knows."""
    rest, options = [], []
    words = iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in REPORT_OPTIONS:
            rest.append(word)
            continue
        if not (value := value if equals else next(words, "")):
            fail(f"{option} needs a value: charcmp --help")
        options.append(f"hydra.sweeper.{REPORT_OPTIONS[option]}={quoted(value)}")
    return [*rest, *options]


def grid_arguments(command: str, args: list[str]) -> list[str]:
    """Hydra's arguments for a command over a grid."""
    if any(arg.split("=")[0] in PRINTING_FLAGS for arg in args):
        check_flags(command, args)
        return overrides_first([arg for arg in args if arg not in ALL_FLAGS])
    if command == "report":
        args = report_arguments(args)
    check_flags(command, args)
    flags = ",".join(arg.removeprefix("--") for arg in args if arg in ALL_FLAGS)
    rest = [arg for arg in args if arg not in (*ALL_FLAGS, "--multirun", "-m")]
    ours = [f"hydra.sweeper.command={command}", f"hydra.sweeper.flags=[{flags}]"]
    return ["--multirun", *ours, *overrides_first(rest)]


def overrides_first(args: list[str]) -> list[str]:
    """The line with its overrides, each as Hydra's grammar has it, in one piece, which its parser
    wants, and Hydra's own flags with their values behind them."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, word in zip(["", *args], args, strict=False):
        is_value = before in FLAGS_WITH_A_VALUE and "=" not in word
        (flags if word.startswith("-") or is_value else overrides).append(word)
    return [*(literal_path(as_one_override(override)) for override in overrides), *flags]


def check_flags(command: str, args: list[str]) -> None:
    """Ends with one line for a flag that neither the command has nor Hydra."""
    flags = (*FLAGS.get(command, ()), *(REPORT_OPTIONS if command == "report" else ()))
    for arg in args:
        if arg.startswith("-") and arg.split("=")[0] not in (*flags, *HYDRA_FLAGS):
            fail(f"{command} has no {arg}; its flags: {', '.join(flags) or 'none'}")


def as_one_override(arg: str) -> str:
    """What only a sweep understands, in Hydra's terms; `gpus=0,1` is one value, not two."""
    if arg == SELECT_DROPOUT[0]:
        return SELECT_DROPOUT[1]
    key, _, value = arg.partition("=")
    return f"gpus='{value}'" if key == "gpus" and value[:1] not in ("'", '"') else arg


def run_hydra(args: list[str]) -> None:
    """Runs the training task, or with --multirun the grid sweeper, as Hydra does."""
    import hydra

    from charcmp.cli.one_line import in_one_line
    from charcmp.cli.train import train_task
    from charcmp.config.schema import register_schemas

    for group in CHOICES:  # Hydra itself ends in a traceback here
        if f"{group}=null" in args or f"{group}=" in args:
            fail(f"{group} needs a choice: charcmp train --help lists them")
    if any("\udc80" <= char <= "\udcff" for arg in args for char in arg):
        fail("the command line is not text in this terminal's encoding; a file's name: rename it")
    register_schemas()
    sys.argv = [sys.argv[0], *args]
    run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    with in_one_line():
        run(train_task)()
