"""Scores texts with a trained run: nats per character.

Shape suffixes: N characters, T steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from charcmp.data.corpus import Symbols
from charcmp.errors import UserError
from charcmp.files import open_text, read_error
from charcmp.inference.trained import TrainedRun
from charcmp.output import bits
from charcmp.runs.result import MAX_NATS

if TYPE_CHECKING:
    from charcmp.models.language_model import CharModel

BLOCK_BYTES = 1 << 18  # bytes of a file held in memory at a time
STEPS = 1000  # characters per call of the model


@dataclass(frozen=True)
class Score:
    """The loss of a text under a run."""

    run_id: str
    text: str  # the path of a file, or a corpus and which part of it
    num_chars: int  # those that were predicted
    nats_per_char: float
    bits_per_char: float
    perplexity: float | None  # None: too large for a float
    num_skipped: int = 0  # bytes of a file that the run's corpus does not have


def score_file(run: TrainedRun, path: Path, skip_unknown: bool = False) -> Score:
    """Scores a file of any length as one stream from a zero state, in bounded memory.

    The first byte, which nothing predicts, does not count. A fill-in model predicts the others from
    both sides, with chunks and right context as in its training.

    Args:
        skip_unknown: leave out, and count, bytes that the run's corpus does not have.

    Raises:
        UserError: if the file cannot be read, holds nothing to predict, or has bytes that the run's
            corpus does not have (unless they are skipped), or if the run's state overflows on it.
    """
    num_skipped = 0

    def symbols() -> Iterator[Symbols]:
        nonlocal num_skipped
        for block in read_blocks(path):
            known = run.known(block) if skip_unknown else block
            num_skipped += len(block) - len(known)
            try:
                yield run.encode(known)
            except UserError as error:
                raise UserError(f"{path}: {error}; unknown_bytes=skip leaves them out") from None

    blocks = symbols()
    first_N = next(blocks, None)  # reports a bad file before the slow import of torch
    if first_N is None:
        raise UserError(f"{path}: the file is empty")
    text = itertools.chain([first_N], blocks)
    if run.right_context is None:
        num_chars, nats = stream_nats(run.model(), text)
    else:
        steps, context = run.result.unroll_steps, run.right_context
        num_chars, nats = fill_nats(run.model(), text, steps, context)
    if num_chars == 0:
        raise UserError(f"{path}: fewer than two bytes to score; there is nothing to predict")
    return _score(run, str(path), num_chars, nats / num_chars, num_skipped)


def score_split(run: TrainedRun, part: str, data_dir: str | None = None) -> Score:
    """Scores train, val or test of the run's corpus, in the streams that the run read.

    Raises:
        UserError: if the corpus is not here or has changed, or if the run's state overflows on it.
    """
    from charcmp.training.evaluate import losses, mean_loss

    chunks = run.chunks(part, data_dir)
    nats_per_char = mean_loss(losses(run.model(), chunks))
    name = f"{run.result.dataset}, {part}"
    return _score(run, name, chunks.num_chars, nats_per_char)


def _score(
    run: TrainedRun, text: str, num_chars: int, nats_per_char: float, num_skipped: int = 0
) -> Score:
    if not math.isfinite(nats_per_char):
        raise UserError(
            f"{text}: its loss is not finite, because the state of {run.run_id} overflows on it"
        )
    return Score(
        run.run_id,
        text,
        num_chars,
        nats_per_char,
        bits(nats_per_char),
        math.exp(nats_per_char) if nats_per_char <= MAX_NATS else None,
        num_skipped,
    )


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yields a file or pipe in pieces; shows a progress bar if a terminal is there to show it."""
    try:
        with open_text(path, or_pipe=True) as file, tqdm(
            total=path.stat().st_size or None, unit="B", unit_scale=True, leave=False, disable=None
        ) as bar:  # fmt: skip
            while block := file.read(BLOCK_BYTES):
                yield block
                bar.update(len(block))
    except OSError as error:
        raise read_error(path, error) from None


def stream_nats(model: CharModel, blocks: Iterable[Symbols]) -> tuple[int, float]:
    """Returns how many characters of a text were predicted, and the sum of their nats.

    Args:
        model: in eval mode, on the CPU.
        blocks: the text in pieces of any length; where they are cut does not matter.
    """
    import torch
    import torch.nn.functional as F

    state = model.zero_state(1)
    num_chars, nats = 0, 0.0
    last_N = np.empty(0, dtype=np.uint8)
    with torch.no_grad():
        for block_N in blocks:
            text_N = torch.tensor(np.concatenate([last_N, block_N]), dtype=torch.int64)
            last_N = block_N[-1:] if len(block_N) else last_N
            x_N, y_N = text_N[:-1], text_N[1:]
            for x_T, y_T in zip(x_N.split(STEPS), y_N.split(STEPS), strict=True):
                if len(x_T):  # an empty tensor splits into one empty piece
                    logits_TBV, state = model(x_T.unsqueeze(1), state)
                    nll_T = F.cross_entropy(logits_TBV.squeeze(1), y_T, reduction="none")
                    nats += float(nll_T.double().sum())
                    num_chars += len(y_T)
    return num_chars, nats


def fill_nats(
    model: CharModel, blocks: Iterable[Symbols], unroll_steps: int, right_context: int
) -> tuple[int, float]:
    """Does what `stream_nats` does, for a fill-in model, in chunks with right context."""
    import torch
    import torch.nn.functional as F

    from charcmp.models.fill_in import NOTHING

    def windows() -> Iterator[NDArray[np.int64]]:
        text_N = np.empty(0, dtype=np.int64)
        length = unroll_steps + 1 + right_context
        for block_N in blocks:
            text_N = np.concatenate([text_N, block_N])
            while len(text_N) >= length:
                yield text_N[:length]
                text_N = text_N[unroll_steps:]
        if len(text_N) > 1:
            yield np.concatenate([text_N, np.full(right_context, NOTHING)])

    state = model.zero_state(1)
    num_chars, nats = 0, 0.0
    with torch.no_grad():
        for window_W in windows():
            x_W = torch.tensor(window_W)
            logits_TBV, state = model(x_W.unsqueeze(1), state)
            y_T = x_W[1 : len(logits_TBV) + 1]
            nll_T = F.cross_entropy(logits_TBV.squeeze(1), y_T, reduction="none")
            nats += float(nll_T.double().sum())
            num_chars += len(y_T)
    return num_chars, nats
