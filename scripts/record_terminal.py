"""Records a command in a terminal as an SVG that plays by itself.

    python scripts/record_terminal.py --output docs/demo.svg -- charcmp recommend dataset=pydocs

Runs the command in a pseudo-terminal and takes a picture of the screen whenever it changes. The
recording plays for --seconds and then holds the last screen, which is also what a viewer without
animation shows.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROWS = 200  # of the pseudo-terminal; the picture is only as high as the fullest screen
TOKEN = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|(.)", re.DOTALL)  # an escape sequence or a character
# rich's own template uses a font from the network, which a picture in a page may not fetch.
FRAME = """\
<svg class="frame" style="animation-name: {unique_id}" viewBox="0 0 {width} {height}">
<style>{styles}
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, monospace;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""
RECORDING = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}">
<title>{title}</title>
<style>
.frame {{ visibility: hidden; animation: {seconds:.1f}s step-end infinite; }}
.frame:last-child {{ visibility: visible; }}
@media (prefers-reduced-motion: reduce) {{ .frame {{ animation: none; }} }}
{keyframes}
</style>
{frames}</svg>
"""


class Screen:
    """The screen of a terminal that knows the few escape sequences charcmp and tqdm write."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = [[]]  # of characters, each with its colour's escape sequence
        self.row = self.column = 0
        self.colour = ""

    def write(self, text: str) -> None:
        for number, letter, character in TOKEN.findall(text):
            if letter == "m":
                self.colour = "" if number in ("", "0") else f"{self.colour}\x1b[{number}m"
            elif letter:
                self._obey(letter, int(number) if number.isdecimal() else 1)
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
            elif character == "\r":
                self.column = 0
            else:
                self._put(f"{self.colour}{character}\x1b[0m" if self.colour else character)
            if self.row == len(self.lines):
                self.lines.append([])

    def _obey(self, letter: str, count: int) -> None:
        if letter in "AF":
            self.row = max(0, self.row - count)
        if letter == "F":
            self.column = 0
        if letter in "JK":
            del self.lines[self.row][self.column :]
        if letter == "J":
            del self.lines[self.row + 1 :]

    def _put(self, character: str) -> None:
        line = self.lines[self.row]
        line += " " * (self.column - len(line))
        line[self.column : self.column + 1] = [character]
        self.column += 1

    def __str__(self) -> str:
        return "\n".join("".join(line) for line in self.lines).rstrip()


def run(command: Sequence[str], columns: int) -> Iterator[tuple[float, str]]:
    """Yields the seconds since the start and the screen each time the command has written."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    modes = termios.tcgetattr(its_end)
    modes[1] &= ~termios.OPOST  # \n arrives as it was written, without a \r before it
    termios.tcsetattr(its_end, termios.TCSANOW, modes)
    screen = Screen()
    screen.write(f"$ {shlex.join(command)}\n")
    yield 0.0, str(screen)
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=its_end, stdout=its_end, stderr=its_end)
    os.close(its_end)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while True:
        try:
            written = os.read(terminal, 1 << 16)
        except OSError:  # on Linux this is the end of file: the command has closed its end
            break
        screen.write(decode(written))
        yield time.monotonic() - begin, str(screen)
    if status := process.wait():
        sys.exit(f"{shlex.join(command)}: exit status {status}\n{screen}")


def thinned(screens: Sequence[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    """Returns at most so many of the screens, spread evenly over the time; the last one stays."""
    end = screens[-1][0]
    chosen = {0: screens[0]}
    for at, screen in screens[1:]:
        chosen[int(at / end * (most - 2)) + 1] = at, screen
    return list(chosen.values())


def wrapped(screen: str, columns: int) -> list[Text]:
    """Returns a screen's lines as a terminal of so many columns shows them."""
    return list(Text.from_ansi(screen).wrap(Console(), columns))


def frame(lines: list[Text], number: int, title: str, columns: int, height: int) -> str:
    """Returns a screen as an SVG of this height, in lines."""
    console = Console(record=True, width=columns, file=io.StringIO())
    for line in [*lines, *[Text()] * (height - len(lines))]:
        console.print(line)
    return console.export_svg(
        title=title, theme=DIMMED_MONOKAI, code_format=FRAME, unique_id=f"frame{number}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0, help="to play it")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds that the end stays")
    parser.add_argument("--frames", type=int, default=24, help="at most so many")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    screens = thinned(list(run(options.command, options.columns)), options.frames)
    shown = [wrapped(screen, options.columns) for _, screen in screens]
    height = max(map(len, shown))
    ran, seconds = screens[-1][0], options.seconds + options.hold
    title = f"{ran:.0f} seconds, played in {options.seconds:.0f}"
    frames = [
        frame(lines, number, title, options.columns, height) for number, lines in enumerate(shown)
    ]
    moments = [100 * options.seconds / seconds * at / ran for at, _ in screens[:-1]]
    moments = [0.0, *moments[1:], 100 * options.seconds / seconds, 100.0]
    keyframes = "\n".join(
        f"@keyframes frame{number} {{ 0% {{ visibility: hidden }} {begin:.2f}% {{ visibility: "
        f"visible }} {end:.2f}% {{ visibility: hidden }} }}"
        for number, (begin, end) in enumerate(pairwise(moments))
    )
    view_box = re.search(r'viewBox="(.*?)"', frames[-1])
    assert view_box is not None
    options.output.write_text(
        RECORDING.format(
            view_box=view_box[1],
            title=shlex.join(options.command),
            seconds=seconds,
            keyframes=keyframes,
            frames="".join(frames),
        )
    )


if __name__ == "__main__":
    main()
