"""What each command does, between the command line and the modules that know how."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from charcmp.check import typed
from charcmp.config import Config, DatasetConfig, config_dir, register_schemas
from charcmp.errors import BusyError, Interrupted, StorageError, UserError, require
from charcmp.records import Result

# Launchers other than ours start a task by unpickling it: its module registers what it needs.
register_schemas()

PARENT_VARIABLE = "CHARCMP_PARENT"  # a sweep tells its children whom to end with
EXIT_USER_ERROR, EXIT_DIVERGED, EXIT_BUSY, EXIT_STORAGE, EXIT_INTERRUPTED = 2, 3, 4, 5, 130
EXIT_ALONE = 6  # of a run that shared a process: not its fault, perhaps; to be tried in its own


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A user's mistake ends the program with one line; ours keeps its traceback."""
    try:
        yield
    except UserError as error:
        print(f"charcmp: {error}", file=sys.stderr)
        sys.exit(exit_status(error))
    except Interrupted as stop:
        print(f"charcmp: {stop}; the same command goes on from there", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def exit_status(error: UserError) -> int:
    match error:
        case BusyError():
            return EXIT_BUSY
        case StorageError():
            return EXIT_STORAGE
        case _:
            return EXIT_USER_ERROR


class StopRequest:
    """Turns signals and the death of the parent sweep into an answer to `should_stop`.

    Where a scheduler's worker has its own answer to SIGUSR1 or SIGUSR2 (submitit requeues the job
    there), it is given after the checkpoint is written: see `pass_on`.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.parent = int(os.environ.get(PARENT_VARIABLE, "0"))
        self.scheduler: dict[int, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # in some launchers' workers; only a main thread may answer signals
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            if callable(handler := signal.getsignal(signum)):
                self.scheduler[signum] = handler
        for stopping in (signal.SIGINT, signal.SIGTERM, *self.scheduler):
            signal.signal(stopping, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.requested = signum

    def __call__(self) -> bool:
        return self.requested is not None or (self.parent != 0 and os.getppid() != self.parent)

    def pass_on(self) -> None:
        """Lets the scheduler's own handler answer, which may end the process."""
        if self.requested in self.scheduler:
            self.scheduler[self.requested](self.requested, None)


def train_task(cfg: DictConfig) -> None:
    """`charcmp train`, or a job of a sweep on another launcher than ours, which reports exceptions
    and takes an exit for a crash."""
    should_stop = StopRequest()
    is_launchers = HydraConfig.get().mode == RunMode.MULTIRUN
    with nullcontext() if is_launchers else one_line_errors():
        try:
            result = train_one(typed(cfg), should_stop)
        except Interrupted:
            should_stop.pass_on()
            raise
    if result.status == "diverged" and not is_launchers:
        sys.exit(EXIT_DIVERGED)


def train_one(
    config: Config,
    should_stop: Callable[[], bool],
    say: Callable[[str], None] = print,
    command: str | None = None,
) -> Result:
    """Trains a run, or goes on with it; returns its result.

    A failure that is the run's own is recorded in its folder. Arguments: as of charcmp.train.train.
    """
    from charcmp.memory import require_memory
    from charcmp.runs import RunFolder, runs_dir
    from charcmp.spec import resolve, warnings

    spec = resolve(config)
    require_memory(spec)
    for warning in warnings(spec):
        say(f"note: {warning}")
    if spec.corpus.note:
        say(f"note: {spec.corpus.name} is a {spec.corpus.note}")
    folder = RunFolder(runs_dir(config.results_dir) / spec.run_id, config.lease_seconds)
    folder.create()
    with folder.leased(should_stop):
        result = folder.usable_result(say)
        if result is None:
            from charcmp.train import train

            say(f"{spec.run_id}: {spec.num_params:,} parameters, hidden size {spec.hidden_size}")
            try:
                result = msgspec.convert(train(spec, folder, should_stop, say, command), Result)
            except (Interrupted, BusyError, StorageError):
                raise
            except UserError as error:
                folder.write_failure(str(error), retry=True)
                raise
            except Exception as error:
                folder.write_failure(f"{type(error).__name__}: {error}", traceback.format_exc())
                raise
    say(summary_line(result, folder.path))
    return result


def lanes(args: list[str]) -> None:
    """What a sweep starts for runs that share a GPU: `charcmp lanes`, with the number of a pipe."""
    from multiprocessing.connection import Connection

    with one_line_errors():
        is_number = len(args) == 1 and args[0].isdecimal()
        require(is_number, "lanes is a sweep's own command: charcmp --help lists the others")
    from charcmp.lanes import work

    with Connection(int(args[0])) as connection:
        work(connection)


def summary_line(result: Result, path: Path) -> str:
    if result.status == "diverged":
        why = "a loss was not finite, or far above that of guessing"
        return f"{result.run_id}: diverged ({why}); recorded in {path}"
    return (
        f"{result.run_id}: test {result.test_nats_per_char:.4f} nats/char, perplexity "
        f"{result.test_perplexity:.3f}, {result.test_bits_per_char:.3f} bits/char "
        f"(best epoch {result.best_epoch}); {path}"
    )


DATA_USAGE = """\
charcmp data                         the corpora: what is here, size, distinct bytes, sha256
charcmp data fetch [wp] [lk]         download the paper's corpora into the cache folder
charcmp data build-lk TREE [FOLDER]  make lk.txt from a Linux source tree, by the paper's recipe
"""


def data(args: list[str]) -> None:
    """`charcmp data`."""
    with one_line_errors():
        match args:
            case []:
                list_data()
            case ["fetch", *names]:
                fetch_data(names or ["wp", "lk"])
            case ["build-lk", tree, *rest] if len(rest) <= 1:
                from charcmp import sources

                folder = Path(rest[0]) if rest else sources.data_folders()[0]
                print(
                    f"wrote {sources.build_lk(Path(tree), folder)}, a stand-in for the paper's LK"
                )
            case ["--help"] | ["-h"]:
                print(DATA_USAGE, end="")
            case _:
                raise UserError(f"data {' '.join(args)}: not understood; charcmp data --help")


def sample(args: list[str]) -> None:
    """`charcmp sample`."""
    from charcmp.options import SAMPLE_USAGE, SampleOptions, parse

    if "--help" in args or "-h" in args:
        print(SAMPLE_USAGE, end="")
        return
    with one_line_errors():
        options = parse(args, SampleOptions)
        if options.raw and sys.stdout.isatty():
            raise UserError("raw=true writes to a file or a pipe, not to a terminal")
        from charcmp.trained import load_trained

        run = load_trained(options.run, options.results_dir, options.data_dir)
        if run.task == "fill":
            raise UserError(
                f"{run.run_id}: a fill-in model reads what stands on both sides of a byte, so it "
                "does not generate text from left to right; charcmp score works"
            )
        prime = os.fsencode(options.prime)  # the bytes as typed, UTF-8 or not
        try:
            prime_N = run.encode(prime)
        except UserError as error:
            raise UserError(f"prime={options.prime!r}: {error}") from None
        if options.top_k is not None and options.top_k >= len(run.vocabulary):
            print(
                f"note: no effect: top_k={options.top_k}: the run has {len(run.vocabulary)} bytes",
                file=sys.stderr,
            )
        from charcmp.sample import generate, write

        symbols = generate(
            run.model(), prime_N, options.length, options.temperature, options.top_k, options.seed
        )
        write(symbols, run.vocabulary, prime, options.raw)


def score(args: list[str]) -> None:
    """`charcmp score`."""
    from charcmp.options import SCORE_USAGE, ScoreOptions, parse

    if "--help" in args or "-h" in args:
        print(SCORE_USAGE, end="")
        return
    with one_line_errors():
        options = parse([arg for arg in args if arg != "--json"], ScoreOptions)
        from charcmp.score import score_file, score_split
        from charcmp.trained import load_trained

        run = load_trained(options.run, options.results_dir, options.data_dir)
        if options.split is not None:
            scores = score_split(run, options.split, options.data_dir)
        else:
            assert options.file is not None
            scores = score_file(run, Path(options.file), options.unknown_bytes == "skip")
    if "--json" in args:
        print(json.dumps(scores, indent=2))
        return
    print(
        f"{scores['text']}: {scores['nats_per_char']:.4f} nats/char, perplexity "
        f"{scores['perplexity']:.3f}, {scores['bits_per_char']:.3f} bits/char over "
        f"{scores['num_chars']:,} characters, under {scores['run_id']}"
    )
    if scores.get("num_skipped"):
        print(f"note: {scores['num_skipped']:,} bytes that its corpus does not have left out")


def builtin_datasets() -> dict[str, DatasetConfig]:
    """The datasets of conf/dataset that name a text of their own."""
    from omegaconf import OmegaConf

    datasets = {}
    for file in sorted((config_dir() / "dataset").glob("*.yaml")):
        loaded = OmegaConf.load(file)
        assert isinstance(loaded, DictConfig)
        loaded.pop("defaults")
        if loaded.source != "file":
            datasets[file.stem] = DatasetConfig(**OmegaConf.to_container(loaded))  # type: ignore
    return datasets


def list_data() -> None:
    from charcmp import sources

    print(f"{'dataset':8} {'bytes':>10} {'distinct':>8}  sha256")
    for name, dataset in builtin_datasets().items():
        if dataset.source == "paper" and sources.find(name) is None:
            print(
                f"{name:8} not here: charcmp data fetch {name}, or {sources.DATA_VARIABLE}=folder"
            )
            continue
        try:
            corpus = sources.load_corpus(dataset)
        except UserError as error:
            print(f"{name:8} {error}")
            continue
        note = f"  ({corpus.note})" if corpus.note else ""
        print(f"{name:8} {corpus.num_chars:10,} {corpus.num_symbols:8}  {corpus.sha256}{note}")


def fetch_data(names: list[str]) -> None:
    from charcmp import sources

    datasets = builtin_datasets()
    for name in names:
        if name not in datasets or datasets[name].source != "paper":
            raise UserError(f"data fetch {name}: wp and lk can be fetched")
        corpus = sources.load_corpus(datasets[name])
        print(f"{name}: {corpus.num_chars:,} bytes, sha256 {corpus.sha256}")
