"""Run ids: golden ones, what moves them, and what must not."""

import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from charcmp.config.optimizers import OPTIMIZERS, RMSpropConfig
from charcmp.config.schema import NOT_SCIENTIFIC, Config, flatten
from charcmp.config.spec import deviation_note, notes_on, resolve_with, split_of
from charcmp.data.corpus import corpus_from_bytes
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import UserError
from charcmp.models.cells.registry import cell_config
from charcmp.runs.result import MAX_RUN_ID

# 87 symbols, as War and Peace has: its budgets, too.
CORPUS = corpus_from_bytes("golden", bytes(range(87)) * 10)


def config(cell: str = "lstm", **changes) -> Config:
    made = cell_config(cell)
    dataset = DatasetConfig(name="golden", source="file")
    optimizer = RMSpropConfig(name="rmsprop")
    return replace(Config(cell=made, dataset=dataset, optimizer=optimizer), **changes)


def run_id(**changes) -> str:
    return resolve_with(config(**changes), CORPUS).run_id


@pytest.mark.parametrize(
    ("changes", "golden"),
    [
        ({}, "golden-lstm-1x64-50k-s0-233d4244"),
        ({"cell": "gru", "layers": 2, "budget": "130k"}, "golden-gru-2x98-130k-s0-61319deb"),
        ({"cell": "rnn", "hidden_size": 100, "seed": 3}, "golden-rnn-1x100-27687p-s3-f8e2f862"),
        ({"epochs": 2, "dropout": 0.3}, "golden-lstm-1x64-50k-s0-640b5fe0"),
    ],
)
def test_golden_ids(changes, golden: str) -> None:
    """If one moves, every run made before is orphaned: raise PROTOCOL_VERSION knowingly."""
    assert run_id(**changes) == golden


def test_one_run_however_its_size_is_named() -> None:
    assert run_id(budget="50k") == run_id(budget="44823") == run_id(hidden_size=64) == run_id()
    assert run_id(budget="130K") == run_id(budget="130k")
    assert run_id(budget="20k") == run_id(budget="20000")
    assert resolve_with(config(budget="20k"), CORPUS).budget == "20000"  # its row in the tables


def test_how_and_where_do_not_matter() -> None:
    elsewhere = {
        "device": "cuda",
        "threads": 7,
        "jobs": 3,
        "results_dir": "/elsewhere",
        "data_dir": "/data",
        "checkpoint_seconds": 1.0,
        "progress": False,
    }
    assert run_id(**elsewhere) == run_id()
    assert set(elsewhere) < NOT_SCIENTIFIC


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 2},
        {"seed": 1},
        {"dropout": 0.1},
        {"epochs": 51},
        {"batch_size": 50},
        {"unroll_steps": 50},
        {"train_batch_size": 50},
        {"train_unroll_steps": 50},
        {"clip": None},
        {"init_range": 0.1},
        {"cell": "gru"},
        {"cell": "gru_reset_after"},
        {"cell": "lstm_peephole"},
        {"init": "xavier"},
        {"task": "fill"},
        {"optimizer": RMSpropConfig(name="rmsprop", lr=1e-3)},
        {"optimizer": RMSpropConfig(name="rmsprop", lr_decay_after=0)},
        {"optimizer": RMSpropConfig(name="rmsprop", schedule="cosine")},
        {"optimizer": RMSpropConfig(name="rmsprop", warmup_epochs=1)},
        {"clip_mode": "norm"},
        {"reset_state": "epoch"},
        {"patience": 5},
        {"dataset": DatasetConfig(name="golden", source="file", layout="contiguous")},
        {"dataset": DatasetConfig(name="golden", source="file", split=[90.0, 5.0, 5.0])},
    ],
)
def test_every_scientific_change_is_another_run(changes) -> None:
    assert run_id(**changes) != run_id()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("rnn", {"activation": "relu"}),
        ("gru", {"activation": "softsign"}),
        ("lstm", {"forget_bias": 1.0}),
        ("lstm_cascaded_gate", {"open_bias": 3.0}),
    ],
)
def test_an_option_of_a_cell_counts_only_away_from_its_default(name, option) -> None:
    plain, changed = (
        resolve_with(replace(config(), cell=cell_config(name, **options)), CORPUS)
        for options in ({}, option)
    )
    assert changed.run_id != plain.run_id
    assert set(changed.identity()) - set(plain.identity()) == {f"cell.{key}" for key in option}


def test_an_epoch_on_a_part_of_the_text() -> None:
    long = corpus_from_bytes("golden", bytes(range(87)) * 10_000)

    def spec(**changes):
        return resolve_with(config(**changes), long)

    whole = spec()
    assert whole.updates_per_epoch == split_of(whole).train.num_chunks(100)
    part = spec(updates_per_epoch=2)
    assert part.updates_per_epoch == 2
    assert part.run_id != whole.run_id
    for no_part in (whole.updates_per_epoch, whole.updates_per_epoch + 1):
        assert spec(updates_per_epoch=no_part).run_id == whole.run_id
    smaller = spec(train_batch_size=50, train_unroll_steps=20)
    assert smaller.updates_per_epoch == 10 * whole.updates_per_epoch


