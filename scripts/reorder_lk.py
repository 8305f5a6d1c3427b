"""Shuffles the files of a Linux corpus, to see how much of a test loss is due to their order.

    python scripts/reorder_lk.py data/lk.txt 1 lk_order1.txt
    charcmp train dataset=text dataset.path=lk_order1.txt \\
        dataset.layout=columns dataset.split=[90,5,5]

The corpus has its files concatenated with nothing between them, so the script guesses where one
begins: at a comment, #include or #ifndef that follows the typical last line of a C file. On the
stand-in this finds some 250 pieces of its 288 files. The characters stay the same, and so does
their number.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

FIRST_LINE = re.compile(rb"(?<=\n)(?=/\*|#include|#ifndef _)")
LAST_LINE = re.compile(rb"}|#endif.*|(?:EXPORT_SYMBOL|MODULE_|module_|\w+_initcall).*")


def pieces(text: bytes) -> list[bytes]:
    """Returns the text, cut where a file seems to begin."""
    cuts = [0]
    for match in FIRST_LINE.finditer(text):
        cut = match.start()
        before = text[text.rfind(b"\n", 0, cut - 1) + 1 : cut - 1]
        if LAST_LINE.fullmatch(before):
            cuts.append(cut)
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, seed, target = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    parts = pieces(source.read_bytes())
    random.Random(seed).shuffle(parts)
    target.write_bytes(b"".join(parts))
    print(f"{target}: {len(parts)} pieces, {target.stat().st_size:,} bytes, order {seed}")


if __name__ == "__main__":
    main()
