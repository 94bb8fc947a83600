"""What commands print: lines, tables and counts on stdout; whatever disturbs goes to stderr."""

import sys
from collections.abc import Sequence

import numpy as np

#: Classes that a list names.
MOST_CLASSES = 10


def say(*cells: str) -> None:
    """Print a line of cells on stdout, tabs between them."""
    sys.stdout.write("\t".join(map(printable, cells)) + "\n")


def complain(text: str) -> None:
    """Print a line on stderr; of an error that has several, all of them."""
    sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")


def printable(text: str) -> str:
    """Return text without what a terminal would obey: a file's name may hold any character."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return a count with its noun, as in "1 image" and "3 classes"."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def say_table(rows: Sequence[Sequence[object]], *, indent: int = 2) -> None:
    """Print rows of cells, the first column on the left and the others on the right."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        say((" " * indent + "  ".join([first.ljust(widths[0]), *cells])).rstrip())


def say_some(rows: Sequence[Sequence[object]], what: str, most: int = MOST_CLASSES) -> None:
    """Print the first rows of a table under a heading that says if there are more."""
    more = f", the first {most} of {len(rows)}" if len(rows) > most else ""
    say(f"{what}{more}:")
    say_table(rows[:most])


def counted(labels: np.ndarray) -> str:
    """Return how many images there are of how many classes."""
    names, counts = np.unique(labels, return_counts=True)
    each = (
        f"{counts.min()} each"
        if counts.min() == counts.max()
        else (f"{counts.min()} to {counts.max()} each")
    )
    classes = plural(len(names), "class", "classes")
    return f"{plural(len(labels), 'image')} of {classes}, {each}"