def test_an_updates_own_sizes() -> None:
    """In `columns` the layout of the text stays; a contiguous text is laid out by them."""
    assert run_id(train_batch_size=100, train_unroll_steps=100) == run_id()
    spec = resolve_with(config(train_batch_size=50, train_unroll_steps=20), CORPUS)
    assert (spec.batch_size, spec.unroll_steps) == (100, 100)
    assert (spec.train_batch_size, spec.train_unroll_steps) == (50, 20)
    contiguous = DatasetConfig(name="golden", source="file", layout="contiguous")
    long = corpus_from_bytes("golden", bytes(range(87)) * 10_000)
    spec = resolve_with(config(dataset=contiguous, train_batch_size=50), long)
    assert (
        spec.run_id
        == resolve_with(config(dataset=contiguous, batch_size=50, unroll_steps=100), long).run_id
    )
    assert spec.chosen_sizes is None
    short = corpus_from_bytes("golden", bytes(range(87)) * 100)
    spec = resolve_with(config(dataset=contiguous, train_batch_size=50), short)
    assert spec.batch_size < 50
    assert "updates an epoch" in (spec.chosen_sizes or "")


def test_a_range_that_is_not_used_is_no_other_run_and_says_so() -> None:
    ranged = resolve_with(config(init="orthogonal", init_range=0.2), CORPUS)
    assert ranged.run_id == run_id(init="orthogonal") != run_id(init="xavier")
    assert notes_on(ranged) == ["no effect: init_range=0.2: init=orthogonal does not use it"]
    assert notes_on(resolve_with(config(init_range=0.2), CORPUS)) == []


def test_no_two_settings_of_any_optimisers_share_an_id() -> None:
    """Each optimiser leaves out its own defaults, so one's default may be another's setting."""
    values = {
        "lr": [2e-3, 2e-2, 1e-2, 0.5],
        "eps": [1e-8, 1e-10],
        "betas": [[0.9, 0.999], [0.95, 0.999]],
        "weight_decay": [1e-2, 0.0],
        "momentum": [0.9, 0.0],
        "nesterov": [False, True],
        "alpha": [0.95, 0.99],
        "schedule": ["exponential", "constant"],
    }
    ids = []
    for name, make in OPTIMIZERS.items():
        keys = [key for key in values if hasattr(make(), key)]
        for settings in itertools.product(*(values[key] for key in keys)):
            optimizer = make(name=name, **dict(zip(keys, settings, strict=True)))
            ids.append(run_id(optimizer=optimizer))
    assert len(set(ids)) == len(ids) > 100


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_at_its_defaults_is_in_the_id_by_name_alone(name: str) -> None:
    spec = resolve_with(config(optimizer=OPTIMIZERS[name](name=name)), CORPUS)
    in_id = {key: value for key, value in spec.identity().items() if key.startswith("optimizer")}
    assert in_id == ({} if name == "rmsprop" else {"optimizer.name": name})


def test_a_run_id_that_could_not_be_read_back_is_refused() -> None:
    for length, is_too_long in ((150, False), (200, True)):
        named = DatasetConfig(name="n" * length, source="file")
        with pytest.raises(UserError, match="too long") if is_too_long else nullcontext():
            assert length < len(run_id(dataset=named)) <= MAX_RUN_ID


def test_a_class_whose_name_is_too_long_is_named(tmp_path: Path) -> None:
    name = "Cell" * 50
    (tmp_path / "long.py").write_text(f"import torch\nclass {name}(torch.nn.RNNCell): ...")
    cell = cell_config("module", target=f"{tmp_path}/long.py:{name}")
    with pytest.raises(UserError, match=f"^cell.target={name}: too long"):
        resolve_with(replace(config(), cell=cell), CORPUS)


def test_another_text_is_another_run() -> None:
    other = corpus_from_bytes("golden", bytes(reversed(range(87))) * 10)
    assert resolve_with(config(), other).run_id != run_id()


def test_every_key_is_either_scientific_or_listed() -> None:
    assert set(flatten(config())) >= NOT_SCIENTIFIC


def test_a_missed_budget_says_so() -> None:
    spec = resolve_with(config(cell="lstm", layers=3, budget="1500"), CORPUS)
    assert abs(spec.deviation_percent) > 2
    assert f"has {spec.num_params:,} parameters" in (deviation_note(spec) or "")
    assert deviation_note(resolve_with(config(), CORPUS)) is None
    with pytest.raises(UserError, match=r"budget=500: no hidden size meets it"):
        resolve_with(config(budget="500"), CORPUS)
