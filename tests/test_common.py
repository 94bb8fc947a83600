"""The one table of classifiers: scikit-learn's checks and meta-estimators, on every one of them.

A new sibling adds a row to CLASSIFIERS.
"""

import functools
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from coop_stand_in import CoOpOnClassMeans
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_taskres import (
    CLAPClassifier,
    CLIPAdapterClassifier,
    GDAClassifier,
    LinearProbeClassifier,
    ProLIPClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    TaskResGDAClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
)

NO_INTERCEPT = {
    "check_class_weight_classifiers": (
        "weights move no intercept (a cosine head has none, Gaussians have equal priors), so they "
        "alone can't make it predict one class only"
    )
}
MINI_BATCHES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "repeated rows fall into other mini-batches than one row with their weight"
    )
}
SAMPLE_WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
HELD_OUT = {SAMPLE_WEIGHTS: "repeated rows are held out one by one, a row with a weight as one"}
KEYS = {SAMPLE_WEIGHTS: "repeated rows are as many keys to learn, a row with a weight is one"}
MEANS = {"base": "class_means"}
FAST = {"base": "class_means", "max_epochs": 8, "lr": 0.02}
JOINED = {**FAST, "unlabeled": None}
MINI = {"batch_size": 16, "random_state": 0}
#: CoOp needs a text tower, of fixed width: one that takes any width stands in for it.
COOP = {"base": "class_means", "n_context": 2, "max_epochs": 8, "random_state": 0}
#: Their fits sum nothing that the check sees; the table excuses Tip-Adapter-F.
UNTRAINED = (ZeroShotClassifier, LinearProbeClassifier, TipAdapterClassifier)
#: Small, fast instances and the checks that each is expected to fail, with the reason.
CLASSIFIERS = [
    (ZeroShotClassifier(base="class_means"), {}),
    (TaskResClassifier(**FAST), NO_INTERCEPT),
    (TaskResClassifier(**FAST, learn_alpha=True, residual="both"), NO_INTERCEPT),
    (TaskResClassifier(**FAST, residual="image"), NO_INTERCEPT),
    (TaskResClassifier(**FAST, batch_size=16, random_state=0), NO_INTERCEPT | MINI_BATCHES),
    (TaskResClassifierCV(**FAST, alphas=(0, 0.5, 1), cv=3), NO_INTERCEPT),
    (TaskResClassifierCV(**FAST, **MINI, alphas=(0.5, 1), cv=2), NO_INTERCEPT | MINI_BATCHES),
    (TaskResGDAClassifier(**JOINED), NO_INTERCEPT),
    (
        TaskResGDAClassifier(**JOINED, **MINI, gaussian_weight=1.0),
        NO_INTERCEPT | MINI_BATCHES,
    ),
    (LinearProbeClassifier(10.0), {}),
    (LinearProbeClassifier(random_state=0), HELD_OUT),
    (CLIPAdapterClassifier(**FAST, batch_size=256, random_state=0), NO_INTERCEPT),
    (CLIPAdapterClassifier(**FAST, batch_size=16, random_state=0), NO_INTERCEPT | MINI_BATCHES),
    (TipAdapterClassifier(**MEANS, alpha=2.0, beta=1.0), {}),
    (TipAdapterClassifier(**MEANS, alpha=2.0, random_state=0), HELD_OUT),
    (TipAdapterClassifier(**MEANS, fine_tune=True, beta=1.0, max_epochs=8), KEYS),
    (CoOpOnClassMeans(**COOP, lr=0.05, batch_size=256), NO_INTERCEPT),
    (CoOpOnClassMeans(**COOP, lr=0.005, batch_size=16), NO_INTERCEPT | MINI_BATCHES),
    (GDAClassifier(**MEANS, alpha=0.3), {}),
    (GDAClassifier(**MEANS, random_state=0), HELD_OUT),
    (GDAClassifier(**MEANS, prior="text"), {}),
    (CLAPClassifier(**FAST), NO_INTERCEPT),
    (CLAPClassifier(**FAST, batch_size=16, random_state=0), NO_INTERCEPT | MINI_BATCHES),
    (ProLIPClassifier(**FAST, penalty=0.5), NO_INTERCEPT),
    (ProLIPClassifier(**FAST, batch_size=16, random_state=0), NO_INTERCEPT | MINI_BATCHES),
]
BEYOND_DOUBLE = {
    "check_classifiers_train": (
        "compares with the logarithm of probabilities, which is -inf if votes at alpha=32 differ "
        "by more than 745; predict_log_proba is exact there"
    )
}
AUTO_EPOCHS = {SAMPLE_WEIGHTS: "'auto' counts rows: repeated ones make it 200 epochs, not 100"}
UNLABELED = {"check_classifiers_classes": "-1 marks a row without a label, as in scikit-learn"}
#: Every estimator with its defaults, as far as scikit-learn's data have them: they name no classes.
DEFAULTS = [
    (TaskResClassifier(**MEANS), NO_INTERCEPT | AUTO_EPOCHS),
    (TaskResClassifierCV(**MEANS), NO_INTERCEPT),
    (TaskResGDAClassifier(**MEANS), NO_INTERCEPT | AUTO_EPOCHS | UNLABELED),
    (LinearProbeClassifier(), HELD_OUT),
    (CLIPAdapterClassifier(**MEANS), NO_INTERCEPT | MINI_BATCHES),
    (TipAdapterClassifier(**MEANS), NO_INTERCEPT | HELD_OUT | BEYOND_DOUBLE),
    (CoOpOnClassMeans(**MEANS), NO_INTERCEPT | MINI_BATCHES),
    (GDAClassifier(**MEANS), HELD_OUT),
    (CLAPClassifier(**MEANS), NO_INTERCEPT),
]
TABLE = [
    pytest.param(clf, id=f"{i}-{type(clf).__name__}") for i, (clf, _) in enumerate(CLASSIFIERS)
]


