"""Simulates how often a race says that it is settled, and is wrong.

    python scripts/simulate_looks.py [--races 2000] [--seeds normal bad] [--text-ses 0 0.004 0.008]

Two finalists, one of which is worse by a gap in the mean over all seeds. A race is wrong if it is
settled and hands over a run whose loss exceeds the mean of the other model by more than is worth
knowing. Prints tables of the share of wrong races (in percent, nominally at most 5) at each gap:

normal  losses scatter over seeds as a normal distribution. Those of the worse model scatter little:
        the case in which seeds of the other that are unlucky and close together mislead most. A row
        for each standard deviation of the other's seeds.
bad     a share of the seeds comes out much worse than the others, as with gated models near their
        highest usable rate. A row for each pair of shares, of the worse model and of the better.

Each table is made once for every standard error over text. The race sees losses on a validation
text, which add to a run's loss on all text of the kind a part that its model's seeds share and one
of its own. Choosing the best of several seeds by that text favours runs that the text flatters.
Wrong is judged by the losses without these parts.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charcmp.sweeping.race.arms import Model
from charcmp.sweeping.race.decide import WORTH_KNOWING, Outcome, handed_over, look
from charcmp.sweeping.race.race import MOST_LOOKS
from charcmp.uncertainty.intervals import ALPHA

WORSE, BETTER = Model("50k", "gru", 1), Model("50k", "gru", 2)
GAPS = (0.011, 0.013, 0.016, 0.019, 0.022)  # nats per character
STEADY_SD = 0.003
SDS = (0.015, 0.025, 0.03, 0.035, 0.045, 0.06)
BAD_BY = 0.06  # nats: how much worse a bad seed is
BAD_SHARES = (0.0, 0.25, 0.4)
# Two stored texts of the back-test, of 0.5 and 1 MB, have 0.003 to 0.009 between gated models near
# the best one, of whose variance single runs have a half to nearly all.
TEXT_SES = (0.0, 0.004, 0.008)
NUM_BLOCKS = 100  # of the validation text
RUN_SHARE = 0.6  # of a run's variance over text: what its model's seeds do not share


class Seeds(NamedTuple):
    """How the losses of a model scatter over seeds; nats per character."""

    mean: float
    sd: float
    bad_share: float = 0.0  # of seeds that come out BAD_BY worse than the others

    def draw(self, rng: np.random.Generator) -> float:
        is_bad = rng.random() < self.bad_share
        return float(rng.normal(self.mean + BAD_BY * (is_bad - self.bad_share), self.sd))


@dataclass(frozen=True)
class Drawn(Outcome):
    """The outcome of a run whose loss on all text is known."""

    truth: float = math.nan


Finalists = Mapping[Model, Seeds]


def is_wrong(finalists: Finalists, text_se: float, rng: np.random.Generator) -> bool:
    """Plays the looks of a race; returns whether it is settled and wrong.

    Args:
        finalists: two of them.
        text_se: the standard error over the validation text of the difference of two runs, one of
            each model; nats per character.
        rng: draws the seeds and the text.
    """
    block_sd = text_se * math.sqrt(NUM_BLOCKS / 2)  # of one run's mean loss in a block

    def blocks(share: float) -> np.ndarray:
        return rng.normal(0.0, block_sd * math.sqrt(share), (1, NUM_BLOCKS))

    of_model = {model: blocks(1 - RUN_SHARE) for model in finalists}

    def run(model: Model) -> Drawn:
        truth = finalists[model].draw(rng)
        seen_RJ = truth + of_model[model] + blocks(RUN_SHARE)
        return Drawn(float(seen_RJ.mean()), seen_RJ, truth)

    runs = {model: [run(model)] for model in finalists}
    num_looks = 0
    while num_looks < MOST_LOOKS:
        found = look(runs, 2 * ALPHA / MOST_LOOKS)
        if found.is_settled:
            (other,) = finalists.keys() - {found.leader}
            given = handed_over(runs[found.leader])
            return given.truth - finalists[other].mean > WORTH_KNOWING
        num_looks += found.is_spent
        for model in found.next_models:
            runs[model] += [run(model) for _ in range(found.num_more)]
    return False


def normal_seeds(gap: float, sd: float) -> Finalists:
    return {WORSE: Seeds(1.4 + gap, STEADY_SD), BETTER: Seeds(1.4, sd)}


def bad_seeds(gap: float, of_worse: float, of_better: float) -> Finalists:
    return {
        WORSE: Seeds(1.4 + gap, STEADY_SD, of_worse),
        BETTER: Seeds(1.4, STEADY_SD, of_better),
    }


class Table(NamedTuple):
    heading: str
    rows: Iterable[tuple[float, ...]]
    make: Callable[..., Finalists]  # from a gap and a row


TABLES = {
    "normal": Table("SD of the better model's seeds", [(sd,) for sd in SDS], normal_seeds),
    "bad": Table(
        "share of bad seeds, worse and better model",
        [*itertools.product(BAD_SHARES, repeat=2)],
        bad_seeds,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--races", type=int, default=2000, help="for each number of a table")
    parser.add_argument("--seeds", nargs="+", choices=TABLES, default=[*TABLES])
    parser.add_argument("--text-ses", nargs="+", type=float, default=TEXT_SES, metavar="NATS")
    args = parser.parse_args()
    for name, text_se in itertools.product(args.seeds, args.text_ses):
        table = TABLES[name]
        rng = np.random.default_rng(0)
        print(f"{table.heading}; standard error over text {text_se:g}")
        print(f"{'':<14}" + "".join(f"gap {gap:<7g}" for gap in GAPS))
        for row in table.rows:
            shares = []
            for gap in GAPS:
                finalists = table.make(gap, *row)
                wrong = sum(is_wrong(finalists, text_se, rng) for _ in range(args.races))
                shares.append(wrong / args.races)
            named = ", ".join(f"{value:g}" for value in row)
            cells = "".join(f"{100 * share:<11.1f}" for share in shares)
            print(f"{named:<14}{cells}", flush=True)
        print()


if __name__ == "__main__":
    main()
