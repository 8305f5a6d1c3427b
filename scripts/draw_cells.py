"""Draws docs/cells/*.svg: the data flow of one step of each cell, or of one of its gates.

    python scripts/draw_cells.py                                  (needs matplotlib)
    python scripts/draw_cells.py --format png --output /tmp/cells

Boxes are weighted sums, each with weights of its own, followed by a function; circles are
element-wise operations. Orange marks gates, blue the path that keeps the state, green what a
peephole sees.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import hypot
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyBboxPatch

ORANGE, BLUE, GREEN, DARK = "#f5b75c", "#2f6db3", "#2e8b57", "#333333"
RADIUS, WIDE, HIGH = 0.26, 0.55, 0.3  # radius of circles; half the width and height of boxes
Point = tuple[float, float]


class Diagram:
    """A drawing of nodes, with lines between points. A line to a node ends at the node's edge."""

    def __init__(self, width: float, low: float, high: float) -> None:
        figure, self.axes = plt.subplots(figsize=(0.85 * width, 0.85 * (high - low)))
        figure.subplots_adjust(0, 0, 1, 1)
        self.figure = figure
        self.axes.set(xlim=(0, width), ylim=(low, high), aspect="equal")
        self.axes.axis("off")
        self.circles: set[Point] = set()
        self.boxes: set[Point] = set()

    def text(self, at: Point, text: str, size: float = 12, color: str = DARK) -> None:
        self.axes.text(*at, text, ha="center", va="center", size=size, color=color, zorder=4)

    def circle(self, at: Point, text: str) -> None:
        self.axes.add_patch(Circle(at, RADIUS, facecolor="white", edgecolor=DARK, zorder=3))
        self.text(at, text, 11)
        self.circles.add(at)

    def box(self, at: Point, text: str, color: str = "white") -> None:
        corner = (at[0] - WIDE, at[1] - HIGH)
        style = "round,pad=0,rounding_size=0.08"
        self.axes.add_patch(
            FancyBboxPatch(corner, 2 * WIDE, 2 * HIGH, style, fc=color, ec=DARK, zorder=3)
        )
        self.text(at, text, 11)
        self.boxes.add(at)

    def gate(self, at: Point, text: str) -> None:
        self.box(at, text, ORANGE)

    def line(self, *points: Point, color: str = DARK, dashed: bool = False) -> None:
        """Draws an arrow through the points."""
        *before, (x, y), end = points
        if end in self.circles:
            share = 1 - RADIUS / hypot(end[0] - x, end[1] - y)
            end = (x + share * (end[0] - x), y + share * (end[1] - y))
        elif end in self.boxes:
            end = (end[0], end[1] + (HIGH if y > end[1] else -HIGH))
        width = 2.4 if color == BLUE else 1.3
        style = (0, (3, 2)) if dashed else "-"
        corners = [*before, (x, y), end]
        self.axes.plot(*zip(*corners, strict=True), color=color, lw=width, ls=style, zorder=1)
        arrow = {"arrowstyle": "-|>", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0}
        length = hypot(end[0] - x, end[1] - y)
        tail = (end[0] - 0.2 * (end[0] - x) / length, end[1] - 0.2 * (end[1] - y) / length)
        self.axes.annotate("", xy=end, xytext=tail, arrowprops=arrow, zorder=2)

    def inputs(self, text: str, *boxes: Point) -> None:
        """Draws x and h along the bottom, and from there into each box from below."""
        self.text((0.35, 0), text)
        for box in boxes:
            self.line((0.75, 0), (box[0], 0), box)


def draw_rnn() -> Diagram:
    d = Diagram(4.2, -0.4, 1.8)
    d.box((2, 1.2), "φ")
    d.inputs("x, h", (2, 1.2))
    d.line((2, 1.2), (3.6, 1.2), color=BLUE)
    d.text((3.85, 1.2), "h'")
    return d


def draw_lstm(peepholes: bool = False) -> Diagram:
    d = Diagram(10, -0.4, 4.5)
    f, i, g, o = (2.1, 1.1), (3.7, 1.1), (5.3, 1.1), (7.1, 1.1)
    forget, write, add, phi, output = (2.1, 4), (4.5, 2.7), (4.5, 4), (8.3, 3.2), (8.3, 2.3)
    for at, name in ((f, "f   σ"), (i, "i   σ"), (o, "o   σ")):
        d.gate(at, name)
    d.box(g, "g   φ")
    for at, sign in ((forget, "⊙"), (write, "⊙"), (add, "+"), (phi, "φ"), (output, "⊙")):
        d.circle(at, sign)
    d.inputs("x, h", f, i, g, o)
    d.text((0.35, 4), "c")
    d.line((0.6, 4), forget, color=BLUE)
    d.line(forget, add, color=BLUE)
    d.line(add, (9.4, 4), color=BLUE)
    d.text((9.7, 4), "c'")
    d.line(f, forget)
    d.line(i, (3.7, 2.7), write)
    d.line(g, (5.3, 2.7), write)
    d.line(write, add)
    d.line((8.3, 4), phi)
    d.line(phi, output)
    d.line(o, (7.1, 2.3), output)
    d.line(output, (9.4, 2.3))
    d.text((9.7, 2.3), "h'")
    if peepholes:
        seen: Any = {"color": GREEN, "dashed": True}
        top = 1.1 + HIGH
        d.line((1.2, 4), (1.2, 1.9), (1.75, 1.9), (1.75, top), **seen)
        d.line((1.2, 1.9), (3.35, 1.9), (3.35, top), **seen)
        d.line((6.75, 4), (6.75, top), **seen)
        d.text((0.85, 2.9), "w ⊙ c", 10, GREEN)
        d.text((6.3, 2.9), "w ⊙ c'", 10, GREEN)
    return d


