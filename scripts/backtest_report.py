"""Reports the scores of replayed races as Markdown: results/backtest/backtest.md."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from backtest_margins import Deficits, by_kind, fitted_margins, fitted_to_others, passed
from backtest_needs import NEAR
from backtest_replay import (
    RACERS,
    SLOTS,
    TIMES,
    WORST,
    Score,
    Stored,
    common_speeds,
    replay_text,
    usual_model,
)
from scipy import stats
from tabulate import tabulate

from charcmp.machine import available_cores
from charcmp.sweeping.race.arms import Model, label
from charcmp.sweeping.race.decide import MARGINS, WORTH_KNOWING, mean_nats
from charcmp.sweeping.race.plan import USABLE
from charcmp.sweeping.race.race import LAST_RUNG
from charcmp.uncertainty.intervals import ALPHA, estimate, seed_component

GOAL = 0.005  # nats: the mean regret that a race may have, apart from the truth's standard error

Means = Mapping[str, float]
Columns = dict[str, Callable[[Means], float]]


def columns_of(*names: str, score: str = "") -> Columns:
    """Returns columns by heading; a heading is a rival's name, or `a minus b`; `score` is added to
    each name."""

    def column(name: str) -> Callable[[Means], float]:
        a, _, b = name.partition(" minus ")
        return lambda means: means[a + score] - (means[b + score] if b else 0.0)

    return {name: column(name) for name in names}


RIVALS = (*RACERS, *(f"race minus {rival}" for rival in RACERS[1:]))
HANDED_OVER = columns_of(*RIVALS, score=", handed over") | columns_of("best single run")
PICKED = columns_of("race", "race, at most", "race minus GRU 2", "race minus random",
                    "race minus halving", "race minus usual alone")  # fmt: skip
ADVISED = columns_of(*RIVALS, score=", as advised")
SHARES = columns_of("settled", "wrong", "wrong, unseen", "wrong, model", "picked",
                    "picked or tied", "looked", "lost by margin", "lost by cap", "failed",
                    "lacked a seed")  # fmt: skip

ABOUT = f"""\
A race here has rungs of the stored lengths, in the table by text. Its minutes are those of
{SLOTS} cores of the speed that most of these runs had. A default race of 30 minutes at 50k on a
quiet machine of two cores has rungs of about 1,500, 4,000 and 12,000 updates, three times as
long: nothing here is a race of 30 minutes, and how a race plans its rungs is not replayed. More
time, in multiples of what the plan sets aside, buys further seeds.

All losses are of test text, in nats per character. Texts of one kind count as one: ± is the 95 %
t interval over kinds, whose upper end is too low where most kinds have zero regret; a share has
Clopper and Pearson's interval, as if each kind were one trial. Races draw from three to five
stored seeds a model, so their number is no sample size. Models that end more than {NEAR:g} nats
behind the best one have one run of each rate at the last rung, which serves for every seed,
unless they are second best or GRU 2. A run that diverged counts as {WORST:g} nat worse than the
best run.

The tables compare:

- **race**: `charcmp recommend`, with the margins of elimination in the code, or with margins
  fitted to the other kinds of text.
- **halving**: the race's time, its search for rates and its limits on how many models go on, but
  no margins and no further seeds.
- **GRU 2 alone**: a race of GRU 2 with itself, which only has to find its rate. Its rungs have
  the same lengths, though it would have time for longer ones.
