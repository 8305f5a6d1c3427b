"""What `charcmp --help` and each command's own help say."""

import itertools
from pathlib import Path

import pytest
from helpers.console import Charcmp, in_turn

import charcmp.cli
from charcmp.cli.commands import COMMANDS
from charcmp.config.keys import all_keys
from charcmp.config.optimizers import OPTIMIZERS
from charcmp.config.schema import Config, flatten
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.registry import cell_options

COLUMNS = 80


def test_the_overview_fits_a_screen_and_has_every_command(charcmp: Charcmp) -> None:
    for args in ([], ["--help"], ["-h"], ["help"]):
        shown = charcmp(*args, COLUMNS=str(COLUMNS)).stdout
        lines = shown.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= COLUMNS
        for command in COMMANDS:
            assert f"\n  charcmp {command} " in shown


def test_every_command_has_a_module_of_its_name() -> None:
    modules = {file.stem for file in Path(*charcmp.cli.__path__).glob("*.py")}
    assert set(COMMANDS) <= modules


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_commands_help_has_its_flags_and_keys(charcmp: Charcmp, command) -> None:
    shown = charcmp(command.name, "--help", COLUMNS=str(COLUMNS))
    assert shown.returncode == 0
    assert shown.stdout == charcmp("help", command.name, COLUMNS=str(COLUMNS)).stdout
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    firsts = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    for name in [flag.name for flag in command.all_flags]:
        assert name in firsts
    keys = [*command.own_keys, *command.run_keys]
    for name in [*(key.name for key in keys), *command.narrowed_by]:
        assert any(first.startswith(f"{name}=") for first in firsts), name


def test_help_is_as_wide_as_the_terminal_within_reason(charcmp: Charcmp) -> None:
    for columns, widest in (("20", 60), ("90", 90), ("300", 100)):
        lines = charcmp("train", "--help", COLUMNS=columns).stdout.splitlines()
        assert widest - 10 < max(map(len, lines)) <= widest


def test_every_key_of_every_configuration_is_listed() -> None:
    """A key that a run can have and help does not know would have no meaning in its declaration."""
    known = {key.name for key in all_keys()}
    for cell, optimizer in itertools.product(cell_options().values(), OPTIMIZERS.values()):
        config = Config(cell=cell(), dataset=DatasetConfig(), optimizer=optimizer())
        assert set(flatten(config)) - known == {"cell.name", "optimizer.name"}


def test_what_the_train_help_says_of_a_key(charcmp: Charcmp) -> None:
    shown = " ".join(charcmp("train", "--help", COLUMNS=str(COLUMNS)).stdout.split())
    for said in (
        "cell=lstm gru | gru_reset_after | lstm",
        "optimizer.lr=0.002 learning rate, which the schedule then lowers "
        "[adagrad: 0.05; adam, adamw, sgd: 0.01]",
        "optimizer.betas=[0.9,0.999] decay of the means of gradients and of their squares "
        "(adam, adamw)",
        "[pydocs, pysrc, text: contiguous]",
        "(all but module)",
    ):
        assert said in shown


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    for done in in_turn(["--help"], ["train", "--help"], ["report", "-h"], cwd=tmp_path):
        assert done.stderr == ""
        assert not {"torch", "hydra", "omegaconf", "numpy", "pandas"} & done.loaded