def expected_failures(estimator):
    rows = [*CLASSIFIERS, *DEFAULTS]
    return next(reasons for clf, reasons in rows if repr(clf) == repr(estimator))


def expected_failures_in_float32(estimator):
    reasons = expected_failures(estimator)
    if not isinstance(estimator, UNTRAINED):
        why = "asks for 1e-7 after training, float32 sums differ by more"
        reasons = {"check_sample_weight_equivalence_on_dense_data": why} | reasons
    return reasons


scikit_learn_data = pytest.mark.filterwarnings(
    # scikit-learn's own check data: 20 rows of 20 classes, images of unit norm
    "ignore:The number of unique classes:UserWarning",
    "ignore:residual=:UserWarning",
)
instances = [clf for clf, _ in CLASSIFIERS]


@scikit_learn_data
@parametrize_with_checks(instances, expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator, check):
    """Every classifier keeps scikit-learn's contract, except for what the table lists."""
    check(estimator)


@scikit_learn_data
@parametrize_with_checks([clf for clf, _ in DEFAULTS], expected_failed_checks=expected_failures)
def test_scikit_learn_checks_of_the_defaults(estimator, check):
    """So do all of them with their defaults, searches and automatic values included."""
    check(estimator)


def as_float32(X):
    """Arrays and frames of float64 in float32, all else as it is."""
    if hasattr(X, "dtypes"):
        return X.astype(np.float32) if (X.dtypes == np.float64).all() else X
    if getattr(X, "dtype", None) != np.float64:
        return X
    single = X.astype(np.float32)
    if isinstance(X, np.ndarray):
        single.flags.writeable = X.flags.writeable
    return single


class InFloat32:
    """Namespace, for pickles, of the classifiers whose users have float32 alone."""

    @classmethod
    def of(cls, clf):
        """A copy of a classifier, by a class of the same name that casts X to float32."""

        def casting(method):
            @functools.wraps(method)
            def cast(self, X, *args, **kwargs):
                return method(self, as_float32(X), *args, **kwargs)

            return cast

        kind, names = type(clf), ("fit", "predict", "predict_proba", "predict_log_proba")
        members = {name: casting(getattr(kind, name)) for name in (*names, "decision_function")}
        members |= {"__module__": __name__, "__qualname__": f"InFloat32.{kind.__name__}"}
        if not hasattr(cls, kind.__name__):
            setattr(cls, kind.__name__, type(kind.__name__, (kind,), members))
        return getattr(cls, kind.__name__)(**clone(clf).get_params(deep=False))


@scikit_learn_data
@parametrize_with_checks(
    [InFloat32.of(clf) for clf in instances], expected_failed_checks=expected_failures_in_float32
)
def test_scikit_learn_checks_in_float32(estimator, check):
    """The same if arrays and frames are float32, which the checks' own data seldom ask for."""
    check(estimator)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def blobs(request):
    """Three classes with string labels, 60 rows."""
    X, y = make_blobs(60, n_features=6, centers=3, cluster_std=2.0, random_state=0)
    return X.astype(request.param), np.array(["cat", "dog", "emu"])[y]


@pytest.mark.parametrize("clf", TABLE)
def test_dtype_follows_x(clf, blobs):
    """Fitted arrays and logits have the dtype of X; probabilities are float64 and sum to one."""
    X, y = blobs
    clf = clone(clf).fit(X, y)
    assert clf.coef_.dtype == clf.decision_function(X).dtype == X.dtype
    assert clf.predict_proba(X).dtype == np.float64
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("clf", TABLE)
def test_float16_is_read_and_computed_in_float32(clf, blobs):
    """float16 rows give what the same rows in float32 give."""
    X, y = blobs
    half = X.astype(np.float16)
    clf16, clf32 = clone(clf).fit(half, y), clone(clf).fit(half.astype(np.float32), y)
    assert clf16.coef_.dtype == np.float32
    assert_array_equal(clf16.decision_function(half), clf32.decision_function(half))


