"""The part "growth" of ``benchmark speed``: seconds against rows, classes, width and candidates."""

import sys

import numpy as np

from .. import TaskResClassifier, TaskResClassifierCV
from .tasks import make_task
from .timing import interleaved

_EPOCHS = 20
#: What grows to the values it takes; the others stay at 64 classes, width 512 and 16 shots.
AXES = {
    "rows": [1024, 4096, 16384, 65536],
    "classes": [16, 64, 256, 1024],
    "width": [128, 512, 2048],
    "candidates": [1, 4, 16, 64],
}


def measure(options, device, say, axes=AXES):
    """Time fits and searches along each axis, and draw them if a figure is asked for.

    Other arguments than the axes, and the result, are those of :func:`.fits.measure`.
    """
    figures = {}
    for axis, values in axes.items():
        found = interleaved({n: _run(axis, n, options) for n in values}, options.repeats, device)
        seconds = [found[n]["seconds"] for n in values]
        exponents = np.diff(np.log(seconds)) / np.diff(np.log(values))
        figures[axis] = {"values": values, "seconds": seconds, "exponents": exponents.tolist()}
        points = ", ".join(f"{n}: {s:.3f}" for n, s in zip(values, seconds, strict=True))
        say(f"\nSeconds by {axis}: {points}. Largest exponent: {exponents.max():.2f}")
    if options.figure:
        _draw(figures, options.figure)
    return {"epochs": _EPOCHS, "axes": figures}


def _run(axis, n, options):
    """Return a function that fits a task in which one axis has the size n."""
    n_classes, d = (n if axis == name else size for name, size in (("classes", 64), ("width", 512)))
    shots = n // 64 if axis == "rows" else 16 * 64 // n_classes or 1
    task = make_task(n_classes, d, shots)
    params = {"max_epochs": _EPOCHS, "lr": 2e-3, "device": options.device, "random_state": 0}
    params["precision"] = "float32"  # "auto" would change it along an axis
    if axis == "candidates":
        alphas = np.geomspace(0.05, 4, n).tolist()
        clf = TaskResClassifierCV(task.t, alphas=alphas, cv=2, refit=False, **params)
    else:
        clf = TaskResClassifier(task.t, **params)
    return lambda: clf.fit(task.X, task.y)


def _draw(axes, path):
    """Draw each axis on logarithmic scales, next to a line of the growth of its operations."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("--figure needs matplotlib: pip install 'sklearn-taskres[plots]'.")
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(axes))
    for panel, (axis, found) in zip(panels, axes.items(), strict=True):
        values, seconds = np.array(found["values"]), np.array(found["seconds"])
        panel.loglog(values, seconds[-1] * values / values[-1], "--", color="0.6")
        panel.loglog(values, seconds, "o-", color="C0")
        panel.set_xticks(values, [f"{n:,}".replace(",", " ") for n in values], rotation=30)
        panel.minorticks_off()
        panel.set_xlabel(axis)
        panel.set_title(f"steepest: {max(found['exponents']):.2f}", fontsize="medium")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    figure.suptitle(
        "Seconds of a fit or search (dots), and the growth of its operations (dashed: 1)"
    )
    figure.savefig(path, dpi=150)
