"""The claims of Karpathy, Johnson & Fei-Fei 2015 as verdicts.

A verdict speaks of seeds and text together, so a cell with one seed decides nothing. A claim is
read as it was made, of every budget and depth: one comparison against it, told from 0 after Holm,
is a counterexample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from charcmp.report.comparisons import Analysis, Difference
from charcmp.report.distances import Distances
from charcmp.report.statistics import ALPHA, seeds_needed
from charcmp.report.wording import FEW_EPOCHS, FEW_EPOCHS_CAUTION, interval_text, name

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided with these runs"
ENOUGH_SEEDS = 3
MOST_NAMED = 4


@dataclass(frozen=True)
class Verdict:
    """On one claim, in one block (claim 3: over the corpora of one protocol)."""

    claim: str
    scope: str
    verdict: str
    evidence: str
    decided_by: str  # what would decide it; empty where it is decided


def verdicts(analyses: Sequence[Analysis]) -> list[Verdict]:
    """Every claim that the runs say anything about."""
    found = []
    for one in analyses:
        for judge_claim in (_beats_rnn, _two_layers, _three_layers, _predict_alike):
            if (verdict := judge_claim(one)) is not None:
                found.append(_cautioned(verdict, one))
    found += _depends_on_corpus(analyses)
    return sorted(found, key=lambda verdict: verdict.claim)


def _cautioned(verdict: Verdict, analysis: Analysis) -> Verdict:
    """The claims are of models trained to the end: short trainings decide none of them."""
    if analysis.table.epochs >= FEW_EPOCHS:
        return verdict
    return replace(
        verdict,
        verdict=UNDECIDED,
        evidence=f"{verdict.evidence} {FEW_EPOCHS_CAUTION}",
        decided_by="Runs of more epochs; the paper's have 50.",
    )


@dataclass(frozen=True)
class _Tally:
    """Differences sorted by what they say of a claim that wants all of them below 0."""

    for_it: list[Difference]
    against: list[Difference]
    open: list[Difference]  # of several seeds, not told from 0
    unseeded: list[Difference]  # a cell with one seed

    @property
    def verdict(self) -> str:
        if self.against:
            return FAILS
        return UNDECIDED if self.open or self.unseeded else HOLDS


def _tally(differences: Sequence[Difference]) -> _Tally:
    tally = _Tally([], [], [], [])
    for one in differences:
        if one.both is None:
            tally.unseeded.append(one)
        else:
            (tally.open, tally.against, tally.for_it)[one.both.sign].append(one)
    return tally


def _named(differences: Sequence[Difference]) -> str:
    """The first few, with their intervals."""
    shown = [
        f"{name(one.a)} - {name(one.b)} at {one.row}: {interval_text(one.nats, one.judged)}"
        for one in differences[:MOST_NAMED]
    ]
    more = len(differences) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _evidence(tally: _Tally, for_it: str = "for it", against: str = "against") -> str:
    """What the comparisons say, counted, and the ones that matter by name."""
    parts = []
    num_seeded = len(tally.for_it) + len(tally.against) + len(tally.open)
    if num_seeded:
        parts.append(
            f"Of {_comparisons(num_seeded)} over seeds and text, {len(tally.for_it)} {for_it}, "
            f"{len(tally.against)} {against}, {len(tally.open)} open."
        )
    for label, some in ((against, tally.against), ("open", tally.open)):
        if some:
            parts.append(f"{label.capitalize()}: {_named(some)}.")
    if some := tally.unseeded:
        signs = [one.text.sign for one in some if one.text is not None]
        parts.append(
            f"With one seed, {_comparisons(len(some))}: on this text these very models say "
            f"{signs.count(-1)} {for_it}, {signs.count(1)} {against}, {signs.count(0)} open."
        )
        if contrary := [one for one in some if one.text is not None and one.text.sign == 1]:
            parts.append(f"{against.capitalize()}: {_named(contrary)}.")
    return " ".join(parts)


def _comparisons(number: int) -> str:
    return f"{number} comparison{'s' * (number != 1)}"


def _decided_by(tally: _Tally, family_size: Callable[[Difference], int]) -> str:
    if tally.verdict != UNDECIDED:
        return ""
    parts = []
    if tally.unseeded:
        fewest = min(len(cell.seeds) for one in tally.unseeded for cell in (one.a, one.b))
        parts.append(
            f"{ENOUGH_SEEDS - fewest} more seeds of every cell ({ENOUGH_SEEDS} in all) to begin "
            "with: nothing is known of how much a seed moves these losses."
        )
    for one in tally.open[:MOST_NAMED]:
        parts.append(f"{name(one.a)} - {name(one.b)} at {one.row}: {needs(one, family_size(one))}.")
    return " ".join(parts)


def needs(one: Difference, family_size: int) -> str:
    """How many more seeds would tell a difference of the size seen from 0, in words."""
    if one.text_variance is None or one.seed_variance is None:
        return "losses of the single characters are missing"
    have = min(len(one.a.seeds), len(one.b.seeds))
    needed = seeds_needed(
        one.nats, one.text_variance.component, one.seed_variance, ALPHA / family_size
    )
    if needed is None:
        return "more seeds cannot tell so small a difference on this text; more test text could"
    if needed <= have:
        return "these seeds would usually tell such a difference; a few more will"
    return f"about {needed - have} more seeds of each, if the difference is what it looks like"


def _verdict(claim: str, analysis: Analysis, differences: Sequence[Difference]) -> Verdict | None:
    if not differences:
        return None
    tally = _tally(differences)
    decided_by = _decided_by(tally, lambda one: analysis.family_size(one.family, one.row))
    return Verdict(claim, analysis.table.heading, tally.verdict, _evidence(tally), decided_by)


def _beats_rnn(analysis: Analysis) -> Verdict | None:
    claim = "1. LSTM and GRU beat the RNN at equal parameters"
    return _verdict(claim, analysis, analysis.of("rnn"))


def _two_layers(analysis: Analysis) -> Verdict | None:
    two = [one for one in analysis.of("layers") if (one.a.layers, one.b.layers) == (2, 1)]
    return _verdict("2a. Two layers beat one", analysis, two)


def _three_layers(analysis: Analysis) -> Verdict | None:
    """Mixed holds where three layers win somewhere and lose elsewhere."""
    three = [one for one in analysis.of("layers") if (one.a.layers, one.b.layers) == (3, 2)]
    if not three:
        return None
    tally = _tally(three)
    if tally.for_it and tally.against:
        verdict = HOLDS
    elif tally.open or tally.unseeded:
        verdict = UNDECIDED
    else:
        verdict = FAILS
    undecided = _Tally(tally.for_it, [], tally.open, tally.unseeded)
    decided_by = ""
    if verdict == UNDECIDED:
        decided_by = _decided_by(undecided, lambda one: analysis.family_size("layers", one.row))
    return Verdict(
        "2b. Between two and three layers it is mixed",
        analysis.table.heading,
        verdict,
        _evidence(tally, "for three layers", "for two"),
        decided_by,
    )


def _depends_on_corpus(analyses: Sequence[Analysis]) -> list[Verdict]:
    by_protocol = defaultdict(list)
    for analysis in analyses:
        if analysis.of("lstm_gru"):
            by_protocol[analysis.table.protocol].append(analysis)
    return [
        _cautioned(_corpora_verdict(protocol, group), group[0])
        for protocol, group in by_protocol.items()
    ]


def _corpora_verdict(protocol: str, analyses: Sequence[Analysis]) -> Verdict:
    """Holds where at some budget and depth the LSTM wins on one corpus and the GRU on another."""
    signs: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    parts, unseeded, seen = [], 0, set()
    for analysis in analyses:
        tally = _tally(analysis.of("lstm_gru"))
        for one in analysis.of("lstm_gru"):
            sign = one.both.sign if one.both is not None else 0
            signs[one.row, one.a.layers][analysis.table.heading] = sign
            seen.add(sign)
        unseeded += len(tally.unseeded)
        text_signs = [one.text.sign for one in tally.unseeded if one.text is not None]
        both_signs = [one.both.sign for one in analysis.of("lstm_gru") if one.both is not None]
        parts += [
            f"{analysis.table.dataset}, {over}: LSTM ahead in {of.count(-1)}, GRU in "
            f"{of.count(1)}, open {of.count(0)}"
            for over, of in (("over seeds and text", both_signs),
                             ("with one seed, on the text alone", text_signs)) if of
        ]  # fmt: skip
    corpora = {analysis.table.dataset for analysis in analyses}
    if any({-1, 1} <= set(of_corpus.values()) for of_corpus in signs.values()):
        verdict, decided_by = HOLDS, ""
    elif len(corpora) > 1 and seen in ({-1}, {1}):
        verdict, decided_by = FAILS, ""
    else:
        verdict = UNDECIDED
        wanted = []
        if len(corpora) == 1:
            wanted.append("another corpus at the same settings")
        if unseeded:
            wanted.append(f"{ENOUGH_SEEDS} seeds of LSTM and GRU")
        decided_by = "; ".join(wanted) or "more seeds where it is open, or more corpora"
    return Verdict(
        "3. LSTM against GRU depends on the corpus",
        " and ".join(sorted(corpora)) + f", {protocol}",
        verdict,
        ". ".join(parts) + ".",
        decided_by,
    )


def _predict_alike(analysis: Analysis) -> Verdict | None:
    if not (distances := analysis.distances):
        return None
    signs = [one.both.sign if one.both else None for one in distances]
    decided_by = ""
    if -1 in signs:
        verdict = FAILS
    elif set(signs) == {1}:
        verdict = HOLDS
    else:
        verdict = UNDECIDED
        decided_by = (
            f"{ENOUGH_SEEDS} seeds of LSTM, GRU and RNN: two seeds of one cell also differ"
            if None in signs
            else "more seeds of the three cells where the interval contains 0"
        )
    shown = "; ".join(map(_distance_text, distances[:MOST_NAMED]))
    return Verdict(
        "4. LSTM and GRU predict alike, the RNN differently",
        analysis.table.heading,
        verdict,
        f"Mean distance of the probabilities of the correct character. {shown}.",
        decided_by,
    )


def _distance_text(one: Distances) -> str:
    same = f", two seeds of one cell {one.same_cell:.4f}" if one.same_cell is not None else ""
    over = "" if one.both else ", text alone"
    return (
        f"{one.layers} layer{'s' * (one.layers > 1)} at {one.row}: LSTM to GRU {one.lstm_gru:.4f}, "
        f"to the RNN {one.lstm_rnn:.4f} and {one.gru_rnn:.4f}{same}; the RNN is farther by "
        f"{interval_text(one.excess, one.judged)}{over}"
    )
