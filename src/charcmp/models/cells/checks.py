"""Checks that a user's class can be compared at all, made before its first training step.

A layer that sees the byte it is to predict, or whose state does not carry the text on, gives losses
that mean nothing. Each check looks for one such fault. All but the first three are made after
moving the parameters off their initial values, since a gate that starts at zero hides what is
behind it. Most are made in training and in evaluation, whose losses are those that are published.

Shape suffixes: see base.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from charcmp.errors import UserError, one_line
from charcmp.models.cells.base import Layer
from charcmp.models.cells.module import ModuleCell, Refused, build, leaves
from charcmp.models.initialization import seeded

NUM_STEPS, NUM_STREAMS = 12, 3
# Most steps of the two checks that look for what acts over many steps, whose work grows with the
# square of the number. The protocol's chunks have 100.
MAX_STEPS = 128
NUM_AFTER = NUM_STEPS // 2  # steps after the cut, in the check that cuts a text
# Standard deviation of the noise added to each parameter. In a wide layer 0.1 would make a chaotic
# recurrence, which amplifies rounding errors; 0.5/√H is about what torch.nn's layers begin with.
NOISE, NOISE_TIMES_ROOT_H = 0.1, 0.5
# Most streams of the check for looking ahead, if the steps are fewer; one for each symbol is best.
MAX_STREAMS = 128
TOLERANCE = 1e-4  # float32, relative to values of about 1
# Of a gradient, relative to the largest. What does not look ahead has 0, or rounding errors.
LEAST_GRADIENT = 1e-6
MAX_CHUNKS = 8  # of the text in which each parameter must have a gradient
SMALL = 1e-6  # a change of each parameter, relative; ten times a rounding error
SEEDED = "only torch's generator is seeded for a run, not numpy's or Python's"

Check = Callable[[ModuleCell, int], str | None]


def check_layer(layer: Layer, unroll_steps: int) -> str | None:
    """Raises UserError for the first check that the layer fails; its parameters stay unchanged.

    Args:
        layer: of a class of the user's, as it was built.
        unroll_steps: steps of a chunk of the run; some checks read as many, up to MAX_STEPS.

    Returns:
        A note to the user on a class that can be compared, or None.
    """
    assert isinstance(layer, ModuleCell)
    try:
        if complaint := has_wrong_tensors(layer):
            raise Refused(complaint)
        return _examine(layer, max(NUM_STEPS, min(unroll_steps, MAX_STEPS)))
    except Refused as reason:
        complaint = str(reason)
    except Exception as error:  # of anyone's code
        complaint = f"a trial of its outputs and gradients fails ({one_line(error)})"
    raise UserError(f"cell.target={layer.config.target}: {complaint}")


def has_wrong_tensors(layer: ModuleCell) -> str | None:
    """Finds what could not be clipped or stored, or would lose a part between two chunks."""
    for name, parameter in layer.module.named_parameters():
        if parameter.dtype != torch.float32:
            return f"its parameter {name} is {_name(parameter.dtype)}; only float32 can be trained"
    for leaf in leaves(layer.form.template):
        if leaf.dtype != torch.float32:
            return f"its state is {_name(leaf.dtype)}; only float32 is carried from chunk to chunk"
    for name, value in layer.module.state_dict().items():
        if not isinstance(value, Tensor):
            return f"its {name} is not a tensor, so the file of weights cannot hold it"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _examine(layer: ModuleCell, num_steps: int) -> str | None:
    """Makes the checks, and leaves parameters and buffers as they were; returns a note or None.

    Raises:
        Refused: with what the first check that fails says.
    """
    kept = {name: value.clone() for name, value in layer.module.state_dict().items()}
    noise = min(NOISE, NOISE_TIMES_ROOT_H / layer.hidden_size**0.5)
    try:
        with seeded(0):
            if complaint := draws_elsewhere(layer) or starts_badly(layer):
                raise Refused(complaint)
            for scale in (noise, noise / 10, noise / 100):  # less, where that makes it overflow
                layer.module.load_state_dict(kept)
                _add_noise(layer, scale)
                if _is_finite(layer, num_steps):
                    break
            # What evaluation does otherwise shows in a few steps.
            for mode, steps in (("", num_steps), ("in evaluation, ", NUM_STEPS)):
                layer.module.train(not mode)
                for check in IN_BOTH_MODES:
                    if complaint := check(layer, steps):
                        raise Refused(mode + complaint)
            layer.module.train()
            if complaint := differs_alone(layer) or leaves_parameters_out(layer, num_steps, scale):
                raise Refused(complaint)
            return lacks_gradient_through_time(layer)
    finally:
        layer.module.train()
        layer.module.load_state_dict(kept)
        layer.module.zero_grad(set_to_none=True)


@torch.no_grad()
def _add_noise(layer: ModuleCell, scale: float) -> None:
    for parameter in layer.module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=scale)


@torch.no_grad()
def _is_finite(layer: ModuleCell, num_steps: int) -> bool:
    y_TBH, state_SBH = _read(layer, _text(layer, num_steps), _state(layer))
    return bool(y_TBH.isfinite().all() and state_SBH.isfinite().all())


def _text(layer: ModuleCell, num_steps: int = NUM_STEPS) -> Tensor:
    return torch.randint(layer.input_size, (num_steps, NUM_STREAMS))


def _state(layer: ModuleCell, batch: int = NUM_STREAMS) -> Tensor:
    return torch.zeros(layer.num_states, batch, layer.hidden_size)


def _read(layer: ModuleCell, x_TB: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
    """Reads a text; raises Refused if that fails, or if outputs or state have other shapes."""
    num_steps, num_streams = x_TB.shape
    sizes = f"with {num_steps} step{'s' * (num_steps > 1)} of "
    sizes += f"{num_streams} stream{'s' * (num_streams > 1)}"
    try:
        y_TBH, new_SBH = layer(x_TB, state_SBH)
    except Exception as error:  # of anyone's code
        raise Refused(f"it fails {sizes} ({one_line(error)})") from None
    shape = (num_steps, num_streams, layer.hidden_size)
    if y_TBH.shape != shape:
        raise Refused(f"{sizes} its outputs have shape {tuple(y_TBH.shape)}, not {shape}")
    if new_SBH.shape != state_SBH.shape:
        raise Refused(f"{sizes} it returns a state of another shape than it was given")
    if y_TBH.dtype != torch.float32:
        raise Refused(f"its outputs are {_name(y_TBH.dtype)}, not float32")
    return y_TBH, new_SBH


def _differ(a: Tensor, b: Tensor, allowance: float = 0.0) -> bool:
    # Two NaNs are equal: a layer that runs away does so twice in the same way.
    return not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE + allowance, equal_nan=True)


def _other_symbols(x: Tensor, layer: ModuleCell) -> Tensor:
    return (x + 1) % layer.input_size


def draws_elsewhere(layer: ModuleCell) -> str | None:
    """Finds initial values that are not drawn by torch's generator, from a run's seed."""
    again = ModuleCell(layer.config, layer.input_size, layer.hidden_size)
    second = again.module.state_dict()
    for name, value in layer.module.state_dict().items():
        if not torch.equal(_bits(value), _bits(second[name])):
            return f"built twice from one seed, its {name} differs; {SEEDED}"
    x, state = _text(layer), _state(layer)
    with torch.no_grad():
        is_same = not _differ(_read(layer, x, state)[0], _read(again, x, state)[0])
        if not is_same and not is_not_repeatable(layer, len(x)):
            return f"built twice from one seed, it gives different outputs; {SEEDED}"
    if torch.equal(_generator_after_building(layer, 0), _generator_after_building(layer, 1)):
        return (
            "it seeds torch's generator itself (torch.manual_seed), so its layers, and its runs of "
            "all seeds, start from the same values"
        )
    return None


def _bits(value: Tensor) -> Tensor:
    return value.flatten().view(torch.uint8)


def _generator_after_building(layer: ModuleCell, seed: int) -> Tensor:
    with seeded(seed):
        build(layer.config, layer.input_size, layer.hidden_size)
        return torch.get_rng_state()


def starts_badly(layer: ModuleCell) -> str | None:
    """Finds outputs, gradients or a state that are not finite at the class's own start."""
    y_TBH, state_SBH = _read(layer, _text(layer), _state(layer))
    if not y_TBH.requires_grad:
        return "its outputs have no gradient, so it cannot learn (torch.no_grad or detach?)"
    y_TBH.square().sum().backward()
    gradients = [p.grad for p in layer.module.parameters() if p.grad is not None]
    layer.module.zero_grad(set_to_none=True)
    if not all(value.isfinite().all() for value in [y_TBH, *gradients]):
        return "from a state of zeros its outputs or their gradients are not finite"
    if not state_SBH.isfinite().all():
        return (
            "after a few steps from zeros its state is not finite; checkpoints and records hold "
            "only finite numbers"
        )
    return None


