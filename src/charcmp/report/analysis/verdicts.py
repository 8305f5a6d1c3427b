"""The claims of Karpathy, Johnson & Fei-Fei 2015 as verdicts.

A verdict is about seeds and text together, so a model with one seed decides nothing. A claim is
taken as it was made, about every pair of the block's grid (comparisons.py), run or not:

does not hold   at least one pair is significantly against it after Holm over the whole family, so
                the chance of refuting a true claim is at most 5 %, however many pairs it has;
holds           every pair of the grid has been run with several seeds, and each is for it by its
                plain 95 % interval (an intersection-union test: it needs no Holm);
undecided       anything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from charcmp.report.analysis.comparisons import Analysis, Difference, Pair
from charcmp.report.analysis.distances import Distances
from charcmp.report.analysis.wording import (
    FEW_EPOCHS,
    FEW_EPOCHS_NOTE,
    cell_label,
    interval_text,
    name,
    training,
)
from charcmp.uncertainty.intervals import ALPHA, seeds_needed

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided with these runs"
ENOUGH_SEEDS = 3
MOST_NAMED = 4


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim in one block (claim 3: over the corpora of one protocol)."""

    claim: str
    scope: str
    verdict: str
    evidence: str
    decided_by: str  # what would decide it; empty if it is decided


def verdicts(analyses: Sequence[Analysis]) -> list[Verdict]:
    """Returns a verdict on every claim that the runs say anything about."""
    found = []
    for analysis in analyses:
        for judge_claim in (_beats_rnn, _two_layers, _three_layers, _predict_alike):
            if (verdict := judge_claim(analysis)) is not None:
                found.append(_undecided_if_short(verdict, analysis))
    found += _depends_on_corpus(analyses)
    return sorted(found, key=lambda verdict: verdict.claim)


def _undecided_if_short(verdict: Verdict, analysis: Analysis) -> Verdict:
    """Makes a verdict undecided if trainings are short: claims are about fully trained models."""
    if analysis.table.epochs >= FEW_EPOCHS:
        return verdict
    return replace(
        verdict,
        verdict=UNDECIDED,
        evidence=f"{verdict.evidence} {FEW_EPOCHS_NOTE}",
        decided_by="Runs of more epochs; the paper's have 50.",
    )


@dataclass(frozen=True)
class _Tally:
    """The pairs of a grid by what they say about a claim that all differences are below 0."""

    for_it: list[Difference]  # the plain 95 % interval lies below 0
    against: list[Difference]  # above 0, significant after Holm
    open: list[Difference]  # all others with several seeds
    unseeded: list[Difference]  # a model with one seed, or no interval over text
    missing: list[Pair]  # not run, or diverged

    @property
    def num_pairs(self) -> int:
        return self.num_seeded + len(self.unseeded) + len(self.missing)

    @property
    def num_seeded(self) -> int:
        return len(self.for_it) + len(self.against) + len(self.open)

    @property
    def is_complete(self) -> bool:
        """Whether every pair of the grid has been run with several seeds."""
        return self.num_seeded == self.num_pairs

    @property
    def verdict(self) -> str:
        if self.against:
            return FAILS
        return HOLDS if self.num_pairs and len(self.for_it) == self.num_pairs else UNDECIDED


def _tally(differences: Sequence[Difference], missing: Sequence[Pair]) -> _Tally:
    tally = _Tally([], [], [], [], list(missing))
    for difference in differences:
        if difference.both is None:
            tally.unseeded.append(difference)
        elif difference.both.plain_sign == -1:
            tally.for_it.append(difference)
        else:
            (tally.against if difference.both.sign == 1 else tally.open).append(difference)
    return tally


