"""A selection from a fit to 1000 classes predicts as its rows alone would, for every classifier.

ImageNet-A and -R are tested so: 200 of the 1000 classes of ImageNet are kept. Two of ImageNet's
names stand for two classes each, and the labels are numbers.
"""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.preprocessing import normalize
from test_common import CLASSIFIERS

from sklearn_taskres import CLIPTextFeaturizer, CoOpClassifier, TaskResClassifier

N_CLASSES, WIDTH, SHOTS = 1000, 16, 2
#: Labels that share a name, and so an embedding, as crane and maillot do in ImageNet.
TWINS = ((134, 517), (638, 639))
NAMES = [f"class {label}" for label in range(N_CLASSES)]
for first, second in TWINS:
    NAMES[second] = NAMES[first]
#: Labels kept: both twins, one twin of two, and some of the rest.
KEPT = np.union1d(np.random.default_rng(1).choice(N_CLASSES, 200, replace=False), [134, 517, 638])
KEPT = KEPT[KEPT != 639]


def _id(i):
    return f"{i}-{type(CLASSIFIERS[i][0]).__name__}"


# The search for C takes 20 s with 1000 classes; what it leaves to select from is that of a given C.
ROWS = [i for i, (clf, _) in enumerate(CLASSIFIERS) if clf.get_params().get("C") != "auto"]
each_classifier = pytest.mark.parametrize("i", ROWS, ids=_id)


