"""Rows in float16 or in a memory map: read a few at a time, with the result of a copy in memory."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres import (
    GDAClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    ZeroShotClassifier,
    _rows,
)


@pytest.fixture
def problem(tmp_path, monkeypatch):
    """Rows in a map and in memory, labels, class embeddings; seven rows are read at a time."""
    monkeypatch.setattr(_rows, "_CHUNK", 7)
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(4, 12)).astype(np.float32)
    y = np.arange(60) % 4
    X = (t[y] + rng.normal(scale=0.6, size=(60, 12))).astype(np.float16)
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
        **{"base": t, **params}, batch_size=16, max_epochs=5, lr=0.02, random_state=0
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
    clf = TaskResClassifier(t, batch_size=5, max_epochs=5, lr=0.02, random_state=0)
    ours = clf.fit(mapped.reshape(20, 3, 12), y[::3]).coef_
    assert_allclose(ours, clf.fit(X.reshape(20, 3, 12), y[::3]).coef_, rtol=0, atol=1e-3)


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


def test_rows_are_not_copied_whole(problem, monkeypatch):
    """No more than a chunk or a batch of rows is ever brought to float32."""
    mapped, _, y, t = problem
    seen = []

    class Spy(np.memmap):
        def astype(self, *args, **kwargs):
            seen.append(len(self))
            return np.asarray(self).astype(*args, **kwargs)

        def __array_finalize__(self, other):
            super().__array_finalize__(other)

    monkeypatch.setattr("sklearn_taskres._classifiers.base._MOST_COMPARED", 9)
    monkeypatch.setattr(
        "sklearn_taskres._classifiers.base.validate_data",
        lambda _, X, y="no_validation", **__: X if isinstance(y, str) else (X, y),
    )
    clf = TaskResClassifier(t, batch_size=8, max_epochs=2, random_state=0)
    clf.fit(mapped.view(Spy), y).predict(mapped.view(Spy))
    assert max(seen) == 9
    assert {7, 8, 9} <= set(seen)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (np.inf, "infinity")])
@pytest.mark.parametrize("row", [0, 59])
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


def test_a_device_without_room_for_all_rows(problem, monkeypatch):
    """Rows that do not fit on the device are brought there batch by batch, after one warning."""
    _, X, y, t = problem
    clf = TaskResClassifier(t, batch_size=8, max_epochs=3, lr=0.02, device="cpu", random_state=0)
    whole = clf.fit(X, y).coef_

    as_tensor = torch.as_tensor

    def no_room(array, **how):
        if np.shape(array) == X.shape:
            raise torch.OutOfMemoryError
        return as_tensor(array, **how)

    monkeypatch.setattr(torch, "as_tensor", no_room)
    with pytest.warns(UserWarning, match="60 rows do not fit into the memory of cpu") as caught:
        parts = clf.fit(X, y).coef_
    assert len(caught) == 1
    assert_allclose(parts, whole, rtol=0, atol=1e-4)


def test_base_and_rows_are_compared_on_some(problem, monkeypatch):
    """A mismatch of base and rows is seen on a few of many rows, whatever order they are in."""
    _, X, y, t = problem
    monkeypatch.setattr("sklearn_taskres._classifiers.base._MOST_COMPARED", 20)
    clf = TaskResClassifier(t, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(X, y)
    with pytest.warns(UserWarning, match="of 20 training rows correctly, no better than chance"):
        clf.set_params(base=t[::-1].copy()).fit(X, y)
