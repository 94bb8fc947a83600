"""The part "search" of ``benchmark speed``: TaskResClassifierCV compared with GridSearchCV."""

import time

import numpy as np
from sklearn.model_selection import GridSearchCV

from .. import TaskResClassifier, TaskResClassifierCV
from .fits import operations
from .tasks import make_task
from .timing import interleaved_with_products

#: Candidates, all of which have something to learn, and folds.
ALPHAS, N_FOLDS = np.geomspace(0.05, 4, 10).round(3).tolist(), 5
_ROW = "{:<34} {:>9} {:>7} {:>8} {:>10} {:>10}"


def measure(options, device, say):
    """Time the searches.

    Arguments and result are those of :func:`.fits.measure`.
    """
    n_classes, d = options.search_size
    task, epochs = make_task(n_classes, d, options.shots), options.search_epochs
    # What the candidates take on the folds; the refit is in the seconds alone.
    work = len(ALPHAS) * N_FOLDS * operations(task, epochs, len(task.y) * (N_FOLDS - 1) // N_FOLDS)
    say(
        f"\nSearch of {len(ALPHAS)} alphas on {N_FOLDS} folds, {n_classes} x {d}, {epochs} epochs: "
        f"{work / 1e9:.4g} GFLOP."
    )
    say(_ROW.format("method", "seconds", "/ ours", "of peak", "best alpha", "CV score"))
    functions = _searches(task, epochs, options)
    found, peak = interleaved_with_products(functions, options.repeats, device)
    if "skorch" in options.baselines:
        found["GridSearchCV, skorch, n_jobs=1"] = _once(lambda: _skorch(task, epochs, options))
    ours = found["TaskResClassifierCV"]
    for name, figures in found.items():
        figures |= _summary(figures.pop("result"), figures["seconds"] / ours["seconds"])
        figures["share_of_peak"] = work / figures["seconds"] / peak
        score = f"{figures['best_score']:.4f}"
        alpha, seconds = f"{figures['best_alpha']:g}", f"{figures['seconds']:.2f}"
        share = f"{figures['share_of_peak']:.0%}"
        say(_ROW.format(name, seconds, f"{figures['ratio']:.2f}", share, alpha, score))
    say(f"A product of 2048³ in float32 ran at {peak / 1e9:.0f} GFLOP/s meanwhile.")
    theirs = np.array(found["GridSearchCV, n_jobs=1"]["scores"])
    difference = float(np.abs(theirs - ours["scores"]).max())
    say(f"Largest difference of a mean score from GridSearchCV's: {difference:g}")
    size = {"n_classes": n_classes, "d": d, "epochs": epochs, "product_rate": peak}
    return {**size, "largest_difference": difference, "methods": found}


def _searches(task, epochs, options):
    params = {"max_epochs": epochs, "lr": 2e-3, "device": options.device, "random_state": 0}
    params["precision"] = options.precision
    grid = {"alpha": ALPHAS}

    def ours():
        clf = TaskResClassifierCV(task.t, alphas=ALPHAS, cv=N_FOLDS, **params)
        return clf.fit(task.X, task.y)

    def theirs(n_jobs):
        clf = TaskResClassifier(task.t, **params)
        return GridSearchCV(clf, grid, cv=N_FOLDS, n_jobs=n_jobs).fit(task.X, task.y)

    return {
        "TaskResClassifierCV": ours,
        "GridSearchCV, n_jobs=1": lambda: theirs(1),
        "GridSearchCV, n_jobs=-1": lambda: theirs(-1),
    }


def _skorch(task, epochs, options):
    from .baselines import skorch_net

    net = skorch_net(task, epochs, options.device)
    return GridSearchCV(net, {"module__alpha": ALPHAS}, cv=N_FOLDS).fit(task.X, task.y)


def _once(function):
    start = time.perf_counter()
    result = function()
    return {"result": result, "seconds": time.perf_counter() - start}


def _summary(search, ratio):
    return {
        "ratio": ratio,
        "best_alpha": next(iter(search.best_params_.values()))
        if len(search.best_params_) == 1
        else search.best_params_["alpha"],
        "best_score": float(search.best_score_),
        "scores": search.cv_results_["mean_test_score"].tolist(),
    }