@functools.cache
def arrays():
    """Class embeddings (1000, 16), few-shot rows and labels, and test rows, in float32."""
    rng = np.random.default_rng(0)
    base = 2.5 * rng.normal(size=(N_CLASSES, WIDTH))
    for first, second in TWINS:
        base[second] = base[first]
    y = np.repeat(np.arange(N_CLASSES), SHOTS)
    X = base[y] + 1.5 * rng.normal(size=(len(y), WIDTH))
    X_test = base[::2] + 2.5 * rng.normal(size=(N_CLASSES // 2, WIDTH))
    return base.astype(np.float32), X.astype(np.float32), y, X_test.astype(np.float32)


@functools.cache
def whole(i):
    """The i-th of CLASSIFIERS, fitted to all classes for one epoch."""
    base, X, y, _ = arrays()
    clf = clone(CLASSIFIERS[i][0])
    changes = {"base": base, "class_names": NAMES, "max_epochs": 1, "cv": SHOTS}
    taken = clf.get_params(deep=False)
    return clf.set_params(**{n: v for n, v in changes.items() if n in taken}).fit(X, y)


def logits_of_rows(clf, X, labels):
    """Logits from the fitted arrays of these labels alone, by the formulas in the docstrings."""
    rows = np.searchsorted(clf.classes_, labels)
    if hasattr(clf, "w1_"):
        wide = X.astype(np.float64)
        added = np.maximum(np.maximum(wide @ clf.w1_.T, 0) @ clf.w2_.T, 0)
        X = ((1 - clf.ratio) * wide + clf.ratio * added).astype(np.float32)
    if getattr(clf, "image_residual_", np.zeros(1)).any():
        X = X + X.dtype.type(clf.alpha_) * clf.image_residual_
    z = normalize(X).astype(np.float64)
    if hasattr(clf, "image_map_"):
        z = z @ clf.image_map_
        z = z / np.sqrt(np.vecdot(z, z))[:, None]
    logits = z @ clf.coef_[rows].astype(np.float64).T
    if hasattr(clf, "intercept_"):
        logits = logits + clf.intercept_[rows]
    if hasattr(clf, "cache_keys_"):
        kept = np.isin(clf.classes_[clf.cache_classes_], labels)
        votes = np.exp(clf.beta_ * (z @ clf.cache_keys_[kept].T - 1))
        owners = clf.classes_[clf.cache_classes_[kept]][:, None] == np.asarray(labels)
        logits = logits + clf.alpha_ * (votes @ (owners * clf.cache_weights_[kept, None]))
    return logits.astype(np.float32)


def rounding(logits):
    """What float32 sums of WIDTH terms may differ by, taken in another order."""
    return 4 * WIDTH * np.finfo(np.float32).eps * np.abs(logits).max()


def assert_highest(predicted, labels, logits):
    """Check that each predicted label has the highest logit, except for rounding."""
    chosen = logits[np.arange(len(logits)), np.searchsorted(labels, predicted)]
    assert np.isin(predicted, labels).all()
    assert (chosen >= logits.max(axis=1) - rounding(logits)).all()


@each_classifier
def test_logits_are_columns_of_the_whole(i):
    """decision_function is that of all classes, at the kept ones, to rounding."""
    X = arrays()[-1]
    all_logits = whole(i).decision_function(X)
    part = whole(i).select_classes(KEPT)
    assert_array_equal(part.classes_, KEPT)
    difference = part.decision_function(X) - all_logits[:, KEPT]
    assert np.abs(difference).max() <= rounding(all_logits)


@each_classifier
@pytest.mark.model
def test_logits_are_those_of_the_sliced_rows(i):
    """decision_function is what the arrays of the kept classes give, as if there were no other."""
    X = arrays()[-1]
    part = whole(i).select_classes(KEPT)
    logits, by_hand = part.decision_function(X), logits_of_rows(whole(i), X, KEPT)
    if hasattr(part, "cache_keys_"):  # exp and a product with one-hot rows, in another way
        assert_allclose(logits, by_hand, rtol=0, atol=rounding(by_hand))
    else:
        assert_array_equal(logits, by_hand)


@each_classifier
def test_labels_are_those_of_the_sliced_rows(i):
    """predict gives the label that has the highest logit among the kept columns of the whole."""
    X = arrays()[-1]
    part = whole(i).select_classes(KEPT)
    columns = whole(i).decision_function(X)[:, KEPT]
    runner_up, highest = np.sort(columns, axis=1)[:, -2:].T
    clear = highest - runner_up > rounding(columns)  # twins are not
    assert clear.mean() > 0.95
    assert_array_equal(part.predict(X)[clear], KEPT[columns.argmax(axis=1)][clear])
    assert_highest(part.predict(X), KEPT, columns)
    assert len(set(part.predict(X).tolist())) > 50
    probabilities = part.predict_proba(X)
    assert probabilities.shape == (len(X), len(KEPT))
    assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


@each_classifier
def test_the_whole_stays_and_a_selection_of_a_selection_is_one(i):
    """Selecting changes nothing in the whole; twice is the same as at once, to the last bit."""
    X = arrays()[-1][:50]
    before = whole(i).decision_function(X)
    few = KEPT[::7]
    twice = whole(i).select_classes(KEPT).select_classes(few)
    assert_array_equal(
        twice.decision_function(X), whole(i).select_classes(few).decision_function(X)
    )
    assert_array_equal(whole(i).classes_, np.arange(N_CLASSES))
    assert_array_equal(whole(i).decision_function(X), before)


@each_classifier
def test_twins_are_two_classes(i):
    """Both labels of a name are kept, alone too; if nothing was learned they score the same."""
    X = arrays()[-1][:50]
    part = whole(i).select_classes(TWINS[0])
    assert_array_equal(part.classes_, TWINS[0])
    logits = logits_of_rows(whole(i), X, TWINS[0])
    assert_allclose(part.decision_function(X), logits[:, 1] - logits[:, 0], atol=rounding(logits))
    if i == 0:  # zero-shot
        assert_array_equal(part.decision_function(X), 0)
        assert set(part.predict(X)) == {TWINS[0][0]}


@settings(max_examples=40, deadline=None)
@given(
    i=st.sampled_from(ROWS),
    labels=st.lists(st.integers(0, N_CLASSES - 1), min_size=2, max_size=30),
)
def test_any_selection_in_any_order(i, labels):
    """Order and repetition of the labels do not matter; fewer than two classes are refused."""
    X, kept = arrays()[-1][:20], np.unique(labels)
    if len(kept) < 2:
        with pytest.raises(ValueError, match="at least two labels"):
            whole(i).select_classes(labels)
        return
    part = whole(i).select_classes(labels)
    assert_array_equal(part.classes_, kept)
    by_hand = logits_of_rows(whole(i), X, kept)
    assert_highest(part.predict(X), kept, by_hand)


@pytest.mark.parametrize(
    "clf",
    [
        TaskResClassifier(max_epochs=1, lr=0.02),
        TaskResClassifier(max_epochs=1, lr=0.02, enhanced_base=True),
        CoOpClassifier(n_context=2, max_epochs=1, batch_size=256),
        CoOpClassifier(n_context=2, max_epochs=1, batch_size=256, class_specific=True),
    ],
    ids=["taskres", "enhanced", "coop", "coop-class-specific"],
)
@pytest.mark.model
def test_names_of_a_text_base_may_repeat(clf):
    """Embedded by a real text tower, classes of one name are told apart by their labels."""
    text = CLIPTextFeaturizer("glyph-clip")
    names = [f"the digit {n % 100}" for n in range(200)]
    rng = np.random.default_rng(0)
    y = np.arange(len(names))
    X = (text.transform(names) + rng.normal(size=(len(names), 128))).astype(np.float32)
    clf = clone(clf).set_params(base=text, class_names=names, random_state=0).fit(X, y)
    kept = np.array([3, 7, 42, 103, 107, 150])
    part = clf.select_classes(kept)
    assert_array_equal(part.decision_function(X), logits_of_rows(clf, X, kept))
    assert_highest(part.predict(X), kept, clf.decision_function(X)[:, kept])
    if getattr(clf, "class_specific", False):
        assert_array_equal(part.context_, clf.context_[kept])
