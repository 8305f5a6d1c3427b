"""The statistics as rows to print: claims, differences by family, checks, distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charcmp.report.comparisons import FAMILIES, Analysis, Difference
from charcmp.report.distances import Distances
from charcmp.report.findings import Findings
from charcmp.report.recommend import SAMPLING_NOTE
from charcmp.report.verdicts import needs
from charcmp.report.wording import interval_text, name

QUESTIONS = (
    "text: would these very models keep their order on as much other text of this kind? Paired "
    "circular block bootstrap over the same test characters; blocks stay within a row of the "
    "split. Their length is the automatic one (Politis & White 2004, Patton 2009), or a whole row "
    "where whole rows give a standard error larger by more than chance explains: the check.",
    "seeds: would models of other seeds keep it on this same text? Welch's t, seeds unpaired.",
    "seeds and text: would models of other seeds keep it on other text? The two variances added, "
    "degrees of freedom by Satterthwaite. Needs two seeds of each cell.",
    "A family is one kind of comparison in one row. Intervals of 95 % are Holm-adjusted: each at "
    "the level that Holm's procedure judged its difference at, so that it leaves out 0 exactly "
    "where the difference is told from 0. The comparisons with the best cell of a row are no "
    "family fixed beforehand, as the data choose it; they mark the table's bold figures, no more.",
)


@dataclass(frozen=True)
class Section:
    """A table to print, with what must be known of it."""

    title: str
    rows: list[dict[str, str]]
    notes: tuple[str, ...] = ()


def sections(findings: Findings) -> list[Section]:
    """All of them, in reading order."""
    found = [
        Section(
            "What to take",
            [],
            (*(f"{one.heading}. {one.text()}" for one in findings.advice), SAMPLING_NOTE),
        ),
        Section(
            "The paper's claims",
            [
                {
                    "claim": one.claim,
                    "runs": one.scope,
                    "verdict": one.verdict,
                    "evidence": one.evidence,
                    "what would decide it": one.decided_by,
                }
                for one in findings.claims
            ],
        ),
    ]
    for analysis in findings.analyses:
        for family, title in FAMILIES.items():
            if of_family := analysis.of(family):
                rows = [difference_row(analysis, one) for one in of_family]
                found.append(Section(f"{analysis.table.heading}: {title}", rows))
        if distances := analysis.distances:
            found.append(
                Section(
                    f"{analysis.table.heading}: how alike they predict",
                    [distance_row(one) for one in distances],
                    ("Mean absolute difference of the probabilities given to the correct character "
                     "at the sampled test positions (10,000, or all of a shorter text).",),
                )
            )  # fmt: skip
    found.append(Section("Which question each interval answers", [], QUESTIONS))
    return found


def difference_row(analysis: Analysis, one: Difference) -> dict[str, str]:
    """A comparison, its interval, and what it would take to tell it from 0."""
    judged = one.judged
    row = {
        "budget": one.row,
        "difference": f"{name(one.a)} - {name(one.b)}",
        "nats per character": interval_text(one.nats, judged),
        "over": "" if judged is None else "seeds and text" if one.both else "text alone",
        "Holm's p": "" if judged is None else p_text(judged.p_holm),
        "SE, text": "" if one.text is None else f"{one.text.estimate.se:.4f}",
        "SE, seeds": "" if one.seeds is None else f"{one.seeds.se:.4f}",
        "seeds": f"{len(one.a.seeds)}, {len(one.b.seeds)}",
        "block, check": check_text(one),
    }
    if judged is not None and not judged.rejected:
        size = analysis.family_size(one.family, one.row)
        row["to tell it"] = (
            needs(one, size) if one.both else "more seeds first" if one.seeds is None else ""
        )
    else:
        row["to tell it"] = ""
    return row


def p_text(p_value: float) -> str:
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"


def check_text(one: Difference) -> str:
    """`3300 chars; SE 0.0013 at 100, 0.0015 at 3300`"""
    if (text := one.text_variance) is None:
        return "no losses"
    unit = next(run.losses.block_length for run in one.a.runs if run.losses is not None)
    check = ", ".join(f"{se:.4f} at {length * unit:,}" for length, se in text.se_of_length.items())
    return f"{text.block_length * unit:,} characters; SE {check}"


def distance_row(one: Distances) -> dict[str, str]:
    """Claim 4 at one budget and depth."""
    return {
        "budget": one.row,
        "layers": str(one.layers),
        "LSTM to GRU": f"{one.lstm_gru:.4f}",
        "LSTM to RNN": f"{one.lstm_rnn:.4f}",
        "GRU to RNN": f"{one.gru_rnn:.4f}",
        "two seeds of a cell": "" if one.same_cell is None else f"{one.same_cell:.4f}",
        "the RNN is farther by": interval_text(one.excess, one.judged),
        "over": "seeds and text" if one.both else "text alone",
        "seeds": str(one.num_seeds),
    }


def difference_records(analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """Every number of every comparison, for differences.csv."""
    return [
        _difference_record(analysis, one) for analysis in analyses for one in analysis.differences
    ]


def _difference_record(analysis: Analysis, one: Difference) -> dict[str, Any]:
    record: dict[str, Any] = {
        "block": analysis.table.heading,
        "dataset": analysis.table.dataset,
        "family": one.family,
        "budget": one.row,
        "cell_a": one.a.cell,
        "layers_a": one.a.layers,
        "num_seeds_a": len(one.a.seeds),
        "cell_b": one.b.cell,
        "layers_b": one.b.layers,
        "num_seeds_b": len(one.b.seeds),
        "difference_nats_per_char": one.nats,
    }
    text = one.text_variance
    record |= {
        "text_block_base_blocks": text and text.block_length,
        "text_block_by_rule": text and text.rule_length,
        "text_se_check": text
        and " ".join(f"{length}:{se:.6f}" for length, se in text.se_of_length.items()),
        "text_se": text and text.se,
        "text_se_resampled": one.resampled and one.resampled.sd,
        "text_low_resampled": one.resampled and one.resampled.interval[0],
        "text_high_resampled": one.resampled and one.resampled.interval[1],
    }
    for kind, judged in (("text", one.text), ("both", one.both)):
        low, high = judged.interval if judged else (math.nan, math.nan)
        record |= {
            f"{kind}_p_holm": judged and judged.p_holm,
            f"{kind}_low_holm": low,
            f"{kind}_high_holm": high,
            f"{kind}_told_from_0": judged and judged.rejected,
        }
    low, high = one.seeds.interval() if one.seeds else (math.nan, math.nan)
    return record | {
        "seeds_se": one.seeds and one.seeds.se,
        "seeds_df": one.seeds and one.seeds.df,
        "seeds_low": low,
        "seeds_high": high,
        "both_se": one.both and one.both.estimate.se,
        "both_df": one.both and one.both.estimate.df,
    }
