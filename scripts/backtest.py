"""The back-test of `charcmp recommend`: thousands of races replayed from stored runs.

    python scripts/backtest.py train TEXT... [--seeds 0 1 2] results_dir=DIR [jobs=1 ...]
    python scripts/backtest.py replay [--races 1000]

`train` runs what a race could ask for: every model at the rates that a race begins with, then, at
ever longer trainings, at those around its best one. It goes on where it was stopped, and stores
what a replay needs in results/backtest/. A text is a file, or the name of a dataset: wp, lk.

`replay` plays races on one text after another, with the margins of elimination fitted to the other
texts, and writes results/backtest/backtest.md. Which seed a race sees of a stored run is drawn
anew for every race; one seed of each it never sees. The regret of a race is told by those: the test
loss of the model that it picked, at that model's best rate and the longest training stored, less
that of the best model there (the best by the mean over all seeds). Its rivals are a random model,
always GRU 2, and plain halving: after every rung the better half of the models, by one run each.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from charcmp.cli.line import read_line, run_composed
from charcmp.errors import UserError
from charcmp.files import write_atomically, write_bytes
from charcmp.sweeping.cost import run_seconds
from charcmp.sweeping.race.arms import (
    SAFE_CHOICE,
    Arm,
    Model,
    best_neighbours,
    first_arms,
    next_rate,
)
from charcmp.sweeping.race.decide import (
    MARGINS,
    Outcome,
    best_arms,
    least_lead,
    losses_by_rate,
)
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.race import Entry, Race
from charcmp.sweeping.race.recommend import Request, requests
from charcmp.sweeping.slots import Slot

LENGTHS = (400, 1200, 3600)  # updates; whole epochs where that is more than one
MAX_BLOCKS = 400  # kept of a run's validation losses
STORE = Path("results/backtest")
MINUTES = (3, 10, 30, 60)
NEAR_BEST = 0.005  # nats: a model that ends so near the best one should not be lost on the way
NUMBERS = ("rate", "val_nats", "test_nats", "chars_per_second", "seconds")
COLUMNS = ("budget", "cell", "layers", "updates", "seed", *NUMBERS, "run_id", "git_commit")


# ---- training what races may ask for


def train(texts: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]) -> None:
    for text in texts:
        is_file = Path(text).is_file()
        named = ["dataset=text", f"dataset.path={text}"] if is_file else [f"dataset={text}"]
        line = read_line("recommend", ["experiment=fast", *named, *overrides])
        run_composed(line, lambda composer: _train(*requests(composer, 1.0), seeds))


def _train(asked: Sequence[Request], slots: Sequence[Slot], seeds: Sequence[int]) -> None:
    for request in asked:
        collection = Collection(request)
        per_epoch = request.probe.spec.updates_per_epoch
        runner = LiveRunner(request.make_job, slots, math.inf, collection.add, per_epoch)
        lengths = [runner.nearest_length(updates) for updates in LENGTHS]
        for seed in seeds:
            train_every_rate(request.models, runner, lengths, seed)
            collection.write(STORE)


def train_every_rate(
    models: Sequence[Model], runner: LiveRunner, lengths: Sequence[int], seed: int
) -> None:
    """Trains each model at each length, at every rate that may be its best one there."""
    arms = first_arms(models)
    for updates in lengths:
        outcomes: dict[Arm, Outcome] = {}
        losses = losses_by_rate(outcomes)
        to_do = arms
        while to_do:
            outcomes |= by_arm(runner.run([Entry(arm, updates, seed) for arm in to_do]))
            losses = losses_by_rate(outcomes)
            further = {model: next_rate(of) for model, of in losses.items()}
            to_do = [Arm(model, rate) for model, rate in further.items() if rate is not None]
        arms = [Arm(model, rate) for model, of in losses.items() for rate in best_neighbours(of)]


class Collection:
    """The finished runs of a text, and the files that they are stored in."""

    def __init__(self, request: Request) -> None:
        self.make_job = request.make_job
        self.name = request.probe.spec.corpus.name
        self.budget = request.probe.spec.budget
        self.outcomes: dict[Entry, Outcome] = {}

    def add(self, entry: Entry, outcome: Outcome) -> None:
        self.outcomes[entry] = outcome
        (model, rate), updates, seed = entry
        print(f"{self.name} {model.cell} {model.layers} {rate:g} {updates} seed {seed}: "
              f"{outcome.nats:.4f}", flush=True)  # fmt: skip

    def write(self, folder: Path) -> None:
        """NAME-BUDGET.csv, a row for each run, and .npz, its validation losses in blocks."""
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[list[object]] = []
        blocks: dict[str, NDArray[np.float32]] = {}
        for entry, outcome in sorted(self.outcomes.items(), key=lambda item: item[0]):
            job = self.make_job(entry)
            result = job.folder.read_result()
            if result is None:
                continue
            rows.append([
                *entry.arm.model, entry.updates, entry.seed, entry.arm.rate,
                outcome.nats, result.test_nats_per_char if outcome.is_usable else math.inf,
                result.chars_per_second,
                run_seconds(job.spec, result.chars_per_second),
                result.run_id, result.git_commit,
            ])  # fmt: skip
            if outcome.blocks_RJ is not None:
                blocks[result.run_id] = coarse(outcome.blocks_RJ)
        stem = folder / f"{self.name}-{self.budget}"
        run_ids, packed = np.array([*blocks]), np.stack([*blocks.values()])
        write_atomically(
            stem.with_suffix(".npz"),
            lambda file: np.savez_compressed(file, run_ids=run_ids, blocks=packed),
        )
        lines = [",".join(map(str, row)) for row in [COLUMNS, *rows]]
        write_bytes(stem.with_suffix(".csv"), ("\n".join(lines) + "\n").encode())


def coarse(blocks_RJ: NDArray[np.float64]) -> NDArray[np.float32]:
    """At most MAX_BLOCKS means of neighbouring blocks; what fills no whole one is left out."""
    num_series, length = blocks_RJ.shape
    together = min(length, -(-blocks_RJ.size // MAX_BLOCKS))
    whole = length // together * together
    means = blocks_RJ[:, :whole].reshape(num_series, -1, together).mean(axis=2)
    return np.asarray(means, dtype=np.float32)


# ---- what is stored


class Key(NamedTuple):
    """A training of which several seeds are stored."""

    arm: Arm
    updates: int


@dataclass(frozen=True)
class Run:
    """Nats per character, infinite if it diverged."""

    outcome: Outcome
    test_nats: float
    seconds: float  # evaluations included


class Stored:
    """All runs of a text at one budget, by what was trained and in order of their seeds."""

    def __init__(self, name: str, runs: Mapping[Key, list[Run]]) -> None:
        self.name, self.runs = name, runs
        self.lengths = sorted({key.updates for key in runs})
        self.models = sorted({key.arm.model for key in runs})
        # The best rate of each model at the longest training, by mean validation loss.
        self.tuned: dict[Model, Key] = {}
        for key in sorted(runs, key=lambda key: (self.val_nats(key), key)):
            if key.updates == self.lengths[-1]:
                self.tuned.setdefault(key.arm.model, key)
        self.best = min(self.tuned, key=lambda model: self.test_nats(self.tuned[model]))

    def val_nats(self, key: Key) -> float:
        return float(np.mean([run.outcome.nats for run in self.runs[key]]))

    def test_nats(self, key: Key) -> float:
        return float(np.mean([run.test_nats for run in self.runs[key]]))

    def seconds_per_update(self, model: Model) -> float:
        return float(
            np.median([
                run.seconds / key.updates
                for key, runs in self.runs.items() if key.arm.model == model for run in runs
            ])
        )  # fmt: skip


def read_stored(csv_file: Path) -> Stored:
    with csv_file.open() as file:
        rows = [*csv.DictReader(file)]
    runs: dict[Key, list[Run]] = defaultdict(list)
    with np.load(csv_file.with_suffix(".npz"), allow_pickle=False) as packed:
        blocks = dict(zip(packed["run_ids"], packed["blocks"].astype(float), strict=True))
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        model = Model(row["budget"], row["cell"], int(row["layers"]))
        key = Key(Arm(model, float(row["rate"])), int(row["updates"]))
        outcome = Outcome(float(row["val_nats"]), blocks.get(row["run_id"]))
        runs[key].append(Run(outcome, float(row["test_nats"]), float(row["seconds"])))
    return Stored(csv_file.stem, runs)


# ---- replaying


class Replay:
    """A race's runner and track over stored runs.

    Args:
        stored: the runs.
        rng: draws the order in which a race sees the seeds of a run; the last one it never sees.
        slot_seconds: that the race has.
    """

    def __init__(self, stored: Stored, rng: np.random.Generator, slot_seconds: float) -> None:
        self.stored, self.left = stored, slot_seconds
        self.order = {key: rng.permutation(len(runs)) for key, runs in stored.runs.items()}
        self.speeds = {model: stored.seconds_per_update(model) for model in stored.models}

    def seconds_per_update(self, model: Model) -> float:
        return self.speeds[model]

    def seconds(self, entry: Entry) -> float:
        return self.speeds[entry.arm.model] * entry.updates

    def nearest_length(self, updates: float) -> int:
        return min(self.stored.lengths, key=lambda length: abs(math.log(length / updates)))

    def slot_seconds_left(self) -> float:
        return max(0.0, self.left)

    def run(self, entries: Sequence[Entry]) -> dict[Entry, Outcome]:
        found = {}
        for entry in entries:
            key = Key(entry.arm, entry.updates)
            order = self.order.get(key)
            if order is not None and entry.seed < len(order) - 1 and self.left > 0:
                self.left -= self.seconds(entry)
                found[entry] = self.stored.runs[key][order[entry.seed]].outcome
        return found

    def drop(self, entries: Sequence[Entry]) -> None:
        """Nothing is kept for them."""

    def length_of(self, rung: int, plan: Callable[[], int]) -> int:
        return plan()

    def out(self, models: Sequence[Model], updates: int) -> None:
        """Nobody watches."""

    def regret(self, picked: Model) -> float:
        """Nats per character on the seeds that the race did not see."""
        stored = self.stored
        nats = [
            stored.runs[key][self.order[key][-1]].test_nats
            for key in (stored.tuned[picked], stored.tuned[stored.best])
        ]
        return nats[0] - nats[1]


def halving(replay: Replay) -> Model:
    """After every rung the better half of the models, each by its best arm."""
    arms = first_arms(replay.stored.models)
    for updates in replay.stored.lengths:
        found = replay.run([Entry(arm, updates, 0) for arm in arms])
        best = best_arms(by_arm(found))
        kept = [*best][: -(-len(best) // 2)]
        arms = [best[model] for model in kept]
    return kept[0]


def by_arm(found: Mapping[Entry, Outcome]) -> dict[Arm, Outcome]:
    return {entry.arm: outcome for entry, outcome in found.items()}


def fitted_margins(texts: Sequence[Stored]) -> list[float]:
    """How far behind, beyond what the text explains, the models that end near the best were after
    each rung at most; at least as much as the judgement of the last rung."""
    margins = []
    for rung in range(len(MARGINS)):
        behind = [MARGINS[-1]]
        for stored in texts:
            updates = stored.lengths[min(rung, len(stored.lengths) - 1)]
            first = {key.arm: runs[0].outcome for key, runs in stored.runs.items()
                     if key.updates == updates}  # fmt: skip
            best = best_arms(first)
            leader = first[next(iter(best.values()))]
            goal = stored.test_nats(stored.tuned[stored.best]) + NEAR_BEST
            behind += [
                least_lead(first[best[model]], leader)
                for model, key in stored.tuned.items()
                if stored.test_nats(key) <= goal and first[best[model]].is_usable
            ]
        margins.append(max(behind))
    return margins


class Score(NamedTuple):
    """What came of the races on a text within so many minutes."""

    text: str
    minutes: int
    regrets: dict[str, list[float]]  # by who advises; nats per character
    held_best: list[bool]  # whether the picked and the tied ones held the best model
    too_short: bool  # for any race at all


def replay_text(
    stored: Stored, minutes: int, margins: Sequence[float], races: int, slots: int
) -> Score:
    rng = np.random.default_rng(minutes)
    regrets: dict[str, list[float]] = defaultdict(list)
    held = []
    constant = next(model for model in stored.models if (model.cell, model.layers) == SAFE_CHOICE)
    for _ in range(races):
        replay = Replay(stored, rng, 60 * minutes * slots)
        try:
            finish = Race(stored.models, replay, replay, margins=margins).run()
        except UserError:
            return Score(stored.name, minutes, {}, [], True)
        regrets["race"].append(replay.regret(finish.leader))
        held.append(stored.best in (finish.leader, *finish.tied))
        regrets["GRU 2"].append(replay.regret(constant))
        picked = stored.models[rng.integers(len(stored.models))]
        regrets["random"].append(replay.regret(picked))
        replay.left = math.inf
        regrets["halving"].append(replay.regret(halving(replay)))
    return Score(stored.name, minutes, dict(regrets), held, False)


def replay_all(texts: Sequence[Stored], races: int, slots: int) -> list[Score]:
    scores = []
    for left_out in texts:
        others = [stored for stored in texts if stored is not left_out]
        margins = fitted_margins(others) if others else list(MARGINS)
        scores += [replay_text(left_out, minutes, margins, races, slots) for minutes in MINUTES]
    return scores


ADVISERS = ("race", "halving", "GRU 2", "random")


def report(texts: Sequence[Stored], scores: Sequence[Score], races: int, slots: int) -> str:
    """The tables as Markdown."""
    margins = ", ".join(f"{margin:.3f}" for margin in fitted_margins(texts))
    lines = [
        "# Back-test of `charcmp recommend`",
        f"`python scripts/backtest.py replay --races {races} --slots {slots}`: {len(texts)} texts. "
        f"Margins fitted to all of them: {margins} nats (in the code: "
        f"{', '.join(f'{margin:g}' for margin in MARGINS)}).",
        "Mean regret in nats per character on seeds that no race saw, with the 95 % interval of "
        "the mean over texts, each of which counts once.",
        over_texts(scores),
        "## By text",
        by_text(texts, scores),
    ]
    return "\n\n".join(lines) + "\n"


def over_texts(scores: Sequence[Score]) -> str:
    rows = []
    for minutes in MINUTES:
        of = [score for score in scores if score.minutes == minutes and not score.too_short]
        row: dict[str, object] = {"minutes": minutes, "texts": len(of)}
        for adviser in ADVISERS:
            row[adviser] = _mean([float(np.mean(score.regrets[adviser])) for score in of])
        held = [float(np.mean(score.held_best)) for score in of]
        row["best model picked or tied"] = f"{100 * np.mean(held):.0f} %" if held else ""
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _mean(means: Sequence[float]) -> str:
    """With a t interval over texts."""
    from scipy import stats

    if len(means) < 2:
        return f"{means[0]:.4f}" if means else ""
    half = stats.t.isf(0.025, len(means) - 1) * np.std(means, ddof=1) / math.sqrt(len(means))
    return f"{np.mean(means):.4f} ± {half:.4f}"


def by_text(texts: Sequence[Stored], scores: Sequence[Score]) -> str:
    rows = []
    for stored in texts:
        row: dict[str, object] = {
            "text": stored.name,
            "runs": sum(map(len, stored.runs.values())),
            "longest": f"{stored.lengths[-1]:,} updates",
            "best": f"{stored.best.cell.upper()} {stored.best.layers}",
            "its loss": f"{stored.test_nats(stored.tuned[stored.best]):.3f}",
        }
        for score in scores:
            if score.text == stored.name:
                row[f"race {score.minutes} min"] = (
                    "too short" if score.too_short else f"{np.mean(score.regrets['race']):.4f}"
                )
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("words", nargs="+", metavar="TEXT or key=value")
    training.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    replaying = commands.add_parser("replay")
    replaying.add_argument("--races", type=int, default=1000)
    replaying.add_argument("--slots", type=int, default=2, help="runs at once that a race has")
    args = parser.parse_args()
    if args.command == "train":
        overrides = [word for word in args.words if "=" in word]
        train([word for word in args.words if "=" not in word], args.seeds, overrides)
        return
    texts = [read_stored(file) for file in sorted(STORE.glob("*.csv"))]
    scores = replay_all(texts, args.races, args.slots)
    text = report(texts, scores, args.races, args.slots)
    write_bytes(STORE / "backtest.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