@pytest.mark.parametrize("clf", TABLE)
@pytest.mark.parametrize(
    "image",
    ["cat.jpg", Path("cat.jpg"), b"JFIF", Image.new("RGB", (3, 3))],
    ids=lambda image: type(image).__name__,
)
def test_images_are_no_embeddings(clf, image, blobs):
    """In a list, an array or a Series, in fit and in predict: the error says what to do."""
    X, y = blobs
    column = np.empty(4, dtype=object)
    column[:] = [image] * 4
    fitted = clone(clf).fit(X, y)
    for images in (column.tolist(), column, column[:, None], pd.Series(column)):
        for refuses in (lambda rows: clone(clf).fit(rows, y[:4]), fitted.predict):
            with pytest.raises(ValueError, match=r"X holds .+ make_taskres_pipeline"):
                refuses(images)


@pytest.mark.parametrize("clf", TABLE)
def test_fitted_state_is_arrays_numbers_and_strings(clf, blobs):
    """Nothing of a network stays behind: the pickle names no torch and no skorch."""
    X, y = blobs
    payload = pickle.dumps(clone(clf).fit(X, y))
    assert b"torch" not in payload
    assert b"skorch" not in payload
    assert_array_equal(pickle.loads(payload).predict(X), clone(clf).fit(X, y).predict(X))  # noqa: S301


@pytest.mark.parametrize("clf", TABLE)
def test_selected_classes_predict_as_their_columns(clf, blobs):
    """select_classes keeps the logits of the classes it keeps, to the last bit."""
    X, y = blobs
    full = clone(clf).fit(X, y)
    part = full.select_classes(["emu", "cat"])
    assert part.classes_.tolist() == ["cat", "emu"]
    logits = full.decision_function(X)
    assert_array_equal(part.decision_function(X), logits[:, 2] - logits[:, 0])
    assert full.classes_.tolist() == ["cat", "dog", "emu"]
    with pytest.raises(ValueError, match=r"'fox'.* not among the 3 classes"):
        full.select_classes(["cat", "fox"])
    rest = full.remove_classes(["dog"])
    assert_array_equal(rest.decision_function(X), part.decision_function(X))
    with pytest.raises(ValueError, match=r"'fox'.* not among the 3 classes"):
        full.remove_classes(["fox"])
    with pytest.raises(ValueError, match="remove_classes must leave at least two classes"):
        full.remove_classes(["cat", "dog"])


@pytest.mark.parametrize("clf", TABLE)
def test_renamed_classes_predict_as_they_did(clf, blobs):
    """rename_classes changes labels and nothing else, whatever their order becomes."""
    X, y = blobs
    full = clone(clf).fit(X, y)
    renamed = full.rename_classes({"cat": "zebra", "emu": "dog", "dog": "emu"})
    assert renamed.classes_.tolist() == ["dog", "emu", "zebra"]
    assert full.classes_.tolist() == ["cat", "dog", "emu"]
    new = {"cat": "zebra", "emu": "dog", "dog": "emu"}
    assert renamed.predict(X).tolist() == [new[label] for label in full.predict(X).tolist()]
    assert_allclose(
        renamed.predict_proba(X), full.predict_proba(X)[:, [2, 1, 0]], rtol=0, atol=1e-12
    )
    some = renamed.select_classes(["dog", "zebra"]).predict_proba(X)
    assert_allclose(some, full.select_classes(["emu", "cat"]).predict_proba(X)[:, ::-1], atol=1e-9)
    with pytest.raises(ValueError, match=r"'fox'.* not among the 3 classes"):
        full.rename_classes({"fox": "cat"})
    with pytest.raises(ValueError, match=r"Two classes would have the label \['dog'\]"):
        full.rename_classes({"cat": "dog"})
    with pytest.raises(ValueError, match=r"\[1\] are of another kind than classes_"):
        full.rename_classes({"cat": 1})
    with pytest.raises(ValueError, match="takes a dict of old labels to new"):
        full.rename_classes(["cat"])


