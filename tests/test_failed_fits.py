"""A fit that fails or is interrupted leaves the former fit as it was, or nothing fitted."""

import contextlib
import inspect
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from test_common import TABLE

from sklearn_taskres import ZeroShotClassifier


def rows(names, seed, n_features=6):
    """Rows of three classes of these names, and their labels."""
    X, y = make_blobs(30, n_features, centers=3, cluster_std=1.0, random_state=seed)
    return X, np.array(names)[y]


X1, y1 = rows(["ant", "bee", "cow"], 0)
X2, y2 = rows(["xen", "yak", "zoo"], 5, n_features=5)


#: What goes wrong, and in which error it ends.
FAILURES = {
    "NaN in X": (lambda clf: clf.fit(np.full_like(X2, np.nan), y2), ValueError),
    "X of one axis": (lambda clf: clf.fit(X2[0], y2), ValueError),
    "one class": (lambda clf: clf.fit(X2, np.full(len(y2), "xen")), ValueError),
    "labels are measurements": (lambda clf: clf.fit(X2, X2[:, 0]), ValueError),
    "lengths differ": (lambda clf: clf.fit(X2, y2[:-1]), ValueError),
    "negative weights": (lambda clf: clf.fit(X2, y2, -np.ones(len(y2))), ValueError),
    "rows that overflow": (lambda clf: clf.fit(X2 * 1e200, y2), ValueError),
}


def fit_once(clf):
    return clone(clf).fit(X1, y1)


def state(clf):
    """Every attribute, arrays as bytes, to be compared."""
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else repr(value)
        for name, value in vars(clf).items()
        if name not in clf.get_params(deep=False)
    }


def assert_unchanged(clf, before, predicted):
    assert state(clf) == before
    assert_array_equal(clf.predict(X1), predicted)


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("clf", TABLE)
def test_a_failed_fit_leaves_the_former_one(clf, fail):
    """All attributes and the predictions stay; without a former fit predict says NotFittedError."""
    do, error = fail
    fitted = fit_once(clf)
    before, predicted = state(fitted), fitted.predict(X1)
    with pytest.raises(error):
        do(fitted)
    assert_unchanged(fitted, before, predicted)
    first = clone(clf)
    with pytest.raises(error):
        do(first)
    with pytest.raises(NotFittedError):
        first.predict(X1)


@pytest.mark.parametrize("clf", [p for p in TABLE if hasattr(p.values[0], "base")])
def test_a_base_of_another_width_leaves_the_former_fit(clf):
    """A base that does not fit X is refused after the labels were read, and changes nothing."""
    fitted = fit_once(clf)
    before, predicted = state(fitted), fitted.predict(X1)
    with pytest.raises(ValueError, match="X has 5 features"):
        fitted.set_params(base=np.ones((3, 9))).fit(X2, y2)
    fitted.set_params(base=clf.base)
    assert_unchanged(fitted, before, predicted)


class AtTheEnd(Callback):
    """Calls a function when a training ends."""

    def __init__(self, function):
        self.function = function

    def on_train_end(self, net, **_):
        self.function()


@pytest.mark.parametrize("clf", [p for p in TABLE if hasattr(p.values[0], "lr")])
def test_training_that_diverges_leaves_the_former_fit(clf):
    """The last training fails in its last step, after most attributes were set."""
    trainings = []
    counted = clone(clf).set_params(callbacks=[AtTheEnd(lambda: trainings.append(clf))])
    assert counted.fit(X2, y2).classes_.tolist() == ["xen", "yak", "zoo"]
    if not trainings:  # Tip-Adapter without fine-tuning
        return

    def diverge():
        trainings.pop()
        if not trainings:
            raise ValueError("Training diverged")

    fitted = fit_once(clf).set_params(callbacks=[AtTheEnd(diverge)])
    before, predicted = state(fitted), fitted.predict(X1)
    with pytest.raises(ValueError, match="Training diverged"):
        fitted.fit(X2, y2)
    assert_unchanged(fitted, before, predicted)


@contextlib.contextmanager
def ctrl_c_at_the_end_of(method):
    """Interrupt a method when all that it does is done, and it is about to return."""
    code, before = inspect.unwrap(method).__code__, sys.getprofile()

    def interrupt(frame, event, _):
        if event == "return" and frame.f_code is code:
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("clf", TABLE)
def test_an_interrupted_fit_leaves_the_former_one(clf):
    """Ctrl-C when a method has just set all that it learned."""
    fitted, first = fit_once(clf), clone(clf)
    before, predicted = state(fitted), fitted.predict(X1)
    with ctrl_c_at_the_end_of(type(clf).fit), pytest.raises(KeyboardInterrupt):
        fitted.fit(X2, y2)
    assert_unchanged(fitted, before, predicted)
    with ctrl_c_at_the_end_of(type(clf).fit), pytest.raises(KeyboardInterrupt):
        first.fit(X2, y2)
    with pytest.raises(NotFittedError):
        first.predict(X1)


def test_zero_shot_without_images_is_all_or_nothing():
    """Labels alone are a fit, too."""
    base = np.eye(3)
    clf = ZeroShotClassifier(base).fit(None, ["ant", "bee", "cow"])
    with pytest.raises(ValueError, match="base has 3 rows for 4 labels"):
        clf.fit(None, ["xen", "yak", "zoo", "ant"])
    assert clf.predict(base).tolist() == ["ant", "bee", "cow"]
    first = ZeroShotClassifier(base)
    with pytest.raises(ValueError, match="base has 3 rows"):
        first.fit(None, ["xen", "yak"])
    with pytest.raises(NotFittedError):
        first.predict(base)
