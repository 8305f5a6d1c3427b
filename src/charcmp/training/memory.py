"""The memory that a training needs, from its sizes: without torch, and before anything is built."""

from __future__ import annotations

from charcmp.config.spec import RunSpec
from charcmp.data.sources import MEMORY_PER_CHAR
from charcmp.errors import require
from charcmp.machine import memory_bytes
from charcmp.models.budget import NUM_STACKS

LEAST_BYTES_PER_PARAM = 8  # a weight and its gradient
BYTES_PER_PARAM = 20  # and two values of the optimiser's, and the best weights so far
BYTES_PER_VALUE = 90  # of h in a chunk: what a 2-layer LSTM of 512 units took, gradients included


def require_memory(spec: RunSpec) -> None:
    """Raises UserError if the model's weights and gradients alone exceed this machine's memory."""
    has = memory_bytes()
    needs = LEAST_BYTES_PER_PARAM * spec.num_params
    require(
        needs <= has,
        f"{spec.num_params:,} parameters (hidden size {spec.hidden_size:,}): weights and gradients "
        f"alone take {needs / 1e9:,.0f} GB, but this machine has {has / 1e9:,.0f} GB; "
        "use a smaller hidden_size= or budget=",
    )


def training_bytes(spec: RunSpec) -> int:
    """Returns roughly how many bytes a training on a CPU takes beyond what torch itself does."""
    num_values = NUM_STACKS[spec.config.task] * spec.config.layers * spec.values_per_chunk
    return (
        MEMORY_PER_CHAR * spec.corpus.num_chars
        + BYTES_PER_PARAM * spec.num_params
        + BYTES_PER_VALUE * num_values
    )