@pytest.mark.parametrize("clf", TABLE)
def test_added_class_gets_its_zero_shot_weight(clf, blobs):
    """add_classes leaves the other logits alone and gives the new class those of its embedding."""
    X, y = blobs
    full = clone(clf).fit(X, y)
    vector = np.arange(6.0)
    if getattr(full, "best_estimator_", full)._cannot_add_classes:
        with pytest.raises(ValueError, match="can't add classes without images"):
            full.add_classes({"cow": vector})
        return
    grown = full.add_classes({"cow": vector})
    assert grown.classes_.tolist() == ["cat", "cow", "dog", "emu"]
    before, after = full.decision_function(X), grown.decision_function(X)
    np.testing.assert_allclose(after[:, [0, 2, 3]], before, rtol=1e-5, atol=1e-5)
    new = full.logit_scale_ * vector / np.linalg.norm(vector)
    np.testing.assert_allclose(grown.coef_[1], new, rtol=1e-6)
    with pytest.raises(ValueError, match="in classes_ already"):
        full.add_classes({"cat": vector})


def _grid(clf):
    """Two candidates of a parameter that the classifier has."""
    return {"base_norm": [1.0, 5.0]} if hasattr(clf, "base_norm") else {"C": [1.0, 10.0]}


META_ESTIMATORS = {
    "grid search": lambda clf: GridSearchCV(clf, _grid(clf), cv=3),
    "calibration": lambda clf: CalibratedClassifierCV(clf, cv=3),
    "voting": lambda clf: VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"),
    "stacking": lambda clf: StackingClassifier([("a", clf)], LogisticRegression(), cv=3),
    "bagging": lambda clf: BaggingClassifier(clf, n_estimators=3, random_state=0),
}


@pytest.mark.parametrize("wrap", META_ESTIMATORS.values(), ids=META_ESTIMATORS.keys())
@pytest.mark.parametrize("clf", TABLE)
def test_meta_estimators(clf, wrap, blobs):
    """A classifier can be searched, calibrated, combined and bagged."""
    X, y = blobs
    model = wrap(clone(clf)).fit(X, y)
    assert model.score(X, y) > 0.7
    assert set(model.predict(X)) <= {"cat", "dog", "emu"}


@pytest.mark.parametrize("wrap", META_ESTIMATORS.values(), ids=META_ESTIMATORS.keys())
def test_meta_estimators_keep_rows_and_names_together(wrap, blobs):
    """With an array base and a sequence of names, encoded labels find their own rows."""
    X, y = blobs
    base = np.stack([X[y == label].mean(axis=0) for label in ("cat", "dog", "emu")])
    clf = TaskResClassifier(base, class_names=["cat", "dog", "emu"], max_epochs=8)
    assert wrap(clf).fit(X, y).score(X, y) > 0.7


def test_bases_are_searched_and_weights_are_routed(blobs):
    """GridSearchCV takes bases as candidates, and passes sample weights on where they are asked."""
    X, y = blobs
    good = np.stack([X[y == label].mean(axis=0) for label in ("cat", "dog", "emu")])
    with sklearn.config_context(enable_metadata_routing=True):
        clf = TaskResClassifier(max_epochs=2, logit_scale=1).set_fit_request(sample_weight=True)
        clf.set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"base": ["class_means", good]}, cv=3)
        search.fit(X, y, sample_weight=np.linspace(0.5, 2, len(y)))
    assert search.cv_results_["mean_test_score"].min() > 0.7


@pytest.mark.parametrize("clf", TABLE)
def test_self_training(clf, blobs):
    """A classifier labels the rows that have no label (-1), and learns from them."""
    X, y = blobs
    some = np.unique(y, return_inverse=True)[1]
    some[::3] = -1
    model = SelfTrainingClassifier(clone(clf), max_iter=2).fit(X, some)
    assert (model.transduction_ != -1).sum() > (some != -1).sum()


@pytest.mark.parametrize("clf", TABLE)
def test_cross_val_predict_when_a_fold_lacks_a_class(clf, blobs):
    """A class that only one fold has does not stop cross-validation."""
    X, y = blobs
    y = np.where(np.arange(len(y)) == 0, "yak", y)
    with pytest.warns(UserWarning, match="least populated class"):
        predicted = cross_val_predict(clone(clf), X, y, cv=3)
    assert set(predicted) <= {"cat", "dog", "emu", "yak"}


@pytest.mark.skipif(
    "temperature" not in CalibratedClassifierCV._parameter_constraints["method"][0].options,
    reason="scikit-learn has temperatures from 1.8 on",
)
@pytest.mark.parametrize("clf", TABLE)
def test_a_temperature_keeps_labels(clf, blobs):
    """Calibration as the guide has it: one number for all logits, learned on held-out images."""
    X, y = blobs
    # the same seed in the search of either: what is calibrated is the classifier itself
    clf = clone(clf)
    if "random_state" in clf.get_params():
        clf.set_params(random_state=0)
    model = CalibratedClassifierCV(clf, method="temperature", ensemble=False, cv=3).fit(X, y)
    assert_array_equal(model.predict(X), clone(clf).fit(X, y).predict(X))
