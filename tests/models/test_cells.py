"""Each cell: the fast form against its equations and an independent gradient, in float64."""

import pytest
import torch
from helpers.models import shape

from charcmp.errors import UserError
from charcmp.models.cells.activations import ACTIVATIONS
from charcmp.models.cells.base import Cell
from charcmp.models.cells.lstm import WIDEST_SEQUENCE
from charcmp.models.cells.registry import CELLS, cell_config, make_layer
from charcmp.models.language_model import CharModel

T, B, I, H = 6, 3, 7, 5  # noqa: E741 - the legend of the package
TOLERANCE = 1e-10
torch.set_num_threads(1)  # on a busy machine two threads take minutes over arrays this small
VARIANTS = [(name, activation) for name in CELLS for activation in CELLS[name].activations]
variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


def make(name: str, hidden_size: int = H, **options) -> tuple[Cell, torch.Tensor]:
    """A cell and a state with random values in every place, float64."""
    torch.manual_seed(0)
    cell = make_layer(cell_config(name, **options), I, hidden_size).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.uniform_(-1, 1).mul_(2 / hidden_size**0.5)
    return cell, torch.randn(cell.num_states, B, hidden_size, dtype=torch.float64)


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward pass of a narrow LSTM in blocks of four steps and two."""
    monkeypatch.setattr("charcmp.models.cells.lstm.BLOCK_ELEMENTS", 4 * B * H)


@variants
@pytest.mark.parametrize("kind", ["symbols", "features"])
@pytest.mark.parametrize("hidden_size", [H, WIDEST_SEQUENCE + 1])
@pytest.mark.usefixtures("short_blocks")
def test_fast_form_agrees_with_the_equations(
    name: str, activation: str, kind: str, hidden_size: int
) -> None:
    cell, state = make(name, hidden_size, activation=activation)
    state.requires_grad_()
    x = torch.randint(I, (T, B)) if kind == "symbols" else torch.randn(T, B, I).double()
    leaves = {"state": state, **dict(cell.named_parameters())}
    if kind == "features":
        leaves["x"] = x.requires_grad_()
    weigh = torch.randn(T, B, hidden_size, dtype=torch.float64)

    h, last = cell(x, state)
    gradients = torch.autograd.grad((h * weigh).sum(), leaves.values())
    expected = cell.reference(cell.dense_input(x), state)
    expected_gradients = torch.autograd.grad((expected.h_TBH * weigh).sum(), leaves.values())

    torch.testing.assert_close(h, expected.h_TBH, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(last, expected.state_SBH, rtol=0, atol=TOLERANCE)
    for key, gradient, other in zip(leaves, gradients, expected_gradients, strict=True):
        torch.testing.assert_close(
            gradient, other, rtol=0, atol=TOLERANCE, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize(
    ("name", "activation"), [variant for variant in VARIANTS if variant[0] != "gru_reset_after"]
)
@pytest.mark.usefixtures("short_blocks")
def test_backward_against_finite_differences(name: str, activation: str) -> None:
    """Of our own sequences, which all these cells run on symbols (torch.nn checks its own)."""
    cell, state = make(name, 3, activation=activation)
    x = torch.randint(I, (5, B))

    def h_of(state: torch.Tensor, *_parameters: torch.Tensor) -> torch.Tensor:
        return cell(x, state)[0]  # gradcheck moves the cell's parameters in place

    assert torch.autograd.gradcheck(h_of, (state.requires_grad_(), *cell.parameters()))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    activation = ACTIVATIONS[name]
    s = torch.linspace(-30, 30, 6001, dtype=torch.float64, requires_grad=True)
    y = activation.function(s)
    (slope,) = torch.autograd.grad(y.sum(), s)
    s, y = s.detach(), y.detach()
    torch.testing.assert_close(activation.slope(y), slope, rtol=0, atol=1e-12)
    out = torch.empty_like(s)
    activation.into(s, out)
    torch.testing.assert_close(out, y, rtol=0, atol=1e-15)
    activation.into(out.copy_(s), out)
    torch.testing.assert_close(out, y, rtol=0, atol=1e-15)
    single = s.float()
    activation.into(single, single)
    torch.testing.assert_close(single.double(), y, rtol=0, atol=2e-7 if name != "relu" else 1e-5)


def test_relu_networks_are_torchs() -> None:
    cell, state = make("rnn", activation="relu")
    x = torch.randn(T, B, I, dtype=torch.float64)
    torch.testing.assert_close(cell(x, state)[0], cell.weights(x, state)[0])


@pytest.mark.parametrize("kind", ["symbols", "features"])
def test_without_peepholes_the_peephole_lstm_is_torchs(kind: str) -> None:
    cell, state = make("lstm_peephole")
    torch.nn.init.zeros_(cell.peepholes_PH)
    x = torch.randint(I, (T, B)) if kind == "symbols" else torch.randn(T, B, I).double()
    h, (h_last, c_last) = cell.weights(cell.dense_input(x), tuple(state.unsqueeze(1)))
    torch.testing.assert_close(cell(x, state)[0], h)
    torch.testing.assert_close(cell(x, state)[1], torch.cat((h_last, c_last)))


def test_equal_sources_make_the_softmax_gate_a_peephole_gate() -> None:
    """Sources a = u = p = s of every gate: α is 1/3 each, and σ(3 s) is σ(a + u + p)."""
    s = torch.linspace(-2, 2, H, dtype=torch.float64)
    softmax, state = make("lstm_softmax_gate")
    peephole, _ = make("lstm_peephole")
    state[1] = torch.linspace(0.5, 1, H, dtype=torch.float64)  # one c for all rows: p = w c = s
    x = torch.zeros(1, B, I, dtype=torch.float64)  # so that a is b, and, with h = 0, u is b'
    state[0] = 0
    with torch.no_grad():
        for cell in (softmax, peephole):
            for name in ("bias_ih", "bias_hh"):
                for gate in (0, 1, 3):
                    cell.per_gate(name)[gate].copy_(s)
            cell.peepholes_PH[:2] = s / state[1][0]
        c_next = peephole(x, state)[1][1]
        for cell in (softmax, peephole):
            cell.peepholes_PH[2] = s / c_next[0]
    torch.testing.assert_close(softmax(x, state), peephole(x, state))
    other = softmax(x + 1, state)[0]  # a differs from u and p now
    assert (other - peephole(x + 1, state)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("gate", ["i", "f", "o"])
@pytest.mark.parametrize("source", ["a", "u", "p"])
def test_any_source_closes_a_cascaded_gate(gate: str, source: str) -> None:
    cell, state = make("lstm_cascaded_gate")
    state[1] = 3.0
    with torch.no_grad():
        for bias in (cell.per_gate("bias_ih"), cell.per_gate("bias_hh")):
            for part in bias:
                part.fill_(3.0)  # all gates open, g and so c' positive
        if source == "p":
            cell.peepholes_PH["ifo".index(gate)] = -1e4
        else:
            bias = cell.per_gate("bias_ih" if source == "a" else "bias_hh")
            bias["ifgo".index(gate)].fill_(-1e4)
    x = torch.randint(I, (1, B))
    h, (_, c_last) = cell(x, state)
    gates = cell.reference(cell.dense_input(x), state).gates
    assert gates[gate].max() < 1e-12
    assert min(values.min() for name, values in gates.items() if name != gate) > 1e-3
    if gate == "o":
        assert h.abs().max() < 1e-12
    else:
        kept = gates["f"][0] * state[1]
        assert torch.equal(c_last < kept + 1e-12, torch.full_like(c_last, gate == "i").bool())
        assert (kept.abs().max() < 1e-12) == (gate == "f")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_parameter_formula_is_the_built_models_count(name: str, layers: int) -> None:
    model = CharModel(shape(name, layers, 9, 11))
    assert sum(p.numel() for p in model.parameters()) == shape(name, layers, 9, 11).num_params


@pytest.mark.parametrize(
    ("name", "torch_module"),
    [("rnn", torch.nn.RNN), ("lstm", torch.nn.LSTM), ("gru_reset_after", torch.nn.GRU)],
)
def test_equations_are_torchs_where_they_should_be(name: str, torch_module) -> None:
    cell, _ = make(name)
    other = torch_module(I, H).double()
    other.load_state_dict(cell.weights.state_dict())
    x = torch.randn(T, B, I, dtype=torch.float64)
    zero = torch.zeros(cell.num_states, B, H, dtype=torch.float64)
    torch.testing.assert_close(cell.reference(x, zero).h_TBH, other(x)[0])


def test_the_papers_gru_is_not_torchs() -> None:
    cell, state = make("gru")
    other, _ = make("gru_reset_after")
    other.load_state_dict(cell.state_dict())
    x = torch.randn(T, B, I, dtype=torch.float64)
    assert (cell(x, state)[0] - other(x, state)[0]).abs().max() > 1e-3


def test_gru_update_gate_multiplies_the_candidate() -> None:
    cell, state = make("gru")
    with torch.no_grad():
        cell.weights.bias_ih_l0[H : 2 * H] = -100.0  # z = 0: keep the old state
    h, _ = cell(torch.randn(1, B, I, dtype=torch.float64), state)
    torch.testing.assert_close(h[0], state[0])


@variants
def test_a_chunk_in_two_halves_is_the_same_chunk(name: str, activation: str) -> None:
    model = CharModel(shape(name, 2, 6, I, activation=activation)).double()
    x = torch.randint(I, (T, B))
    zero = model.zero_state(B)
    whole, last = model(x, zero)
    first, between = model(x[:2], zero)
    second, end = model(x[2:], between)
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layers", [5, 7])
def test_deep_stacks(name: str, layers: int) -> None:
    model = CharModel(shape(name, layers, H, I)).double()
    model.initialize(0.5, seed=0, init="xavier")
    x, state = torch.randint(I, (T, B)), model.zero_state(B)
    logits, last = model(x, state)
    h = x
    for cell, cell_state, cell_last in zip(model.cells, state, last, strict=True):
        h, expected_last, _ = cell.reference(cell.dense_input(h), cell_state)
        torch.testing.assert_close(cell_last, expected_last)
    torch.testing.assert_close(logits, model.decoder(h))
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_initial_weights_are_uniform_and_depend_on_the_seed_alone() -> None:
    def weights(seed: int, **options) -> torch.Tensor:
        torch.manual_seed(seed + 123)  # the global generator must not matter
        model = CharModel(shape("lstm", 2, 20, 30, **options))
        model.initialize(0.08, seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    drawn = weights(1)
    assert drawn.abs().max() <= 0.08
    assert abs(float(drawn.std()) - 0.08 / 3**0.5) < 1e-3
    assert torch.equal(drawn, weights(1))
    assert not torch.equal(drawn, weights(2))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("init", ["xavier", "orthogonal"])
def test_other_initial_weights(name: str, init: str) -> None:
    """Each gate's matrix by itself: bounds and orthogonality are those of H rows, not G·H."""
    models = [CharModel(shape(name, 2, H, I)) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(seed + 123)  # the global generator must not matter
        model.initialize(0.08, seed, init)
    for (key, p), same, other in zip(
        models[0].named_parameters(), *(m.parameters() for m in models[1:]), strict=True
    ):
        assert torch.equal(p, same)
        if key != "decoder.weight" and "weight_" not in key:
            assert (p == 0).all()
            continue
        assert not torch.equal(p, other)
        for matrix in p.split(H) if key != "decoder.weight" else [p]:
            rows, columns = matrix.shape
            if init == "orthogonal" and "weight_hh" in key:
                torch.testing.assert_close(matrix @ matrix.T, torch.eye(H), atol=1e-6, rtol=0)
            else:
                bound = (6 / (rows + columns)) ** 0.5
                assert 0.8 * bound < matrix.abs().max() <= bound


def set_values(cell: str, **options) -> dict[str, dict[str, float]]:
    """Which gates' biases an option overwrites, and with what: {"bias_ih": {"f": 1.0}}."""
    plain, changed = (CharModel(shape(cell, 2, H, I, **given)) for given in ({}, options))
    plain.initialize(0.08, seed=0)
    changed.initialize(0.08, seed=0)
    found: dict[str, dict[str, float]] = {}
    for layer in range(2):
        for (key, a), b in zip(
            plain.cells[layer].named_parameters(), changed.cells[layer].parameters(), strict=True
        ):
            if not torch.equal(a, b):
                name = key.removeprefix("weights.").removesuffix("_l0")
                values = {
                    gate: after.unique().item()
                    for gate, before, after in zip("ifgo", a.split(H), b.split(H), strict=True)
                    if not torch.equal(before, after)
                }
                assert found.setdefault(name, values) == values
    return found


@pytest.mark.parametrize("cell", ["lstm", "lstm_peephole", "lstm_softmax_gate"])
def test_forget_bias_sets_the_forget_gate_alone(cell: str) -> None:
    assert set_values(cell, forget_bias=1.0) == {"bias_ih": {"f": 1.0}}
    assert set_values(cell, forget_bias=None) == {}


def test_initial_biases_of_the_cascaded_gate() -> None:
    def both(**values: float) -> dict[str, dict[str, float]]:
        return {"bias_ih": values, "bias_hh": values}

    cell = "lstm_cascaded_gate"
    assert set_values(cell, open_bias=3.0) == both(i=3.0, f=3.0, o=3.0)
    assert set_values(cell, forget_bias=1.0) == both(f=1.0)
    assert set_values(cell, open_bias=3.0, forget_bias=1.0) == both(i=3.0, f=1.0, o=3.0)


def test_dropout_spares_the_recurrence_and_evaluation() -> None:
    torch.manual_seed(0)
    model = CharModel(shape("rnn", 1, 50, I), dropout=0.5)
    x = torch.randint(I, (T, B))
    state = model.zero_state(B)
    dropped, last = model(x, state)
    model.eval()
    full, last_in_eval = model(x, state)
    assert torch.equal(last, last_in_eval)  # one layer: dropout only before the decoder
    assert not torch.allclose(dropped, full)
    assert torch.equal(full, model(x, state)[0])


def test_unknown_cell() -> None:
    with pytest.raises(UserError, match="unknown cell 'elman': one of rnn, lstm, gru"):
        cell_config("elman")


def test_reset_after_has_tanh_alone() -> None:
    with pytest.raises(UserError, match="activation=softsign: gru_reset_after has tanh"):
        cell_config("gru_reset_after", activation="softsign")
