"""Losses of a model on text: one number per character, from a zero state, dropout off.

Shape suffixes: K chunks, T steps, B streams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from charcmp.data.chunks import Chunks
from charcmp.models.language_model import CharModel
from charcmp.training.cuda_graph import Replayed


class Evaluation:
    """A model's losses on a text, computed as often as called; on a GPU by a graph of one chunk.

    Args:
        model: the model; each call uses the weights that it has then.
        chunks: the text, on the model's device.
        capture: whether to capture the scoring of a chunk on a GPU.
    """

    def __init__(self, model: CharModel, chunks: Chunks, capture: bool = True) -> None:
        K, T, B = chunks.y_KTB.shape
        self.model, self.chunks = model, chunks
        self.state_LSBH = model.zero_state(B)
        device = self.state_LSBH.device
        self.nll_KTB = self.state_LSBH.new_empty(K, T, B)
        self.chunk = torch.zeros(1, dtype=torch.int64, device=device)
        changed = [self.state_LSBH, self.nll_KTB, self.chunk]
        self.replay = Replayed(
            self._score_chunk,
            device,
            lambda: changed,
            capture=capture,
            keeps_tensors=model.keeps_tensors if model.is_of_a_class else None,
        )

    def close(self) -> None:
        """Frees what it holds on a GPU; it cannot be used afterwards."""
        self.replay.close()

    def _score_chunk(self) -> None:
        x_TB, y_TB = self.chunks[self.chunk]
        logits_TBV, state_LSBH = self.model(x_TB, self.state_LSBH)
        nll = F.cross_entropy(logits_TBV.flatten(0, 1), y_TB.flatten(), reduction="none")
        self.nll_KTB.index_copy_(0, self.chunk, nll.view(1, *y_TB.shape))
        self.state_LSBH.copy_(state_LSBH)
        # Around, since a short text has fewer chunks than there are calls before a capture.
        self.chunk.add_(1).remainder_(len(self.chunks))

    @torch.no_grad()
    def __call__(self, before_chunk: Callable[[], None] = lambda: None) -> Tensor:
        """Returns the nats of every scored character, float32 (N,), stream after stream.

        The state is carried from the beginning of every stream to its end.

        Args:
            before_chunk: called before each chunk; may end the evaluation by raising an exception.
        """
        was_training = self.model.training
        self.model.eval()
        self.state_LSBH.zero_()
        self.chunk.zero_()
        for _ in range(len(self.chunks)):
            before_chunk()
            self.replay()
        self.model.train(was_training)
        return self.chunks.scored(self.nll_KTB)


def losses(model: CharModel, chunks: Chunks) -> Tensor:
    """Returns the nats of every scored character: see Evaluation, which this uses once."""
    return Evaluation(model, chunks, capture=False)()


def mean_loss(nll: Tensor) -> float:
    """Returns the mean nats per character, summed in float64."""
    return float(nll.double().mean())
