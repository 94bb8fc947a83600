"""Results by what they are of, averaged over seeds and data sets, and tables of them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .._data_sets import DATA_SETS, TRAINED, VARIANTS
from . import published
from .methods import METHODS

#: ImageNet's variants, on which a fit to ImageNet is tested, to the heads of their columns.
TARGETS = {name: DATA_SETS[name].variant for name in VARIANTS}


class Key(NamedTuple):
    """What the seeds of one entry share."""

    backbone: str | None
    data: str
    test: str
    method: str
    shots: int


@dataclass(frozen=True)
class Entry:
    """Accuracy in %, or a difference in points, over seeds.

    `per_seed` is averaged over data sets if there are several, and then holds the seeds that all
    of them have. `cells` names what went in, by Key and seed.
    """

    mean: float
    per_seed: dict[int, float]
    cells: frozenset[tuple["Key", int]]
    published: float | None = None

    @property
    def std(self):
        """Sample standard deviation over seeds, None with fewer than two."""
        values = list(self.per_seed.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Table:
    """Entries by row and column, and what a reader must know about them.

    `block` tells apart the tables of one kind, such as those of several backbones; they go into one
    CSV file, ``<name>.csv``. `head` says what the rows are, `across` what the columns are.
    `is_gain` says that entries are differences, each for itself.
    """

    name: str
    title: str
    block: dict[str, str]
    head: str
    across: str
    rows: dict[str, str]
    columns: list[str]
    entries: dict[tuple[str, str], Entry]
    notes: list[str] = field(default_factory=list)
    is_gain: bool = False

    def best(self, column):
        """Return the row that beats every other one of the column on each seed, or None.

        Parameters
        ----------
        column : str
        """
        there = {
            row: self.entries[row, column] for row in self.rows if (row, column) in self.entries
        }
        if len(there) < 2 or self.is_gain:
            return None
        top = max(there, key=lambda row: there[row].mean)
        others = [entry for row, entry in there.items() if row != top]
        return top if all(_beats(there[top], other) for other in others) else None

    @property
    def n_fits(self):
        """How many fits went into the entries, each counted once, however often it was tested."""
        cells = frozenset().union(*(entry.cells for entry in self.entries.values()))
        return len({(key._replace(test=""), seed) for key, seed in cells})

    @property
    def seeds(self):
        """Number of seeds per entry, in words."""
        counts = sorted({len(entry.per_seed) for entry in self.entries.values()})
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _beats(one, other):
    """Whether one is higher on each of at least two seeds that both have."""
    seeds = one.per_seed.keys() & other.per_seed.keys()
    return len(seeds) > 1 and all(one.per_seed[s] > other.per_seed[s] for s in seeds)


def grouped(lines):
    """Return cells by Key, each with a seed once: the last line of a cell counts.

    Parameters
    ----------
    lines : list of dict
        Finished cells. Those without ``test`` were tested on their own data set; those without
        ``backbone`` came from a file.
    """
    last = {(_key(line), line["seed"]): line for line in lines}
    groups: dict[Key, list[dict]] = {}
    for (key, _), line in last.items():
        groups.setdefault(key, []).append(line)
    return groups


def _key(line):
    test = line.get("test") or line["data"]
    return Key(line.get("backbone"), line["data"], _target(test), line["method"], line["shots"])


def _target(test):
    """Return a variant's name as TARGETS spells it, whether it is written with -, _ or neither."""
    plain = {target.replace("_", ""): target for target in TARGETS}
    return plain.get(test.replace("-", "").replace("_", ""), test)


def on_own_tests(groups):
    """Return the groups that were tested on the data set they were trained on.

    Parameters
    ----------
    groups : dict of Key to list of dict
    """
    return {key: cells for key, cells in groups.items() if key.test == key.data}


def names(groups, what, **fixed):
    """Return the values of one name of Key, of the keys whose other names have given values.

    Methods come in the order of the registry, the published backbone first, data sets in the
    papers' order, shots by size; what is not known comes after, as it was first met.

    Parameters
    ----------
    groups : dict of Key to list of dict
    what : str
        A name of Key.
    **fixed : dict
        Names of Key and the values to keep.
    """
    found = list(
        dict.fromkeys(
            getattr(key, what)
            for key in groups
            if all(getattr(key, name) == value for name, value in fixed.items())
        )
    )
    if what == "shots":
        return sorted(found)
    order = {"method": METHODS, "backbone": (published.BACKBONE,)}.get(what, TRAINED)
    return sorted(found, key=lambda name: [*order, name].index(name))


def _scores(cells):
    """Accuracy in % by seed."""
    return {cell["seed"]: 100 * cell["accuracy"] for cell in cells}


def average(groups, keys, published_value=None):
    """Return the entry of one key, or of the mean over several, or None if one has no cells.

    Parameters
    ----------
    groups : dict of Key to list of dict
    keys : list of Key
    published_value : float, optional
        To go next to it.
    """
    if not keys or any(key not in groups for key in keys):
        return None
    scores = [_scores(groups[key]) for key in keys]
    common = sorted(set.intersection(*map(set, scores)))
    per_seed = {seed: float(np.mean([each[seed] for each in scores])) for seed in common}
    mean = float(np.mean([np.mean(list(each.values())) for each in scores]))
    cells = frozenset((key, cell["seed"]) for key in keys for cell in groups[key])
    return Entry(mean, per_seed, cells, published_value)