def draw_gru(reset_after: bool = False) -> Diagram:
    d = Diagram(9.2, -0.4, 5.5)
    r, n, z = (2.2, 1.1), (4, 1.1), (7.2, 1.1)
    reset, mix, kept, add = (2.2, 2.6), (5.3, 2.6), (3.7, 4), (5.3, 4)
    # The complement of z weights the old state in the paper's form, the candidate in the other.
    complement = (6.3, 2.6) if reset_after else (5.3, 5)
    d.gate(r, "r   σ")
    d.gate(z, "z   σ")
    d.box(n, "n  tanh" if reset_after else "n   φ")
    for at, sign in ((reset, "⊙"), (mix, "⊙"), (kept, "⊙"), (add, "+"), (complement, "1−")):
        d.circle(at, sign)
    d.inputs("x, h", r, z)
    d.line((4, 0), n)
    d.text((4.55, 0.4), "x alone", 10)
    d.text((0.35, 4), "h")
    d.line((0.6, 4), kept, color=BLUE)
    d.line(kept, add, color=BLUE)
    d.line(add, (8.6, 4), color=BLUE)
    d.text((8.9, 4), "h'")
    if reset_after:
        d.box((1, 3.3), "U h + b'")
        d.line((1, 4), (1, 3.3))
    d.line((1, 3.3 if reset_after else 4), (1, 2.6), reset)
    d.line(r, reset)
    d.line(reset, (3.65, 2.6), (3.65, 1.1 + HIGH))
    d.line((4.35, 1.1 + HIGH), (4.35, 2.6), mix)
    d.line(mix, add)
    if reset_after:
        d.line(z, (7.2, 2.6), complement)
        d.line(complement, mix)
        d.line((7.2, 2.6), (7.2, 5), (3.7, 5), kept)
    else:
        d.line(z, (7.2, 2.6), mix)
        d.line((7.2, 2.6), (7.2, 5), complement)
        d.line(complement, (3.7, 5), kept)
    return d


def draw_source_gate(cascaded: bool) -> Diagram:
    """Draws how one of the gates i, f, o is computed from its three sources."""
    d = Diagram(9.2, -0.4, 3.7)
    join, out = (6, 1.6), (7.4, 1.6)
    d.circle(join, "⊙" if cascaded else "+")
    for y, source, alpha in (
        (2.9, "a = W x + b", "a"),
        (1.6, "u = U h + b'", "u"),
        (0.3, "p = w ⊙ c", "p"),
    ):
        d.text((1.3, y), source, color=GREEN if alpha == "p" else DARK)
        middle = (4, y)
        if cascaded:
            d.gate(middle, "σ")
            d.line((2.5, y), (4 - WIDE, y))
        else:
            d.circle(middle, "⊙")
            d.line((2.5, y), middle)
            d.line((4, y + 0.7), middle, color=ORANGE)
            d.text((3.55, y + 0.5), f"$\\alpha_{alpha}$", 13)
        d.line((4 + WIDE, y) if cascaded else middle, join)
    if cascaded:
        d.line(join, (8.1, 1.6))
    else:
        d.text((6.3, 3.3), "α = softmax over a, u, p", 11)
        d.gate(out, "σ(3 ·)")
        d.line(join, (out[0] - WIDE, 1.6))
        d.line(out, (8.4, 1.6))
    d.text((8.75 if not cascaded else 8.5, 1.6), "i, f, o")
    return d


DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "rnn": draw_rnn,
    "lstm": draw_lstm,
    "lstm_peephole": lambda: draw_lstm(peepholes=True),
    "gru": draw_gru,
    "gru_reset_after": lambda: draw_gru(reset_after=True),
    "lstm_softmax_gate": lambda: draw_source_gate(cascaded=False),
    "lstm_cascaded_gate": lambda: draw_source_gate(cascaded=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/cells"))
    parser.add_argument("--format", choices=["svg", "png"], default="svg")
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "charcmp"  # so that the same picture gives the same file
    args.output.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        file = args.output / f"{name}.{args.format}"
        metadata = {"Date": None} if args.format == "svg" else None
        draw().figure.savefig(file, metadata=metadata, facecolor="white")


if __name__ == "__main__":
    main()
