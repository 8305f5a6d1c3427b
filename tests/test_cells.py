"""Each cell: the fast form against its equations and an independent gradient, in float64."""

import importlib

import pytest
import torch

from charcmp.budget import num_params
from charcmp.cells import CELLS, cell_class
from charcmp.cells.base import Cell
from charcmp.cells.gru import GRUSequence
from charcmp.cells.lstm import WIDEST_SEQUENCE, LSTMSequence
from charcmp.cells.rnn import RNNSequence
from charcmp.errors import UserError
from charcmp.model import CharModel

T, B, I, H = 6, 3, 7, 5  # noqa: E741 - the legend of the package
TOLERANCE = 1e-10


def reference(name: str):
    return importlib.import_module(CELLS[name].module).reference


def make(name: str, hidden_size: int = H) -> tuple[Cell, torch.Tensor]:
    torch.manual_seed(0)
    cell = cell_class(name)(I, hidden_size).double()
    return cell, torch.randn(cell.num_states, B, hidden_size, dtype=torch.float64)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("kind", ["symbols", "features"])
@pytest.mark.parametrize("hidden_size", [H, WIDEST_SEQUENCE + 1])
def test_fast_form_agrees_with_the_equations(name: str, kind: str, hidden_size: int) -> None:
    cell, state = make(name, hidden_size)
    x = torch.randint(I, (T, B)) if kind == "symbols" else torch.randn(T, B, I).double()
    weigh = torch.randn(T, B, hidden_size, dtype=torch.float64)

    h, last = cell(x, state)
    (h * weigh).sum().backward()
    gradients = {key: p.grad.clone() for key, p in cell.named_parameters()}
    cell.zero_grad()
    expected_h, expected_last = reference(name)(cell.dense_input(x), state, cell.weights)
    (expected_h * weigh).sum().backward()

    torch.testing.assert_close(h, expected_h, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(last, expected_last, rtol=0, atol=TOLERANCE)
    for key, parameter in cell.named_parameters():
        torch.testing.assert_close(
            gradients[key], parameter.grad, rtol=0, atol=TOLERANCE, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize(
    ("function", "num_gates", "num_states"),
    [(RNNSequence, 1, 1), (GRUSequence, 3, 1), (LSTMSequence, 4, 2)],
)
def test_backward_against_finite_differences(function, num_gates: int, num_states: int) -> None:
    torch.manual_seed(1)
    sums = torch.randn(4, 2, num_gates * 3, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(num_states)]
    U = torch.randn(num_gates * 3, 3, dtype=torch.float64, requires_grad=True)

    def h_of(*inputs):
        h = function.apply(*inputs)
        return h[0] if isinstance(h, tuple) else h

    assert torch.autograd.gradcheck(h_of, (sums, *state, U))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_parameter_formula_is_the_built_models_count(name: str, layers: int) -> None:
    model = CharModel(name, layers, hidden_size=9, num_symbols=11)
    assert sum(p.numel() for p in model.parameters()) == num_params(name, layers, 9, 11)


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
    torch.testing.assert_close(reference(name)(x, zero, cell.weights)[0], other(x)[0])


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


def test_a_chunk_in_two_halves_is_the_same_chunk() -> None:
    for name in CELLS:
        model = CharModel(name, 2, hidden_size=6, num_symbols=I).double()
        x = torch.randint(I, (T, B))
        zero = model.zero_state(B)
        whole, last = model(x, zero)
        first, between = model(x[:2], zero)
        second, end = model(x[2:], between)
        torch.testing.assert_close(torch.cat((first, second)), whole)
        torch.testing.assert_close(end, last)


def test_initial_weights_are_uniform_and_depend_on_the_seed_alone() -> None:
    def weights(seed: int, **options) -> torch.Tensor:
        torch.manual_seed(seed + 123)  # the global generator must not matter
        model = CharModel("lstm", 2, 20, 30, **options)
        model.initialize(0.08, seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    drawn = weights(1)
    assert drawn.abs().max() <= 0.08
    assert abs(float(drawn.std()) - 0.08 / 3**0.5) < 1e-3
    assert torch.equal(drawn, weights(1))
    assert not torch.equal(drawn, weights(2))


def test_forget_bias_sets_the_forget_gate_alone() -> None:
    plain, biased = (CharModel("lstm", 2, 4, 5, forget_bias=value) for value in (None, 1.0))
    plain.initialize(0.08, seed=0)
    biased.initialize(0.08, seed=0)
    for (key, a), b in zip(plain.named_parameters(), biased.parameters(), strict=True):
        if key.endswith("bias_ih_l0"):
            assert (b[4:8] == 1).all()
            assert torch.equal(a[:4], b[:4])
            assert torch.equal(a[8:], b[8:])
        else:
            assert torch.equal(a, b)


def test_dropout_spares_the_recurrence_and_evaluation() -> None:
    torch.manual_seed(0)
    model = CharModel("rnn", 1, 50, I, dropout=0.5)
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
        cell_class("elman")