- **usual alone**: the same for the model that is best in the mean over the other kinds of text.
- **GRU 2**, **random**: that model, or one drawn at random, at its best rate."""

ABOUT_GIVEN = """\
The loss of the run that the user gets, less that of the best model at its best rate, trained
again. It can be negative, since the user gets the winner's seed with the lowest validation loss.
Halving hands over the best single run of all models. *Best single run* is that of the race's
finalists; the advice names it where it is another model's and better by more than 0.01 nats on
validation text."""

ABOUT_ADVISED = """\
The loss of the advised model, trained again with a seed that no race saw, at the rate and the
length of the race, less that of the best model at its best rate."""

ABOUT_PICKED = """\
The same, with each rival's model at that model's best rate of all. The seeds that races saw say
which model and which rates are best, and their luck makes this regret somewhat too low. *At most*
compares with the lowest mean over all seeds instead, and is somewhat too high. Differences
between two rivals have neither error."""

ABOUT_SHARES = f"""\
Shares of all races. *Settled*: the race said that it was sure. *Wrong*: it said so, and a
finalist is better than the run handed over by more than {WORTH_KNOWING:g} nats, by the mean of
its seeds, most of which the race saw (too few are wrong by this), or by its unseen one, whose
luck counts too (too many are). *Wrong, model*: it said so, and the best model at its best rate is
better by as much. *Picked*: the model is the best one; *tied*: models that the race does not tell
apart from its winner, and the winner itself. *Looked*: the finalists had three seeds each; in
other races those with one seed are tied because nothing is known of them. *Lost*: the best model
was eliminated, by a margin or by the cap on how many go on. *Failed*: no advice; counts as GRU 2
at its best rate. *Lacked a seed*: the race wanted a seed that is not stored, and counts as not
settled, though live it might have been."""

ABOUT_LENGTHS = """\
The model with the lowest mean test loss, each model at the rate that has its best validation loss
at that length, and how far behind the second is, with the standard error of that over seeds. All
models have three seeds at the first two lengths; those near the best one have five at the third.
At the fourth, the two or three that were best at the third have one seed each, at the third's
rate."""


def report(texts: Sequence[Stored], races: int, skipped: Sequence[str] = ()) -> str:
    """Replays the races; returns the tables as Markdown; skipped: texts that are not complete."""
    found = [Deficits(stored) for stored in texts]
    of_code = replay_all(texts, races, lambda stored: MARGINS)
    fitted = replay_all(texts, races, lambda stored: fitted_to_others(found, stored.kind))
    speeds = common_speeds(texts)
    sets = {"in the code": of_code, "fitted": fitted}
    kinds = sorted(by_kind(found))
    return "\n\n".join([
        "# Back-test of `charcmp recommend`",
        f"`python scripts/backtest.py replay --races {races}`: {len(texts)} texts of {len(kinds)} "
        f"kinds ({', '.join(kinds)})."
        + (f" Not complete, and left out: {', '.join(skipped)}." if skipped else ""),
        ABOUT,
        "## What is handed over",
        ABOUT_GIVEN,
        over_kinds(sets, HANDED_OVER, mean_with_interval, speeds),
        "## Which model and rate are advised",
        ABOUT_ADVISED,
        over_kinds(sets, ADVISED, mean_with_interval, speeds),
        "## Which model is picked",
        ABOUT_PICKED,
        over_kinds(sets, PICKED, mean_with_interval, speeds),
        verdicts(of_code),
        "## What races say of themselves",
        ABOUT_SHARES,
        over_kinds(sets, SHARES, share_with_interval, speeds),
        over_kinds(sets, columns_of("tied"), lambda values: f"{np.mean(values):.2f}", speeds),
        "## Margins of elimination",
        "Fitted by scripts/backtest_margins.py. Passed: the share of models near the best one that "
        "are farther behind than the margin after the rung, and so out, in the mean over kinds of "
        "text; fitted: with margins fitted to the other kinds.",
        margins_table(found),
        f"## By text, margins in the code, {TIMES[0]} times the planned time",
        by_text(of_code, speeds),
        "## Which model is best after how many updates",
        ABOUT_LENGTHS,
        by_length(texts),
    ]) + "\n"  # fmt: skip


def replay_all(
    texts: Sequence[Stored], races: int, margins: Callable[[Stored], Sequence[float]]
) -> list[Score]:
    speeds = common_speeds(texts)
    tasks = []
    for stored in texts:
        others = [other for other in texts if other.kind != stored.kind] or [stored]
        usual = usual_model(others)
        tasks += [(stored, times, tuple(margins(stored)), races, speeds, usual) for times in TIMES]
    with ProcessPoolExecutor(available_cores()) as pool:
        return [*pool.map(replay_text, *zip(*tasks, strict=True))]


# ---- over texts


def over_kinds(
    sets: Mapping[str, Sequence[Score]],
    columns: Columns,
    shown: Callable[[Sequence[float]], str],
    speeds: Mapping[Model, float],
) -> str:
    """Returns a table with a row for each time and set of margins; `shown` turns the means of the
    kinds into a cell's text."""
    rows = []
    for times in TIMES:
        for margins, scores in sets.items():
            at_times = [score for score in scores if score.times == times]
            minutes = np.mean([times * planned_minutes(score.text, speeds) for score in at_times])
            row = {"time": f"{times} x ({minutes:.0f} min)", "margins": margins}
            for name, column in columns.items():
                row[name] = shown(kind_means(at_times, column))
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def kind_means(scores: Sequence[Score], column: Callable[[Means], float]) -> list[float]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        kinds[score.text.kind].append(column(score.means))
    return [float(np.mean(values)) for values in kinds.values()]