@torch.no_grad()
def is_not_repeatable(layer: ModuleCell, num_steps: int) -> str | None:
    x, state = _text(layer), _state(layer)
    if _differ(_read(layer, x, state)[0], _read(layer, x, state)[0]):
        return (
            "not repeatable: the same text and state gave different outputs; it draws random "
            "numbers, or keeps something between calls"
        )
    return None


@torch.no_grad()
def mixes_streams(layer: ModuleCell, num_steps: int) -> str | None:
    x, state = _text(layer), _state(layer)
    changed = x.clone()
    changed[:, 0] = _other_symbols(x[:, 0], layer)
    if _differ(_read(layer, changed, state)[0][:, 1:], _read(layer, x, state)[0][:, 1:]):
        return (
            "the streams of a batch are not independent: changing the text of the first stream "
            "changes the outputs of the others (batch_first, or a norm over the batch)"
        )
    return None


def looks_ahead(layer: ModuleCell, num_steps: int) -> str | None:
    """Cuts a text of its own in each stream, and compares the outputs before the cut.

    The streams are independent, so all cuts are tried at once. Bytes on both sides of the cut run
    through the symbols, so that what acts at a rare one shows too.
    """
    num_streams = max(num_steps - 1, min(layer.input_size, MAX_STREAMS))
    stream = torch.arange(num_streams)
    cut = 1 + stream % (num_steps - 1)
    x = torch.randint(layer.input_size, (num_steps, num_streams))
    for t in (cut - 1, cut):
        x[t, stream] = torch.randperm(layer.input_size)[stream % layer.input_size]
    is_before = torch.arange(num_steps).unsqueeze(1) < cut
    return _shows_ahead(layer, x, cut, is_before) or _has_gradient_ahead(layer, x, cut, is_before)


