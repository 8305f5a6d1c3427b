"""The commands: what each is for, its flags and its keys.

`charcmp --help`, every command's own help, tab completion, docs/options.md and the check of a
command's flags are all made from this table and from the keys' declarations. Nothing slow is
imported here: no torch, no Hydra, no numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from charcmp.cli.options import DoctorOptions, SampleOptions, ScoreOptions
from charcmp.config.keys import Key, all_keys, keys_of
from charcmp.models.budget import DEFAULT_BUDGET
from charcmp.report.filters import Filters
from charcmp.report.formats import FORMATS
from charcmp.sweeping.race.arms import CELLS, DEPTHS, LADDER
from charcmp.values import POSITIVE

# `dropout=select` stands for a grid over these values: ordinary runs with ordinary ids, of which
# the report picks one per model by validation loss. `optimizer.lr=0.003,0.01` gives other values.
SELECT = {
    "dropout=select": "dropout=0,0.1,0.2,0.3,0.5",
    "optimizer.lr=select": "optimizer.lr=" + ",".join(f"{rate:g}" for rate in LADDER),
}
GROUPS = ("cell", "dataset", "optimizer", "experiment")  # their choices are files of conf/


@dataclass(frozen=True)
class Flag:
    """A command's flag."""

    name: str
    meaning: str
    value: str = ""  # placeholder of its value; empty: it takes none
    choices: tuple[str, ...] = ()  # for the value, or for each part of a list


