"""Cells of the accuracy benchmark: one fit each, run once, whoever else runs at the same time."""

import sys
import time
import warnings
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .._version import __version__
from ..inspection._figures import calibration_error, log_loss_of
from .images import EmbeddingError
from .machine import code_digest, describe_machine
from .methods import METHODS, chosen_values, own_parameters
from .results import line_key

#: Seconds between two looks at the cells that other processes hold.
_PAUSE = 0.2


class Cell(NamedTuple):
    """One fit to come: its data, and what its lines say before it is done."""

    #: Features or EmbeddedDataSet.
    data: Any
    identity: dict[str, Any]

    def estimator(self):
        """Return the method's estimator, not fitted."""
        return _estimator(self.data, *(self.identity[name] for name in ("method", "shots", "seed")))

    def lines(self, outcomes):
        """Return a line for each test set, given what came out by its name."""
        return [
            {**self.identity, "test": test, "digest": digest, **outcomes.get(test, {})}
            for test, digest in self.data.digests.items()
        ]

    def keys(self):
        """Return the keys of the lines to come."""
        return [line_key(line) for line in self.lines({})]


def make_cell(data, method, shots, seed):
    """Return the cell of a method on a data set.

    Parameters
    ----------
    data : Features or EmbeddedDataSet
        The data set.
    method : str
        Of METHODS.
    shots, seed : int
        What is drawn.
    """
    identity = {
        "data": data.name,
        "backbone": data.backbone,
        "base_norm": data.base_norm,
        "method": method,
        "parameters": own_parameters(_estimator(data, method, shots, seed)),
        "shots": shots,
        "seed": seed,
        "views": data.views,
        "version": __version__,
        "code": code_digest(),
    }
    return Cell(data, identity)


def _estimator(data, method, shots, seed):
    make = METHODS[method]
    published = data.published_parameters(make.class_name, shots)
    return make(data.base, data.class_names, seed, **published)


class Runner:
    """Runs cells and appends their lines.

    Parameters
    ----------
    results : Results
        Where lines go.
    patience : float
        Seconds without news of the cells that other processes hold, after which they are left to
        those.

    Attributes
    ----------
    problems : list of str
        What kept cells from being run; the others ran.
    """

    def __init__(self, results, patience):
        from .._device import resolve_device

        self.problems: list[str] = []
        self._results = results
        self._patience = patience
        self._machine = describe_machine(resolve_device(None))
        self._warm: set[str] = set()
        self._drawn: dict[tuple, tuple] = {}
        self._held: list[Cell] = []

    def run(self, cells):
        """Run cells that have no lines yet and that no other process is running.

        Parameters
        ----------
        cells : list of Cell
            Those of one data set and backbone.
        """
        cells = [cell for cell in cells if not self._results.has(cell.keys())]
        if not cells:
            return
        title = " ".join(filter(None, [cells[0].data.name, cells[0].data.backbone]))
        try:
            with tqdm(total=len(cells), desc=title, unit="cell") as progress:
                for cell in cells:
                    if self._run_cell(cell):
                        progress.update()
                    else:
                        self._held.append(cell)
        except EmbeddingError as error:
            self.note(f"{title}: {error}")

    def finish(self):
        """Wait for the cells that other processes hold, and run those that they let go.

        When none is finished for as long as the patience is, the rest is left to its holders, which
        may be stopped or at work on a long fit, and noted.
        """
        if self._held:
            often = f"every {self._patience:g} s"
            _say(f"{self._who_holds()}. Waiting as long as one is finished {often}.")
        last = time.monotonic()
        while self._held and time.monotonic() < last + self._patience:
            rest = [cell for cell in self._held if not self._run_held(cell)]
            if len(rest) < len(self._held):
                last = time.monotonic()
            self._held = rest
            if rest:
                time.sleep(_PAUSE)
        if self._held:
            self.note(
                f"{self._who_holds()}. If it is at work, they will be there when it ends; if it is "
                f"stopped, end it and run this command again."
            )

    def _who_holds(self):
        holders = dict.fromkeys(self._results.holder(cell.keys()) for cell in self._held)
        count = f"{len(self._held)} cell" + "s" * (len(self._held) > 1)
        return f"{count} left, held by {', '.join(holders)}"

    def _run_held(self, cell):
        try:
            return self._run_cell(cell)
        except EmbeddingError as error:
            self.note(f"{cell.data.name}: {error}")
            return True

    def note(self, problem):
        """Say a problem once, and keep it."""
        if problem not in self.problems:
            self.problems.append(problem)
            _say(problem)

    def _run_cell(self, cell):
        """Run a cell unless another process has or holds it; return whether it needs no more."""
        keys = cell.keys()
        with self._results.claimed(keys) as is_ours:
            if is_ours:
                self._measure_and_append(cell)
        return is_ours or self._results.has(keys)

    def _measure_and_append(self, cell):
        method, shots = cell.identity["method"], cell.identity["shots"]
        X, y = self._training(cell)
        tests = cell.data.tests()
        try:
            self._warm_up(cell, X, y)
            outcomes = _outcomes(cell.estimator(), X, y, tests, cell.data.name)
        except ValueError as error:
            self.note(f"{method} on {cell.data.name}, {_images(shots)} per class: {error}")
            return
        self._results.append([line | {"machine": self._machine} for line in cell.lines(outcomes)])

    def _training(self, cell):
        """Rows and labels that the cell is fitted on; those of the cell before are kept."""
        drawn = tuple(cell.identity[name] for name in ("data", "backbone", "shots", "seed"))
        if drawn not in self._drawn:
            self._drawn = {drawn: cell.data.training(*drawn[2:])}
        return self._drawn[drawn]

    def _warm_up(self, cell, X, y):
        """Fit two classes, so that no cell's time holds the import of torch or a device's start."""
        if cell.identity["method"] not in self._warm:
            rows = np.concatenate([np.flatnonzero(y == label)[:2] for label in (0, 1)])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "class_names")  # of classes left out on purpose
                cell.estimator().fit(X[rows], y[rows])
            self._warm.add(cell.identity["method"])


def _say(line):
    tqdm.write(line, file=sys.stderr)


def _images(shots):
    return "1 image" if shots == 1 else f"{shots} images"


def _outcomes(clf, X, y, tests, own):
    """Fit, and predict each test set once, when all is chosen; what came out by its name.

    Others than the data set's own are judged among the classes that they have, as the papers do.
    """
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    common = {
        "fit_seconds": round(seconds, 4),
        "n_train": len(y),
        "n_parameters": int(clf.n_parameters_),
        "chosen": chosen_values(clf),
    }
    return {
        name: {**_scores(clf if name == own else _among(clf, y), X, y), "n_test": len(y), **common}
        for name, (X, y) in tests.items()
    }


def _scores(clf, X, y):
    """Accuracy, log loss and expected calibration error of predictions."""
    log_p = clf.predict_log_proba(X)
    columns = np.searchsorted(clf.classes_, y)
    known = clf.classes_[columns.clip(max=len(clf.classes_) - 1)] == y
    scores = {"accuracy": float(np.mean(clf.classes_[log_p.argmax(axis=1)] == y))}
    if known.all():  # no probability was given to a class that the classifier does not have
        scores["log_loss"] = log_loss_of(log_p, columns)
        scores["calibration_error"] = calibration_error(np.exp(log_p), columns)
    return scores


def _among(clf, y):
    """Return the classifier of the classes that labels have, if there are several."""
    labels = np.unique(y)
    return clf.select_classes(labels) if 2 <= len(labels) < len(clf.classes_) else clf
