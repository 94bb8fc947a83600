"""Accuracy of several methods against the number of images per class."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Literal, Self

import numpy as np

from .._typing import Axes
from ._drawing import NEUTRAL, axes_or_new, curve_styles, set_message

#: What all lines of the benchmark must share to be drawn together.
_SETTINGS = ("backbone", "views")
#: A space at which no line of a title ends.
_NO_BREAK = "\u00a0"


class FewShotCurveDisplay:
    """Accuracy against images per class: one curve per method, zero-shot as a horizontal line.

    Make it with `from_results`.

    Parameters
    ----------
    results : dict of str to (dict of int to list of float, or float)
        Method to shots to the accuracies of its draws, in [0, 1]; a number for a method that sees
        no images.

    Attributes
    ----------
    results : dict
        As given.
    mean_, std_ : dict of str to dict of int to float
        Mean and sample standard deviation over the draws, in [0, 1], by method and shots. One draw
        has a standard deviation of 0.
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.

    Examples
    --------
    >>> from sklearn_taskres.inspection import FewShotCurveDisplay
    >>> results = {
    ...     "zero-shot": 0.45,
    ...     "TaskRes": {1: [0.50, 0.52], 2: [0.54, 0.56], 4: [0.60, 0.58]},
    ...     "linear probe": {1: [0.30, 0.34], 2: [0.45, 0.43], 4: [0.59, 0.55]},
    ... }
    >>> display = FewShotCurveDisplay.from_results(results)
    >>> round(display.mean_["TaskRes"][1], 2)
    0.51
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        curves = {name: cells for name, cells in results.items() if isinstance(cells, Mapping)}
        self.mean_ = {
            name: {shots: float(np.mean(cells[shots])) for shots in sorted(cells)}
            for name, cells in curves.items()
        }
        self.std_ = {
            name: {shots: _std(cells[shots]) for shots in sorted(cells)}
            for name, cells in curves.items()
        }

    @classmethod
    def from_results(
        cls,
        results: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        data: str | None = None,
        backbone: str | None = None,
        zero_shot: str = "zero-shot",
        errors: Literal["bars", "band"] | None = "bars",
        ax: Axes | None = None,
    ) -> Self:
        """Draw results given by method and shots, or lines of ``benchmark accuracy``.

        Parameters
        ----------
        results : dict or list of dict
            Method to shots to a list of accuracies in [0, 1] (a number for a method without
            images); or the lines that the benchmark writes, as dicts.
        data : str, optional
            Test set whose lines are taken. None takes all; of several test sets, each seed's
            accuracies are averaged, if every one of them has the cell.
        backbone : str, optional
            CLIP whose lines are taken, if they hold several.
        zero_shot : str, default="zero-shot"
            Method that is drawn as a horizontal line, at the mean of all its accuracies.
        errors : {"bars", "band"} or None, default="bars"
            How a standard deviation to either side of the mean is drawn. "band" reads better for
            one or two methods.
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        FewShotCurveDisplay

        Raises
        ------
        ValueError
            If there is nothing to draw, an accuracy is not in [0, 1], or the lines mix backbones or
            numbers of views.
        """
        if not isinstance(results, Mapping):
            results = _of_lines(list(results), data, backbone)
        by_method = _checked(results)
        if isinstance(by_method.get(zero_shot), Mapping):
            flat = float(np.mean([v for cell in by_method[zero_shot].values() for v in cell]))
            by_method = {**by_method, zero_shot: flat}
        return cls(by_method).plot(ax, errors=errors)

    def plot(
        self, ax: Axes | None = None, *, errors: Literal["bars", "band"] | None = "bars"
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.
        errors : {"bars", "band"} or None, default="bars"
            How a standard deviation to either side of the mean is drawn.

        Returns
        -------
        FewShotCurveDisplay
            This one.
        """
        if errors not in ("bars", "band", None):
            raise ValueError(f"errors must be 'bars', 'band' or None. Got {errors!r} instead.")
        ax = axes_or_new(ax, (7.6, 4.8))
        # the legend's order is that of the right-hand ends
        order = sorted(self.mean_, key=lambda name: -list(self.mean_[name].values())[-1])
        draw_curves(ax, self.mean_, self.std_, curve_styles(order), errors=errors)
        flat = {name: v for name, v in self.results.items() if not isinstance(v, Mapping)}
        for value, (name, style) in zip(flat.values(), _flat_styles(flat), strict=True):
            ax.axhline(100 * value, color=NEUTRAL, ls=style, lw=1.5, label=name, zorder=1)
        self._name_axes(ax, errors)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _name_axes(self, ax, errors):
        has_spread = errors and any(s > 0 for cells in self.std_.values() for s in cells.values())
        spread = f", {errors}: ± 1 standard deviation of the draws" if has_spread else ""
        ax.set(xlabel=f"images per class{spread}", ylabel="accuracy in %")
        set_message(ax, self._message())
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)

    def _message(self):
        """Say which method leads at which number of images."""
        leads: dict[str, list[int]] = {}
        for shots in sorted({k for cells in self.mean_.values() for k in cells}):
            flat = {n: v for n, v in self.results.items() if not isinstance(v, Mapping)}
            there = {n: cells[shots] for n, cells in self.mean_.items() if shots in cells}
            best = max(there | flat, key=lambda name: (there | flat)[name])
            leads.setdefault(best, []).append(shots)
        if len(leads) == 1:
            return f"Best at every number of images: {next(iter(leads))}"
        named = [f"{n} at {', '.join(map(str, shots))}" for n, shots in leads.items()]
        named = [phrase.replace(" ", _NO_BREAK) for phrase in named]
        return f"Best: {'; '.join(named)}"


def draw_curves(
    ax: Axes,
    means: Mapping[str, Mapping[int, float]],
    stds: Mapping[str, Mapping[int, float]],
    styles: Mapping[str, dict[str, Any]],
    *,
    shots: list[int] | None = None,
    errors: Literal["bars", "band"] | None = "bars",
) -> None:
    """Draw accuracies in % against images per class: a display's curves, a panel of a report.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    means, stds : dict of str to dict of int to float
        Mean and standard deviation over the draws, in [0, 1], by method and shots.
    styles : dict of str to dict
        Method to matplotlib's properties of its curve, in the order of the legend.
    shots : list of int, optional
        Ticks of the axis. None takes those of the curves.
    errors : {"bars", "band"} or None, default="bars"
        How standard deviations are drawn.
    """
    for i, (name, style) in enumerate(styles.items()):
        x = np.array(list(means[name])) * 1.02 ** (i - (len(styles) - 1) / 2)  # side by side
        mean, std = (100 * np.array(list(values[name].values())) for values in (means, stds))
        bars = std if errors == "bars" and std.any() else None
        look = {"ms": 5, "lw": 1.5, "capsize": 2.5, "elinewidth": 1} | style
        ax.errorbar(x, mean, bars, label=name, **look)
        if errors == "band":
            ax.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, lw=0)
    shots = shots or sorted({k for cells in means.values() for k in cells})
    if shots:
        ax.set_xscale("log", base=2)
        ax.set_xticks(shots, [str(k) for k in shots])
        ax.minorticks_off()
    ax.grid(alpha=0.3)


def _flat_styles(flat):
    return zip(flat, ("--", "-.", ":") * len(flat), strict=False)


def _std(values):
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _checked(results):
    """Return results with lists of plain accuracies, or raise."""
    if not results:
        raise ValueError("results is empty. Pass at least one method with its accuracies.")
    checked: dict = {}
    for name, cells in results.items():
        if isinstance(cells, Mapping):
            checked[name] = {shots: np.atleast_1d(values) for shots, values in cells.items()}
            values = np.concatenate(list(checked[name].values()) or [np.array([])])
        elif isinstance(cells, Real):
            checked[name] = float(cells)
            values = np.array([cells])
        else:
            raise ValueError(
                f"results[{name!r}] must be a dict of shots to accuracies, or a number. Got "
                f"{cells!r:.60} instead."
            )
        if values.size == 0 or not np.all((values >= 0) & (values <= 1)):
            raise ValueError(
                f"The accuracies of {name!r} must be numbers in [0, 1], at least one. Divide "
                f"percentages by 100."
            )
    return checked


def _of_lines(lines, data, backbone):
    """Accuracies by method and shots from lines of the benchmark, a number for each seed."""
    chosen = [
        line
        for line in lines
        if (data is None or line.get("test", line["data"]) == data)
        and (backbone is None or line.get("backbone") == backbone)
    ]
    if not chosen:
        raise ValueError(f"No line is of data={data!r} and backbone={backbone!r}.")
    for setting in _SETTINGS:
        found = {line.get(setting) for line in chosen}
        if len(found) > 1:
            raise ValueError(
                f"The lines mix {setting}s: {sorted(map(str, found))}. Pass those of one."
            )
    return _averaged(chosen)


def _averaged(lines):
    """Mean over test sets of each seed, if all test sets have the cell."""
    cells: dict[tuple, dict[str, float]] = {}
    for line in lines:  # of several runs of one cell the last counts
        key = line["method"], line["shots"], line["seed"]
        cells.setdefault(key, {})[line.get("test", line["data"])] = line["accuracy"]
    tests = {test for cell in cells.values() for test in cell}
    results: dict[str, dict[int, list[float]]] = {}
    for (method, shots, _), cell in sorted(cells.items()):
        if len(cell) == len(tests):
            values = results.setdefault(method, {}).setdefault(shots, [])
            values.append(float(np.mean(list(cell.values()))))
    if not results:
        raise ValueError(f"No method has been run on all of {sorted(tests)}. Pass data=….")
    return results
