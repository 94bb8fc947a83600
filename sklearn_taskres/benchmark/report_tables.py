"""The tables of the TaskRes paper's experiments, from the lines of results.jsonl."""

from typing import NamedTuple

import numpy as np

from . import published
from .report_entries import TARGETS, Entry, Key, Table, average, names

#: What the block of an average names in place of a data set.
AVERAGE = "average"
#: What all seeds of an entry should share.
SETTINGS = ("digest", "base_norm", "views", "parameters", "version", "code")
#: Shots of the tables that have one column of shots only, as in the paper.
SHOTS = 16
#: Methods of the table of domain generalisation.
GENERALISING = ("zero-shot", "linear-probe", "coop", "taskres", "taskres-enhanced")


class Ablation(NamedTuple):
    """A comparison of variants: where the paper has it, and its methods with what they are."""

    name: str
    title: str
    rows: dict[str, str]


# Tables 2 and 5 are known to be these two; the other numbers are believed, from the order in which
# the paper treats them.
ABLATIONS = (
    Ablation(
        "classifier_type",
        "Classifier type (paper: Table 2)",
        {
            "text-adapter": "t' = φ(t): text-adapter",
            "text-adapter-residual": "t' = t + α φ(t): text-adapter-residual",
            "taskres": "t' = t + α x: taskres",
        },
    ),
    Ablation(
        "base",
        "Base of the classifier (paper: Table 3, believed)",
        {
            "zero-shot": "regular base, no residual: zero-shot",
            "taskres-enhanced-only": "enhanced base, no residual: taskres-enhanced-only",
            "taskres": "regular base, residual: taskres",
            "taskres-enhanced": "enhanced base, residual: taskres-enhanced",
        },
    ),
    Ablation(
        "residual_placement",
        "Where the residual is added (paper: Table 4, believed)",
        {
            "taskres": "text: taskres",
            "taskres-image": "image: taskres-image",
            "taskres-both": "text and image: taskres-both",
        },
    ),
    Ablation(
        "alpha",
        "Alpha, the weight of the residual (paper: Table 5)",
        {
            "zero-shot": "0 (zero-shot)",
            "taskres-alpha-0.1": "0.1",
            "taskres-alpha-0.3": "0.3",
            "taskres": "0.5 (taskres)",
            "taskres-alpha-0.7": "0.7",
            "taskres-alpha-1": "1",
            "taskres-learned-alpha": "learned, from 0.5",
        },
    ),
)
#: What all have in common: with these alone there is no ablation.
_COMMON = {"zero-shot", "taskres", "taskres-enhanced"}
#: Methods that only ablations have, which a figure of whole methods leaves out.
ABLATION_ONLY = {name for ablation in ABLATIONS for name in ablation.rows} - _COMMON


def _block(backbone, **more):
    return {"backbone": backbone or "", **more}


def _without_gaps(entries):
    return {place: entry for place, entry in entries.items() if entry is not None}


def _numbers(shots):
    return [str(k) for k in shots]


def few_shot(groups, backbone, data):
    """Return the table of methods by shots on one data set.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    data : str
    """
    methods = names(groups, "method", backbone=backbone, data=data)
    shots = names(groups, "shots", backbone=backbone, data=data)
    entries = {
        (method, str(k)): average(groups, [Key(backbone, data, data, method, k)])
        for method in methods
        for k in shots
    }
    rows = {method: method for method in methods}
    block = _block(backbone, data=data)
    entries = _without_gaps(entries)
    notes = _mixtures(groups, entries)
    return Table("few_shot", data, block, "method", "shots", rows, _numbers(shots), entries, notes)


def _mixtures(groups, entries):
    """Say which entries are means over seeds that were not run in one setting."""
    notes = []
    for (method, shots), entry in entries.items():
        (key,) = {key for key, _ in entry.cells}
        differ = [
            name.replace("_", " ")
            for name in SETTINGS
            if len({str(cell.get(name)) for cell in groups[key]}) > 1
        ]
        if differ:
            notes.append(
                f"Mixed: the seeds of {method} at {shots} differ in {', '.join(differ)}. Run "
                f"them all in one setting."
            )
    return notes


def few_shot_average(groups, backbone):
    """Return the table of methods by shots over all data sets, if every one of them has cells.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    data_sets = names(groups, "data", backbone=backbone)
    why_not = published.why_not_comparable(backbone, data_sets)
    shots = names(groups, "shots", backbone=backbone)
    entries = {
        (method, str(k)): average(
            groups,
            [Key(backbone, data, data, method, k) for data in data_sets],
            None if why_not else published.AVERAGES.get(method, {}).get(k),
        )
        for method in names(groups, "method", backbone=backbone)
        for k in shots
    }
    entries = _without_gaps(entries)
    if not entries:
        return None
    rows = {row: row for row, _ in entries}
    notes = [
        f"Published figures: not comparable, since {why_not}."
        if why_not
        else f"In parentheses the published figure, from {published.AVERAGES_SOURCE}"
    ]
    if not why_not:
        notes.append(_views(groups, entries))
    title = f"Average of the {len(data_sets)} data sets"
    block = _block(backbone, data=AVERAGE)
    return Table("few_shot", title, block, "method", "shots", rows, _numbers(shots), entries, notes)


def gains(groups, backbone):
    """Return the table of differences to zero-shot that were published, with ours, or None.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    found = {gain.name: _gain(groups, backbone, gain) for gain in published.GAINS}
    entries = {(name, "gain"): entry for name, (entry, _) in found.items() if entry}
    if not entries:
        return None
    rows = {row: row for row, _ in entries}
    notes = [
        f"In parentheses the published figure, from {published.GAINS_SOURCE}",
        _views(groups, entries),
    ]
    lacking = [f"{name} ({why_not})" for name, (entry, why_not) in found.items() if not entry]
    if lacking:
        notes.append(f"Not comparable yet: {'; '.join(lacking)}.")
    title = "Gains over zero-shot that were published, in points"
    return Table(
        "gains", title, _block(backbone), "comparison", "what", rows, ["gain"], entries, notes, True
    )


