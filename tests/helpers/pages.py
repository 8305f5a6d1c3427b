"""What tests of the page make reports of: a hostile text, and the losses of a grid of models."""

from __future__ import annotations

NASTY = "<img src=x onerror=\"document.title='pwned'\"> & $x$ </script>"
GRID = {
    ("lstm", 1): 1.46, ("lstm", 2): 1.42, ("gru", 1): 1.44,
    ("gru", 2): 1.40, ("rnn", 1): 1.50, ("rnn", 2): 1.48,
}  # fmt: skip
