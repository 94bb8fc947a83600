"""Prediction changes nothing that belongs to the whole process; a search puts back what it sets."""

import io
import logging
import random
import sys
import threading
import warnings

import numpy as np
import pytest
import sklearn
import torch
from numpy.exceptions import ComplexWarning
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.pipeline import Pipeline
from test_common import TABLE
from threadpoolctl import ThreadpoolController, threadpool_limits

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    TaskResClassifierCV,
    load_digit_images,
)

N_THREADS, N_CALLS = 8, 5


def process_state():
    """Everything global that a prediction could change."""
    return {
        "threads": [(lib["filepath"], lib["num_threads"]) for lib in ThreadpoolController().info()],
        "torch threads": torch.get_num_threads(),
        "torch grad": torch.is_grad_enabled(),
        "torch precision": torch.get_float32_matmul_precision(),
        "torch dtype": torch.get_default_dtype(),
        "torch state": torch.get_rng_state().tolist(),
        # scikit-learn's check_array sets this filter for a moment, in every estimator
        "warnings": [f for f in warnings.filters if f[2] is not ComplexWarning],
        "errstate": np.geterr(),
        "numpy state": repr(np.random.get_state(legacy=False)),  # noqa: NPY002
        "random state": random.getstate(),
        "sklearn": sklearn.get_config(),
        "streams": (sys.stdout, sys.stderr),
        "log levels": {name: logging.getLogger(name).level for name in ("", "torch.onnx")},
    }


@pytest.fixture
def two_blas_threads():
    """More than the one thread that conftest asks for, so that a change to one is seen."""
    with threadpool_limits(2, user_api="blas"):
        yield


class Meeting(np.ndarray):
    """Class weights at whose product all threads meet, and look at the process."""

    barrier: threading.Barrier
    seen: list

    def __rmatmul__(self, rows):
        Meeting.barrier.wait()
        Meeting.seen.append(process_state()["threads"])
        Meeting.barrier.wait()
        return rows @ np.asarray(self)


def run_in_threads(function, timeout=120):
    """Call a function in all threads at once, the main one too; raise what one of them raised."""
    errors = []

    def call():
        try:
            function()
        except BaseException as error:
            errors.append(error)
            Meeting.barrier.abort()

    threads = [threading.Thread(target=call, daemon=True) for _ in range(N_THREADS - 1)]
    for thread in threads:
        thread.start()
    call()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive()
    for error in errors:
        raise error


@pytest.mark.slow
@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("clf", TABLE)
def test_predictions_in_threads_leave_the_process_as_it_was(clf):
    """8 threads predict, are all inside the product at one time, and see nothing changed."""
    X, y = make_blobs(60, n_features=6, centers=3, cluster_std=2.0, random_state=0)
    fitted = clone(clf).fit(X, y)
    expected = fitted.predict(X)
    best = getattr(fitted, "best_estimator_", fitted)  # of a search
    best.coef_ = best.coef_.view(Meeting)
    Meeting.barrier, Meeting.seen = threading.Barrier(N_THREADS, timeout=60), []
    before = process_state()

    def predict():
        for _ in range(N_CALLS):
            assert_array_equal(fitted.predict(X), expected)
            fitted.predict_proba(X)

    run_in_threads(predict)
    assert len(Meeting.seen) == 2 * N_CALLS * N_THREADS
    assert all(threads == before["threads"] for threads in Meeting.seen)
    assert process_state() == before


def png(pixels):
    file = io.BytesIO()
    Image.fromarray((255 * pixels).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.usefixtures("two_blas_threads")
def test_images_to_labels_in_threads_leave_the_process_as_it_was():
    """8 threads encode images and predict, and another one looks at the process meanwhile."""
    images, y, names = load_digit_images()
    images = [png(image) for image in images[:30]]
    clip = CLIPFeaturizer("glyph-clip", cache=None, device="cpu")
    text = CLIPTextFeaturizer("glyph-clip", device="cpu")
    taskres = TaskResClassifier(text, class_names=names, max_epochs=2, device="cpu")
    model = Pipeline([("clip", clip), ("taskres", taskres)]).fit(images[:20], y[:20])
    expected, before, seen = model.predict(images[20:30]), process_state(), []
    has_begun, is_over = threading.Event(), threading.Event()
    Meeting.barrier = threading.Barrier(N_THREADS, timeout=60)

    def watch():
        while not is_over.is_set():
            seen.append(process_state())
            has_begun.set()

    def predict():
        for _ in range(N_CALLS):
            assert_array_equal(model.predict(images[20:30]), expected)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    has_begun.wait(60)
    run_in_threads(predict)
    is_over.set()
    watcher.join(timeout=60)
    assert len(seen) > 1
    assert all(state == seen[0] for state in seen)
    assert process_state() == before


class Watched:
    """A scorer that notes how many threads BLAS has."""

    def __init__(self):
        self.seen = set()

    def __call__(self, clf, X, y):
        blas = ThreadpoolController().select(user_api="blas")
        self.seen |= {library["num_threads"] for library in blas.info()}
        return clf.score(X, y)


@pytest.mark.usefixtures("two_blas_threads")
def test_a_search_scores_on_one_blas_thread_and_sets_it_back():
    """In the main thread, whose the process is; in another thread it leaves BLAS alone."""
    X, y = make_blobs(30, n_features=6, centers=3, random_state=0)
    before = process_state()["threads"]
    scorer = Watched()
    search = TaskResClassifierCV("class_means", max_epochs=2, scoring=scorer, random_state=0)
    search.fit(X, y)
    assert scorer.seen == {1}
    scorer.seen.clear()
    thread = threading.Thread(target=search.fit, args=(X, y), daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert scorer.seen == {2}
    assert process_state()["threads"] == before
