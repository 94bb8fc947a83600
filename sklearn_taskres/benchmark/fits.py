"""The part "fit" of ``benchmark speed``: our fit, a torch loop, skorch and logistic regression."""

import functools

from .tasks import make_task
from .timing import interleaved_with_products

BASELINES = ("loop", "skorch", "logistic")
#: Operations of a fit, above which fewer epochs are run unless all are asked for.
_MOST_OPERATIONS = 1e12
_HEADER = ("K x D", "epochs", "method", "seconds", "/ ours", "of peak", "MB", "accuracy")
_ROW = "{:>12} {:>9} {:<9} {:>9} {:>7} {:>8} {:>6} {:>9}"


def measure(options, device, say):
    """Time the fits of every size.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``benchmark speed``.
    device : torch.device
        Where to train.
    say : callable
        Prints a line.

    Returns
    -------
    dict
        Of what JSON can hold.
    """
    say("\nFits")
    say(_ROW.format(*_HEADER))
    sizes = []
    for n_classes, d in options.sizes:
        task = make_task(n_classes, d, options.shots)
        epochs, whole = _epochs(task, options.full)
        functions = _fits(task, epochs, options)
        methods, peak = interleaved_with_products(functions, options.repeats, device)
        for name, figures in methods.items():
            _complete(figures, name, task, epochs, methods["taskres"]["seconds"], peak)
            say(_line(f"{n_classes} x {d}", f"{epochs}/{whole}", name, figures))
        say(f"A product of 2048³ in float32 ran at {peak / 1e9:.0f} GFLOP/s meanwhile.")
        size = {"n_classes": n_classes, "d": d, "epochs": epochs, "of_epochs": whole}
        sizes.append({**size, "product_rate": peak, "methods": methods})
    return {"sizes": sizes}


def _fits(task, epochs, options):
    """Name of a method to a function without arguments that fits it."""
    from . import baselines

    on_device = {"task": task, "max_epochs": epochs, "device": options.device}
    ours = functools.partial(baselines.taskres, **on_device, precision=options.precision)
    fits = {
        "loop": functools.partial(baselines.plain_loop, **on_device),
        "skorch": functools.partial(baselines.default_skorch, **on_device),
        "logistic": functools.partial(baselines.logistic_regression, task),
    }
    return {"taskres": ours, **{name: fits[name] for name in options.baselines}}


def _epochs(task, full):
    """Return epochs to run, and those of the recipe for eight images per class and more."""
    whole = 200
    affordable = int(_MOST_OPERATIONS / operations(task, 1))
    return (whole if full else max(2, min(whole, affordable))), whole


def operations(task, epochs, n_rows=None):
    """Return the operations of a fit: two products of B·K·D per step, without a last part batch."""
    n_rows = len(task.y) if n_rows is None else n_rows
    steps, size = max(1, n_rows // 256), min(256, n_rows)
    return epochs * steps * 4 * size * task.t.size


def _complete(figures, name, task, epochs, ours, peak):
    """Put ratio, share of the peak and accuracy next to the seconds of a method."""
    share = operations(task, epochs) / figures["seconds"] / peak
    figures["ratio"] = figures["seconds"] / ours
    figures["share_of_peak"] = None if name == "logistic" else share
    figures["accuracy"] = task.accuracy(figures.pop("result"))


def _line(size, epochs, name, figures):
    share, memory = figures["share_of_peak"], figures["megabytes"]
    return _ROW.format(
        size,
        "" if share is None else epochs,
        name,
        f"{figures['seconds']:.3f}",
        f"{figures['ratio']:.2f}",
        "" if share is None else f"{share:.0%}",
        "" if memory is None else f"{memory:.0f}",
        f"{figures['accuracy']:.1f} %",
    )
