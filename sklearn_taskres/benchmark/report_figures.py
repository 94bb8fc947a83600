"""The figures of the report: few-shot curves, and accuracy against the number of tuned values."""

import re
import sys

import numpy as np
from sklearn.isotonic import isotonic_regression

from ..inspection._drawing import COLORS, NEUTRAL, WORSE, curve_styles
from ..inspection.few_shot_curve import draw_curves
from .report_entries import Key, average, names, on_own_tests
from .report_tables import ABLATION_ONLY, SHOTS

_ZERO_SHOT = {"color": NEUTRAL, "linestyle": "--", "lw": 1.2, "marker": None, "capsize": 0}
_TASKRES = {"color": WORSE, "lw": 2.5, "zorder": 3}
_TASKRES_LOOKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_OTHER_COLORS = [color for color in COLORS if color != WORSE]


def draw_figures(groups, folder):
    """Draw ``report.png`` and ``parameters.png``; further backbones get a suffix, ``-<backbone>``.

    Parameters
    ----------
    groups : dict of Key to list of dict
        As `report_tables.grouped` returns them.
    folder : Path
        Where to write.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit(
            "report.md and the CSV files are written; the figures need matplotlib. Install it with "
            "pip install 'sklearn-taskres[plots]'."
        )
    groups = on_own_tests(groups)
    for backbone in names(groups, "backbone"):
        curves, parameters = file_names(groups, backbone)
        _draw_curves(Figure, groups, backbone, folder / curves)
        _draw_parameters(Figure, groups, backbone, folder / parameters)


def file_names(groups, backbone):
    """Return the names of a backbone's two figures; those of the first one have no suffix.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    first = names(groups, "backbone")[0]
    suffix = "" if backbone == first else "-" + re.sub(r"[^\w.-]", "-", backbone or "features")
    return f"report{suffix}.png", f"parameters{suffix}.png"


def drawn_methods(groups, backbone):
    """Return the methods to draw: without variants of ablations, unless there is nothing else.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    there = names(groups, "method", backbone=backbone)
    return [method for method in there if method not in ABLATION_ONLY] or there


def _looks(methods):
    """Line and marker of each method: colour-blind safe, TaskRes thick, zero-shot grey."""
    others = [m for m in methods if m != "zero-shot" and not m.startswith("taskres")]
    ours = [m for m in methods if m.startswith("taskres")]
    looks = {"zero-shot": _ZERO_SHOT, **curve_styles(others, _OTHER_COLORS)}
    for i, method in enumerate(ours):
        line, marker = _TASKRES_LOOKS[i % len(_TASKRES_LOOKS)]
        looks[method] = {**_TASKRES, "linestyle": line, "marker": marker}
    return looks


# few-shot curves ------------------------------------------------------------------------------


def _draw_curves(figure_class, groups, backbone, path):
    """Draw one panel per data set, and the average in a large one before them."""
    data_sets = names(groups, "data", backbone=backbone)
    methods = drawn_methods(groups, backbone)
    figure, axes = _panels(figure_class, len(data_sets))
    panels = [[data] for data in data_sets]
    if len(data_sets) > 1:
        panels.insert(0, data_sets)
    for ax, panel in zip(axes, panels, strict=True):
        _draw_panel(ax, groups, backbone, panel, methods)
    _legend(figure, axes)
    figure.supxlabel("images per class")
    figure.supylabel("test accuracy in %")
    figure.suptitle(f"Few-shot accuracy, {backbone or 'embeddings from files'}")
    figure.savefig(path, dpi=120)


def _panels(figure_class, n_data_sets):
    """Return a figure and its panels: for several data sets, a first one as large as four."""
    if n_data_sets == 1:
        figure = figure_class(figsize=(7.5, 4.5), layout="constrained")
        return figure, [figure.subplots()]
    n_columns = 3 if n_data_sets == 2 else 4
    n_below = max(0, n_data_sets - 2 * (n_columns - 2))
    n_rows = 2 + -(-n_below // n_columns)
    figure = figure_class(figsize=(2 + 3.2 * n_columns, 0.6 + 2.6 * n_rows), layout="constrained")
    grid = figure.add_gridspec(n_rows, n_columns)
    large = figure.add_subplot(grid[:2, :2])
    free = [(i, j) for i in range(n_rows) for j in range(n_columns) if i > 1 or j > 1]
    return figure, [large, *[figure.add_subplot(grid[place]) for place in free[:n_data_sets]]]


def _draw_panel(ax, groups, backbone, data_sets, methods):
    shots, looks = names(groups, "shots", backbone=backbone), _looks(methods)
    means, stds = {}, {}
    for method in methods:
        entries = {
            k: average(groups, [Key(backbone, data, data, method, k) for data in data_sets])
            for k in shots
        }
        there = {k: entry for k, entry in entries.items() if entry}
        if there:
            means[method] = {k: entry.mean / 100 for k, entry in there.items()}
            stds[method] = {k: (entry.std or 0) / 100 for k, entry in there.items()}
    draw_curves(ax, means, stds, {method: looks[method] for method in means}, shots=shots)
    ax.set_title(data_sets[0] if len(data_sets) == 1 else f"average of {len(data_sets)} data sets")


def _legend(figure, axes):
    """One legend outside of all panels, in the order of the right ends of the first one's lines."""
    found: dict = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle[0])  # the line without its error bars
    labels = sorted(found, key=lambda label: -found[label].get_ydata()[-1])
    lines = [found[label] for label in labels]
    figure.legend(lines, labels, loc="outside right center", frameon=False, handlelength=3)


