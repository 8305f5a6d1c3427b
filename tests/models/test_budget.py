"""The solver against brute force, and the counts that PROTOCOL.md and the paper give."""

import itertools

import pytest
from helpers.models import shape

from charcmp.errors import UserError
from charcmp.models.budget import BUDGETS, budget_label, canonical_budget, solve, target_params
from charcmp.models.cells.registry import CELLS


@pytest.mark.parametrize(
    ("num_symbols", "counts"),
    [(87, [44_823, 122_327, 375_639, 1_275_479]), (101, [49_317, 131_301, 393_573, 1_311_333])],
)
def test_named_budgets_are_the_reference_lstms_counts(num_symbols: int, counts: list[int]) -> None:
    assert [target_params(name, num_symbols) for name in BUDGETS] == counts
    for name, hidden_size in BUDGETS.items():
        target = target_params(name, num_symbols)
        assert solve(shape("lstm", 1, 1, num_symbols), target).hidden_size == hidden_size


@pytest.mark.parametrize(
    ("cell", "layers", "hidden_size", "count"),
    [
        ("lstm", 2, 45, 44_682),
        ("rnn", 1, 141, 44_784),
        ("gru", 1, 77, 45_132),
        ("gru", 2, 53, 44_448),
    ],
)
def test_prototypes_models(cell: str, layers: int, hidden_size: int, count: int) -> None:
    solved = solve(shape(cell, layers, 1, 87), 44_823)
    assert (solved.hidden_size, solved.num_params) == (hidden_size, count)


def test_solver_against_brute_force() -> None:
    for cell, layers, num_symbols in itertools.product(CELLS, (1, 2, 5), (2, 87)):
        counts = [shape(cell, layers, H, num_symbols).num_params for H in range(1, 120)]
        for target in range(counts[0], counts[-2], 211):
            closest = min(range(len(counts)), key=lambda k: (abs(counts[k] - target), k)) + 1
            assert solve(shape(cell, layers, 1, num_symbols), target).hidden_size == closest


def test_ties_go_to_the_smaller() -> None:
    low, high = (shape("lstm", 1, H, 86).num_params for H in (9, 10))
    assert (high - low) % 2 == 0  # so that there is a middle
    any_size = shape("lstm", 1, 1, 86)
    assert solve(any_size, (low + high) // 2).hidden_size == 9
    assert solve(any_size, (low + high) // 2 + 1).hidden_size == 10


def test_a_budget_that_nothing_meets() -> None:
    smallest = shape("lstm", 3, 1, 87)
    assert solve(smallest, smallest.num_params) == smallest
    with pytest.raises(UserError, match="no hidden size meets it"):
        solve(smallest, smallest.num_params - 1)
    with pytest.raises(UserError, match="larger than any model"):
        solve(shape("rnn", 1, 1, 87), 10**30)


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        *((name, name) for name in BUDGETS),
        *(("130K", "130k"), ("1300K", "1300k")),  # a row of the paper, not 130,000
        *(("20k", "20000"), ("60_000", "60000"), ("1M", "1000000"), ("1.3M", "1300000")),
        *(("1e6", "1000000"), ("1000000.0", "1000000"), ("1e+20", "1" + 20 * "0")),
    ],
)
def test_budgets_as_people_write_them(budget: str, name: str) -> None:
    assert canonical_budget(budget) == name
    assert name in BUDGETS or target_params(budget, 87) == int(name)


@pytest.mark.parametrize(
    "budget", ["0", "-5", "1.5", "", "many", "1kk", "k", "1e", "0.0001k", "1e999999999", "9" * 5000]
)
def test_budgets_that_are_none(budget: str) -> None:
    with pytest.raises(UserError, match="neither a named budget"):
        target_params(budget, 87)


def test_labels() -> None:
    assert budget_label(shape("gru", 2, 53, 87)) == "50k"
    assert budget_label(shape("gru", 2, 54, 87)) is None
