"""Rows in float16 or in a memory map: read a few at a time, with the result of a copy in memory."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.overrides import TorchFunctionMode
from watching import calls_of

from sklearn_taskres import (
    GDAClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    ZeroShotClassifier,
)

#: Rows that are read at a time, and those that are compared with the base.
CHUNK, COMPARED = 8192, 512
#: More rows than two chunks hold.
N_ROWS = 18_000


@pytest.fixture
def problem(tmp_path):
    """Rows in a map and in memory, labels, class embeddings."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(4, 12)).astype(np.float32)
    y = np.arange(N_ROWS) % 4
    X = (t[y] + rng.normal(scale=0.6, size=(N_ROWS, 12))).astype(np.float16)
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r"), X.astype(np.float32), y, t


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"base": "class_means"},
        {"residual": "both"},
        {"class_weight": {0: 2.0, 1: 1.0, 2: 1.0, 3: 0.5}},
    ],
    ids=str,
)
def test_taskres_streams_rows(problem, params):
    """A fit on a map of float16, and predictions of it, are those of float32 rows in memory."""
    mapped, X, y, t = problem
    clf = TaskResClassifier(
        **{"base": t, **params}, batch_size=4096, max_epochs=5, lr=0.02, random_state=0
    )
    ours = clf.fit(mapped, y)
    streamed = ours.decision_function(mapped)
    whole = clf.fit(X, y)
    assert streamed.dtype == np.float32
    assert_allclose(streamed, whole.decision_function(X), rtol=0, atol=2e-3)
    assert_array_equal(ours.predict(mapped), whole.predict(X))


def test_views_are_streamed(problem):
    """A map of views trains as the same views in memory."""
    mapped, X, y, t = problem
    clf = TaskResClassifier(t, batch_size=1000, max_epochs=5, lr=0.02, random_state=0)
    ours = clf.fit(mapped.reshape(-1, 3, 12), y[::3]).coef_
    assert_allclose(ours, clf.fit(X.reshape(-1, 3, 12), y[::3]).coef_, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "params"),
    [
        (GDAClassifier, {"random_state": 0}),
        (ZeroShotClassifier, {}),
        (TaskResClassifierCV, {"max_epochs": 3, "random_state": 0}),
    ],
)
def test_others_read_them_too(problem, make, params):
    """What needs all rows at once reads them into float32; predictions are streamed by all."""
    mapped, X, y, t = problem
    clf = make(t, **params)
    assert_allclose(
        clf.fit(mapped, y).decision_function(mapped),
        clf.fit(X, y).decision_function(X),
        rtol=0,
        atol=1e-3,
    )


def test_rows_are_not_copied_whole(problem):
    """No more than a chunk or a batch of rows is ever brought to float32."""
    mapped, _, y, t = problem
    clf = TaskResClassifier(t, batch_size=CHUNK + 1, max_epochs=2, random_state=0)
    with calls_of(np.ndarray.astype) as calls:
        clf.fit(mapped, y).predict(mapped)
    seen = {len(call["self"]) for _, call in calls if call["self"].dtype == np.float16}
    assert seen == {CHUNK, N_ROWS % CHUNK, CHUNK + 1, COMPARED}


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (np.inf, "infinity")])
@pytest.mark.parametrize("row", [0, N_ROWS - 1])
def test_rows_that_are_not_finite_are_refused(problem, value, said, row):
    """A bad row is found in any chunk, in fit and in predict, with scikit-learn's sentence."""
    _, X, y, t = problem
    bad = X.astype(np.float16)
    clf = TaskResClassifier(t, max_epochs=1).fit(bad, y)
    bad[row, 3] = value
    with pytest.raises(ValueError, match=f"Input X contains {said}"):
        clf.predict(bad)
    with pytest.raises(ValueError, match=f"Input X contains {said}"):
        clf.fit(bad, y)


class NoRoom(TorchFunctionMode):
    """A device without room for so many rows as one tensor."""

    def __init__(self, n_rows):
        super().__init__()
        self.n_rows = n_rows

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.as_tensor and np.ndim(args[0]) > 1 and len(args[0]) >= self.n_rows:
            raise torch.OutOfMemoryError
        return function(*args, **(kwargs or {}))


def test_a_device_without_room_for_all_rows(problem):
    """Rows that do not fit on the device are brought there batch by batch, after one warning."""
    _, X, y, t = problem
    params = {"batch_size": 4096, "max_epochs": 3, "lr": 0.02, "device": "cpu"}
    clf = TaskResClassifier(t, **params, random_state=0)
    whole = clf.fit(X, y).coef_
    said = f"{N_ROWS} rows do not fit into the memory of cpu"
    with NoRoom(N_ROWS), pytest.warns(UserWarning, match=said) as caught:
        parts = clf.fit(X, y).coef_
    assert len(caught) == 1
    assert_allclose(parts, whole, rtol=0, atol=1e-4)


def test_base_and_rows_are_compared_on_some(problem):
    """A mismatch of base and rows is seen on a few of many rows, whatever order they are in."""
    _, X, y, t = problem
    order = np.argsort(y, kind="stable")
    clf = TaskResClassifier(t, batch_size=4096, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(X, y)
        clf.fit(X[order], y[order])
    said = f"of {COMPARED} training rows correctly, no better than chance"
    with pytest.warns(UserWarning, match=said):
        clf.set_params(base=t[::-1].copy()).fit(X, y)
    with pytest.warns(UserWarning, match=said):  # though the first class has its own embedding
        clf.set_params(base=t[[0, 2, 3, 1]]).fit(X[order], y[order])
