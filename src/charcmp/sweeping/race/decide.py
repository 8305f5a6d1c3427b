"""What a race decides. It decides by validation losses only: nothing here sees a test loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from charcmp.sweeping.race.arms import Arm, Model
from charcmp.uncertainty.intervals import Estimate, estimate
from charcmp.uncertainty.text_variance import Component, text_variance

# How far behind the leader a model may be after each rung and stay in, beyond what the noise of the
# text explains. In replayed races models have made up this much later (LOG.md). Nats per character.
MARGINS = (0.06, 0.02, 0.015)
TEXT_SES = 2.0  # standard errors over text that a lead has to exceed in addition
WORTH_KNOWING = 0.01  # nats per character: a smaller lead is no reason to go on
# Seeds that every finalist has before the first look. An interval from two seeds is wide in general
# and yet too narrow if the models' variances over seeds differ.
FEWEST_SEEDS = 3
# Prior for the spread of a model's seeds: their standard deviation, and the degrees of freedom that
# it counts for. One seed in three or four of a gated model near its best rate is 0.03 to 0.07 nats
# worse than the others (LOG.md), so three seeds that lie close together may be three lucky ones.
USUAL_SEED_SD, USUAL_DF = 0.015, 4
# The widest spread of a model's seeds with which the promise is wrong in at most 5 % of races
# (scripts/simulate_looks.py); a standard deviation, nats per character.
WIDEST_SEED_SD = 0.03


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run on the validation text."""

    nats: float  # per character; infinite if it diverged or failed
    blocks_RJ: NDArray[np.float64] | None = None  # mean nats of its J base blocks in R series

    @property
    def is_usable(self) -> bool:
        return math.isfinite(self.nats)


@dataclass(frozen=True)
class Failed(Outcome):
    """The outcome of a run that ended without a result (killed, out of memory): as if diverged."""

    nats: float = math.inf


AnyOutcome = TypeVar("AnyOutcome", bound=Outcome)


def mean_nats(outcomes: Sequence[Outcome]) -> float:
    """Returns a model's mean loss over its seeds."""
    return sum(outcome.nats for outcome in outcomes) / len(outcomes)


def best_arms(outcomes: Mapping[Arm, Outcome]) -> dict[Model, Arm]:
    """Returns each model's arm with the lowest loss, the best model first."""
    best: dict[Model, Arm] = {}
    for arm in sorted(outcomes, key=lambda arm: (outcomes[arm].nats, arm)):
        best.setdefault(arm.model, arm)
    return best


def losses_by_rate(outcomes: Mapping[Arm, Outcome]) -> dict[Model, dict[float, float]]:
    """Returns the loss of each model at each rate that it was trained at; nats per character."""
    losses: dict[Model, dict[float, float]] = defaultdict(dict)
    for (model, rate), outcome in outcomes.items():
        losses[model][rate] = outcome.nats
    return losses


def near_models(outcomes: Mapping[Arm, Outcome], margin: float) -> list[Model]:
    """Returns the models that are behind the best one by no more than the margin and the noise of
    the text, the best first."""
    best = best_arms(outcomes)
    usable = [model for model, arm in best.items() if outcomes[arm].is_usable]
    if not usable:
        return []
    leader = outcomes[best[usable[0]]]
    return [model for model in usable if least_lead(outcomes[best[model]], leader) <= margin]


def survivors(outcomes: Mapping[Arm, Outcome], margin: float, most: int) -> list[Model]:
    """Returns the models of one budget that go on after a rung, the best first.

    These are the models near the best one, at most `most` of them. The safe choice always goes on,
    unless it diverged.
    """
    kept = near_models(outcomes, margin)[:most]
    return kept + [
        arm.model
        for arm in best_arms(outcomes).values()
        if arm.model.is_safe_choice and arm.model not in kept and outcomes[arm].is_usable
    ]


def finalists(outcomes: Mapping[Arm, Outcome], margin: float) -> list[Model]:
    """Returns the models of the last rung that get further seeds, the best first.

    These are the best model and those near it, and at least the second best, so that there is
    something to compare the best one with.
    """
    usable = [model for model, arm in best_arms(outcomes).items() if outcomes[arm].is_usable]
    near = near_models(outcomes, margin)
    return [model for model in usable if model in near or model in usable[:2]]


