"""The solver: which hidden size meets a parameter budget. No torch; counts are exact all the same.

A model is L recurrent layers of equal width H over one-hot symbols (V of them) and a decoder
Linear(H, V). Karpathy, Johnson & Fei-Fei 2015, section 4.1: the budgets are the counts of the
1-layer LSTM with 64, 128, 256 and 512 units, and every other model takes the H that comes closest.
"""

from __future__ import annotations

from charcmp.cells import cell_info
from charcmp.errors import UserError

# Names of the paper's rows (names, not numbers: 50k on War and Peace is 44,823 parameters) and the
# hidden size of the 1-layer LSTM whose count each one is.
BUDGETS = {"50k": 64, "130k": 128, "400k": 256, "1300k": 512}

MAX_HIDDEN_SIZE = 1 << 20


def num_params(cell: str, layers: int, hidden_size: int, num_symbols: int) -> int:
    """Parameters of the built model, to the parameter."""
    info = cell_info(cell)
    first = info.num_params(num_symbols, hidden_size)
    above = info.num_params(hidden_size, hidden_size)
    decoder = num_symbols * (hidden_size + 1)
    return first + (layers - 1) * above + decoder


def target_params(budget: str, num_symbols: int) -> int:
    """The number of parameters that a budget stands for on a vocabulary of `num_symbols`.

    Args:
        budget: "50k", "130k", "400k", "1300k" or a whole number of parameters as text.

    Raises:
        UserError: for anything else.
    """
    if budget in BUDGETS:
        return num_params("lstm", 1, BUDGETS[budget], num_symbols)
    digits = budget.replace("_", "")
    if digits.isdecimal() and int(digits) > 0:
        return int(digits)
    raise UserError(
        f"budget={budget}: neither a named budget ({', '.join(BUDGETS)}) "
        "nor a whole number of parameters such as 60000"
    )


def solve_hidden_size(cell: str, layers: int, target: int, num_symbols: int) -> int:
    """The H whose count is closest to `target`; of two equally close, the smaller.

    Raises:
        UserError: if `target` is smaller than the count at H = 1, or absurdly large.
    """
    smallest = num_params(cell, layers, 1, num_symbols)
    if target < smallest:
        raise UserError(
            f"budget={target}: no hidden size meets it; {layers}-layer {cell} on "
            f"{num_symbols} symbols has {smallest:,} parameters at hidden_size=1"
        )
    low, high = 1, 2  # the count grows with H: find low with count(low) <= target < count(low + 1)
    while num_params(cell, layers, high, num_symbols) <= target:
        low, high = high, 2 * high
        if high > MAX_HIDDEN_SIZE:
            raise UserError(f"budget={target}: larger than any model this program can build")
    while high - low > 1:
        middle = (low + high) // 2
        if num_params(cell, layers, middle, num_symbols) <= target:
            low = middle
        else:
            high = middle
    below = target - num_params(cell, layers, low, num_symbols)
    above = num_params(cell, layers, high, num_symbols) - target
    return low if below <= above else high


def budget_label(cell: str, layers: int, hidden_size: int, num_symbols: int) -> str | None:
    """The named budget that this hidden size is the solution of, if it is one of them."""
    for name in BUDGETS:
        target = target_params(name, num_symbols)
        if target >= num_params(cell, layers, 1, num_symbols) and hidden_size == solve_hidden_size(
            cell, layers, target, num_symbols
        ):
            return name
    return None