@torch.no_grad()
def _shows_ahead(layer: ModuleCell, x: Tensor, cut: Tensor, is_before: Tensor) -> str | None:
    """Changes the byte at the cut."""
    num_streams = len(cut)
    stream, state = torch.arange(num_streams), _state(layer, num_streams)
    changed = x.clone()
    changed[cut, stream] = _other_symbols(x[cut, stream], layer)
    y_TBH, changed_TBH = _read(layer, x, state)[0], _read(layer, changed, state)[0]
    is_same = torch.isclose(changed_TBH, y_TBH, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    if not (shows := (is_before & ~is_same.all(-1)).any(0)).any():
        return None
    return f"it looks ahead: byte {cut[shows].min()} of a text changes the outputs before it"


def _has_gradient_ahead(layer: ModuleCell, x: Tensor, cut: Tensor, is_before: Tensor) -> str | None:
    """Finds what is too small to show yet, as behind a gate that starts closed: it has a gradient.

    Says nothing of a class that gives its inputs no gradient, as one with kernels of its own may.
    """
    x_TBI = layer.dense_input(x).requires_grad_()
    try:
        # A copy, since a class may overwrite its input, but not a leaf.
        y_TBH, _ = layer(x_TBI.clone(), _state(layer, len(cut)))
        before = (y_TBH * torch.randn_like(y_TBH))[is_before].sum()
        (gradient_TBI,) = torch.autograd.grad(before, x_TBI)
    except Exception:  # of anyone's code
        return None
    # A NaN proves nothing: it may be 0 times the infinite gradient of an output after the cut.
    gradient_TB = gradient_TBI.nan_to_num(0.0, 0.0, 0.0).abs().amax(-1)
    ahead_B = gradient_TB.masked_fill(is_before, 0.0).amax(0)
    shows = ahead_B > LEAST_GRADIENT * gradient_TB.amax()
    if not shows.any():
        return None
    return (
        f"it looks ahead: the outputs before byte {cut[shows].min()} of a text have a gradient "
        "with respect to it or to later ones"
    )


@torch.no_grad()
def drops_state(layer: ModuleCell, num_steps: int) -> str | None:
    """Cuts a text after a few steps, and after as many as a chunk has.

    What acts over d steps and is not carried on shows in the first output after a cut at d or
    later, so a few outputs after each cut are enough. Another text is read between the two halves,
    as the validation text is between two chunks, so nothing is carried on inside the module.
    """
    x = _text(layer, num_steps + NUM_AFTER)
    whole_TBH, _ = _read(layer, x, _state(layer))
    parts = [slice(cut, cut + NUM_AFTER) for cut in (NUM_AFTER, num_steps)]
    differing = []
    for part in parts:
        _, state = _read(layer, x[: part.start], _state(layer))
        _read(layer, _other_symbols(x[part], layer), _state(layer))
        y_TBH, _ = _read(layer, x[part], state)
        if _differ(y_TBH, whole_TBH[part]):
            differing.append((part, y_TBH))
    if not differing:
        return None
    error_TBH = _possible_error(layer, x, whole_TBH)
    for part, y_TBH in differing:
        allowance = float(error_TBH[part].max())
        if math.isfinite(allowance) and _differ(y_TBH, whole_TBH[part], allowance):
            return (
                "its state is not carried on: a text read in two halves, with the state handed "
                "over, gives other outputs than the text read at once"
            )
    return None


def _possible_error(layer: ModuleCell, x: Tensor, y_TBH: Tensor) -> Tensor:
    """Returns by how much rounding errors may have changed the outputs of a text, at most.

    A recurrence that has amplified them over many steps amplifies a change of its parameters too.
    (check_layer takes the change back.)
    """
    for parameter in layer.module.parameters():
        parameter.mul_(1 + SMALL * torch.randn_like(parameter))
    return 2 * (_read(layer, x, _state(layer))[0] - y_TBH).abs()


@torch.no_grad()
def differs_alone(layer: ModuleCell) -> str | None:
    """Reads one stream as sampling and scoring do: byte by byte, then the rest at once."""
    x, middle = _text(layer), NUM_STEPS // 2
    whole_TBH, _ = _read(layer, x, _state(layer))
    parts, state = [], _state(layer, batch=1)
    for piece in [*x[:middle, :1].split(1), x[middle:, :1]]:
        y_TBH, state = _read(layer, piece, state)
        parts.append(y_TBH)
    y_TBH = torch.cat(parts)
    if not _differ(y_TBH, whole_TBH[:, :1]):
        return None
    allowance = float(_possible_error(layer, x, whole_TBH).max())
    if math.isfinite(allowance) and _differ(y_TBH, whole_TBH[:, :1], allowance):
        return (
            "one stream read alone, byte by byte as in sampling, gives other outputs than in a "
            "batch"
        )
    return None


def leaves_parameters_out(layer: ModuleCell, num_steps: int, noise: float) -> str | None:
    """Reads chunks of a text until every parameter has had a gradient.

    Between chunks the parameters move, since one of many experts may be out of reach.
    """
    state = _state(layer)
    for _ in range(MAX_CHUNKS):
        y_TBH, state = _read(layer, _text(layer, num_steps), state.detach())
        (y_TBH * torch.randn_like(y_TBH)).sum().backward()
        without = [name for name, parameter in layer.module.named_parameters()
                   if parameter.grad is None or not parameter.grad.any()]  # fmt: skip
        if not without:
            return None
        _add_noise(layer, noise)
    num_bytes = MAX_CHUNKS * num_steps * NUM_STREAMS
    return (
        f"its parameter {without[0]} gets no gradient from {num_bytes:,} trial bytes: it "
        "counts towards the budget but learns nothing from them (every run starts from zeros, so "
        "an initial state is not learned)"
    )


def lacks_gradient_through_time(layer: ModuleCell) -> str | None:
    """Finds a first input that acts on the last output, but by which no gradient comes back."""
    x, state = _text(layer, NUM_AFTER), _state(layer)
    changed = x.clone()
    changed[0] = _other_symbols(x[0], layer)
    x_TBI = layer.dense_input(x).requires_grad_()
    try:
        y_BH = layer(x_TBI.clone(), state)[0][-1]
        (gradient_TBI,) = torch.autograd.grad((y_BH * torch.randn_like(y_BH)).sum(), x_TBI)
    except Exception:  # see _has_gradient_ahead
        return None
    first, last = gradient_TBI[0], gradient_TBI[-1]
    if last.any() and not first.any() and _differ(_read(layer, changed, state)[0][-1], y_BH):
        return (
            "no gradient comes back to earlier steps through its state (detach?), so it trains "
            "without back-propagation through time"
        )
    return None


IN_BOTH_MODES: Sequence[Check] = [
    is_not_repeatable,
    mixes_streams,  # before looks_ahead, which takes streams for independent
    looks_ahead,
    drops_state,
]
