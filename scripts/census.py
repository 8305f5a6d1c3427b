"""Compares many cells at a small part of the cost, by giving up bad learning rates early.

    python scripts/census.py [experiment=census] [--updates 400] [--minutes 60] [key=value ...]

1. Trains every cell at every rate for --updates updates.
2. Trains every cell to the end at the two rates below its best one, since long trainings favour
   lower rates than short ones. While the best of these is at an end of the rates trained, trains
   the rate beyond, too.
3. Trains two more seeds at the rate that did best in step 2: for the first twelve cells, for all
   that are so near the first that another seed could change their order, for the paper's three, and
   for the cells of which there are two implementations. Then five more of the LSTM, with which the
   report compares all others.

All decisions are by validation loss. The runs are ordinary ones, so `charcmp status` shows them and
`charcmp report` has tables of those that are finished; a rate that was given up in step 1 counts as
tried in the table of the trainings to the end. If the command is stopped, or --minutes ends it, the
same command goes on from there.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cached_property
from typing import NamedTuple

from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.config.spec import RunSpec
from charcmp.errors import EXIT_INTERRUPTED, UserError, require
from charcmp.models.cells.options import CellConfig, ModuleConfig
from charcmp.models.language_model import check_module_cells
from charcmp.sweeping.examine import examined_slots
from charcmp.sweeping.grid import Job, make_grid, make_job
from charcmp.sweeping.race.arms import CELLS, LADDER, Arm, Model, best_rate, label, next_rate
from charcmp.sweeping.race.decide import (
    USUAL_SEED_SD,
    WORTH_KNOWING,
    Outcome,
    best_arms,
    losses_by_rate,
    survivors,
)
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.plan import nearest_length
from charcmp.sweeping.race.race import PlannedRun
from charcmp.sweeping.race.requests import length_settings, require_seeds
from charcmp.training.memory import training_bytes

UPDATES = 400  # of the first step
FIRST = 12  # so many cells get further seeds, however far behind they are
FURTHER_SEEDS = (1, 2)  # added to the first seed
# The LSTM has these as well: its own luck moves all comparisons with it, and in the same direction.
REFERENCE, REFERENCE_SEEDS = "lstm", (3, 4, 5, 6, 7)
# Cells of the same equations, which are to agree within their seeds: a check on both.
TWINS = (
    *("torch.nn.RNN", "torch.nn.LSTM", "torch.nn.GRU", "gru_reset_after"),
    *("lstm_peephole", "torchrecurrent.PeepholeLSTM"),
)
# Nats behind the first cell: how far apart single seeds of two equally good cells may be.
NEAR = WORTH_KNOWING + 2 * math.sqrt(2) * USUAL_SEED_SD
VARIED = ("optimizer.lr", "seed", "epochs")  # differ between runs of a cell


class TimeIsOverError(Exception):
    """The error that --minutes had no room for some runs."""


class Lengths(NamedTuple):
    """The updates of a training in the first step, and of a training to the end."""

    short: int
    full: int


class Census:
    """The staged comparison of the cells of a grid.

    Args:
        composer: of an experiment with one text, one budget and one seed.
        updates: of a training in the first step.
        until: when the time is over, by time.monotonic().

    Raises:
        UserError: if the grid has several texts, budgets or seeds, its rates are not neighbours on
            LADDER, or the trainings to the end are no longer than those of the first step; another
            key has several values; or a class fails the checks that a run of it begins with.
    """

    def __init__(self, composer: Composer, updates: int, until: float) -> None:
        self.composer, self.until = composer, until
        self.words: dict[Model, list[str]] = {}  # the overrides that all runs of a cell share
        rates, seeds = set(), set()
        specs: list[RunSpec] = []
        first_of: dict[Model, RunSpec] = {}
        for _, overrides in make_grid(composer).points():
            words = [word for word in overrides if word.partition("=")[0] not in VARIED]
            spec = make_job(overrides, composer.compose(overrides)).spec
            cell = named_cell(spec.config.cell, words)
            model = Model(spec.budget, cell, spec.config.layers)
            if (others := self.words.setdefault(model, words)) != words:
                both = " and ".join(" ".join(sorted({*a} - {*b}))
                                    for a, b in ((others, words), (words, others)))  # fmt: skip
                raise UserError(f"{both}: a census varies the cell, its layers and rates alone")
            first_of.setdefault(model, spec)
            rates.add(spec.config.optimizer.lr)
            seeds.add(spec.config.seed)
            specs.append(spec)
        require(len({(spec.corpus.sha256, spec.budget) for spec in specs}) == 1 == len(seeds),
                "a census is of one text, one budget and one first seed")  # fmt: skip
        require_seeds(max(seeds), max(FURTHER_SEEDS + REFERENCE_SEEDS), "census")
        runs_of_ladder = [LADDER[place : place + len(rates)] for place in range(len(LADDER))]
        require(tuple(sorted(rates)) in runs_of_ladder,
                f"optimizer.lr: a census takes rates of {LADDER}, without gaps")  # fmt: skip
        lengths = {(spec.config.epochs, spec.config.updates_per_epoch) for spec in specs}
        require(len(lengths) == 1 and lengths.pop()[1] is None,
                "a census takes one value of epochs, and no updates_per_epoch")  # fmt: skip
        _check_classes(first_of.values())
        self.config, self.rates, (self.seed,) = specs[0].config, sorted(rates), seeds
        self.run_bytes = max(map(training_bytes, specs))
        self.per_epoch = specs[0].updates_per_epoch
        self.lengths = Lengths(
            nearest_length(updates, self.per_epoch), self.config.epochs * self.per_epoch
        )
        require(self.lengths.short < self.lengths.full,
                f"--updates {updates}: a training to the end has {self.lengths.full}")  # fmt: skip

    @cached_property
    def runner(self) -> LiveRunner:
        slots = examined_slots(self.config, self.run_bytes)
        return LiveRunner(self.make_job, slots, self.until, self.say, self.per_epoch)

    def make_job(self, planned: PlannedRun) -> Job:
        (model, rate), updates, seed = planned
        length = length_settings(updates, self.per_epoch)
        overrides = [*self.words[model], f"optimizer.lr={rate:g}", f"seed={seed}", *length]
        return make_job(overrides, self.composer.compose(overrides))

    def say(self, planned: PlannedRun, outcome: Outcome) -> None:
        (model, rate), updates, seed = planned
        nats = f"{outcome.nats:.4f}" if outcome.is_usable else "diverged or failed"
        print(f"{label(model)}, rate {rate:g}, {updates:,} updates, seed {seed}: validation {nats}",
              flush=True)  # fmt: skip

    def run(self) -> None:
        """Runs all steps.

        Raises:
            TimeIsOverError: if the time is over before all runs are done.
        """
        arms = [Arm(model, rate) for model in self.words for rate in self.rates]
        print(f"1: {len(self.words)} cells at {len(self.rates)} rates, {len(arms)} short trainings")
        short = self._outcomes(arms, self.lengths.short, self.seed)
        found: dict[Arm, Outcome] = {}
        arms = kept_rates(short)
        while arms:
            print(f"2: {len(arms)} trainings to the end")
            found |= self._outcomes(arms, self.lengths.full, self.seed)
            arms = rates_beyond(found, short)
        arms = near_the_best(found)
        named = ", ".join(label(arm.model) for arm in arms)
        print(f"3: seeds {self.seed} to {self.seed + FURTHER_SEEDS[-1]} of {named}")
        for further in FURTHER_SEEDS:
            self._outcomes(arms, self.lengths.full, self.seed + further)
        if reference := [arm for arm in arms if arm.model.cell == REFERENCE]:
            print(f"   and to {self.seed + REFERENCE_SEEDS[-1]} of the LSTM")
        for further in REFERENCE_SEEDS:
            self._outcomes(reference, self.lengths.full, self.seed + further)

    def _outcomes(self, arms: Iterable[Arm], updates: int, seed: int) -> dict[Arm, Outcome]:
        planned_runs = [PlannedRun(arm, updates, seed) for arm in arms]
        found = self.runner.run(planned_runs)
        if len(found) < len(planned_runs):
            raise TimeIsOverError(f"{len(planned_runs) - len(found)} runs of this step left")
        return {planned.arm: outcome for planned, outcome in found.items()}


def _check_classes(specs: Iterable[RunSpec]) -> None:
    """Checks every class now: a run of it would end the whole census hours later.

    Raises:
        UserError: with a line for each class that is refused.
    """
    refused = []
    for spec in specs:
        try:
            check_module_cells(spec.shape, max(spec.unroll_steps, spec.train_unroll_steps))
        except UserError as error:
            refused.append(str(error))
    require(not refused, "\n".join(refused))


def named_cell(cell: CellConfig, words: Iterable[str]) -> str:
    """Returns a cell's name as races have it, and the options that the overrides give it."""
    name = cell.target if isinstance(cell, ModuleConfig) else cell.name
    options = [word for word in words
               if word.startswith("cell.") and not word.startswith("cell.target=")]  # fmt: skip
    return " ".join([name, *options])