def _named(differences: Sequence[Difference]) -> str:
    """Returns the first few differences, with their intervals."""
    shown = [
        f"{name(one.a)} - {name(one.b)} at {one.row}: {interval_text(one.nats, one.judged)}"
        for one in differences[:MOST_NAMED]
    ]
    more = len(differences) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _evidence(tally: _Tally, for_it: str = "for it", against: str = "against it") -> str:
    """Returns what the comparisons say: counts, and the ones that matter by name."""
    parts = []
    if tally.num_seeded:
        counts = [f"{len(tally.for_it)} {for_it} (plain 95 % intervals)",
                  f"{len(tally.against)} significantly {against} (Holm, 5 %)",
                  f"{len(tally.open)} neither"]  # fmt: skip
        parts.append(
            f"Of the grid's {_comparisons(tally.num_pairs)}, {tally.num_seeded} "
            f"{'has' if tally.num_seeded == 1 else 'have'} been run with several seeds: "
            f"{', '.join(counts)}."
        )
        if len(tally.for_it) == tally.num_seeded < tally.num_pairs:
            parts.append(f"All that have been run with several seeds are {for_it} so far.")
    for label, some in ((f"significantly {against}", tally.against), ("neither", tally.open)):
        if some:
            parts.append(f"{label.capitalize()}: {_named(some)}.")
    if some := tally.unseeded:
        signs = [one.text.sign for one in some if one.text is not None]
        parts.append(
            f"With one seed or no interval over text, {_comparisons(len(some))}, which decide "
            f"nothing: by text alone, {signs.count(-1)} significantly {for_it}, {signs.count(1)} "
            f"{against}, {len(some) - signs.count(-1) - signs.count(1)} neither."
        )
    if tally.missing:
        parts.append(f"Not run: {_comparisons(len(tally.missing))} ({_pairs(tally.missing)}).")
    return " ".join(parts)


def _pairs(missing: Sequence[Pair]) -> str:
    """Returns the first few pairs: `LSTM 1 - RNN 1 at 130k; and 5 more`."""
    shown = [
        f"{cell_label(pair.a[0])} {pair.a[1]} - {cell_label(pair.b[0])} {pair.b[1]} at {pair.row}"
        for pair in missing[:MOST_NAMED]
    ]
    more = len(missing) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _comparisons(number: int) -> str:
    return f"{number} comparison{'s' * (number != 1)}"


def _decided_by(tally: _Tally, family_size: int) -> str:
    """Returns what would decide an undecided claim."""
    parts = []
    if tally.missing:
        parts.append(
            f"The {_comparisons(len(tally.missing))} of the grid that have not been run, with "
            f"{ENOUGH_SEEDS} seeds of each model."
        )
    if tally.unseeded:
        fewest = min(len(entry.seeds) for one in tally.unseeded for entry in (one.a, one.b))
        more = max(ENOUGH_SEEDS - fewest, 0)
        parts.append(
            f"Start with {more} more seeds of every model ({ENOUGH_SEEDS} in all): how much a seed "
            "changes these losses is not known."
        )
    for one in tally.open[:MOST_NAMED]:
        parts.append(f"{name(one.a)} - {name(one.b)} at {one.row}: {needs(one, family_size)}.")
    return " ".join(parts)


def needs(difference: Difference, family_size: int) -> str:
    """Says how many more seeds would find a difference of the size seen, at Holm's first step."""
    if difference.text_variance is None or difference.seed_variance is None:
        return "losses of the single characters are missing"
    have = min(len(difference.a.seeds), len(difference.b.seeds))
    needed = seeds_needed(
        difference.nats,
        difference.text_variance.component,
        difference.seed_variance,
        ALPHA / family_size,
    )
    if needed is None:
        return "more seeds cannot find so small a difference on this text; more test text could"
    if needed <= have:
        return "this many seeds usually find such a difference; add a few more"
    more = needed - have
    return f"about {more} more seeds of each, if the true difference is as large as measured"


def _verdict(claim: str, analysis: Analysis, tally: _Tally, family: str) -> Verdict:
    open_still = tally.verdict == UNDECIDED
    decided_by = _decided_by(tally, analysis.family_size(family)) if open_still else ""
    return Verdict(claim, _scope(analysis), tally.verdict, _evidence(tally), decided_by)