def _views(groups, entries):
    """Say how the training images of these entries were varied, next to the published way."""
    cells = [cell for entry in entries.values() for key, _ in entry.cells for cell in groups[key]]
    views = ", ".join(sorted({str(cell.get("views") or "no") for cell in cells}))
    return (
        f"The published methods that train drew a new random crop of each image in every epoch; "
        f"these had {views} views per image to draw from."
    )


def _gain(groups, backbone, gain):
    """Return ours with the published one, seed by seed, and why not; one of them is None."""
    data_sets = [gain.data] if gain.data else names(groups, "data", backbone=backbone)
    why_not = published.why_not_comparable(backbone, None if gain.data else data_sets)
    if why_not:
        return None, why_not
    with_it, without = (
        average(groups, [Key(backbone, data, data, method, gain.shots) for data in data_sets])
        for method in (gain.method, "zero-shot")
    )
    if with_it is None or without is None:
        return None, "cells lack"
    seeds = with_it.per_seed.keys() & without.per_seed.keys()
    if not seeds:
        return None, "no seed in common with zero-shot"
    per_seed = {s: with_it.per_seed[s] - without.per_seed[s] for s in sorted(seeds)}
    mean = float(np.mean(list(per_seed.values())))
    return Entry(mean, per_seed, with_it.cells | without.cells, gain.points), None


def domain_generalisation(groups, backbone):
    """Return the table of methods by ImageNet and its variants, fitted to ImageNet, or None.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    columns = {"imagenet": "ImageNet (source)", **TARGETS}
    entries = {}
    for method in GENERALISING:
        keys = {test: Key(backbone, "imagenet", test, method, SHOTS) for test in columns}
        for test, head in columns.items():
            entries[method, head] = average(groups, [keys[test]])
        entries[method, "target average"] = average(groups, [keys[test] for test in TARGETS])
    entries = _without_gaps(entries)
    if not any(column in TARGETS.values() for _, column in entries):
        return None
    title = "Domain generalisation (paper: Table 1, believed)"
    notes = [f"Fitted to {SHOTS} images per class of ImageNet, tested there and on its variants."]
    rows = {row: row for row, _ in entries}
    heads = [*columns.values(), "target average"]
    block = _block(backbone)
    return Table(
        "domain_generalisation", title, block, "method", "test", rows, heads, entries, notes
    )


def ablation(groups, backbone, spec):
    """Return the table of an ablation's variants by shots, or None if no variant has cells.

    Each column averages over the data sets on which all its rows have cells, so that rows differ
    in the method alone.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    spec : Ablation
    """
    there = names(groups, "method", backbone=backbone)
    rows = {method: label for method, label in spec.rows.items() if method in there}
    entries, over = {}, {}
    for k in names(groups, "shots", backbone=backbone) if _has_a_variant(rows) else ():
        data_sets = _complete_data_sets(groups, backbone, rows, k)
        for method in rows if data_sets else ():
            keys = [Key(backbone, data, data, method, k) for data in data_sets]
            entries[method, str(k)] = average(groups, keys)
        if data_sets:
            over[str(k)] = data_sets
    if not entries:
        return None
    notes = [_over(over), *_lacking(spec, rows)]
    block = _block(backbone)
    return Table(spec.name, spec.title, block, "variant", "shots", rows, list(over), entries, notes)


def _has_a_variant(rows):
    return len(rows) > 1 and any(method not in _COMMON for method in rows)


def _complete_data_sets(groups, backbone, methods, shots):
    return [
        data
        for data in names(groups, "data", backbone=backbone)
        if all(Key(backbone, data, data, method, shots) in groups for method in methods)
    ]


def _over(over):
    """Say which data sets the columns average over."""
    kinds = list(dict.fromkeys(tuple(data_sets) for data_sets in over.values()))
    if len(kinds) == 1:
        return f"Averaged over {', '.join(kinds[0])}."
    parts = [
        f"{', '.join(kind)} (shots {', '.join(k for k, d in over.items() if tuple(d) == kind)})"
        for kind in kinds
    ]
    return f"Averaged over {'; '.join(parts)}."


def _lacking(spec, rows):
    lacking = [method for method in spec.rows if method not in rows]
    return [f"No cells yet: --methods {' '.join(lacking)}."] if lacking else []


def backbones(groups):
    """Return the table of methods by backbones, or None with fewer than two.

    It averages over the data sets that every backbone has, and leaves out variants of ablations.

    Parameters
    ----------
    groups : dict of Key to list of dict
    """
    at = {
        key: cells
        for key, cells in groups.items()
        if key.shots == SHOTS and key.backbone and key.method not in ABLATION_ONLY
    }
    columns = names(at, "backbone")
    data_sets = [
        data for data in names(at, "data") if set(names(at, "backbone", data=data)) == set(columns)
    ]
    if len(columns) < 2 or not data_sets:
        return None
    entries = {
        (method, backbone): average(
            at, [Key(backbone, data, data, method, SHOTS) for data in data_sets]
        )
        for method in names(at, "method")
        for backbone in columns
    }
    entries = _without_gaps(entries)
    if not entries:
        return None
    rows = {row: row for row, _ in entries}
    notes = [f"{SHOTS} images per class, averaged over {', '.join(data_sets)}."]
    title = "Backbones (paper: Table 6, believed)"
    return Table("backbones", title, {}, "method", "backbone", rows, columns, entries, notes)
