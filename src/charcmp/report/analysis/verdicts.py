"""The claims of Karpathy, Johnson & Fei-Fei 2015 as verdicts.

A verdict is about seeds and text together, so a model with one seed decides nothing, nor does one
whose mean leaves out seeds that diverged. A claim is taken as it was made, about every pair of the
block's grid (comparisons.py), run or not. For claims 1 and 2a (the others have rules of their own,
in their functions):

does not hold   at least one pair is significantly against it after Holm over the whole family, so
                the chance of refuting a true claim is at most 5 %, however many pairs it has;
holds           every pair of the grid has been run with several seeds, and each is for it by its
                plain 95 % interval (an intersection-union test: it needs no Holm);
undecided       anything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from charcmp.output import counted, first_few
from charcmp.report.analysis.comparisons import Analysis, Difference, Pair, num_places
from charcmp.report.analysis.distances import Distances, trained_places
from charcmp.report.analysis.wording import (
    FEW_EPOCHS_NOTE,
    cell_label,
    interval_text,
    is_short,
    left_out_text,
    name,
    training,
)
from charcmp.uncertainty.intervals import ALPHA, seeds_needed

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided with these runs"
ENOUGH_SEEDS = 3
MOST_SEEDS = 30  # more are more than is practical, and an estimate of so many is no estimate
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
                found.append(_undecided_if_short(_without_advice(verdict, [analysis]), analysis))
    found += _depends_on_corpus(analyses)
    return sorted(found, key=lambda verdict: verdict.claim)


def _without_advice(verdict: Verdict, analyses: Sequence[Analysis]) -> Verdict:
    """Replaces what would decide an open verdict if filters hide runs: those may be the ones."""
    if not (verdict.decided_by and any(analysis.table.is_narrowed for analysis in analyses)):
        return verdict
    return replace(verdict, decided_by="A report of all runs: filters keep some out of this one.")


def _undecided_if_short(verdict: Verdict, analysis: Analysis) -> Verdict:
    """Makes a verdict undecided if trainings are short: claims are about fully trained models."""
    table = analysis.table
    if not is_short(table):
        return verdict
    evidence = f"{verdict.evidence} {FEW_EPOCHS_NOTE}"
    if (num_read := table.epochs_read) < table.epochs:
        evidence += f" These epochs are cut short: a run reads its text {num_read:.2g} times."
    return replace(
        verdict,
        verdict=UNDECIDED,
        evidence=evidence,
        decided_by="Runs of more epochs; the paper's have 50.",
    )


@dataclass(frozen=True)
class _Tally:
    """The pairs of a grid by what they say about a claim that all differences are below 0."""

    missing: list[Pair]  # a model has not been run, or filters keep it out
    diverged: list[Pair]  # every run of a model diverged
    for_it: list[Difference] = field(default_factory=list)  # the plain 95 % interval is below 0
    against: list[Difference] = field(default_factory=list)  # above 0, significant after Holm
    leaning: list[Difference] = field(default_factory=list)  # above 0 by the plain interval alone
    open: list[Difference] = field(default_factory=list)  # the plain interval contains 0
    left_out: list[Difference] = field(default_factory=list)  # a mean leaves out diverged seeds
    one_seed: list[Difference] = field(default_factory=list)  # of a model
    no_interval: list[Difference] = field(default_factory=list)  # over text, whatever the seeds
    is_narrowed: bool = False  # see Table

    @property
    def seeded(self) -> list[Difference]:
        """The pairs that count: with several seeds of both models, all of which were trained."""
        return [*self.for_it, *self.against, *self.leaning, *self.open]

    @property
    def num_finished(self) -> int:
        """How many pairs have finished runs of both models."""
        undecided = (self.left_out, self.one_seed, self.no_interval)
        return len(self.seeded) + sum(map(len, undecided))

    @property
    def num_pairs(self) -> int:
        return self.num_finished + len(self.missing) + len(self.diverged)

    @property
    def is_complete(self) -> bool:
        """Whether every pair of the grid has been run with several seeds."""
        return len(self.seeded) == self.num_pairs

    @property
    def verdict(self) -> str:
        if self.against:
            return FAILS
        return HOLDS if self.num_pairs and len(self.for_it) == self.num_pairs else UNDECIDED


def _tally(analysis: Analysis, family: str, depths: tuple[int, int] | None = None) -> _Tally:
    """Returns the tally of a family's pairs, or of those of two depths (a's and b's)."""
    missing, diverged = (
        [pair for pair in pairs if depths in (None, (pair.a[1], pair.b[1]))]
        for pairs in (analysis.missing(family), analysis.diverged(family))
    )
    tally = _Tally(missing, diverged, is_narrowed=analysis.table.is_narrowed)
    for difference in analysis.differences_of(family):
        if depths in (None, (difference.a.layers, difference.b.layers)):
            _kind(tally, difference).append(difference)
    return tally


