"""Anyone's class as a cell: how it is found, called, counted, identified, and what is refused."""

import json
import math
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from helpers import broken_cells
from helpers.console import TINY
from helpers.models import shape
from helpers.training import folder_of, quiet, tiny_spec, without_times
from safetensors.torch import load_file, save_file
from torch import nn

from charcmp.config.rules import check
from charcmp.errors import Interrupted, UserError
from charcmp.inference.score import score_split
from charcmp.inference.trained import TrainedRun, load_trained
from charcmp.models.budget import Shape, budget_label, solve, target_params
from charcmp.models.cells.adapters import MinGRU
from charcmp.models.cells.registry import cell_config, cell_identity, make_layer
from charcmp.models.cells.target import load_target
from charcmp.models.fill_in import make_model
from charcmp.models.language_model import CharModel, check_module_cells
from charcmp.models.sampling import generate
from charcmp.runs.result import Result
from charcmp.training.session import Session
from charcmp.training.train import train

FILE = Path(broken_cells.__file__)
I, H, T, B = 7, 8, 6, 3  # noqa: E741
STEP = """
class Mine(torch.nn.RNNCell):
    pass
"""


def target(name: str) -> str:
    return name if "." in name else f"{FILE}:{name}"


def module_shape(name: str, layers: int = 1, hidden_size: int = H, **options) -> Shape:
    return shape("module", layers, hidden_size, I, target=target(name), **options)


@pytest.mark.parametrize(
    ("name", "kind", "states", "kwargs"),
    [
        ("Step", "step", 1, {}),
        ("Layer", "layer", 1, {}),
        ("TwoStates", "step", 2, {}),
        ("NamedStates", "step", 2, {}),
        ("torch.nn.RNNCell", "step", 1, {"nonlinearity": "relu"}),
        ("torch.nn.LSTMCell", "step", 2, {}),
        ("torch.nn.LSTM", "layer", 2, {}),
        ("torch.nn.GRU", "layer", 1, {"bias": False}),
    ],
)
def test_how_a_class_is_called_is_found(name: str, kind: str, states: int, kwargs: dict) -> None:
    wanted = module_shape(name, layers=2, kwargs=kwargs)
    identity = cell_identity(wanted.cell, I, H)
    assert (identity["cell.kind"], identity["cell.states"]) == (kind, states)
    model = CharModel(wanted)
    assert sum(p.numel() for p in model.parameters()) == wanted.num_params
    check_module_cells(wanted)
    x_TB = torch.randint(I, (T, B))
    logits, state = model(x_TB, model.zero_state(B))
    first, middle = model(x_TB[:2], model.zero_state(B))
    second, last = model(x_TB[2:], middle)
    torch.testing.assert_close(torch.cat([first, second]), logits)
    torch.testing.assert_close(last, state)


def test_a_tensor_of_a_users_module_stays_on_the_cpu(tmp_path: Path) -> None:
    """The parameters are counted on the meta device, before anything else needs the class."""
    file = tmp_path / "scaled.py"
    file.write_text(
        "import torch\nSCALE = torch.tensor(0.5)\nclass Scaled(torch.nn.RNNCell):\n"
        "    def forward(self, x, h=None):\n        return SCALE * super().forward(x, h)\n"
    )
    wanted = module_shape(f"{file}:Scaled")
    assert wanted.num_params == H * (I + H + 2) + (H + 1) * I
    check_module_cells(wanted)