def _scope(analysis: Analysis) -> str:
    return f"{analysis.table.heading}, {training(analysis.table)}"


def _beats_rnn(analysis: Analysis) -> Verdict | None:
    if not (differences := analysis.differences_of("rnn")):
        return None
    claim = "1. LSTM and GRU beat the RNN at equal parameters"
    return _verdict(claim, analysis, _tally(differences, analysis.missing("rnn")), "rnn")


def _depths(analysis: Analysis, deeper: int, shallower: int) -> _Tally | None:
    """Returns the tally of the pairs of two depths, or None if no such pair has been run."""
    depths = (deeper, shallower)
    run = [
        one for one in analysis.differences_of("layers") if (one.a.layers, one.b.layers) == depths
    ]
    missing = [one for one in analysis.missing("layers") if (one.a[1], one.b[1]) == depths]
    return _tally(run, missing) if run else None


def _two_layers(analysis: Analysis) -> Verdict | None:
    if (tally := _depths(analysis, 2, 1)) is None:
        return None
    return _verdict("2a. Two layers beat one", analysis, tally, "layers")


def _three_layers(analysis: Analysis) -> Verdict | None:
    """Judges whether the results of two and three layers are mixed.

    This holds if three layers win somewhere and two elsewhere, both after Holm. It does not hold if
    every pair of the grid is for the same depth by its plain interval.
    """
    if (tally := _depths(analysis, 3, 2)) is None:
        return None
    seeded = [one.both for one in [*tally.for_it, *tally.against, *tally.open] if one.both]
    if {-1, 1} <= {one.sign for one in seeded}:
        verdict = HOLDS
    elif tally.is_complete and {one.plain_sign for one in seeded} in ({-1}, {1}):
        verdict = FAILS
    else:
        verdict = UNDECIDED
    open_still = verdict == UNDECIDED
    return Verdict(
        "2b. Between two and three layers it is mixed",
        _scope(analysis),
        verdict,
        _evidence(tally, "for three layers", "for two"),
        _decided_by(tally, analysis.family_size("layers")) if open_still else "",
    )


def _depends_on_corpus(analyses: Sequence[Analysis]) -> list[Verdict]:
    by_protocol = defaultdict(list)
    for analysis in analyses:
        if analysis.differences_of("lstm_gru"):
            by_protocol[analysis.table.protocol].append(analysis)
    return [
        _undecided_if_short(_corpora_verdict(protocol, group), group[0])
        for protocol, group in by_protocol.items()
    ]


def _corpora_verdict(protocol: str, analyses: Sequence[Analysis]) -> Verdict:
    """Judges whether LSTM against GRU depends on the corpus.

    This holds if, at some budget and depth, the LSTM wins on one corpus and the GRU on another,
    both after Holm. It does not hold if there are several corpora and one of the two cells wins
    every pair of every grid by its plain interval.
    """
    tallies = [_tally(one.differences_of("lstm_gru"), one.missing("lstm_gru")) for one in analyses]
    seeded = [
        (one.row, one.a.layers, one.both)
        for analysis in analyses
        for one in analysis.differences_of("lstm_gru")
        if one.both is not None
    ]
    signs: dict[tuple[str, int], set[int]] = defaultdict(set)
    for row, layers, judged in seeded:
        signs[row, layers].add(judged.sign)
    corpora = {analysis.table.dataset for analysis in analyses}
    if any({-1, 1} <= at_place for at_place in signs.values()):
        verdict = HOLDS
    elif (
        len(corpora) > 1
        and all(tally.is_complete for tally in tallies)
        and {judged.plain_sign for *_, judged in seeded} in ({-1}, {1})
    ):
        verdict = FAILS
    else:
        verdict = UNDECIDED
    parts = [
        _corpus_text(analysis, tally) for analysis, tally in zip(analyses, tallies, strict=True)
    ]
    return Verdict(
        "3. LSTM against GRU depends on the corpus",
        f"{' and '.join(sorted(corpora))}, {protocol}, {training(analyses[0].table)}",
        verdict,
        ". ".join(parts) + ".",
        _corpora_decided_by(corpora, tallies) if verdict == UNDECIDED else "",
    )