def _kind(tally: _Tally, difference: Difference) -> list[Difference]:
    """Returns the list of a tally that a difference belongs to."""
    if difference.leaves_out_seeds:
        return tally.left_out
    if difference.text_variance is None:
        return tally.no_interval
    if difference.both is None:
        return tally.one_seed
    if difference.both.plain_sign == -1:
        return tally.for_it
    if difference.both.sign == 1:
        return tally.against
    return tally.leaning if difference.both.plain_sign == 1 else tally.open


def _named(differences: Sequence[Difference]) -> str:
    """Returns the first few differences, with their intervals."""
    return first_few(
        [
            f"{_pair_name(difference)}: {interval_text(difference.nats, difference.judged)}"
            for difference in differences
        ],
        MOST_NAMED,
        "; ",
    )


def _pair_name(difference: Difference) -> str:
    return f"{name(difference.a)} - {name(difference.b)} at {difference.row}"


def _evidence(tally: _Tally, for_it: str = "for it", against: str = "against it") -> str:
    """Returns what the comparisons say: counts, and the ones that matter by name."""
    parts = []
    if num_seeded := len(tally.seeded):
        counts = [f"{len(tally.for_it)} {for_it} (plain 95 % intervals)",
                  f"{len(tally.against)} significantly {against} (Holm, 5 %)",
                  f"{len(tally.leaning)} {against} by the plain interval alone",
                  f"{len(tally.open)} with 0 in the interval"]  # fmt: skip
        parts.append(
            f"Of the grid's {counted(tally.num_pairs, 'comparison')}, {num_seeded} "
            f"{'has' if num_seeded == 1 else 'have'} been run with several seeds: "
            f"{', '.join(counts)}."
        )
        if len(tally.for_it) == num_seeded < tally.num_pairs and not tally.left_out:
            parts.append(f"All that have been run with several seeds are {for_it} so far.")
    for label, some in (
        (f"significantly {against}", tally.against),
        (f"{against} by the plain interval alone", tally.leaning),
        ("with 0 in the interval", tally.open),
    ):
        if some:
            parts.append(f"{label.capitalize()}: {_named(some)}.")
    if tally.left_out:
        parts.append(_left_out_evidence(tally.left_out))
    if some := tally.one_seed:
        signs = [difference.text.sign for difference in some if difference.text is not None]
        number = counted(len(some), "comparison")
        parts.append(
            f"With one seed, {number}, which decide nothing: on this text "
            f"{signs.count(-1)} {for_it}, {signs.count(1)} {against}, {signs.count(0)} neither."
        )
    if tally.no_interval:
        number = counted(len(tally.no_interval), "comparison")
        parts.append(f"Without an interval over text, {number}, which decide nothing.")
    if tally.missing:
        number = counted(len(tally.missing), "comparison")
        label = "Not in this report" if tally.is_narrowed else "Not run"
        parts.append(f"{label}: {number} ({_pairs(tally.missing)}).")
    if tally.diverged:
        number = counted(len(tally.diverged), "comparison")
        parts.append(f"Every run of a model diverged: {number} ({_pairs(tally.diverged)}).")
    return " ".join(parts)


def _left_out_evidence(differences: Sequence[Difference]) -> str:
    """Names the pairs that count for nothing since a mean leaves out seeds, and the seeds."""
    shown = [
        f"{_pair_name(difference)}: {interval_text(difference.nats, difference.judged)}, "
        + ", ".join(
            f"{name(entry)}: {left_out_text(entry)}"
            for entry in (difference.a, difference.b)
            if entry.num_left_out
        )
        for difference in differences
    ]
    return (
        f"Open, as means leave out seeds that diverged: {counted(len(shown), 'comparison')} "
        f"({first_few(shown, MOST_NAMED, '; ')})."
    )


