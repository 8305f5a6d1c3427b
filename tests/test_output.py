"""How numbers and lists are put into words."""

from __future__ import annotations

import pytest

from charcmp.output import first_few, length_text


@pytest.mark.parametrize(
    ("most", "separator", "text"),
    [(3, ", ", "a, b, c"), (2, ", ", "a, b and 1 more"), (1, "; ", "a; and 2 more")],
)
def test_the_first_few(most: int, separator: str, text: str) -> None:
    assert first_few(["a", "b", "c"], most, separator) == text


@pytest.mark.parametrize(
    ("epochs", "text"),
    [(1 / 3, "0.33 epochs"), (1.0, "1 epoch"), (30.0, "30 epochs"), (100.0, "100 epochs")],
)
def test_the_length_of_a_training(epochs: float, text: str) -> None:
    assert length_text(epochs) == text