def test_a_layer_is_the_class_itself() -> None:
    cell = make_layer(cell_config("module", target="torch.nn.LSTM"), I, H)
    x_TB = torch.randint(I, (T, B))
    state_SBH = torch.randn(2, B, H)
    h_TBH, new_SBH = cell(x_TB, state_SBH)
    h, c = state_SBH.unsqueeze(1)
    y_TBH, (h, c) = cell.module(nn.functional.one_hot(x_TB, I).float(), (h, c))
    torch.testing.assert_close(h_TBH, y_TBH)
    torch.testing.assert_close(new_SBH, torch.cat([h, c]))


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("LooksAhead", {}, "it looks ahead: byte 1 of a text changes the outputs before it"),
        ("LeaksALittle", {}, "it looks ahead: the outputs before byte 1 of a text have a gradient"),
        ("DropsState", {}, "its state is not carried on"),
        ("ReturnsNoState", {}, "it returns no state"),
        ("ReturnsNone", {}, "it returns no state"),
        ("MixesStreams", {}, "the streams of a batch are not independent"),
        ("torch.nn.GRU", {"kwargs": {"batch_first": True}}, "batch_first must be off"),
        ("Draws", {}, "not repeatable"),
        ("Remembers", {}, "not repeatable"),
        ("DividesByZero", {}, "from a state of zeros its outputs or their gradients are not fin"),
        ("CarriesInfinity", {}, "after a few steps from zeros its state is not finite"),
        ("Größe", {}, "a class name may contain only letters a-z, digits and _"),
        ("Step", {"kwargs": {"scale": math.inf}}, "cell.kwargs="),
        ("Step", {"kwargs": {"kind": "a\nb"}}, "cell.kwargs="),
        ("Step", {"kwargs": {"long" * 21: 1}}, "cell.kwargs="),
        ("NoGradient", {}, "its parameter unused gets no gradient from 2,400 trial bytes"),
        ("LearnsItsStart", {}, "every run starts from zeros, so an initial state is not learned"),
        ("LeaksInEvaluation", {}, "in evaluation, it looks ahead: byte 1 of a text"),
        ("KeepsState", {}, "its state is not carried on"),
        ("DrawsByNumpy", {}, "built twice from one seed, its h.bias differs"),
        ("MasksByNumpy", {}, "built twice from one seed, it gives different outputs"),
        ("SeedsItself", {}, "it seeds torch's generator itself"),
        ("Counts", {}, "its state is int64; only float32 is carried from chunk to chunk"),
        ("CountsOnce", {}, "its state has a tensor without a batch dimension"),
        ("BuildsItselfLate", {}, "its parameter step.h.bias has no shape before the first call"),
        ("torch.nn.GRU", {"kwargs": {"bidirectional": True}}, "y is twice as wide as hidden_size"),
        ("no_such_cell.py", {}, "a class in a file: my_cell.py:MyCell"),
        ("Squeezes", {}, "with 1 step of 1 stream its outputs have shape (8,), not (1, 1, 8)"),
        (
            "SqueezesState",
            {},
            "with 1 step of 1 stream its outputs have shape (1, 8), not (1, 1, 8)",
        ),
        ("OverflowsAndLooksAhead", {}, "it looks ahead: byte 1 of a text"),
        ("LooksFarAhead", {}, "it looks ahead: byte 16 of a text changes the outputs before it"),
        ("DropsFarState", {}, "its state is not carried on"),
        ("ComplexState", {}, "its state is complex64; only float32 is carried from chunk to chunk"),
        ("ComplexParameter", {}, "its parameter turn is complex64; only float32 can be trained"),
        ("HalfPrecision", {}, "its parameter scale is float16; only float32 can be trained"),
        ("WithoutGradient", {}, "its outputs have no gradient, so it cannot learn"),
        ("BreaksItsGradient", {}, "a trial of its outputs and gradients fails (RuntimeError: one"),
        ("Lazy", {}, "its parameter x.weight has no shape before the first call"),
        ("ExtraState", {}, "its _extra_state is not a tensor"),
        (
            "HasHeads",
            {},
            "cannot be built with input_size=7 hidden_size=6 (ValueError: hidden",
        ),
        ("Step", {"kind": "layer"}, "as a layer: ValueError"),
        ("Step", {"states": 2}, "as a step: TypeError"),
        ("Step", {"kwargs": {"width": 3}}, "unexpected keyword argument 'width'"),
        ("lstm", {}, "lstm names a cell of charcmp; rename the class"),
        ("NotAModule", {}, "not a torch.nn.Module"),
        ("Missing", {}, "broken_cells.py has no class Missing"),
        ("no_such_file.py:Cell", {}, "cannot be imported (FileNotFoundError"),
        ("no_such_package.Cell", {}, "cannot be imported (ModuleNotFoundError"),
        ("torch.nn.functional", {}, "torch.nn has no class functional"),
        ("Step", {"kwargs": {"norm": {"kind": "layer"}}}, "cell.kwargs="),
        ("Step", {"kwargs": {"eps": float("inf")}}, "finite numbers"),
        ("Step", {"kwargs": {"scales": [1.0, float("nan")]}}, "finite numbers"),
        ("Step", {"init": "xavier"}, "cell.init=xavier: one of own, charcmp"),
    ],
)
def test_what_is_refused(name: str, options: dict, complaint: str) -> None:
    hidden_size = 6 if name == "HasHeads" else H
    with pytest.raises(UserError) as error:
        check_module_cells(module_shape(name, hidden_size=hidden_size, **options))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_look_ahead_at_one_of_many_symbols_is_refused() -> None:
    """No text of a chunk's length need contain it."""
    rare = shape("module", 1, H, 60, target=target("LeaksRarely"))
    with pytest.raises(UserError, match=r"it looks ahead: byte \d+ of a text changes"):
        check_module_cells(rare, unroll_steps=12)