def _pairs(pairs: Sequence[Pair]) -> str:
    """Returns the first few pairs: `LSTM 1 - RNN 1 at 130k; and 5 more`."""
    shown = [
        f"{cell_label(pair.a[0])} {pair.a[1]} - {cell_label(pair.b[0])} {pair.b[1]} at {pair.row}"
        for pair in pairs
    ]
    return first_few(shown, MOST_NAMED, "; ")


def _decided_by(tally: _Tally, seeds_wanted: Sequence[tuple[Difference, int]]) -> str:
    """Returns what would decide an undecided claim.

    Args:
        tally: of its pairs.
        seeds_wanted: the pairs with several seeds that leave it open, each with the number of
            comparisons in whose family it has to be found.
    """
    parts = []
    if tally.missing:
        parts.append(
            f"The {counted(len(tally.missing), 'comparison')} of the grid that have not been run, "
            f"with {ENOUGH_SEEDS} seeds of each model."
        )
    if tally.diverged or tally.left_out:
        parts.append("A training in which no run diverges, such as one at a lower learning rate.")
    if tally.one_seed:
        parts.append(
            f"Start with {ENOUGH_SEEDS - 1} more seeds of every model ({ENOUGH_SEEDS} in "
            "all): how much a seed changes these losses is not known."
        )
    if tally.no_interval:
        parts.append(_interval_wanted(tally.no_interval))
    for difference, family_size in seeds_wanted[:MOST_NAMED]:
        parts.append(f"{_pair_name(difference)}: {needs(difference, family_size)}.")
    return " ".join(parts)


def _interval_wanted(differences: Sequence[Difference]) -> str:
    """Says what would give an interval over text: no number of seeds does."""
    if all(difference.has_losses for difference in differences):
        return "A longer test text: a single block of characters gives no interval."
    return "Runs that keep their losses on the test text: without them there is no interval."


def needs(difference: Difference, family_size: int) -> str:
    """Says how many more seeds would find a difference of the size seen, at Holm's first step."""
    assert difference.text_variance is not None  # it has several seeds, and is judged over text
    assert difference.seed_variance is not None
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
        return f"{have} seeds would usually have found this; one or two more should settle it"
    more = needed - have
    number = (
        f"about {counted(more, 'more seed')} of each"
        if more <= MOST_SEEDS
        else f"more seeds than is practical (over {MOST_SEEDS})"
    )
    return f"{number}, if the true difference is as large as measured"


def _verdict(claim: str, analysis: Analysis, tally: _Tally, family: str) -> Verdict:
    decided_by = ""
    if tally.verdict == UNDECIDED:
        # A plain interval is enough for a claim; against it, Holm's procedure has to agree.
        size = analysis.family_size(family)
        left = [*tally.leaning, *tally.open]
        decided_by = _decided_by(
            tally, [(difference, 1 if difference.nats < 0 else size) for difference in left]
        )
    return Verdict(claim, _scope(analysis), tally.verdict, _evidence(tally), decided_by)


def _scope(analysis: Analysis) -> str:
    return f"{analysis.table.heading}, {training(analysis.table)}"


def _beats_rnn(analysis: Analysis) -> Verdict | None:
    if not analysis.differences_of("rnn"):
        return None
    claim = "1. LSTM and GRU beat the RNN at equal parameters"
    return _verdict(claim, analysis, _tally(analysis, "rnn"), "rnn")


def _two_layers(analysis: Analysis) -> Verdict | None:
    tally = _tally(analysis, "layers", (2, 1))
    if not tally.num_finished:
        return None
    return _verdict("2a. Two layers beat one", analysis, tally, "layers")


