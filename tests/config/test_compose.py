"""Composed quickly or by Hydra: the same configuration, or the same complaint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hydra.errors import HydraException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from charcmp.config.compose import Composer, compose_line
from charcmp.config.literal import quoted
from charcmp.config.rules import typed
from charcmp.errors import UserError
from charcmp.sweeping.grid import make_grid

# By key, values that are right, and some that are not.
CHOICES = {
    "cell": ("lstm", "gru", "lstm_cascaded_gate", "'rnn'", "elman", "1", "null", "[gru]"),
    "dataset": ("wp", "text", "pydocs", "bible"),
    "optimizer": ("sgd", "adam", "{lr: 0.1}", "lion"),
    "experiment": ("demo", "practice", "nothing"),
    "~cell": ("lstm", "gru"),
    "+experiment": ("demo",),
    "cell@other": ("gru",),
}
VALUES = {
    "layers": ("1", "2.0", "two", "'3'", "true", "null", "${seed}", "[1]", ""),
    "budget": ("50k", "130000", "null", "'${cell.name}'", "1e5"),
    "hidden_size": ("8", "null", "${layers}", "${nothing}"),
    "dropout": ("0", "0.5", "nan", "1e-3", "half"),
    "dataset.path": ("a.txt", quoted('a,b =[x]\\\'~ "z".txt'), quoted("${cell}.txt"), "null"),
    "dataset.split": ("[80,10,10]", "[1,1]", "80", "[a,b]", "${nothing}", "{a: 1}"),
    "dataset.stand_ins": ("{ab: c}", "null"),
    "optimizer.betas": ("[0.9,0.99]", "null", "[x]"),
    "optimizer.lr": ("0.1", "${cell.name}", "${dropout}", "1"),
    "cell.forget_bias": ("1", "null", "x"),
    "cell.name": ("gru", "???"),
    "results_dir": ("'runs-${cell.name}'", "runs/x", "'${hydra:job.name}'", "'${oc.env:NOT_SET}'"),
    "progress": ("yes", "false", "2"),
    "+layer": ("2",),
    "++layers": ("2", "x"),
    "~epochs": ("50", "3"),
    "hydra.job.name": ("x",),
}
LINES = [
    *(f"{key}={value}" for key, values in (CHOICES | VALUES).items() for value in values),
    *("~cell", "~epochs", "~nothing", "layer", "layers=1,2", "seed=range(0,3)", "clip=[", "lr=私"),
    *("layers=${layers}", "a.b.c=1", "cell={name: gru}", "dataset={path: x, name: y}"),
]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return compose_line(["hydra.job.name=x"])


def by_hydra(composer: Composer, overrides: Sequence[str]) -> DictConfig:
    cfg = composer.loader.load_sweep_config(composer.line, list(overrides))
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def outcome(compose: Callable[[], DictConfig]) -> tuple[str, ...]:
    """A configuration with its types, unresolved and resolved; or what is wrong, word for word."""
    try:
        cfg = compose()
    except (HydraException, ValueError) as error:
        return type(error).__name__, str(error), str(error.__cause__)
    nodes = {key: OmegaConf.get_type(cfg, key) for key in cfg}
    try:
        return OmegaConf.to_yaml(cfg), str(nodes), str(typed(cfg))
    except UserError as error:
        return OmegaConf.to_yaml(cfg), str(nodes), str(error)


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(overrides=st.lists(st.sampled_from(LINES), max_size=5))
@example(overrides=["hydra.nothing=x"])  # alone: of two mistakes Hydra may name the other one first
@example(overrides=["cell=gru", "cell.forget_bias=1"])
@example(overrides=["optimizer=sgd", "optimizer={lr: 0.1}", "~optimizer.nesterov"])
@example(overrides=["layers=2", "layers=3", "cell=rnn", "cell=gru"])
@example(overrides=["experiment=practice", "epochs=3", "dataset=text", "dataset.path='a,b'"])
def test_a_point_is_composed_as_by_hydra(composer: Composer, overrides: list[str]) -> None:
    quick = outcome(lambda: composer.compose(overrides))
    assert quick == outcome(lambda: by_hydra(composer, overrides))
    assert quick == outcome(lambda: composer.compose(overrides))  # the first time changed nothing


@pytest.mark.parametrize("line", LINES)
def test_a_single_override_is_composed_as_by_hydra(composer: Composer, line: str) -> None:
    assert outcome(lambda: composer.compose([line])) == outcome(lambda: by_hydra(composer, [line]))


GRIDS = {
    "the paper's": [],
    "variants": ["experiment=variants", "layers=1"],
    "practice": ["experiment=practice", "seed=range(0,2)", "optimizer.lr=0.1,${dropout}"],
    "texts": ["dataset=text,pydocs", f"dataset.path={quoted('a,${b}.txt')},'c d'", "cell=gru,rnn"],
}


@pytest.mark.long
@pytest.mark.parametrize("line", GRIDS.values(), ids=list(GRIDS))
def test_every_point_of_a_grid_is_composed_as_by_hydra(line: list[str]) -> None:
    composer = compose_line(line)
    points = [overrides for _, overrides in make_grid(composer).points()]
    assert len(points) > len(composer.given)
    for overrides in points[:: max(1, len(points) // 8)]:
        quick = outcome(lambda overrides=overrides: composer.compose(overrides))
        assert quick == outcome(lambda overrides=overrides: by_hydra(composer, overrides))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        # The targets of the census's other variants belong to the cell that they name.
        (["experiment=census", "cell=lstm"], {"cell=lstm"}),
        # An option of the cell, whichever that is, stays.
        (["experiment=practice", "cell=gru"], {"cell=gru", "cell.activation=softsign"}),
        (["experiment=variants", "cell=gru"], {"cell=gru"}),
    ],
)
def test_another_cell_comes_without_the_options_of_the_first(
    line: list[str], shown: set[str]
) -> None:
    points = [overrides for _, overrides in make_grid(compose_line(line)).points()]
    assert {word for overrides in points for word in overrides if "cell" in word} == shown
