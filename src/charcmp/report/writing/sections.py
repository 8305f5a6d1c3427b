"""The statistics as rows to print: claims, differences by family, checks, distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charcmp.output import bits
from charcmp.report.analysis.baselines import Standing
from charcmp.report.analysis.comparisons import FAMILIES, Analysis, Difference
from charcmp.report.analysis.distances import Distances
from charcmp.report.analysis.findings import Findings
from charcmp.report.analysis.recommend import SAMPLING_NOTE
from charcmp.report.analysis.speed import comparable_speeds, rows_of_many, speed_note
from charcmp.report.analysis.verdicts import needs
from charcmp.report.analysis.wording import interval_text, name
from charcmp.report.tables import Entry, Table

QUESTIONS = (
    "text: would these very models keep their order on as much other text of this kind? Paired "
    "circular block bootstrap over the same test characters; blocks stay within a series "
    "(a stream of `columns`, the whole test text of `contiguous`). Their length is the automatic "
    "one (Politis & White 2004, Patton 2009), or a whole series where whole series give a standard "
    "error larger by more than chance explains: the check. With fewer than ten series, as in "
    "`contiguous`, blocks are at least so long that the text has about eight of them, as the check "
    "is not possible there.",
    "seeds: would models of other seeds keep it on this same text? Welch's t, seeds unpaired.",
    "seeds and text: would models of other seeds keep it on other text? The two variances added, "
    "degrees of freedom by Satterthwaite, at most those of the seeds. Needs two seeds of each.",
    "Intervals are plain ones of 95 %, each for its own difference. p-values are adjusted by "
    "Holm's procedure for the family, and those up to 0.05 are `significantly different (Holm, "
    "5 %)`: so an interval may leave out 0 where the difference is not significant. Where a model "
    "has one seed, `these runs differ on this text` says nothing of other runs of these models.",
    "A family is one kind of comparison in all rows of a block. It has as many members as the "
    "block's grid has pairs, whether they have been run or not (under the paper's protocol: three "
    "cells, three depths, four budgets). The comparisons with the best model of a row are "
    "not a family fixed beforehand, since validation loss chooses that model; Holm's procedure "
    "counts the models of the row. They decide which figures are bold and how sure the choice of a "
    "model is; no claim rests on them.",
)


DISTANCE_NOTES = (
    "Mean absolute difference of the probabilities given to the correct character at the sampled "
    "test positions (10,000, or all of a shorter text).",
    "The RNN is farther by: its mean distance from LSTM and GRU minus theirs, each distance of two "
    "cells less the mean distance of two seeds of one of them (half the energy distance). Needs "
    "two seeds of each model; without them distances are not corrected, and nothing is decided.",
)


BASELINE_NOTES = (
    "n-gram: interpolated modified Kneser-Ney (Chen & Goodman 1999), the length of its contexts "
    "chosen by validation loss among 0 to 20 characters. Pruned: it keeps as many counts as the "
    "budget has parameters, the most valuable ones. A count is stored together with its "
    "string, so at equal numbers an n-gram model takes more memory than a network.",
    "Compressors: what the test text adds to the size of the compressed training text.",
    "Ahead of: the models whose mean test loss is higher; no test of significance.",
)


RANKING_NOTE = (
    "The best is the model with the lowest mean validation loss. Plain intervals: over seeds and "
    "text; over text alone where a model has one seed, and then another seed may lie outside."
)


@dataclass(frozen=True)
class Section:
    """A table to print, with the notes that it needs."""

    title: str
    rows: list[dict[str, str]]
    notes: tuple[str, ...] = ()


def sections(findings: Findings) -> list[Section]:
    """Returns all sections, in reading order."""
    found = [
        Section(
            "Which model to use",
            [],
            (
                *(
                    f"{recommendation.heading}. {recommendation.text()}"
                    for recommendation in findings.advice
                ),
                SAMPLING_NOTE,
            ),
        ),
        Section(
            "The paper's claims",
            [
                {
                    "claim": verdict.claim,
                    "runs": verdict.scope,
                    "verdict": verdict.verdict,
                    "evidence": verdict.evidence,
                    "what would decide it": verdict.decided_by,
                }
                for verdict in findings.claims
            ],
        ),
    ]
    for analysis in findings.analyses:
        if placed := findings.baselines_of(analysis):
            title = f"{analysis.table.heading}: baselines"
            found.append(Section(title, baseline_rows(placed), baseline_notes(placed)))
        for row in rows_of_many(analysis.table):
            title = f"{analysis.table.heading}: the models at {row} in order of test loss"
            note = speed_note(analysis.table.done_in(row))
            found.append(Section(title, ranking_rows(analysis, row), (RANKING_NOTE, note)))
        for family, title in FAMILIES.items():
            if of_family := analysis.differences_of(family):
                rows = [difference_row(analysis, difference) for difference in of_family]
                found.append(Section(f"{analysis.table.heading}: {title}", rows))
        if distances := analysis.distances:
            found.append(
                Section(
                    f"{analysis.table.heading}: how alike they predict",
                    [distance_row(at_place) for at_place in distances],
                    DISTANCE_NOTES,
                )
            )  # fmt: skip
    found.append(Section("Which question each interval answers", [], QUESTIONS))
    return found


def ranked_entries(table: Table, row: str) -> list[Entry]:
    """Returns the trained models of a row in order of test loss."""
    return sorted(table.done_in(row), key=lambda entry: entry.test_nats)


def ranking_rows(analysis: Analysis, row: str) -> list[dict[str, str]]:
    """Returns a line for each model of a row, as text, in order of test loss."""
    entries = ranked_entries(analysis.table, row)
    speeds = comparable_speeds(entries).by_column
    from_best = {found.a.column: found for found in analysis.differences_of("best", row)}
    from_lstm = {
        column: interval_text(found.nats, found.judged, is_turned)
        for column, (found, is_turned) in analysis.from_lstm(row).items()
    }
    rows = []
    for entry in entries:
        best = from_best.get(entry.column)
        rows.append({
            "model": name(entry),
            "units": str(entry.hidden_size),
            "learning rate": "" if math.isnan(entry.rate) else f"{entry.rate:g}",
            "seeds": _seeds_text(entry),
            "test": f"{entry.test_nats:.3f}",
            "SD, seeds": "" if entry.sd_over_seeds is None else f"{entry.sd_over_seeds:.4f}",
            "from the best (95 % interval)":
                "" if best is None else interval_text(best.nats, best.judged),
            "from the LSTM (95 % interval)": from_lstm.get(entry.column, ""),
            "characters/s":
                f"{speeds[entry.column]:,.0f}" if entry.column in speeds else "",
        })  # fmt: skip
    return rows


def baseline_rows(placed: Sequence[Standing]) -> list[dict[str, str]]:
    """Returns the baselines of a block, as text."""
    return [
        {
            "baseline": standing.baseline.name,
            "stored counts": ""
            if standing.baseline.size is None
            else f"{standing.baseline.size:,}",
            "test nats per character": f"{standing.baseline.nats_per_char:.3f}",
            "bits": f"{bits(standing.baseline.nats_per_char):.3f}",
            "ahead of": "; ".join(
                f"{row}: {_ahead_text(standing, row)}" for row in standing.ahead_of
            ),
        }
        for standing in placed
    ]


def _ahead_text(standing: Standing, row: str) -> str:
    """Returns, for example, `LSTM 3, RNN 1`, `all 9 models` or `none`."""
    ahead, num_models = standing.ahead_of[row], standing.num_models[row]
    if len(ahead) == num_models > 1:
        return f"all {num_models} models"
    return ", ".join(map(name, ahead)) or "none"


def baseline_notes(placed: Sequence[Standing]) -> tuple[str, ...]:
    """Returns the notes on a block's baselines."""
    own = [
        f"{standing.baseline.name}: {standing.baseline.note}."
        for standing in placed
        if standing.baseline.note
    ]
    return (*BASELINE_NOTES, *own)