def _three_layers(analysis: Analysis) -> Verdict | None:
    """Judges whether the results of two and three layers are mixed.

    This holds if three layers win somewhere and two elsewhere, both after Holm. It does not hold if
    every pair of the grid is for the same depth by its plain interval.
    """
    tally = _tally(analysis, "layers", (3, 2))
    if not tally.num_finished:
        return None
    seeded = [difference.both for difference in tally.seeded if difference.both]
    decided_by = ""
    if {-1, 1} <= {judged.sign for judged in seeded}:
        verdict = HOLDS
    elif tally.is_complete and {judged.plain_sign for judged in seeded} in ({-1}, {1}):
        verdict = FAILS
    else:
        verdict = UNDECIDED
        size = analysis.family_size("layers")
        left = [
            difference
            for difference in tally.seeded
            if difference.both and difference.both.sign == 0
        ]
        decided_by = _decided_by(tally, [(difference, size) for difference in left])
    return Verdict(
        "2b. Between two and three layers it is mixed",
        _scope(analysis),
        verdict,
        _evidence(tally, "for three layers", "for two"),
        decided_by,
    )


def _depends_on_corpus(analyses: Sequence[Analysis]) -> list[Verdict]:
    """Judges the corpora that were trained alike, protocol by protocol."""
    groups: dict[tuple[str, int], list[Analysis]] = defaultdict(list)
    for analysis in analyses:
        if analysis.differences_of("lstm_gru"):
            table = analysis.table
            groups[table.protocol, table.settings["protocol_version"]].append(analysis)
    found = []
    for (protocol, _), group in groups.items():
        counted_once, others = _fullest_of_each(group)
        shortest = min(counted_once, key=lambda analysis: analysis.table.epochs_read)
        verdict = _corpora_verdict(protocol, counted_once, others)
        found.append(_undecided_if_short(_without_advice(verdict, counted_once), shortest))
    return found


def _fullest_of_each(analyses: Sequence[Analysis]) -> tuple[list[Analysis], list[Analysis]]:
    """Returns one block per corpus, and the others.

    A corpus has several if its text was edited under the same name, or copied under another. The
    block in which most pairs of LSTM and GRU have several seeds counts.
    """
    kept: list[Analysis] = []
    others: list[Analysis] = []
    for analysis in sorted(
        analyses, key=lambda analysis: -len(_tally(analysis, "lstm_gru").seeded)
    ):
        is_counted = any(_is_same_corpus(analysis, earlier) for earlier in kept)
        (others if is_counted else kept).append(analysis)
    return kept, others


def _is_same_corpus(analysis: Analysis, other: Analysis) -> bool:
    return any(
        analysis.table.settings[key] == other.table.settings[key]
        for key in ("dataset", "corpus_sha256")
    )


def _corpora_verdict(
    protocol: str, analyses: Sequence[Analysis], others: Sequence[Analysis]
) -> Verdict:
    """Judges whether LSTM against GRU depends on the corpus.

    This holds if, at some budget and depth, the LSTM wins on one corpus and the GRU on another,
    both after Holm. It does not hold if there are several corpora and one of the two cells wins
    every pair of every grid by its plain interval.
    """
    tallies = [_tally(analysis, "lstm_gru") for analysis in analyses]
    seeded = [difference for tally in tallies for difference in tally.seeded]
    signs: dict[tuple[str, int], set[int]] = defaultdict(set)
    for difference in seeded:
        signs[difference.row, difference.a.layers].add(
            difference.both.sign if difference.both else 0
        )
    corpora = {analysis.table.dataset for analysis in analyses}
    if any({-1, 1} <= at_place for at_place in signs.values()):
        verdict = HOLDS
    elif (
        len(corpora) > 1
        and all(tally.is_complete for tally in tallies)
        and {difference.both.plain_sign for difference in seeded if difference.both} in ({-1}, {1})
    ):
        verdict = FAILS
    else:
        verdict = UNDECIDED
    parts = [
        _corpus_text(analysis, tally) for analysis, tally in zip(analyses, tallies, strict=True)
    ]
    if others:
        headings = "; ".join(analysis.table.heading for analysis in others)
        parts.append(f"Not counted, as each corpus counts once: {headings}")
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
    if any(tally.one_seed for tally in tallies):
        wanted.append(f"{ENOUGH_SEEDS} seeds of LSTM and GRU")
    if any(tally.no_interval for tally in tallies):
        wanted.append("a longer test text, or runs that keep their losses on it")
    if any(tally.diverged or tally.left_out for tally in tallies):
        wanted.append("a training in which no run diverges")
    if num_missing := sum(len(tally.missing) for tally in tallies):
        number = counted(num_missing, "comparison")
        wanted.append(f"the {number} of the grids that have not been run")
    return "; ".join(wanted) or "more seeds where neither is ahead, or more corpora"


