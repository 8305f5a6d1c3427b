"""Everything that a report says, before it is written: the input of every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from charcmp.report.analysis.against_paper import Comparison, compare
from charcmp.report.analysis.baselines import Standing, standings
from charcmp.report.analysis.comparisons import Analysis, analyse
from charcmp.report.analysis.recommend import Recommendation, recommendations
from charcmp.report.analysis.verdicts import Verdict, verdicts
from charcmp.report.tables import Table
from charcmp.runs.baselines import Baselines


@dataclass(frozen=True)
class Findings:
    """The blocks with their statistics, and what follows from them."""

    analyses: list[Analysis]
    comparisons: list[Comparison]  # with the paper
    claims: list[Verdict]
    advice: list[Recommendation]
    fill_tables: list[Table]  # of fill-in models: shown apart, never judged
    baselines: list[Standing]  # of all blocks

    @property
    def tables(self) -> list[Table]:
        return [analysis.table for analysis in self.analyses]

    def baselines_of(self, analysis: Analysis) -> list[Standing]:
        return [
            standing for standing in self.baselines if standing.heading == analysis.table.heading
        ]


def find(
    tables: Sequence[Table],
    fill_tables: Sequence[Table] = (),
    baselines: Sequence[Baselines] = (),
) -> Findings:
    """Judges the tables of language models, and places the baselines among them."""
    analyses = [analyse(table) for table in tables]
    claims, advice = verdicts(analyses), recommendations(analyses)
    placed = [standing for table in tables for standing in standings(table, baselines)]
    return Findings(analyses, compare(tables), claims, advice, list(fill_tables), placed)