def mean_with_interval(values: Sequence[float]) -> str:
    mean, bound = float(np.mean(values)), upper_bound(values)
    return f"{mean:.4f} ± {bound - mean:.4f}" if math.isfinite(bound) else f"{mean:.4f}"


def upper_bound(values: Sequence[float]) -> float:
    """Returns the upper end of the mean's 95 % interval; infinite for a single kind."""
    component = seed_component(values)  # kinds of text are a sample, as seeds are
    if component is None:
        return math.inf
    return estimate(float(np.mean(values)), [component]).interval()[1]


def share_with_interval(values: Sequence[float]) -> str:
    """Returns the share with Clopper and Pearson's interval; each kind counts as one trial."""
    trials, hits = len(values), float(np.sum(values))
    low = stats.beta.ppf(ALPHA / 2, hits, trials - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - ALPHA / 2, hits + 1, trials - hits) if hits < trials else 1.0
    return f"{100 * hits / trials:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def truth_se(scores: Sequence[Score]) -> float:
    """Returns the standard error of a mean regret that is due to the truth being uncertain.

    The truth is estimated from the losses of a few seeds. That matters for models that are picked
    in another share of the races than they are best in.
    """
    pooled = pooled_variances([score.text for score in scores])
    of_kind: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        variance = 0.0
        for model in score.picked.keys() | score.best.keys():
            off = score.picked.get(model, 0.0) - score.best.get(model, 0.0)
            variance += off**2 * pooled[model.cell, model.layers] / score.text.num_seeds[model]
        of_kind[score.text.kind].append(variance)
    terms = [
        sum(variances) / (len(of_kind) * len(variances)) ** 2 for variances in of_kind.values()
    ]
    return math.sqrt(sum(terms))


def pooled_variances(texts: Sequence[Stored]) -> dict[tuple[str, int], float]:
    """Returns the variance over seeds of each cell and depth, at its best rate and last rung."""
    squares: dict[tuple[str, int], float] = defaultdict(float)
    degrees: dict[tuple[str, int], int] = defaultdict(int)
    for stored in texts:
        for model in stored.models:
            runs = stored.tuned_runs(model)
            nats = np.array([min(run.test_nats, stored.worst) for run in runs])
            squares[model.cell, model.layers] += float(((nats - nats.mean()) ** 2).sum())
            degrees[model.cell, model.layers] += len(nats) - 1
    overall = sum(squares.values()) / max(1, sum(degrees.values()))
    return {key: squares[key] / degrees[key] if degrees[key] else overall for key in squares}


def verdicts(scores: Sequence[Score]) -> str:
    """Returns whether the mean regret is below the goal: of the picked model, by each of the two
    ways to score it, and of the model and rate that are advised."""
    lines = [f"At these lengths of rungs, against a goal of {GOAL:g} plus the truth's standard "
             "error:\n"]  # fmt: skip
    for times in TIMES:
        at_times = [score for score in scores if score.times == times]
        se = truth_se(at_times)
        for what, least, most in (
            ("model", PICKED["race"], PICKED["race, at most"]),
            ("model and rate", ADVISED["race"], ADVISED["race"]),
        ):
            low = float(np.mean(kind_means(at_times, least)))
            values = kind_means(at_times, most)
            high, bound = float(np.mean(values)), upper_bound(values)
            verdict = "not decided: between the two"
            if low > GOAL + se:
                verdict = "missed"
            elif bound <= GOAL:
                verdict = "met"
            elif high <= GOAL + se:
                verdict = "met in the mean over these kinds, too few to say it of others"
            between = f"{low:.4f} to {high:.4f}" if least is not most else f"{low:.4f}"
            lines.append(
                f"- {times} x, {what}: mean regret {between} (95 % bound over kinds {bound:.4f}, "
                f"worst kind {max(values):.4f}); standard error {se:.4f}: {verdict}."
            )
    return "\n".join(lines)