@pytest.mark.parametrize(
    "name", ["Step", "torch.nn.GRU", "IsChaotic", "IsVeryChaotic", "OwnKernel"]
)
def test_what_is_not_refused(name: str) -> None:
    """In a wide layer too, and if a text read in parts differs from one read at once by rounding
    errors that have grown."""
    for hidden_size in (1, 8, 100):
        check_module_cells(module_shape(name, hidden_size=hidden_size))


def test_parts_that_act_rarely_are_not_refused() -> None:
    check_module_cells(shape("module", 1, H, 60, target=target("Experts")), unroll_steps=20)


def test_a_class_without_back_propagation_through_time_has_a_note(
    tmp_path: Path, tiny_text: Path
) -> None:
    lines: list[str] = []
    spec = tiny_spec(tiny_text, cell_config("module", target=target("Detaches")))
    train(spec, folder_of(tmp_path, "run"), Session(say=lines.append))
    assert len([line for line in lines if "no gradient comes back to earlier steps" in line]) == 1
    assert not check_module_cells(module_shape("Step"))


def test_widths_that_a_class_does_not_have_are_passed_over() -> None:
    """The closest of all multiples of four, the smaller one if two are as close."""
    sizes = [module_shape("HasHeads", layers=2, hidden_size=4 * n) for n in range(1, 12)]
    for target in range(sizes[0].num_params, sizes[-2].num_params, 97):
        closest = min(sizes, key=lambda size: (abs(size.num_params - target), size.num_params))
        assert solve(sizes[-1], target) == closest
    with pytest.raises(UserError, match=r"parameters at hidden_size=4$"):
        solve(sizes[0], sizes[0].num_params - 1)
    of_a_row = solve(sizes[0], target_params("50k", I))
    check_module_cells(of_a_row)
    assert budget_label(of_a_row) == "50k"
    assert budget_label(of_a_row.with_size(of_a_row.hidden_size + 4)) is None


def test_a_class_without_any_width_says_what_can_be_done() -> None:
    with pytest.raises(UserError, match=r"hidden_size=1 \(ValueError: hidden_size must") as error:
        solve(module_shape("NoSmallWidth"), 2000)
    assert str(error.value).endswith("hidden_size= asks for a width that works")


def test_a_class_that_fails_in_the_same_way_in_every_width_is_not_asked_for_another() -> None:
    with pytest.raises(UserError, match=r"hidden_size=1 \(ValueError: not today\)$"):
        solve(module_shape("NoWidth"), 2000)


