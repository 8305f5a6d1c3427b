"""The back-test of `charcmp recommend`: thousands of races replayed from stored runs.

    python scripts/backtest.py train [--minutes M] [--check] TEXT... results_dir=DIR [jobs=1 ...]
    python scripts/backtest.py replay [--races 1000]

`train` trains every run that a race could ask for (scripts/backtest_needs.py) and stores what a
replay needs in results/backtest/. It goes on where it was stopped: it relies on what is stored
there, even if the run folders are gone. It stops after so many minutes; `--minutes 0` prints what
is left to do. A text is a file, or the name of a dataset: wp, lk.

`replay` plays races on one text after another, once with the margins of elimination in the code and
once with margins fitted to texts of other kinds (scripts/backtest_margins.py), and writes
results/backtest/backtest.md (scripts/backtest_report.py). The rungs of a race have the stored
lengths. Its time, a multiple of what the plan sets aside for rungs of these lengths, decides how
far it gets and how many further seeds it has. The order of a model's seeds is drawn again for every
race, and is the same at all its rates and rungs. The race never sees the last seed, which scores
it. The other seeds decide what counts as the truth: each model's best rate, and the best model.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from backtest_needs import Needs, expected
from backtest_replay import COLUMNS, Blocks, Stored, read_stored, stored_rows
from backtest_report import report
from numpy.typing import NDArray

from charcmp.cli.line import read_line, run_composed
from charcmp.cli.one_line import one_line_errors
from charcmp.config.spec import split_of
from charcmp.errors import require
from charcmp.files import write_atomically, write_bytes
from charcmp.sweeping.cost import run_seconds
from charcmp.sweeping.race.arms import Model
from charcmp.sweeping.race.decide import Failed, Outcome
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.plan import USABLE
from charcmp.sweeping.race.race import PlannedRun
from charcmp.sweeping.race.requests import Request, requests
from charcmp.sweeping.slots import Slot
from charcmp.uncertainty.losses import num_series, read_nll, summarize

LENGTHS = (400, 1200, 3600)  # updates of the rungs; whole epochs where that is more than one
CHECK = 10_800  # updates: whether the best at the longest rung is best after longer training, too
MAX_BLOCKS = 400  # at most so many mean losses are kept of a run and text
STORE = Path("results/backtest")


# ---- training


def train(
    texts: Sequence[str], overrides: Sequence[str], minutes: float = math.inf, check: bool = False
) -> None:
    until = time.monotonic() + 60 * minutes
    for text in texts:
        is_file = Path(text).is_file()
        named = ["dataset=text", f"dataset.path={text}"] if is_file else [f"dataset={text}"]
        line = read_line("recommend", ["experiment=fast", *named, *overrides])
        run_composed(line, lambda composer: _train(*requests(composer), until, check))
        if minutes and time.monotonic() >= until:
            break


def _train(asked: Sequence[Request], slots: Sequence[Slot], until: float, check: bool) -> None:
    for request in asked:
        collection = Collection(request)
        per_epoch = request.probe.spec.updates_per_epoch
        runner = LiveRunner(collection.make_job, slots, until, collection.add, per_epoch)
        lengths = [runner.nearest_length(updates) for updates in LENGTHS]
        require(
            len({*lengths}) == len(lengths),
            f"{collection.name} is too short for rungs of several lengths: {lengths} updates",
        )
        longest = runner.nearest_length(CHECK)
        if check and longest not in lengths:  # on a very short text, no run can be longer
            lengths.append(longest)
        runner.measure(request.models)
        _run_missing(request.models, lengths, runner, collection, only_old=True)
        to_come = expected(request.models, lengths, collection.nats)
        print(plan_text(collection, to_come, runner, slots[0].threads or 1), flush=True)
        try:
            _run_missing(request.models, lengths, runner, collection)
        finally:
            runner.close()
            collection.write()


def _run_missing(
    models: Sequence[Model],
    lengths: Sequence[int],
    runner: LiveRunner,
    collection: Collection,
    only_old: bool = False,
) -> None:
    """Trains what is missing while there is time for whole runs, each run once, although it may
    fail; `only_old`: only collects runs that are finished already."""
    tried: set[PlannedRun] = set()
    while True:
        missing = Needs(models, lengths, collection.nats).missing()
        left = USABLE * runner.num_slots * runner.seconds_left()
        in_time = []
        for planned in missing:
            is_old = collection.make_job(planned).folder.result.exists()
            if planned in tried or (only_old and not is_old):
                continue
            if (seconds := runner.seconds(planned)) <= left:
                in_time.append(planned)
                left -= seconds
        if not in_time:
            return
        runner.run(in_time)
        tried.update(in_time)


def plan_text(
    collection: Collection, to_come: Sequence[PlannedRun], runner: LiveRunner, cores: int
) -> str:
    updates = sum(planned.updates for planned in to_come)
    hours = cores * sum(map(runner.seconds, to_come)) / 3600
    return (
        f"{collection.name}, {collection.budget}: {len(collection.rows)} runs are there; about "
        f"{len(to_come)} are to come, {updates:,} updates, {hours:.1f} core hours"
    )


class Collection:
    """The finished runs of a text: those stored by earlier trainings, and new ones.

    A stored run counts if the planned run still has the same id: same text, same settings.
    """

    def __init__(self, request: Request) -> None:
        self.make_job = cache(request.make_job)
        self.name = request.probe.spec.corpus.name
        self.budget = request.probe.spec.budget
        self.rows: dict[PlannedRun, dict[str, str]] = {}  # by COLUMNS
        self.blocks: dict[PlannedRun, Blocks] = {}
        self.csv_file = STORE / f"{self.name}-{self.budget}.csv"
        for planned, row, blocks in stored_rows(self.csv_file) if self.csv_file.exists() else ():
            if row["run_id"] == self.make_job(planned).spec.run_id:
                self.rows[planned] = row
                if blocks is not None:
                    self.blocks[planned] = blocks

    @property
    def nats(self) -> dict[PlannedRun, float]:
        """The validation losses of the runs."""
        return {planned: float(row["val_nats"]) for planned, row in self.rows.items()}

    def add(self, planned: PlannedRun, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):  # killed, or out of memory: not the model's fault
            return
        job = self.make_job(planned)
        result = job.folder.read_result()
        speed = result.chars_per_second if result else 0
        values = (
            *planned.arm.model, planned.updates, planned.seed, planned.arm.rate, outcome.nats,
            result.test_nats_per_char if result and outcome.is_usable else math.inf,
            speed, run_seconds(job.spec, speed) if speed else math.nan,
            job.spec.run_id, result.git_commit if result else "", result.device if result else "",
        )  # fmt: skip
        self.rows[planned] = dict(zip(COLUMNS, map(str, values), strict=True))
        if result and outcome.blocks_RJ is not None:
            nll_N = read_nll(job.folder.test_nll, split_of(job.spec).test.num_chars)
            test = summarize(nll_N, num_series(result), result.unroll_steps)
            self.blocks[planned] = Blocks(coarse(outcome.blocks_RJ), coarse(test.block_means_RJ))
        (model, rate), updates, seed = planned
        print(f"{self.name} {model.cell} {model.layers} {rate:g} {updates} seed {seed}: "
              f"{outcome.nats:.4f}", flush=True)  # fmt: skip

    def write(self) -> None:
        """Writes NAME-BUDGET.csv, a row for each run, and NAME-BUDGET.npz, losses by block."""
        if not self.rows:
            return
        STORE.mkdir(parents=True, exist_ok=True)
        order = sorted(self.rows)
        with_blocks = [planned for planned in order if planned in self.blocks]
        packed: dict[str, Any] = {
            "run_ids": np.array([self.rows[planned]["run_id"] for planned in with_blocks]),
            "val_blocks": np.array([self.blocks[planned].val_RJ for planned in with_blocks]),
            "test_blocks": np.array([self.blocks[planned].test_RJ for planned in with_blocks]),
        }
        write_atomically(
            self.csv_file.with_suffix(".npz"), lambda file: np.savez_compressed(file, **packed)
        )
        lines = [
            ",".join(row) for row in [COLUMNS, *(self.rows[planned].values() for planned in order)]
        ]
        write_bytes(self.csv_file, ("\n".join(lines) + "\n").encode())


def coarse(blocks_RJ: NDArray[np.float64]) -> NDArray[np.float32]:
    """Averages neighbouring blocks of each series, to at most MAX_BLOCKS means in all.

    Blocks that are left over at the end of a series are dropped.
    """
    num_rows, length = blocks_RJ.shape
    together = min(length, -(-blocks_RJ.size // MAX_BLOCKS))
    whole = length // together * together
    means = blocks_RJ[:, :whole].reshape(num_rows, -1, together).mean(axis=2)
    return np.asarray(means, dtype=np.float32)


def complete_texts() -> tuple[list[Stored], list[str]]:
    """Returns the texts whose runs are complete, and the names of the others, which it prints."""
    texts, skipped = [], []
    for file in sorted(STORE.glob("*.csv")):
        stored = read_stored(file)
        missing = stored.num_missing
        if missing == 0:
            texts.append(stored)
        else:
            some = "lengths" if missing is None else f"{missing} runs or more"
            print(f"{stored.name} is skipped: {some} are missing; train it to the end")
            skipped.append(stored.name)
    require(bool(texts), f"no complete text in {STORE}")
    return texts, skipped


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("words", nargs="+", metavar="TEXT or key=value")
    training.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    training.add_argument(
        "--check", action="store_true", help=f"the best models at {CHECK:,} updates as well"
    )
    replaying = commands.add_parser("replay")
    replaying.add_argument("--races", type=int, default=1000)
    args = parser.parse_args()
    if args.command == "train":
        overrides = [word for word in args.words if "=" in word]
        texts = [word for word in args.words if "=" not in word]
        train(texts, overrides, args.minutes, args.check)
        return
    with one_line_errors():
        texts, skipped = complete_texts()
        text = report(texts, args.races, skipped)
    write_bytes(STORE / "backtest.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
