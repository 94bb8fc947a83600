"""Scores of the candidates of a search, and the table that GridSearchCV would make of them."""

import contextlib
import functools
import inspect
import threading
import time
import warnings

import numpy as np
import sklearn
from scipy.stats import rankdata
from sklearn.metrics import check_scoring
from sklearn.utils.metadata_routing import get_routing_for_object
from threadpoolctl import ThreadpoolController

from .._messages import warn_user


class SearchTable:
    """Scores and times of candidates (rows) on folds (columns)."""

    def __init__(self, search, candidates, n_folds):
        self.candidates, shape = candidates, (len(candidates), n_folds)
        self.scorer = check_scoring(search, search.scoring)
        self.is_weighted = _takes_weights(self.scorer)
        self.values, self.errors = np.full(shape, np.nan), []
        self.times, self.fit_times = np.zeros(shape), np.zeros(shape)

    def score(self, i, fold, clf, X, y, sample_weight):
        start = time.perf_counter()
        is_weighted = self.is_weighted and sample_weight is not None
        params = {"sample_weight": sample_weight} if is_weighted else {}
        with self.failures_of([i], fold), warnings.catch_warnings(), _one_blas_thread():
            warnings.filterwarnings("ignore", "The number of unique classes")  # old scikit-learn
            self.values[i, fold] = self.scorer(clf, X, y, **params)
        self.times[i, fold] = time.perf_counter() - start

    def groups(self, name):
        """Places of the candidates by their value of a parameter."""
        places: dict = {}
        for i, params in enumerate(self.candidates):
            places.setdefault(params[name], []).append(i)
        return places

    @contextlib.contextmanager
    def fit_time_of(self, group, fold):
        """Share the time it takes equally among the candidates of a group."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.fit_times[group, fold] += (time.perf_counter() - start) / len(group)

    @contextlib.contextmanager
    def failures_of(self, group, fold):
        """Go on without the scores of a group that fails, as GridSearchCV does."""
        try:
            yield
        except Exception as error:
            self.errors += [error] * int(np.isnan(self.values[group, fold]).sum())

    def put(self, places, fold, table):
        """Put in the scores and times of some candidates on one fold."""
        for name in ("values", "times", "fit_times"):
            getattr(self, name)[places, fold] = getattr(table, name)[:, 0]
        self.errors += table.errors

    def report_failures(self):
        """Raise what made all fail, warn if some did."""
        if not self.errors:
            return
        if len(self.errors) == self.values.size:
            raise self.errors[0]
        warn_user(
            f"{len(self.errors)} of {self.values.size} pairs of candidate and fold have no score "
            f"(NaN). The first error was {self.errors[0]!r}"
        )

    def results(self):
        """Return the table in the format of GridSearchCV."""
        table: dict = _mean_and_std("fit_time", self.fit_times)
        table |= _mean_and_std("score_time", self.times)
        for name in self.candidates[0]:
            values = [params[name] for params in self.candidates]
            table[f"param_{name}"] = np.ma.MaskedArray(values)
        table["params"] = self.candidates
        table |= {f"split{i}_test_score": column for i, column in enumerate(self.values.T)}
        table |= _mean_and_std("test_score", self.values)
        worst_last = np.nan_to_num(table["mean_test_score"], nan=-np.inf)
        table["rank_test_score"] = rankdata(-worst_last, method="min").astype(np.int32)
        return table


def shares(n_candidates, n_folds, n_workers):
    """Yield parts of a table, candidates and a fold each, for workers of joblib.

    A fold is one part, since candidates are fastest together. In the last round, when there are
    fewer folds than workers, the idle ones take a part of a fold, so that no round is added.
    Threads of one process share what was prepared for a fold, and split more.
    """
    n_last = n_folds % n_workers
    for fold in range(n_folds):
        n_parts = n_workers // n_last if fold >= n_folds - n_last else 1
        for places in np.array_split(np.arange(n_candidates), min(n_parts, n_candidates)):
            yield places.tolist(), fold


def _one_blas_thread():
    """Score on one thread of BLAS, if this is the main thread: the number is the whole process's.

    OpenBLAS's threads keep the cores busy for a tenth of a second after each product, and in that
    time every operation of torch waits for a core.
    """
    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas():
    return ThreadpoolController()


def _takes_weights(scorer):
    """Whether GridSearchCV would give the scorer the held-out rows' weights."""
    if sklearn.get_config()["enable_metadata_routing"]:
        return bool(get_routing_for_object(scorer).consumes("score", ["sample_weight"]))
    if hasattr(scorer, "_accept_sample_weight"):  # scikit-learn's own
        return scorer._accept_sample_weight()
    return "sample_weight" in inspect.signature(scorer).parameters


def _mean_and_std(name, values):
    """Mean and standard deviation over the folds; NaN if there are none."""
    if values.shape[1] == 0:
        values = np.full((len(values), 1), np.nan)
    return {f"mean_{name}": values.mean(axis=1), f"std_{name}": values.std(axis=1)}
