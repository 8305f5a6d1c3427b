"""Makes text harmless for the format that it is written in.

Corpora, options and notes of a run may be a stranger's. What a terminal could obey is refused or
replaced when it is read (runs/result.py); the page's template escapes by itself; the rest is here.
"""

from __future__ import annotations

import re

LATEX_SPECIAL = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "—": "---",
        "|": r"\textbar{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)
# A link or picture, the end of a table's entry, and < where an HTML tag can begin (CommonMark 6.6):
# elsewhere, as in "p < 0.05", it is only a sign.
MARKDOWN_SPECIAL = re.compile(r"[\\\[|]|<(?=[A-Za-z/!?])")
# In names, whatever could be markup at all, except "_": between letters it stands for itself.
MARKDOWN_IN_NAMES = str.maketrans({char: f"\\{char}" for char in "\\`*[]<>|&~$"})
FORMULA = re.compile(r"[=+\-@\t\r]")  # makes a spreadsheet calculate what follows
NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")


def latex(text: object) -> str:
    return str(text).translate(LATEX_SPECIAL)


def markdown(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\g<0>", text)


def markdown_name(text: str) -> str:
    return text.translate(MARKDOWN_IN_NAMES)


def csv(value: object) -> object:
    """Marks as text what a spreadsheet would take for a formula; returns all else as it is."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value