def _corpus_text(analysis: Analysis, tally: _Tally) -> str:
    """Returns `wp: of the grid's 12 comparisons, 3 over seeds and text (Holm, 5 %): ...`."""
    parts = []
    if signs := [difference.both.sign for difference in tally.seeded if difference.both]:
        parts.append(
            f"{len(signs)} over seeds and text (Holm, 5 %): LSTM significantly ahead in "
            f"{signs.count(-1)}, GRU in {signs.count(1)}, neither in {signs.count(0)}"
        )
    if signs := [difference.text.sign for difference in tally.one_seed if difference.text]:
        parts.append(
            f"{len(signs)} with one seed, on this text alone: LSTM ahead in {signs.count(-1)}, "
            f"GRU in {signs.count(1)}, neither in {signs.count(0)}"
        )
    if tally.left_out:
        parts.append(f"{len(tally.left_out)} open, as means leave out seeds that diverged")
    if tally.diverged:
        parts.append(f"{len(tally.diverged)} of which every run of a model diverged")
    counts = "; ".join(parts) or "none with an interval"
    number = counted(tally.num_pairs, "comparison")
    return f"{analysis.table.dataset}: of the grid's {number}, {counts}"


def _predict_alike(analysis: Analysis) -> Verdict | None:
    if not (distances := analysis.distances):
        return None
    counting = [at_place for at_place in distances if not at_place.leaves_out_seeds]
    judged = [at_place.both for at_place in counting if at_place.both is not None]
    num_all = num_places(analysis.table)
    diverged = {(pair.row, pair.a[1]) for pair in analysis.diverged("rnn")}
    num_run = len(trained_places(analysis.table))
    num_unmeasured = num_run - len(distances)  # without losses, or on a text of one stretch
    if any(excess.sign == -1 for excess in judged):
        verdict = FAILS
    elif len(judged) == num_all and all(excess.plain_sign == 1 for excess in judged):
        verdict = HOLDS
    else:
        verdict = UNDECIDED
    wanted = []
    if verdict == UNDECIDED:
        if num_missing := num_all - num_run - len(diverged):
            wanted.append(f"the other {num_missing} budgets and depths of the grid")
        if len(judged) < len(counting):
            wanted.append(
                f"{ENOUGH_SEEDS} seeds of LSTM, GRU and RNN: two seeds of one cell also differ"
            )
        if diverged or len(counting) < len(distances):
            wanted.append("a training in which no run diverges")
        if num_unmeasured:
            wanted.append("longer test texts, or runs that keep their losses on them")
        if any(excess.plain_sign != 1 for excess in judged):
            wanted.append("more seeds of the three cells where the RNN is not clearly farther")
    shown = first_few([_distance_text(at_place) for at_place in distances], MOST_NAMED, "; ")
    return Verdict(
        "4. LSTM and GRU predict alike, the RNN differently",
        _scope(analysis),
        verdict,
        f"{len(judged)} of the grid's {num_all} budgets and depths can be judged over seeds and "
        f"text. Mean distance of the probabilities of the correct character. {shown}.",
        "; ".join(wanted),
    )


def _distance_text(distances: Distances) -> str:
    same = (
        f", two seeds of one cell {distances.same_cell:.4f}"
        if distances.same_cell is not None
        else ""
    )
    less = " less the distances of two seeds of one cell" if distances.both else ", text alone"
    seeds = " (open, as diverged seeds are left out)" if distances.leaves_out_seeds else ""
    return (
        f"{counted(distances.layers, 'layer')} at {distances.row}: "
        f"LSTM to GRU {distances.lstm_gru:.4f}, "
        f"to the RNN {distances.lstm_rnn:.4f} and {distances.gru_rnn:.4f}{same}; "
        f"the RNN is farther by {interval_text(distances.excess, distances.judged)}{less}{seeds}"
    )
