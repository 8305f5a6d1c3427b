"""All that a report says, before it is a file: what every format is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from charcmp.report.analysis.against_paper import Comparison, compare
from charcmp.report.analysis.comparisons import Analysis, analyse
from charcmp.report.analysis.recommend import Recommendation, recommendations
from charcmp.report.analysis.verdicts import Verdict, verdicts
from charcmp.report.tables import Table


@dataclass(frozen=True)
class Findings:
    """The blocks with their statistics, and what follows from them."""

    analyses: list[Analysis]
    comparisons: list[Comparison]  # with the paper
    claims: list[Verdict]
    advice: list[Recommendation]
    fill_tables: list[Table]  # of fill-in models: shown apart, never judged

    @property
    def tables(self) -> list[Table]:
        return [analysis.table for analysis in self.analyses]


def find(tables: Sequence[Table], fill_tables: Sequence[Table] = ()) -> Findings:
    """Judges the tables of language models."""
    analyses = [analyse(table) for table in tables]
    claims, advice = verdicts(analyses), recommendations(analyses)
    return Findings(analyses, compare(tables), claims, advice, list(fill_tables))