def kept_rates(outcomes: dict[Arm, Outcome]) -> list[Arm]:
    """Returns each cell at the two rates below its best one, as far as there are such, without
    cells that always diverged."""
    kept = []
    for model, of_model in losses_by_rate(outcomes).items():
        usable = sorted(rate for rate, nats in of_model.items() if math.isfinite(nats))
        if usable:
            place = usable.index(best_rate(of_model))
            kept += [Arm(model, rate) for rate in usable[max(0, place - 2) : max(1, place)]]
    return kept


def rates_beyond(found: dict[Arm, Outcome], short: dict[Arm, Outcome]) -> list[Arm]:
    """Returns the rate beyond for each cell whose best training to the end is at an end of its
    rates, if the first step tried that rate and did not diverge there."""
    beyond = [
        Arm(model, rate)
        for model, of_model in losses_by_rate(found).items()
        if (rate := next_rate(of_model)) is not None
    ]
    return [arm for arm in beyond if arm in short and short[arm].is_usable]


def near_the_best(outcomes: dict[Arm, Outcome]) -> list[Arm]:
    """Returns the best arm of each cell that gets further seeds, the best cell first."""
    best = {model: arm for model, arm in best_arms(outcomes).items() if outcomes[arm].is_usable}
    near = survivors(outcomes, NEAR, len(best))
    return [arm for place, (model, arm) in enumerate(best.items())
            if place < FIRST or model in near or model.cell in (*CELLS, *TWINS)]  # fmt: skip


def census(overrides: Sequence[str], updates: int = UPDATES, minutes: float = math.inf) -> None:
    """Runs a census, or as much of it as the minutes allow."""
    until = time.monotonic() + 60 * minutes

    def run(composer: Composer) -> None:
        try:
            asked = Census(composer, updates, until)
            with closing(asked.runner):
                asked.run()
        except TimeIsOverError as left:
            print(f"time ran out with {left}; the same command continues")
        else:
            print("all runs are done; charcmp report makes the tables")

    run_composed(read_line("sweep", overrides), run)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--minutes", type=float, default=math.inf)
    args = parser.parse_args()
    named = [word for word in args.overrides if word.startswith("experiment=")]
    overrides = [*([] if named else ["experiment=census"]), *args.overrides]
    try:
        census(overrides, args.updates, args.minutes)
    except KeyboardInterrupt:  # came before the first run, whose handler answers later ones
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
