"""How numbers and lists are put into words."""

from __future__ import annotations

import pytest

from charcmp.output import first_few


@pytest.mark.parametrize(
    ("most", "separator", "text"),
    [(3, ", ", "a, b, c"), (2, ", ", "a, b and 1 more"), (1, "; ", "a; and 2 more")],
)
def test_the_first_few(most: int, separator: str, text: str) -> None:
    assert first_few(["a", "b", "c"], most, separator) == text