def least_lead(behind: Outcome, leader: Outcome) -> float:
    """Returns how far `behind` is behind the leader at least, given the noise of the text; nats."""
    difference = behind.nats - leader.nats
    text = text_component([behind], [leader])
    return difference - TEXT_SES * math.sqrt(text.variance if text else 0.0)


def text_component(a: Sequence[Outcome], b: Sequence[Outcome]) -> Component | None:
    """Returns the variance over text of the difference of two models' means over seeds.

    None if a run has no blocks, or there is only one block.
    """
    blocks = [_mean_blocks(a), _mean_blocks(b)]
    if blocks[0] is None or blocks[1] is None:
        return None
    found = text_variance(blocks[0] - blocks[1])
    return found.component if found else None


def _mean_blocks(outcomes: Sequence[Outcome]) -> NDArray[np.float64] | None:
    blocks = [outcome.blocks_RJ for outcome in outcomes if outcome.blocks_RJ is not None]
    if len(blocks) < len(outcomes):
        return None
    return np.asarray(np.mean(blocks, axis=0))


@dataclass(frozen=True)
class Challenge:
    """The comparison of the leader with another finalist, which may be a little ahead of it.

    It has two estimates, both None if either model has a single seed, or if nothing is known of the
    variance over text, as for a validation text of a few hundred characters. `of_models` is about
    which model is better, and compares the means over seeds. `of_run` is about whether the run that
    is handed over is as good as the other model would be if trained once more. That run is one
    trained network, so its loss does not vary over seeds.
    """

    model: Model  # the other finalist
    difference: float  # the other's mean loss minus the leader's, nats per character
    of_models: Estimate | None  # that difference, over seeds and text
    of_run: Estimate | None  # the other's mean loss minus that of the run handed over

    def interval(self, alpha: float) -> tuple[float, float]:
        """Returns the interval of the difference of the models' means."""
        return _interval(self.of_models, alpha)

    def least(self, alpha: float) -> float:
        """Returns by how much the run handed over is better, at least; nats per character."""
        return _interval(self.of_run, alpha)[0]


def _interval(found: Estimate | None, alpha: float) -> tuple[float, float]:
    return found.interval(alpha) if found else (-math.inf, math.inf)


def challenges(finalists: Mapping[Model, Sequence[Outcome]]) -> tuple[Model, list[Challenge]]:
    """Returns the leader and its challenges by the other finalists.

    The leader is the finalist with the lowest mean loss or, of those with fewer layers and no more
    than one standard error behind it, the one with the fewest (the rule of Breiman et al., 1984):
    at equal parameter counts it trains and samples faster. If two or more finalists have several
    seeds, one with a single seed cannot lead: it may have been lucky.
    """
    usable = {model: found for model, found in finalists.items()
              if found and all(outcome.is_usable for outcome in found)}  # fmt: skip
    means = {model: mean_nats(runs) for model, runs in usable.items()}
    several = [model for model, runs in usable.items() if len(runs) > 1]
    leader = min(several if len(several) > 1 else means, key=lambda model: (means[model], model))
    as_good = [
        model
        for model, runs in usable.items()
        if model.layers < leader.layers
        and (found := _challenge(model, runs, usable[leader])).of_models is not None
        and found.difference <= found.of_models.se
    ]
    if as_good:  # another of as many layers may be better, though not within its own standard error
        fewest = min(model.layers for model in as_good)
        leader = min((model for model in several if model.layers == fewest), key=means.__getitem__)
    others = sorted(means.keys() - {leader}, key=lambda model: (means[model], model))
    return leader, [_challenge(model, usable[model], usable[leader]) for model in others]


def handed_over(outcomes: Sequence[AnyOutcome]) -> AnyOutcome:
    """Returns the run with the lowest loss among a model's seeds."""
    return min(outcomes, key=lambda outcome: outcome.nats)