def difference_row(analysis: Analysis, difference: Difference) -> dict[str, str]:
    """Returns a comparison, its interval, and what it would take to find such a difference."""
    judged = difference.judged
    row = {
        "budget": difference.row,
        "difference": f"{name(difference.a)} - {name(difference.b)}",
        "nats per character (95 % interval)": interval_text(difference.nats, judged),
        "over": "" if judged is None else "seeds and text" if difference.both else "text alone",
        "Holm's p": "" if judged is None else p_text(judged.p_holm),
        "Holm, 5 %": significance_text(difference),
        "SE, text": "" if difference.text is None else f"{difference.text.estimate.se:.4f}",
        "SE, seeds": "" if difference.seeds is None else f"{difference.seeds.se:.4f}",
        "seeds": ", ".join(map(_seeds_text, (difference.a, difference.b))),
        "block, check": check_text(difference),
    }
    row["to find such a difference"] = ""
    if judged is not None and not judged.significant:
        row["to find such a difference"] = (
            needs(difference, analysis.family_size(difference.family))
            if difference.both
            else "more seeds first"
        )
    return row


def _seeds_text(entry: Entry) -> str:
    """Returns the number of seeds, and of those that diverged: `2 (1 diverged)`."""
    left_out = f" ({entry.num_left_out} diverged)" if entry.num_left_out else ""
    return f"{len(entry.seeds)}{left_out}"