# ---- by margin and by text


def margins_table(found: Sequence[Deficits]) -> str:
    fitted = fitted_margins(found)
    kinds = by_kind(found)
    held_out = {
        "in the code": [passed(of_kind, MARGINS) for of_kind in kinds.values()],
        "fitted": [
            passed(of_kind, fitted_to_others(found, kind)) for kind, of_kind in kinds.items()
        ],
    }
    rows = []
    for rung, margin in enumerate(MARGINS):
        row = {"rung": str(rung + 1), "in the code": f"{margin:g}", "fitted": f"{fitted[rung]:.3f}"}
        for name, shares in held_out.items():
            row[f"passed, {name}"] = f"{100 * np.mean([share[rung] for share in shares]):.1f} %"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def by_text(scores: Sequence[Score], speeds: Mapping[Model, float]) -> str:
    rows = []
    for score in scores:
        if score.times != TIMES[0]:
            continue
        stored = score.text
        tuned = {model: stored.tuned(model) for model in stored.models}
        best = stored.best(tuned, {})
        rows.append({
            "text": stored.name,
            "kind": stored.kind,
            "runs": str(len(stored.runs)),
            "rungs": " / ".join(f"{n:,}" for n in stored.lengths[: LAST_RUNG + 1]),
            "minutes": f"{planned_minutes(stored, speeds):.0f}",
            "best": label(best),
            "its loss": f"{stored.test_nats(stored.runs_of(tuned[best], stored.last)):.3f}",
            "picked": ", ".join(
                f"{label(model)} {100 * share:.0f} %" for model, share in
                sorted(score.picked.items(), key=lambda item: -item[1])
            ),
            "handed over": f"{HANDED_OVER['race'](score.means):.4f}",
            "as advised": f"{ADVISED['race'](score.means):.4f}",
            **{name: f"{PICKED[name](score.means):.4f}"
               for name in ("race", "race minus GRU 2", "race minus usual alone")},
            "trained longer": trained_longer(stored, best),
        })  # fmt: skip
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def by_length(texts: Sequence[Stored]) -> str:
    rows = []
    for stored in texts:
        row = {"text": stored.name}
        for number, updates in enumerate(stored.lengths):
            order = ranking(stored, updates)
            if len(order) < 2:  # a check that has only begun
                continue
            (best, nats), (second, behind), *_ = order
            variances = [
                seed_component([run.test_nats for run in stored.tuned_runs(model, updates)])
                for model in (best, second)
            ]
            known = [component.variance for component in variances if component is not None]
            se = f" ± {math.sqrt(sum(known)):.3f}" if len(known) == 2 else ", one seed"
            gap = f"{label(second)} + {behind - nats:.3f}{se}"
            row[f"length {number + 1}"] = f"{updates:,}: {label(best)} {nats:.3f}, {gap}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def ranking(stored: Stored, updates: int) -> list[tuple[Model, float]]:
    """Returns the mean test losses of the models at one length, the best first."""
    nats = {
        model: stored.test_nats(stored.tuned_runs(model, updates))
        for model, length in stored.eligible if length == updates
    }  # fmt: skip
    return sorted(nats.items(), key=lambda item: (item[1], item[0]))


def planned_minutes(stored: Stored, speeds: Mapping[Model, float]) -> float:
    return stored.planned_seconds(speeds) / USABLE / SLOTS / 60


def trained_longer(stored: Stored, best: Model) -> str:
    """Returns whether the last rung's best model is best in the check, too: with one seed, at the
    rate of that rung. A race ends where a longer training does worse on validation text."""
    longer = {planned.arm.model: run for planned, run in stored.runs.items()
              if planned.updates > stored.last}  # fmt: skip
    if best not in longer or len(longer) < 2:
        return ""
    nats = {model: run.test_nats for model, run in longer.items()}
    first = min(nats, key=lambda model: nats[model])
    updates = f"{stored.lengths[-1]:,} updates"
    at_last = mean_nats([run.outcome for run in stored.tuned_runs(best)])
    if min(run.outcome.nats for run in longer.values()) > at_last + WORTH_KNOWING:
        updates += " (over-fits, so a race ends before)"
    if first == best:
        return f"{updates}: the same"
    return f"{updates}: {label(first)}, by {nats[best] - nats[first]:.3f}"