def _challenge(model: Model, other: Sequence[Outcome], leader: Sequence[Outcome]) -> Challenge:
    difference = mean_nats(other) - mean_nats(leader)
    if min(len(other), len(leader)) < 2:
        return Challenge(model, difference, None, None)
    run = handed_over(leader)
    seeds = _seed_variance(other)
    text_of_models, text_of_run = text_component(other, leader), text_component(other, [run])
    if text_of_models is None or text_of_run is None:
        return Challenge(model, difference, None, None)
    return Challenge(
        model,
        difference,
        estimate(difference, [seeds, _seed_variance(leader), text_of_models]),
        estimate(mean_nats(other) - run.nats, [seeds, text_of_run]),
    )


def _seed_variance(outcomes: Sequence[Outcome]) -> Component:
    """Returns the variance of a mean over seeds, in which the usual variance moderates their own.

    The usual one counts for half as many degrees of freedom in the interval as in the mean, because
    it is a judgement.
    """
    further = len(outcomes) - 1
    variance = float(np.var([outcome.nats for outcome in outcomes], ddof=1))
    moderated = (USUAL_DF * USUAL_SEED_SD**2 + further * variance) / (USUAL_DF + further)
    return Component(moderated / len(outcomes), USUAL_DF / 2 + further, True)


def seed_sds(finalists: Mapping[Model, Sequence[Outcome]]) -> dict[Model, float]:
    """Returns the observed standard deviation over seeds of each model with FEWEST_SEEDS or more;
    nats per character."""
    return {
        model: float(np.std([outcome.nats for outcome in outcomes], ddof=1))
        for model, outcomes in finalists.items()
        if len(outcomes) >= FEWEST_SEEDS
    }


def is_settled(found: Sequence[Challenge], alpha: float) -> bool:
    """Returns whether no challenger can be better than the run handed over by more than is worth
    knowing.

    Args:
        found: all challenges of this look.
        alpha: of the interval that this look reads of each (see Race.alpha).
    """
    return all(challenge.least(alpha) > -WORTH_KNOWING for challenge in found)


def tied(found: Sequence[Challenge], alpha: float) -> list[Model]:
    """Returns the finalists that this look cannot distinguish from the leader."""
    return [challenge.model for challenge in found if challenge.interval(alpha)[0] <= 0]


def next_for_a_seed(
    leader: Model, found: Sequence[Challenge], num_seeds: Mapping[Model, int], alpha: float
) -> list[Model]:
    """Returns the models that get a seed next.

    While some have fewer than FEWEST_SEEDS, these are the models with the fewest seeds, the nearest
    first. Then it is the leader and the challenger that may be ahead of its run by most, or the one
    of the two that has fewer seeds.

    Args:
        leader, found: from `challenges`.
        num_seeds: of the leader and all challengers.
        alpha: of the interval that a look reads.
    """
    fewest = min(num_seeds.values())
    by_difference = sorted(found, key=lambda challenge: challenge.difference)
    nearest = [leader, *(challenge.model for challenge in by_difference)]
    if fewest < FEWEST_SEEDS:
        return [model for model in nearest if num_seeds[model] == fewest]
    strongest = min(found, key=lambda challenge: challenge.least(alpha))
    behind = min(num_seeds[leader], num_seeds[strongest.model])
    return [model for model in (leader, strongest.model) if num_seeds[model] == behind]


class Look(NamedTuple):
    """What a look at the finalists finds: the end of the race, or who gets how many more seeds."""

    leader: Model
    is_spent: bool  # whether every finalist had the seeds for it, so that it may end the race
    is_settled: bool
    next_models: list[Model]  # that get a seed next; none if it is settled
    num_more: int  # seeds for each of them before the next look


def look(finalists: Mapping[Model, Sequence[Outcome]], alpha: float) -> Look:
    """Looks at the finalists.

    Args:
        finalists: the outcomes of each, one for each seed; at least one of each model.
        alpha: of the interval that this look reads of each challenge.
    """
    leader, against = challenges(finalists)
    num_seeds = {model: len(outcomes) for model, outcomes in finalists.items()}
    fewest = min(num_seeds.values())
    is_spent = fewest >= FEWEST_SEEDS
    if is_spent and is_settled(against, alpha):
        return Look(leader, True, True, [], 0)
    following = next_for_a_seed(leader, against, num_seeds, alpha)
    # All seeds before the first look at once: no slot waits for the slowest of each round.
    return Look(leader, is_spent, False, following, max(1, FEWEST_SEEDS - fewest))