def significance_text(difference: Difference) -> str:
    """Says whether the models differ or, where one has a single seed, whether these runs do.

    Two seeds of one model mostly differ as well, on any one text.
    """
    if (judged := difference.judged) is None:
        return ""
    if difference.both is None:
        return f"these runs {'' if judged.significant else 'may not '}differ on this text"
    return ("" if judged.significant else "not ") + "significantly different"


def p_text(p_value: float) -> str:
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"


def check_text(difference: Difference) -> str:
    """Returns, for example, `3,300 characters; SE 0.0013 at 100, 0.0015 at 3,300`."""
    if (text := difference.text_variance) is None:
        return "one block of text: no variance" if difference.has_losses else "no losses"
    unit = next(run.losses.block_length for run in difference.a.runs if run.losses is not None)
    check = ", ".join(f"{se:.4f} at {length * unit:,}" for length, se in text.se_of_length.items())
    return f"{text.block_length * unit:,} characters; SE {check}"


def distance_row(distances: Distances) -> dict[str, str]:
    """Returns the distances of claim 4 at one budget and depth, as text."""
    return {
        "budget": distances.row,
        "layers": str(distances.layers),
        "LSTM to GRU": f"{distances.lstm_gru:.4f}",
        "LSTM to RNN": f"{distances.lstm_rnn:.4f}",
        "GRU to RNN": f"{distances.gru_rnn:.4f}",
        "two seeds of LSTM, GRU, RNN": ", ".join(
            "—" if own is None else f"{own:.4f}" for own in distances.within
        ),
        "the RNN is farther by (95 % interval)": interval_text(distances.excess, distances.judged),
        "over": "seeds and text" if distances.both else "text alone, not corrected",
        "seeds": str(distances.num_seeds),
    }


def difference_records(analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """Returns every number of every comparison, for differences.csv."""
    return [
        _difference_record(analysis, difference)
        for analysis in analyses
        for difference in analysis.differences
    ]


def _difference_record(analysis: Analysis, difference: Difference) -> dict[str, Any]:
    record: dict[str, Any] = {
        "block": analysis.table.heading,
        "dataset": analysis.table.dataset,
        "family": difference.family,
        "family_size": analysis.family_size(difference.family),
        "budget": difference.row,
        "cell_a": difference.a.cell,
        "layers_a": difference.a.layers,
        "num_seeds_a": len(difference.a.seeds),
        "cell_b": difference.b.cell,
        "layers_b": difference.b.layers,
        "num_seeds_b": len(difference.b.seeds),
        "difference_nats_per_char": difference.nats,
    }
    text = difference.text_variance
    record |= {
        "text_block_base_blocks": text and text.block_length,
        "text_block_by_rule": text and text.rule_length,
        "text_se_check": text
        and " ".join(f"{length}:{se:.6f}" for length, se in text.se_of_length.items()),
        "text_se": text and text.se,
        "text_se_resampled": difference.resampled and difference.resampled.sd,
        "text_low_resampled": difference.resampled and difference.resampled.interval[0],
        "text_high_resampled": difference.resampled and difference.resampled.interval[1],
    }
    for kind, judged in (("text", difference.text), ("both", difference.both)):
        low, high = judged.interval if judged else (math.nan, math.nan)
        record |= {
            f"{kind}_p_holm": judged and judged.p_holm,
            f"{kind}_significant": judged and judged.significant,
            f"{kind}_low_95": low,
            f"{kind}_high_95": high,
        }
    low, high = difference.seeds.interval() if difference.seeds else (math.nan, math.nan)
    return record | {
        "seeds_se": difference.seeds and difference.seeds.se,
        "seeds_df": difference.seeds and difference.seeds.df,
        "seeds_low_95": low,
        "seeds_high_95": high,
        "both_se": difference.both and difference.both.estimate.se,
        "both_df": difference.both and difference.both.estimate.df,
    }