@pytest.mark.parametrize("name", ["IndRNN", "TGRU", "MCLSTM"])
def test_of_the_zoo(name: str) -> None:
    """A vector for the recurrence, a state that is as wide as the input, three matrices."""
    pytest.importorskip("torchrecurrent")
    wanted = solve(module_shape(f"torchrecurrent.{name}", layers=2), 20_000)
    assert abs(wanted.num_params / 20_000 - 1) < 0.03
    check_module_cells(wanted)


@pytest.mark.parametrize(
    ("name", "package"), [("MinGRU", "minGRU_pytorch"), ("SLSTM", "xlstm"), ("CfC", "ncps")]
)
def test_of_other_packages(name: str, package: str) -> None:
    pytest.importorskip(package)
    wanted = solve(module_shape(f"charcmp.models.cells.adapters.{name}", layers=2), 20_000)
    assert abs(wanted.num_params / 20_000 - 1) < 0.03
    check_module_cells(wanted)


def test_min_gru_is_its_equations() -> None:
    pytest.importorskip("minGRU_pytorch")
    layer = MinGRU(5, 7).double()
    x_TBI, h_BH = torch.randn(9, 2, 5).double(), torch.rand(2, 7).double()
    y_TBH, state_1BH = layer(x_TBI, h_BH.unsqueeze(0))
    for t, x_BI in enumerate(x_TBI):
        new_BH, gate_BH = layer.layer.to_hidden_and_gate(x_BI).chunk(2, dim=-1)
        new_BH = torch.where(new_BH >= 0, new_BH + 0.5, new_BH.sigmoid())
        h_BH = torch.lerp(h_BH, new_BH, gate_BH.sigmoid())
        assert torch.allclose(y_TBH[t], h_BH)
    assert torch.equal(state_1BH[0], y_TBH[-1])


@pytest.mark.long
def test_a_class_is_known_by_its_source_wherever_it_lies(tmp_path: Path) -> None:
    def origin(folder: str, helper: str, step: str = "") -> str:
        where = tmp_path / folder
        where.mkdir()
        (where / "helper.py").write_text(helper)
        (where / "mine.py").write_text(f"import torch\nfrom helper import *\n{step}\n{STEP}")
        code = f"print(load_target(r'{where}/mine.py:Mine').origin)"
        run = [sys.executable, "-c", f"from charcmp.models.cells.target import load_target; {code}"]
        return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()

    first = origin("a", "SCALE = 1")
    assert first.startswith("sha256 ")
    assert origin("b", "SCALE = 1") == first
    assert origin("c", "SCALE = 2") != first
    assert origin("d", "SCALE = 1", "# another") != first


@pytest.mark.parametrize(
    ("importing", "edited"),
    [
        ("from {0} import make\nMine = make()", "mine.py"),  # defined elsewhere
        (f"from importlib import import_module\nimport_module('{{0}}'){STEP}", "{0}/makes.py"),
        (f"from {{0}} import *{STEP}", "{0}/makes.py"),  # beside a package's __init__.py
    ],
)
def test_what_else_a_class_is_known_by(importing: str, edited: str, tmp_path: Path) -> None:
    """Whether or not the other file was imported before: for another class, say."""
    package = tmp_path / tmp_path.name  # no other test has a module of this name
    package.mkdir()
    (package / "__init__.py").write_text("from . import makes\nmake = makes.make")
    (package / "makes.py").write_text(
        "import torch\ndef make():\n    class Mine(torch.nn.RNNCell): ...\n    return Mine"
    )
    (tmp_path / "mine.py").write_text(f"import torch\n{importing.format(package.name)}")
    changed = tmp_path / edited.format(package.name)
    source = changed.read_text()
    origins = []
    for text in (source, f"{source}\n# changed", source):
        changed.write_text(text)
        load_target.cache_clear()
        origins.append(load_target(f"{tmp_path}/mine.py:Mine").origin)
    assert origins[0] == origins[2] != origins[1]


