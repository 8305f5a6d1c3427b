"""The scripts that look into trained models, on a model trained in a second."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers.console import CHECKOUT, TINY, Charcmp, load_script
from helpers.models import shape

from charcmp.data.chunks import Chunks
from charcmp.models.language_model import CharModel

SCRIPTS = CHECKOUT / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.usefixtures("scripts")
def test_gradients_of_an_rnn_by_its_chain_rule() -> None:
    from gradient_reach import reach

    model = CharModel(shape("rnn", 1, 6, 5))
    model.initialize(0.5, seed=0)
    torch.manual_seed(0)
    x, y = torch.randint(5, (2, 1, 3, 4), dtype=torch.uint8)  # one chunk of three steps, four rows
    h_TBH, _ = model.cells[0](x[0].long(), model.zero_state(4)[0])
    guess_BV = model.decoder(h_TBH[-1]).softmax(1)
    guess_BV[torch.arange(4), y[0, -1].long()] -= 1
    gradient_BH = guess_BV @ model.decoder.weight
    expected = [gradient_BH.norm(dim=1).mean()]
    for h_BH in reversed(h_TBH[1:]):
        gradient_BH = (gradient_BH * (1 - h_BH**2)) @ model.cells[0].weights.weight_hh_l0
        expected.append(gradient_BH.norm(dim=1).mean())
    torch.testing.assert_close(reach(model, Chunks(x, y))[0], torch.stack(expected))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rnn", {}),
        ("gru", {"r": 0.5, "z": 0.5}),
        ("lstm", {"i": 0.5, "f": 0.5, "o": 0.5}),
        ("lstm_softmax_gate", {"i": 0.5, "f": 0.5, "o": 0.5}),
        ("lstm_cascaded_gate", {"i": 0.125, "f": 0.125, "o": 0.125}),
    ],
)
def test_mean_gates(name: str, expected: dict[str, float]) -> None:
    mean_gates = load_script("mean_gates").mean_gates
    model = CharModel(shape(name, 2, 4, 5))
    x = torch.randint(5, (2, 6, 3), dtype=torch.uint8)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert mean_gates(model, Chunks(x, x)) == [expected, expected]
    if expected:  # one gate of the upper layer moved, by another amount for each unit
        gate = next(iter(expected))
        moved = torch.linspace(-1, 1, 4) + 0.3
        with torch.no_grad():
            model.cells[1].per_gate("bias_ih")[0].copy_(moved)
        below, above = mean_gates(model, Chunks(x, x))
        share = 0.25 if name == "lstm_cascaded_gate" else 1.0
        if name != "lstm_softmax_gate":
            assert above[gate] == pytest.approx(float(moved.sigmoid().mean()) * share)
        assert above[gate] != pytest.approx(expected[gate], abs=1e-3)
        assert below == expected


@pytest.mark.usefixtures("scripts")
def test_scripts_on_a_trained_run(
    charcmp: Charcmp,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "epochs=1", "layers=2"]
    cell = ["cell=lstm_cascaded_gate", "cell.open_bias=6", "cell.forget_bias=0"]
    assert charcmp("train", *text, *cell).returncode == 0

    def run(script: str, *args: str) -> str:
        """What it prints, run as `python SCRIPT` does, in this process, which has torch."""
        monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "work/results"), *args])
        capsys.readouterr()
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        return capsys.readouterr().out

    output = tmp_path / "gates.csv"
    printed = run("mean_gates.py", "--runs", "*cascaded*", "--output", str(output))
    layers = [line.split() for line in printed.splitlines()[2:]]
    assert len(layers) == 2
    header, *rows = output.read_text().splitlines()
    means = [float(row.split(",")[3]) for row in rows]
    for i, f, o in (
        means[:3],
        means[3:],
    ):  # i and o start at 1/2 σ(6)², f at 1/8; an epoch moves them
        assert f < 0.35 < min(i, o) < max(i, o) < 0.65
    assert header == "run,layer,gate,mean"
    assert [row.split(",")[1:3] for row in rows] == [[layer, g] for layer in "12" for g in "ifo"]
    shown = [mean for line in layers for mean in line[2:]]
    assert [f"{float(row.split(',')[3]):.3f}" for row in rows] == shown

    run("gradient_reach.py", "--output", str(tmp_path / "reach"))
    assert "<svg" in (tmp_path / "reach.svg").read_text()
    header, *rows = (tmp_path / "reach.csv").read_text().splitlines()
    assert header == "run,state,k,mean_norm"
    assert [row.split(",")[1:3] for row in rows] == [[s, str(k)] for s in "hc" for k in range(10)]
    for script in ("gradient_reach.py", "mean_gates.py"):
        with pytest.raises(SystemExit) as leaving:  # its message is a line on standard error
            run(script, "--runs", "nothing")
        (line,) = str(leaving.value).splitlines()
        assert "no language model with weights matches nothing" in line


@pytest.mark.usefixtures("scripts")
def test_the_benchmark_of_the_grid_measures_both_loops() -> None:
    from bench_grid import one_after_another, shapes

    threads = torch.get_num_threads()
    specs = shapes(["2000"], "cpu")
    assert len(specs) == 9
    for kind in ("plain", "charcmp"):
        assert all(speed > 0 for speed in one_after_another(specs, kind, threads, 0.01))


@pytest.mark.usefixtures("scripts")
def test_the_grid_in_lanes() -> None:
    """On a CPU here: all runs are trained, each set up once."""
    from bench_grid import in_lanes, name, shapes

    specs = [spec for spec in shapes(["2000"], "cpu") if spec.config.layers == 1]
    measured = in_lanes(specs, 2, {name(spec): float(spec.num_params) for spec in specs}, 1e-6)
    assert 0 < measured.set_up_seconds < measured.seconds
    assert measured.utilization is None or 0 <= measured.utilization <= 100
