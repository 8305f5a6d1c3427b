"""Simulates how often a race says that it is settled, and is wrong, by the spread of the seeds.

    python scripts/simulate_looks.py [--races 2000]

Two finalists whose losses scatter over seeds as a normal distribution; the text adds nothing. The
leader is worse by a gap, in the mean over all seeds, and its own seeds scatter little: the case in
which seeds of the other that are unlucky and close together mislead most. Prints a line for each
standard deviation of the other's seeds, with the share of wrong races (in percent, nominally at
most 5) at each gap. A race is wrong if the run that it hands over is worse than the other model's
mean by more than is worth knowing.
"""

from __future__ import annotations

import argparse

import numpy as np

from charcmp.sweeping.race.arms import Model
from charcmp.sweeping.race.decide import (
    FEWEST_SEEDS,
    WORTH_KNOWING,
    Outcome,
    challenges,
    handed_over,
    is_settled,
    next_for_a_seed,
)
from charcmp.sweeping.race.race import MOST_LOOKS
from charcmp.uncertainty.intervals import ALPHA

STEADY, VARYING = Model("50k", "gru", 1), Model("50k", "gru", 2)
STEADY_SD = 0.003
SDS = (0.015, 0.025, 0.035, 0.045, 0.06)
GAPS = (0.011, 0.013, 0.016, 0.019, 0.022)  # nats per character
TEXT = np.random.default_rng(0).normal(0.0, 1e-6, (1, 10))  # as good as no variance


def is_wrong(gap: float, sd: float, rng: np.random.Generator) -> bool:
    """Plays the looks of a race; returns whether it settles on a run that is worse by more than is
    worth knowing."""
    means = {STEADY: 1.4 + gap, VARYING: 1.4}
    sds = {STEADY: STEADY_SD, VARYING: sd}
    outcomes: dict[Model, list[Outcome]] = {STEADY: [], VARYING: []}

    def add_seed(model: Model) -> None:
        nats = float(rng.normal(means[model], sds[model]))
        outcomes[model].append(Outcome(nats, nats + TEXT))

    for model in [STEADY, VARYING] * FEWEST_SEEDS:
        add_seed(model)
    alpha = 2 * ALPHA / MOST_LOOKS
    for _ in range(MOST_LOOKS):
        leader, against = challenges(outcomes)
        if is_settled(against, alpha):
            (other,) = {STEADY, VARYING} - {leader}
            return handed_over(outcomes[leader]).nats - means[other] > WORTH_KNOWING
        num_seeds = {model: len(found) for model, found in outcomes.items()}
        for model in next_for_a_seed(leader, against, num_seeds, alpha):
            add_seed(model)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--races", type=int, default=2000)
    races = parser.parse_args().races
    rng = np.random.default_rng(0)
    print("SD     " + "".join(f"gap {gap:<7g}" for gap in GAPS))
    for sd in SDS:
        shares = [sum(is_wrong(gap, sd, rng) for _ in range(races)) / races for gap in GAPS]
        print(f"{sd:<7g}" + "".join(f"{100 * share:<11.1f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