def test_an_installed_class_is_known_by_its_version_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "borrows.py").write_text("from torch.nn import GRUCell")
    origin = load_target(f"{tmp_path}/borrows.py:GRUCell").origin
    parts = [sha256((tmp_path / "borrows.py").read_bytes()).hexdigest(),
             load_target("torch.nn.GRUCell").origin]  # fmt: skip
    assert origin == f"sha256 {sha256(' '.join(parts).encode()).hexdigest()}"


@pytest.mark.parametrize("helper", ["parts_of_it", "tabulate"])
def test_another_module_of_the_same_name_is_not_taken(helper: str, tmp_path: Path) -> None:
    """Of another class's folder, or one that is installed."""
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{helper}.py").touch()
        (tmp_path / folder / "mine.py").write_text(f"import torch\nimport {helper}{STEP}")
    if helper == "parts_of_it":
        load_target(f"{tmp_path}/first/mine.py:Mine")
    with pytest.raises(
        UserError, match=f"mine.py imports {helper}, but that is already .*{helper}"
    ):
        load_target(f"{tmp_path}/second/mine.py:Mine")


def test_a_file_of_a_package_has_pythons_own_modules(tmp_path: Path) -> None:
    for name in ("__init__.py", "colorsys.py"):
        (tmp_path / name).touch()
    (tmp_path / "with_colours.py").write_text(f"import torch\nimport colorsys{STEP}")
    load_target(f"{tmp_path}/with_colours.py:Mine")


def test_a_folder_of_the_same_name_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "with_a_folder.py").write_text(f"import torch{STEP}")
    load_target(f"{tmp_path}/with_a_folder.py:Mine")


def test_what_a_file_imports_need_not_be_sound(tmp_path: Path) -> None:
    """Its function may import a file with a slip of the pen, or a package that wants a screen."""
    (tmp_path / "has_a_typo.py").write_text("def (:")
    (tmp_path / "wants_a_screen").mkdir()
    (tmp_path / "wants_a_screen" / "__init__.py").write_text("raise OSError('no screen')")
    (tmp_path / "wants_a_screen" / "window.py").touch()
    lines = (
        "import torch",
        "def show():",
        "    import has_a_typo",
        "    import wants_a_screen.window",
    )
    file = tmp_path / "shows_itself.py"
    file.write_text("\n".join(lines) + STEP)
    assert load_target(f"{file}:Mine").origin.startswith("sha256 ")


def test_a_file_at_home_that_sets_the_default_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That holds for other classes of the process too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "double.py").write_text(
        f"import torch\ntorch.set_default_dtype(torch.float64){STEP}"
    )
    load_target("~/double.py:Mine")
    assert torch.get_default_dtype() == torch.float32