def _corpora_decided_by(corpora: Collection[str], tallies: Sequence[_Tally]) -> str:
    """Returns what would decide whether LSTM against GRU depends on the corpus."""
    wanted = []
    if len(corpora) == 1:
        wanted.append("another corpus with the same settings")
    if any(tally.unseeded for tally in tallies):
        wanted.append(f"{ENOUGH_SEEDS} seeds of LSTM and GRU")
    if num_missing := sum(len(tally.missing) for tally in tallies):
        wanted.append(f"the {_comparisons(num_missing)} of the grids that have not been run")
    return "; ".join(wanted) or "more seeds where neither is ahead, or more corpora"


def _corpus_text(analysis: Analysis, tally: _Tally) -> str:
    """Returns `wp: of the grid's 12 comparisons, 3 over seeds and text (Holm, 5 %): ...`."""
    counted = []
    both = [one.both.sign for one in analysis.differences_of("lstm_gru") if one.both is not None]
    text = [one.text.sign for one in tally.unseeded if one.text is not None]
    for over, signs in (
        ("over seeds and text", both),
        ("with one seed, on the text alone", text),
    ):
        if signs:
            counted.append(
                f"{len(signs)} {over} (Holm, 5 %): LSTM significantly ahead in {signs.count(-1)}, "
                f"GRU in {signs.count(1)}, neither in {signs.count(0)}"
            )
    counts = "; ".join(counted) or "none with an interval"
    return f"{analysis.table.dataset}: of the grid's {_comparisons(tally.num_pairs)}, {counts}"


def _predict_alike(analysis: Analysis) -> Verdict | None:
    if not (distances := analysis.distances):
        return None
    judged = [one.both for one in distances if one.both is not None]
    num_places = analysis.num_places
    if any(excess.sign == -1 for excess in judged):
        verdict = FAILS
    elif len(judged) == num_places and all(excess.plain_sign == 1 for excess in judged):
        verdict = HOLDS
    else:
        verdict = UNDECIDED
    wanted = []
    if verdict == UNDECIDED:
        if num_places > len(distances):
            wanted.append(f"the other {num_places - len(distances)} budgets and depths of the grid")
        if len(judged) < len(distances):
            wanted.append(
                f"{ENOUGH_SEEDS} seeds of LSTM, GRU and RNN: two seeds of one cell also differ"
            )
        if any(excess.plain_sign != 1 for excess in judged):
            wanted.append("more seeds of the three cells where the interval contains 0")
    shown = "; ".join(map(_distance_text, distances[:MOST_NAMED]))
    more = len(distances) - MOST_NAMED
    return Verdict(
        "4. LSTM and GRU predict alike, the RNN differently",
        _scope(analysis),
        verdict,
        f"Of the grid's {num_places} budgets and depths, {len(judged)} have been run with several "
        f"seeds. Mean distance of the probabilities of the correct character. {shown}"
        + (f"; and {more} more." if more > 0 else "."),
        "; ".join(wanted),
    )


def _distance_text(distances: Distances) -> str:
    same = (
        f", two seeds of one cell {distances.same_cell:.4f}"
        if distances.same_cell is not None
        else ""
    )
    less = " less the distances of two seeds of one cell" if distances.both else ", text alone"
    return (
        f"{distances.layers} layer{'s' * (distances.layers > 1)} at {distances.row}: "
        f"LSTM to GRU {distances.lstm_gru:.4f}, "
        f"to the RNN {distances.lstm_rnn:.4f} and {distances.gru_rnn:.4f}{same}; "
        f"the RNN is farther by {interval_text(distances.excess, distances.judged)}{less}"
    )
