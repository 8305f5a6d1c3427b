"""Baselines: scores n-gram models and compressors on the test text, given the training text.

They learn from the characters that the models are trained on, and are scored on those that the
models are scored on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from charcmp.config.spec import RunSpec, split_of
from charcmp.data.corpus import Splits, Streams, Symbols
from charcmp.errors import require
from charcmp.files import make_folder
from charcmp.models.compressors import COMPRESSORS, nats_given
from charcmp.models.ngram import Floats, Grams, Order, by_context, grams_of, nats_under, prune
from charcmp.runs.baselines import (
    VERSION,
    Baseline,
    Baselines,
    TestText,
    baselines_dir,
    baselines_file,
    read_baselines,
    write_baselines,
)
from charcmp.runs.reading import CorruptFileError

MAX_CONTEXT = 20  # characters: the paper's longest
PATIENCE = 2  # how many longer contexts to try after the best so far by validation
# Most training characters to learn from, the last ones: tables take some 100 bytes for each.
MAX_TRAIN_CHARS = 10_000_000
# Above this size of a whole text, the test text alone would fill a small machine's memory.
MAX_CHARS = 100_000_000


def baselines_of(spec: RunSpec, budgets: Iterable[int]) -> Baselines:
    """Returns the baselines on a run's test text; computes and stores them if they are not stored.

    Args:
        spec: a language model's; its cell and seed do not matter.
        budgets: numbers of parameters; for each, an n-gram model is pruned to this many counts.

    Raises:
        UserError: if the text is too short or too long, or the results folder cannot be written.
    """
    config, corpus = spec.config, spec.corpus
    require(
        corpus.num_chars <= MAX_CHARS,
        f"{corpus.name}: {corpus.num_chars:,} characters, but baselines are computed for at most "
        f"{MAX_CHARS:,}",
    )
    splits = split_of(spec)
    test_text = TestText.from_settings(
        corpus_sha256=corpus.sha256,
        layout=config.dataset.layout,  # type: ignore[arg-type]  # checked by config.rules
        split=config.dataset.split,
        num_chars=splits.test.num_chars,
        batch_size=spec.batch_size,
        unroll_steps=spec.unroll_steps,
    )
    file = baselines_file(config.results_dir, spec.text_name, test_text)
    wanted = set(budgets)
    try:
        stored = read_baselines(file)
    except CorruptFileError as error:
        print(f"{error}; computed again")
        stored = None
    if stored is not None:
        if wanted <= set(stored.budgets):
            return stored
        wanted |= set(stored.budgets)
    make_folder(baselines_dir(config.results_dir))
    found = Baselines(
        version=VERSION,
        dataset=corpus.name,
        test_text=test_text,
        budgets=sorted(wanted),
        baselines=baselines(splits, corpus.vocabulary, sorted(wanted)),
    )
    write_baselines(file, found)
    return found


def baselines(splits: Splits, vocabulary: bytes, budgets: Sequence[int]) -> list[Baseline]:
    """Computes all baselines on the test text; context lengths are chosen on validation text alone.

    Args:
        splits: a corpus's, as a language model has them.
        vocabulary: the byte that each symbol stands for.
        budgets: numbers of counts, each for a pruned n-gram model; none is made for a budget that
            has room for all counts of the unpruned model.
    """
    train_BC = _last_chars(text_of(splits.train))
    note = None
    if train_BC.size < splits.train.num_chars:
        note = f"of the last {train_BC.size:,} characters of the training text"
    unpruned = _unpruned(train_BC, splits, len(vocabulary), note)
    assert unpruned.size is not None
    smaller = [budget for budget in budgets if budget < unpruned.size]
    pruned = _pruned(train_BC, splits, len(vocabulary), smaller, note)
    return [unpruned, *pruned, *_compressed(splits, vocabulary)]


def text_of(streams: Streams) -> Symbols:
    """Returns the streams, each with the character before its first predicted one, (B, C + 1)."""
    return np.concatenate([streams.x_BC[:, :1], streams.y_BC], axis=1)


def _last_chars(text_BC: Symbols) -> Symbols:
    """Returns the last streams, MAX_TRAIN_CHARS characters at most."""
    num_streams = max(1, MAX_TRAIN_CHARS // text_BC.shape[1])
    return text_BC[-num_streams:, -MAX_TRAIN_CHARS:]


def mean_nats(streams: Streams, nats_BC: Floats) -> float:
    return float(streams.scored(nats_BC).mean())


def _unpruned(train_BC: Symbols, splits: Splits, num_symbols: int, note: str | None) -> Baseline:
    """Scores the n-gram model whose context does best on validation text."""
    texts = [text_of(splits.val), text_of(splits.test)]
    best = None
    best_context, lowest = 0, np.inf
    for scored in islice(by_context(train_BC, texts, num_symbols), MAX_CONTEXT + 1):
        val, test = (
            mean_nats(streams, nats_BC)
            for streams, nats_BC in zip((splits.val, splits.test), scored.nats, strict=True)
        )
        if val < lowest:
            lowest, best_context = val, scored.context
            best = Baseline(
                name=f"n-gram, {best_context} characters of context",
                nats_per_char=test,
                size=scored.num_counts,
                note=note,
            )
        elif scored.context >= best_context + PATIENCE:
            break
    assert best is not None
    return best


def _pruned(
    train_BC: Symbols, splits: Splits, num_symbols: int, budgets: Sequence[int], note: str | None
) -> list[Baseline]:
    """Scores for each number of counts the n-gram model whose context does best on validation."""
    best: dict[int, tuple[float, int, list[Order]]] = {}  # validation nats, context, model
    improving = set(budgets)
    lengths: list[Grams] = []
    for grams in islice(grams_of(train_BC, num_symbols), MAX_CONTEXT + 1):
        if not improving:
            break
        lengths.append(grams)
        for budget in sorted(improving):
            orders = prune(lengths, budget)
            nats = mean_nats(splits.val, nats_under(orders, text_of(splits.val), num_symbols))
            if budget in best and nats >= best[budget][0]:
                improving.remove(budget)
            else:
                best[budget] = nats, len(lengths) - 1, orders
    found = []
    for budget in budgets:
        _, context, orders = best[budget]
        nats_BC = nats_under(orders, text_of(splits.test), num_symbols)
        found.append(
            Baseline(
                name=f"n-gram, {context} characters of context, pruned",
                nats_per_char=mean_nats(splits.test, nats_BC),
                size=sum(len(order.keys_G) for order in orders),
                budget=budget,
                note=note,
            )
        )
    return found


def _compressed(splits: Splits, vocabulary: bytes) -> list[Baseline]:
    """Scores each general compressor."""
    byte_of_symbol = np.frombuffer(vocabulary, dtype=np.uint8)
    train_N = splits.train.scored(splits.train.y_BC)[-MAX_TRAIN_CHARS:]
    test_N = splits.test.scored(splits.test.y_BC)
    before, text = (byte_of_symbol[symbols_N].tobytes() for symbols_N in (train_N, test_N))
    found = []
    for name, (compress, window) in COMPRESSORS.items():
        note = None
        if window is not None and window < len(before):
            note = f"refers back {window:,} characters at most, not over the whole training text"
        elif len(before) < splits.train.num_chars:
            note = f"of the last {len(before):,} characters of the training text"
        nats = nats_given(before, text, compress)
        found.append(Baseline(name=name, nats_per_char=nats, note=note))
    return found