def test_a_script_is_no_module(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(f"import torch{STEP}\nraise SystemExit('usage: script.py TEXT')")
    with pytest.raises(UserError, match=r"cannot be imported \(SystemExit: usage: script.py TEXT"):
        load_target(f"{file}:Mine")


def test_an_installed_class_is_known_by_its_version() -> None:
    version = torch.__version__.partition("+")[0]
    assert load_target("torch.nn.GRU").origin == f"torch {version}"
    assert load_target("torch.nn.GRU").name == "GRU"
    pytest.importorskip("minGRU_pytorch")
    adapted = load_target("charcmp.models.cells.adapters.MinGRU").origin
    assert re.fullmatch(r"minGRU-pytorch [\d.]+, adapter [0-9a-f]{12}", adapted)


def test_its_own_initial_values_come_from_the_seed_alone() -> None:
    def values(seed: int, **options) -> list[torch.Tensor]:
        torch.manual_seed(len(options))
        model = CharModel(module_shape("torch.nn.GRU", layers=2, **options))
        model.initialize(0.01, seed)
        return [parameter.detach() for parameter in model.parameters()]

    own, again, other = values(0), values(0), values(1)
    assert all(map(torch.equal, own, again))
    assert not any(map(torch.equal, own, other))
    assert not torch.equal(own[1], own[5])  # the recurrent matrices of two layers
    assert own[0].abs().max() > 0.3  # 1/sqrt(H), as torch.nn draws, not 0.01
    assert max(value.abs().max() for value in values(0, init="charcmp")) <= 0.01


@pytest.mark.parametrize("init", ["xavier", "orthogonal"])
def test_a_vector_has_no_matrix_to_draw(init: str) -> None:
    model = CharModel(module_shape("IndependentUnits"))
    model.initialize(0.1, 0, init)
    assert 0 < model.cells[0].module.weight_hh.min() < model.cells[0].module.weight_hh.max() < 1


def test_they_do_not_depend_on_who_else_builds_a_model() -> None:
    """The lanes of a GPU are threads: four at once, each as often as a switch of threads needs."""

    def weights(seed: int) -> torch.Tensor:
        of_lane = module_shape("torch.nn.LSTM", hidden_size=30)
        model = make_model(of_lane, None)
        model.initialize(0.08, seed)
        check_module_cells(of_lane)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    alone = [weights(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as lanes:
        for _ in range(10):
            together = list(lanes.map(weights, range(4)))
            assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("lstm", "LSTM"), ("rnn", "RNN"), ("gru_reset_after", "GRU")]
)
def test_one_equation_two_implementations(
    ours: str, theirs: str, tmp_path: Path, tiny_text: Path
) -> None:
    """torch.nn's layer from charcmp's initial values trains as charcmp's cell does."""
    losses = []
    for name, cell in {
        "ours": cell_config(ours),
        "theirs": cell_config("module", target=f"torch.nn.{theirs}", init="charcmp"),
    }.items():
        spec = tiny_spec(tiny_text, layers=2, cell=cell)
        result = train(spec, folder_of(tmp_path, name), Session(say=quiet))
        losses.append(result.test_nats_per_char)
        assert result.num_params == spec.num_params
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert result.cell == theirs
    assert result.run_id.startswith(f"tiny-{theirs}-2x6-")


def test_one_equation_of_the_zoo() -> None:
    pytest.importorskip("torchrecurrent")
    ours = make_layer(cell_config("lstm_peephole"), I, H)
    theirs = make_layer(cell_config("module", target="torchrecurrent.PeepholeLSTM"), I, H)
    (cell,) = theirs.module.cells
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(ours.weights.get_parameter(f"{name}_l0").normal_(0, 0.5))
        cell.weight_ph.copy_(ours.peepholes_PH.normal_(0, 0.5).flatten())
    x_TB, state_SBH = torch.randint(I, (T, B)), torch.randn(2, B, H)
    for value, other in zip(ours(x_TB, state_SBH), theirs(x_TB, state_SBH), strict=True):
        torch.testing.assert_close(value, other)


def test_charcmps_initial_values_need_no_names(tiny_text: Path) -> None:
    cell = cell_config("module", target="torch.nn.LSTM", init="charcmp")
    with pytest.raises(UserError, match=r"init=xavier cell\.init=charcmp: charcmp does not know"):
        check(tiny_spec(tiny_text, cell=cell, init="xavier").config)


def trained_class(name: str, tmp_path: Path, text: Path, **options) -> tuple[Result, TrainedRun]:
    cell = cell_config("module", target=target(name), **options)
    folder = folder_of(tmp_path, name)
    result = train(tiny_spec(text, cell), folder, Session(say=quiet))
    return result, load_trained(str(folder.path), str(tmp_path), target=target(name))


def test_more_than_parameters_in_a_state_dict(tmp_path: Path, tiny_text: Path) -> None:
    """It trains, resumes, and is sampled and scored."""
    spec = tiny_spec(tiny_text, cell_config("module", target=target("Buffers")))
    broken = folder_of(tmp_path, "broken")
    left = iter([False] * 20 + [True])
    with pytest.raises(Interrupted):
        train(spec, broken, Session(lambda: next(left), quiet))
    lines: list[str] = []
    resumed = train(spec, broken, Session(say=lines.append))
    assert any(line.startswith("resuming") for line in lines)

    result, trained = trained_class("Buffers", tmp_path, tiny_text)
    assert without_times(resumed) == without_times(result)
    assert len([*generate(trained.model(), trained.encode(b"the "), 5, 1.0)]) == 5
    score = score_split(trained, "test").nats_per_char
    assert score == pytest.approx(result.test_nats_per_char, abs=1e-5)


def test_a_strangers_weights_of_a_class(tmp_path: Path, tiny_text: Path) -> None:
    """No model is built that is larger than the file; nor one with weights that are not finite."""
    _, trained = trained_class("Buffers", tmp_path, tiny_text)
    weights = load_file(trained.folder.best)
    name = "cells.0.module.h.weight"
    for wrong in (
        {"decoder.weight": torch.zeros(len(trained.vocabulary), 1000)},
        {name: weights[name] / 0, name.replace(".h.", ".again."): weights[name] / 0},
        {name: weights[name].double()},
    ):
        save_file(weights | wrong, trained.folder.best)
        with pytest.raises(UserError, match="weights and configuration do not fit together"):
            trained.model()


def test_a_class_that_cannot_be_sampled_has_a_result(tmp_path: Path, tiny_text: Path) -> None:
    spec = tiny_spec(tiny_text, cell_config("module", target=target("NeverAlone")))
    lines: list[str] = []
    result = train(spec, folder_of(tmp_path, "run"), Session(say=lines.append))
    assert result.status == "done"
    assert result.seconds_per_sampled_char is None
    note = "note: no text can be sampled from this model (RuntimeError: needs company)"
    assert note in lines


def test_states_that_were_asked_for_are_those_of_the_loaded_run(
    tmp_path: Path, tiny_text: Path
) -> None:
    result, trained = trained_class("AsManyStates", tmp_path, tiny_text, states=2)
    assert result.identity["cell.states"] == 2
    assert trained.model().state_shape == (1, 2)


@pytest.mark.long
def test_from_a_file_to_a_score(charcmp, tmp_path: Path, tiny_text: Path) -> None:
    work = tmp_path / "work"
    shutil.copy(FILE, work / "cells.py")
    text = ["dataset=text", f"dataset.path={tiny_text}", "layers=1", *TINY]
    swept = charcmp("sweep", "cell=module", "cell.target=cells.py:Layer,cells.py:LooksAhead", *text)
    assert swept.returncode == 1
    assert "1 of 2 runs finished, 1 failed" in swept.stdout
    assert "cell.target=cells.py:Layer: cell.kind=layer cell.states=1" in swept.stdout
    alone = charcmp("train", "cell=module", "cell.target=cells.py:LooksAhead", *text)
    assert alone.returncode == 2
    assert alone.stderr.count("\n") == 1
    assert "it looks ahead" in alone.stderr
    (run,) = (work / "results" / "runs").glob("tiny-Layer-1x8-*")
    identity = json.loads((run / "result.json").read_text())["identity"]
    assert not any("cells.py" in str(value) for value in identity.values())
    reported = charcmp("report", "cell=module", "cell.target=cells.py:Layer", "--format", "csv")
    assert "Layer" in reported.stdout

    with pytest.raises(UserError, match=r"name that again, as in target=package\.Layer"):
        load_trained(run.name, str(work / "results"))
    trained = load_trained(run.name, str(work / "results"), target=f"{work}/cells.py:Layer")
    assert trained.model().hidden_size == 8
    (work / "other.py").write_text((work / "cells.py").read_text() + "\n# changed\n")
    with pytest.raises(UserError, match="but the run's is sha256"):
        load_trained(run.name, str(work / "results"), target=f"{work}/other.py:Layer")
    with pytest.raises(UserError, match="Step, but the run's is Layer"):
        load_trained(run.name, str(work / "results"), target=f"{work}/cells.py:Step")
    scored = charcmp("score", f"run={run.name}", "split=test", "target=cells.py:Layer")
    assert "nats/char" in scored.stdout
    assert "belongs to other weights" not in scored.stdout
    sampled = charcmp("sample", f"run={run.name}", "length=5", "target=cells.py:Layer")
    assert sampled.returncode == 0