@dataclass(frozen=True)
class Command:
    """A command. The function that runs it has its name, in the module charcmp.cli.NAME."""

    name: str
    args: str  # what follows the name in the list of all commands
    summary: str  # in a few words, for that list
    about: str  # for its own help
    examples: tuple[tuple[str, str], ...]  # a line to type, and what it does
    flags: tuple[Flag, ...] = ()
    own_keys: tuple[Key, ...] = ()  # keys that only this command has
    key_patterns: tuple[str, ...] = ()  # which of a run's keys its help lists
    without: tuple[str, ...] = ()  # ... except these
    narrowed_by: tuple[str, ...] = ()  # keys that select runs, rather than change settings
    is_composed: bool = False  # whether Hydra composes its configuration from overrides
    takes_text: bool = False  # whether a word that is not key=value is the file of its text
    trains: bool = False  # whether it trains, and goes on when nobody reads its output any more

    @property
    def run_keys(self) -> list[Key]:
        """The keys of a run that its help lists, except those that select runs."""
        return [
            key
            for key in all_keys()
            if _matches(key.name, self.key_patterns) and not _matches(key.name, self.without)
        ]

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Its own flags and, if Hydra composes its configuration, those of all such commands."""
        return (*self.flags, *COMPOSING_FLAGS) if self.is_composed else self.flags


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def config_folders(words: Sequence[str]) -> list[str]:
    """Returns the folders that a line names by --config-dir."""
    flags = ("--config-dir", "-cd")
    found = [after for before, after in itertools.pairwise(words) if before in flags]
    parted = [word.partition("=") for word in words]
    return found + [folder for flag, equals, folder in parted if equals and flag in flags]


JSON = Flag("--json", "print JSON, for programs")
COMPOSING_FLAGS = (
    Flag("--cfg", "print the resolved configuration; run nothing", "job"),
    Flag("--config-dir", "read further files of choices, such as FOLDER/cell/mine.yaml", "FOLDER"),
)
GRID = ("experiment", "task", "cell*", "dataset*", "layers", "budget", "hidden_size", "data_dir")
SWEEP_ONLY = ("jobs", "jobs_per_gpu", "gpus", "hang_seconds")
TEXT = ("dataset", "dataset.name", "dataset.path", "dataset.layout", "dataset.split")
MACHINE = ("device", "threads", "jobs", "gpus", "results_dir", "data_dir")
# A race of `charcmp recommend`: how long it takes by default, and the keys that it decides itself.
RACE_MINUTES = 30.0
RACE_DECIDES = (
    *("optimizer.lr", "epochs", "updates_per_epoch", "hidden_size"),
    *("experiment", "task", "patience"),
)

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "recommend",
            "my.txt",
            "which model to use for a text, by a short race",
            "Trains LSTM, GRU and RNN models at several learning rates for a short time, goes on "
            "with the good ones for longer, and gives the last ones more seeds. It decides by "
            "validation loss alone, says which model to use and how sure that is, and leaves the "
            "model ready for charcmp sample and charcmp score. Other keys of charcmp train may be "
            "given too, with one value each, except those that the race decides: "
            f"{', '.join(RACE_DECIDES)}.",
            (
                ("charcmp recommend my.txt", "half an hour on a text of your own"),
                ("charcmp recommend my.txt minutes=90", "the same race, to 90 minutes in all"),
                ("charcmp recommend dataset=wp budget=50k", "on a corpus that charcmp knows"),
            ),
            own_keys=(
                Key(
                    "minutes",
                    f"{RACE_MINUTES:g}",
                    "the time it has; give more to continue a race",
                    POSITIVE,
                ),
                Key("budget", DEFAULT_BUDGET, "parameters; several budgets share the minutes"),
                Key("cell", ",".join(CELLS), "the cells that race"),
                Key("cell.target", "", "classes that race as well: my_cell.py:MyCell,torch.nn.GRU"),
                Key("layers", ",".join(map(str, DEPTHS)), "numbers of layers that race"),
                Key("seed", "0", "seed of each model's first run; further seeds count up from it"),
            ),
            key_patterns=(*TEXT, "dropout", "clip*", *MACHINE),
            is_composed=True,
            takes_text=True,
            trains=True,
        ),
        Command(
            "train",
            "key=value",
            "train one model, or resume it",
            "Trains one model, from its last checkpoint where there is one. A finished run is not "
            "trained again, and it counts in every sweep that contains it.",
            (
                ("charcmp train cell=gru layers=2 budget=130k", "on War and Peace"),
                ("charcmp train my.txt", "on a text of your own"),
                ("charcmp train optimizer=adam epochs=5 --cfg job", "only print the configuration"),
            ),
            key_patterns=("*",),
            without=SWEEP_ONLY,
            is_composed=True,
            takes_text=True,
            trains=True,
        ),
        Command(
            "sweep",
            "key=value",
            "train the unfinished models of a grid",
            "Trains every model of a grid that is not finished, several at once. A key with "
            "several values is an axis of the grid: layers=1,2. Axes that you do not set come "
            "from the experiment; experiment=paper is the paper's grid of 72 models.",
            (
                ("charcmp sweep --dry-run", "list the paper's grid, and the time it will take"),
                (
                    "charcmp sweep experiment=demo",
                    "a small grid in minutes, on Python's own texts",
                ),
                ("charcmp sweep my.txt budget=50k", "your own text"),
                *((f"charcmp sweep {given}", meant) for given, meant in SELECT.items()),
            ),
            (
                Flag("--dry-run", "list the runs, their sizes and their cost; train nothing"),
                Flag("--no-cost", "with --dry-run: do not measure how long they will take"),
                Flag("--retry-failed", "try runs again that failed in an earlier sweep"),
                Flag("--fail-fast", "end the sweep at the first run that fails"),
            ),
            key_patterns=("*",),
            is_composed=True,
            takes_text=True,
            trains=True,
        ),
        Command(
            "params",
            "key=value",
            "hidden sizes and parameter counts of a grid",
            "Prints the hidden size that meets each budget, and by how much it misses. Trains "
            "nothing.",
            (("charcmp params dataset=wp cell=lstm,gru layers=1,2,5 budget=50k,1M", ""),),
            (JSON,),
            key_patterns=GRID,
            is_composed=True,
            takes_text=True,
        ),
        Command(
            "status",
            "key=value",
            "what every run is doing, once or with --watch",
            "Shows the state of every run of a results folder, from any shell or machine, while a "
            "sweep runs or afterwards.",
            (
                ("charcmp status --watch", "until nothing runs any more"),
                ("charcmp status cell=gru layers=1,2", "some of the runs"),
            ),
            (Flag("--watch", "show it again and again until nothing runs any more"), JSON),
            key_patterns=("results_dir", "lease_seconds"),
            # A run's progress note has these from its first second on.
            narrowed_by=(
                *("task", "dataset", "dataset.name", "dataset.path", "cell", "layers", "budget"),
                *("hidden_size", "seed", "epochs"),
            ),
            is_composed=True,
            takes_text=True,
        ),
        Command(
            "report",
            "key=value",
            "what to use, tables, statistics, figures, page",
            "Says which model to use at each budget, prints the tables, and writes statistics, "
            "figures and one page, from the finished runs of a results folder.",
            (
                ("charcmp report", "of all runs in results/runs"),
                (
                    "charcmp report dataset=wp budget=50k",
                    "of these runs only, in a separate folder",
                ),
                ("charcmp report --published --format csv", "the published runs, tables alone"),
            ),
            (
                Flag("--full", "print statistics, claims and notes too"),
                Flag("--format", "which files to write; default: all", "LIST", FORMATS),
                Flag("--output", "where to write; default: results_dir/report", "FOLDER"),
                Flag("--published", "report results/paper, which comes with a clone of charcmp"),
            ),
            key_patterns=("results_dir",),
            narrowed_by=tuple(Filters.AXES),
            is_composed=True,
            takes_text=True,
        ),
        Command(
            "baselines",
            "key=value",
            "n-grams and compressors on the texts of a grid",
            "Scores n-gram models and compressors on the test texts of a grid, for the report to "
            "show beside the models.",
            (("charcmp baselines dataset=wp budget=50k", ""),),
            key_patterns=(*GRID, "batch_size", "unroll_steps", "results_dir"),
            is_composed=True,
            takes_text=True,
        ),
        Command(
            "sample",
            "run=RUN",
            "text from a trained run",
            "Generates text from a trained run and prints it as it comes.",
            (
                ('charcmp sample run=RUN_ID temperature=0.5 prime="Natasha "', ""),
                (
                    "charcmp sample results_dir=results/weights run=wp-lstm-1x64",
                    "a published model, in a clone",
                ),
            ),
            own_keys=tuple(keys_of(SampleOptions)),
        ),
        Command(
            "score",
            "run=RUN my.txt",
            "nats per character of any text under a run",
            "Computes the loss of a text under a trained run. The text is read as one stream from "
            "a zero state, and its first byte is not predicted; a run of task=fill predicts each "
            "byte from the text on both sides of it.",
            (
                ("charcmp score run=RUN_ID my.txt", "of any file"),
                ("charcmp score run=RUN_ID split=test", "the run's own test loss again"),
            ),
            (JSON,),
            own_keys=tuple(key for key in keys_of(ScoreOptions) if key.name != "file"),
            takes_text=True,
        ),
        Command(
            "data",
            "[fetch]",
            "list, download or build the corpora",
            "Lists the corpora, downloads them, or builds one.",
            (
                ("charcmp data", "what is here: size, distinct bytes, sha256"),
                ("charcmp data fetch wp lk", "download these into the cache folder; no name: all"),
                (
                    "charcmp data build-lk linux-4.1 data",
                    "make data/lk.txt from a Linux source tree",
                ),
            ),
        ),
        Command(
            "doctor",
            "key=value",
            "check that this machine computes correctly",
            "Checks each cell's fast forms against its equations; on a GPU it also checks captured "
            "graphs and concurrent runs; on a CPU, that an interrupted run resumes exactly. Exit "
            "status 1 if a check fails.",
            (("charcmp doctor", ""), ("charcmp doctor device=cuda:1 precision=tf32", "")),
            (JSON, Flag("--cached", "show what an earlier doctor found for this GPU and software")),
            own_keys=tuple(keys_of(DoctorOptions)),
        ),
        Command(
            "completion",
            "SHELL",
            "tab completion for your shell",
            "Prints what your shell runs to complete commands, flags, keys, values, run ids and "
            "files. Put the line below into the file that your shell reads when it starts.",
            (
                ('eval "$(charcmp completion bash)"', "in ~/.bashrc"),
                ('eval "$(charcmp completion zsh)"', "in ~/.zshrc"),
                ("charcmp completion fish | source", "in ~/.config/fish/config.fish"),
            ),
        ),
    )
}
