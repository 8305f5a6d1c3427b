"""The solver: which hidden size meets a parameter budget. Its counts are exact, without torch.

A model is a stack of L recurrent layers of equal width H over one-hot symbols (V of them) and a
decoder Linear(H, V); a fill-in model has two such stacks and a decoder Linear(2H, V). Karpathy,
Johnson & Fei-Fei 2015, section 4.1: the budgets are the counts of the 1-layer LSTM with 64, 128,
256 and 512 units, and every other model takes the H that comes closest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache

from charcmp.errors import UserError, WidthError
from charcmp.models.cells.options import CellConfig
from charcmp.models.cells.registry import cell_config, cell_title, layer_params

# Names of the paper's rows (names, not numbers: 50k on War and Peace is 44,823 parameters) and the
# hidden size of the 1-layer LSTM whose count each one is.
BUDGETS = {"50k": 64, "130k": 128, "400k": 256, "1300k": 512}
DEFAULT_BUDGET = "50k"

# What a model can be trained to do, and how many stacks of layers it has for it: a language model
# reads forward only, a fill-in model both ways.
NUM_STACKS = {"lm": 1, "fill": 2}

MAX_HIDDEN_SIZE = 1 << 20
# Widths that the search tries one after another with a class that cannot have every width: enough
# for a number of heads, or for multiples of 64.
WIDTHS_TRIED = 64

# 60000, 60_000, 20k, 1.3M, 1e6, and Hydra's way to write that, 1000000.0.
NUMBER = re.compile(
    r"(?P<number>\d[\d_]{0,17}(\.\d{1,18})?(e\+?\d\d?)?)(?P<unit>[km]?)", re.A | re.I
)
UNITS = {"": 1, "k": 1000, "m": 1_000_000}


@dataclass(frozen=True)
class Shape:
    """A model's architecture: everything but the values of its parameters and its training."""

    cell: CellConfig
    layers: int
    hidden_size: int
    num_symbols: int
    task: str = "lm"  # a key of NUM_STACKS

    @property
    def num_params(self) -> int:
        """The exact number of parameters of the built model."""
        num_stacks = NUM_STACKS[self.task]
        first = layer_params(self.cell, self.num_symbols, self.hidden_size)
        above = self.layers > 1 and layer_params(self.cell, self.hidden_size, self.hidden_size)
        decoder = self.num_symbols * (num_stacks * self.hidden_size + 1)
        return num_stacks * (first + (self.layers - 1) * above) + decoder

    def with_size(self, hidden_size: int) -> Shape:
        """Returns the same model at another hidden size."""
        return replace(self, hidden_size=hidden_size)


def canonical_budget(budget: str) -> str:
    """Returns a budget as tables write it: a name (130k for `130K`), else digits (20000 for `20k`).

    Raises:
        UserError: if it is neither a name nor a whole number of parameters.
    """
    if (name := budget.lower()) in BUDGETS:
        return name
    if written := NUMBER.fullmatch(budget):
        count = Decimal(written["number"].replace("_", "")) * UNITS[written["unit"].lower()]
        if count > 0 and count == int(count):
            return str(int(count))
    raise UserError(
        f"budget={budget}: neither a named budget ({', '.join(BUDGETS)}) "
        "nor a whole number of parameters such as 60000, 60k or 1.5M"
    )


def target_params(budget: str, num_symbols: int) -> int:
    """Returns the number of parameters that a budget means for a vocabulary of `num_symbols`.

    The number is the same for all tasks: a named budget is a language model's count.

    Args:
        budget: anything that canonical_budget accepts.

    Raises:
        UserError: if canonical_budget rejects it.
    """
    budget = canonical_budget(budget)
    if budget in BUDGETS:
        return Shape(cell_config("lstm"), 1, BUDGETS[budget], num_symbols).num_params
    return int(budget)


def deviation_percent(num_params: int, target: int) -> float:
    """Returns by how many percent a model's parameters exceed a target; negative if fewer."""
    return 100 * (num_params - target) / target


def solve(shape: Shape, target: int) -> Shape:
    """Returns the shape at the hidden size whose count is closest to `target`; a tie: the smaller.

    A user's class may not have every width. Then only those are compared that it has.

    Args:
        shape: the model; its own hidden size is ignored.
        target: a number of parameters.

    Raises:
        UserError: if `target` is smaller than the count at the smallest width, or absurdly large,
            or if a user's class cannot be built in WIDTHS_TRIED widths one after another.
    """

    @cache
    def from_width(hidden_size: int) -> tuple[int, Shape]:
        """Returns the smallest model of at least this width that can be built, after its count."""
        errors = []
        for width in range(hidden_size, hidden_size + WIDTHS_TRIED):
            model = shape.with_size(width)
            try:
                return model.num_params, model
            except WidthError as error:
                errors.append(str(error))
        reasons = {
            error.replace(f"hidden_size={width}", "", 1)
            for width, error in enumerate(errors, start=hidden_size)
        }
        if len(reasons) == 1:  # the width is not to blame
            raise UserError(errors[0])
        raise UserError(
            f"{errors[0]}, nor with the next {WIDTHS_TRIED - 1} widths; hidden_size= asks for a "
            "width that works"
        )

    def count(hidden_size: int) -> int:
        return from_width(hidden_size)[0]

    if target < count(1):
        smallest, first = from_width(1)
        model = f"{shape.layers}-layer {cell_title(shape.cell)}"
        model += "" if shape.task == "lm" else f", task={shape.task},"
        raise UserError(
            f"budget={target}: no hidden size meets it; {model} on {shape.num_symbols} symbols has "
            f"{smallest:,} parameters at hidden_size={first.hidden_size}"
        )
    # The count grows with H: find low with count(low) <= target < count(low + 1).
    low, high = 1, 2
    while count(high) <= target:
        low, high = high, 2 * high
        if high > MAX_HIDDEN_SIZE:
            raise UserError(f"budget={target}: larger than any model this program can build")
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) <= target:
            low = middle
        else:
            high = middle
    return from_width(low if target - count(low) <= count(high) - target else high)[1]


def budget_label(shape: Shape) -> str | None:
    """Returns the named budget whose solution is the shape's hidden size, or None."""
    for name in BUDGETS:
        try:
            if shape == solve(shape, target_params(name, shape.num_symbols)):
                return name
        except UserError:  # the budget is too small, or the class has no such widths
            continue
    return None
