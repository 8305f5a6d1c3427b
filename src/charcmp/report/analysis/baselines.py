"""The baselines of a block's test text, and the models that each of them is ahead of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from charcmp.report.tables import Entry, Table
from charcmp.runs.baselines import Baseline, Baselines, TestText, of_text


@dataclass(frozen=True)
class Standing:
    """A baseline among the models of a block."""

    heading: str
    dataset: str
    baseline: Baseline
    ahead_of: dict[str, list[Entry]]  # by row: models with a higher mean test loss, best first
    num_models: dict[str, int]  # by row: those that it is compared with


def standings(table: Table, stored: Sequence[Baselines]) -> list[Standing]:
    """Returns the baselines of the block's test text; a pruned one is only in its budget's row."""
    settings = table.settings
    test_text = TestText.from_settings(
        corpus_sha256=settings["corpus_sha256"],
        layout=settings["dataset.layout"],
        split=settings["dataset.split"],
        num_chars=settings["num_test_chars"],
        batch_size=settings["batch_size"],
        unroll_steps=settings["unroll_steps"],
    )
    found = []
    for baseline in of_text(stored, test_text):
        rows = [row for row, target in table.rows.items() if baseline.budget in (None, target)]
        models = {row: table.done_in(row) for row in rows}
        ahead_of = {
            row: sorted(
                (entry for entry in of_row if entry.test_nats > baseline.nats_per_char),
                key=lambda entry: entry.test_nats,
            )
            for row, of_row in models.items()
        }
        if rows:
            num_models = {row: len(of_row) for row, of_row in models.items()}
            found.append(Standing(table.heading, table.dataset, baseline, ahead_of, num_models))
    return found