# accuracy against tuned values ----------------------------------------------------------------


def _setting(groups, backbone):
    """Return data sets and shots of the figure: ImageNet at 16, else all at the most."""
    data_sets = names(groups, "data", backbone=backbone)
    if "imagenet" in data_sets and SHOTS in names(
        groups, "shots", backbone=backbone, data="imagenet"
    ):
        return ["imagenet"], SHOTS
    return data_sets, names(groups, "shots", backbone=backbone)[-1]


def where_parameters_are_compared(groups, backbone):
    """Return in words what accuracy against tuned values is drawn for.

    Parameters
    ----------
    groups : dict of Key to list of dict
    backbone : str or None
    """
    data_sets, shots = _setting(groups, backbone)
    images = "1 image" if shots == 1 else f"{shots} images"
    if len(data_sets) == 1:
        return f"{data_sets[0]}, {images} per class"
    return f"average of {len(data_sets)} data sets, {images} per class"


def _points(groups, backbone):
    """Return method to its number of tuned values, the mean over data sets, and its accuracy."""
    data_sets, shots = _setting(groups, backbone)
    points = {}
    for method in drawn_methods(groups, backbone):
        keys = [Key(backbone, data, data, method, shots) for data in data_sets]
        entry = average(groups, keys)
        if entry:
            count = np.mean([cell["n_parameters"] for key in keys for cell in groups[key]])
            points[method] = (float(count), entry)
    return points


def _draw_parameters(figure_class, groups, backbone, path):
    """Draw one point per method; methods that tune nothing stand at 0, left of a gap."""
    points = _points(groups, backbone)
    looks = _looks(list(points))
    zero, ticks = _ticks([count for count, _ in points.values()])
    figure = figure_class(figsize=(9.5, 4.5), layout="constrained")
    ax = figure.subplots()
    places = _side_by_side({method: max(count, zero) for method, (count, _) in points.items()})
    for method, (count, entry) in points.items():
        look = {**looks[method], "linestyle": "none", "marker": looks[method]["marker"] or "*"}
        look |= {"markersize": 9, "capsize": 3, "fillstyle": "none", "markeredgewidth": 1.8}
        label = f"{entry.mean:.1f} %  {method} ({count:,.0f})"
        ax.errorbar(places[method], entry.mean, entry.std, label=label, **look)
    ax.set_xscale("log")
    ax.set_xlim(zero / 5, ticks[-1] * 2)
    ax.set_xticks([zero, *ticks], ["0", *[f"$10^{{{round(np.log10(t))}}}$" for t in ticks]])
    ax.minorticks_off()
    ax.set_xlabel("values that training tunes (log scale; close numbers are set side by side)")
    ax.set_ylabel("test accuracy in %")
    what = where_parameters_are_compared(groups, backbone)
    ax.set_title(f"{backbone or 'embeddings from files'}, {what}")
    ax.grid(alpha=0.3)
    _legend(figure, [ax])
    figure.savefig(path, dpi=120)


def _ticks(counts):
    """Return where 0 stands on a log axis, a decade left of the rest, and the powers of ten."""
    positive = [count for count in counts if count] or [1]
    first, last = np.floor(np.log10(min(positive))), np.ceil(np.log10(max(positive)))
    return 10.0 ** (first - 1), 10.0 ** np.arange(first, last + 1)


def _side_by_side(places):
    """Shift places on a log axis to at least a marker's width from each other, in their order.

    That is the least shift in the sense of squares: an isotonic regression of the places less what
    the markers before them take up.
    """
    if len(places) < 2:
        return places
    methods = sorted(places, key=places.get)
    widths = np.log(1.15) * np.arange(len(methods))
    logs = np.log([places[method] for method in methods])
    shifted = np.exp(isotonic_regression(logs - widths) + widths)
    return dict(zip(methods, shifted, strict=True))
