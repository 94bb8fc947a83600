"""LinearProbeClassifier against scikit-learn's LogisticRegression, and its search of C."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sklearn_taskres._classifiers.linear_probe import LinearProbeClassifier, coarse_to_fine
from sklearn_taskres._held_out import shot_folds


def problem(n_shots=4, n_classes=4, d=10, dtype=np.float64, seed=0):
    """Rows around class centres, with lengths that vary, and integer labels that are not names."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(n_classes), n_shots)
    X = rng.normal(size=(n_classes, d))[y] + rng.normal(size=(len(y), d))
    return (X * rng.uniform(1, 5, size=(len(y), 1))).astype(dtype), 10 + y


def normalised(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# the regression -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_scikit_learns_regression(normalize, C, n_classes):
    """With a given C the probabilities are those of LogisticRegression, of two classes too."""
    X, y = problem(n_classes=n_classes)
    rows = normalised(X) if normalize else X
    naive = LogisticRegression(C=C, max_iter=1000).fit(rows, y)
    clf = LinearProbeClassifier(C, normalize=normalize).fit(X, y)
    assert_allclose(clf.predict_proba(X), naive.predict_proba(rows), atol=1e-10)
    assert_allclose(clf.decision_function(X), naive.decision_function(rows), atol=1e-10)
    assert_array_equal(clf.predict(X), naive.predict(rows))
    assert clf.coef_.shape == (n_classes, 10)
    assert clf.intercept_.shape == (n_classes,)
    assert clf.n_iter_ == naive.n_iter_[0]
    assert clf.n_parameters_ == n_classes * 11


def test_weights_reach_the_regression():
    """Sample and class weights multiply each other, as in scikit-learn."""
    X, y = problem()
    weight = np.random.default_rng(0).uniform(0.5, 3, len(y))
    class_weight = {10: 5.0, 12: 0.1}
    naive = LogisticRegression(C=10, max_iter=1000, class_weight=class_weight)
    naive.fit(normalised(X), y, sample_weight=weight)
    clf = LinearProbeClassifier(10, class_weight=class_weight).fit(X, y, sample_weight=weight)
    assert_allclose(clf.predict_proba(X), naive.predict_proba(normalised(X)), atol=1e-10)


def test_integer_weights_equal_repeated_rows():
    """A weight of 2 is the row twice, and 0 is the row left out."""
    X, y = problem(6)
    weight = np.arange(len(y)) % 3
    clf = LinearProbeClassifier(10).fit(X, y, sample_weight=weight)
    again = LinearProbeClassifier(10).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_allclose(clf.coef_, again.coef_, atol=1e-8)


def test_length_of_rows_does_not_matter():
    """Normalised, an embedding and its multiples are one and the same, at prediction too."""
    X, y = problem()
    clf = LinearProbeClassifier(10).fit(X, y)
    again = LinearProbeClassifier(10).fit(7 * X, y)
    assert_allclose(clf.decision_function(3 * X), again.decision_function(X), atol=1e-10)


def test_views_are_left_out():
    """Training takes the clean rows."""
    X, y = problem()
    views = np.random.default_rng(0).normal(size=(len(y), 3, 10))
    clf = LinearProbeClassifier(10).fit(X, y)
    again = LinearProbeClassifier(10).fit(np.concatenate([X[:, None], views], axis=1), y)
    assert_array_equal(clf.coef_, again.coef_)


# the search ---------------------------------------------------------------------------------


@given(st.integers(-48, 48))
def test_search_finds_the_peak_of_its_grid(eighths):
    """A score with one peak is climbed in 15 tries, all on the grid of eighths of a decade."""
    tried = []

    def score(C):
        tried.append(8 * np.log10(C))
        return -abs(tried[-1] - eighths)

    assert 8 * np.log10(coarse_to_fine(score)) == pytest.approx(eighths)
    assert len(tried) <= 15
    assert_allclose(tried, np.round(tried), atol=1e-9)
    assert max(map(abs, tried)) <= 48 + 1e-9


def test_search_takes_the_smallest_of_equal_candidates():
    """If all are equal, the strongest penalty stays."""
    assert coarse_to_fine(lambda C: 0) == pytest.approx(1e-6)


def naive_search(X, y, seed, weight=None):
    """CLIP's search, each row held out once: accuracy decides, then likelihood."""
    f, codes = normalised(X), y - 10
    weight = np.ones(len(y)) if weight is None else weight
    folds = shot_folds(codes, np.random.RandomState(seed))

    def score(exponent):
        logits = np.empty((len(y), codes.max() + 1))
        for kept, held in folds:
            model = LogisticRegression(C=10.0**exponent, max_iter=1000)
            logits[held] = model.fit(f[kept], y[kept], weight[kept]).decision_function(f[held])
        truth = log_softmax(logits, axis=1)[np.arange(len(y)), codes]
        return np.mean(logits.argmax(axis=1) == codes), np.mean(truth)

    best, step = max([-6, -4, -2, 0, 2, 4, 6], key=score), 1.0
    while step >= 1 / 8:
        around = [e for e in (best - step, best + step) if -6 <= e <= 6]
        best, step = max([best, *around], key=score), step / 2
    return 10.0**best


@pytest.mark.parametrize("seed", range(3))
def test_auto_is_the_naive_search(seed):
    """C is that of a plain loop over held-out rows."""
    X, y = problem(seed=seed)
    expected = naive_search(X, y, seed)
    assert_allclose(LinearProbeClassifier(random_state=seed).fit(X, y).C_, expected)


def test_auto_weights_the_fits_of_the_search():
    """Sample weights count in the fits of the search as in the last one."""
    X, y = problem(seed=2)
    weight = np.random.default_rng(0).uniform(0.1, 5, len(y))
    expected = naive_search(X, y, 0, weight)
    clf = LinearProbeClassifier(random_state=0).fit(X, y, sample_weight=weight)
    assert_allclose(clf.C_, expected)
    assert expected != naive_search(X, y, 0)


def test_one_image_a_class_takes_the_default():
    """Nothing can be held out."""
    X, y = problem(n_shots=1)
    assert LinearProbeClassifier().fit(X, y).C_ == 10


def test_last_fit_alone_warns_of_its_iterations():
    """Candidates that run out of iterations are not news; the classifier itself is."""
    X, y = problem()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LinearProbeClassifier(max_iter=1, random_state=0).fit(X, y)
    assert [w.category for w in caught] in ([], [ConvergenceWarning])
    with pytest.warns(ConvergenceWarning):
        LinearProbeClassifier(100, max_iter=1).fit(X, y)


# labels, classes and parameters -------------------------------------------------------------


def test_no_text_is_needed():
    """Labels are not names, and there is neither a base nor a parameter for one."""
    X, y = problem()
    clf = LinearProbeClassifier(10).fit(X, y)
    assert not {"base", "class_names", "base_norm", "logit_scale"} & set(clf.get_params())
    assert not {"base_", "logit_scale_"} & set(vars(clf))
    with pytest.raises(ValueError, match="Invalid parameter 'base'"):
        clf.set_params(base="class_means")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selected_classes_keep_their_rows(dtype):
    """Logits of a selection are columns of the whole; two of four classes included."""
    X, y = problem(dtype=dtype)
    full = LinearProbeClassifier(10).fit(X, y)
    logits = full.decision_function(X)
    three, two = full.select_classes([10, 12, 13]), full.select_classes([13, 10])
    assert_allclose(three.decision_function(X), logits[:, [0, 2, 3]], rtol=1e-5, atol=1e-5)
    assert_allclose(two.decision_function(X), logits[:, 3] - logits[:, 0], rtol=1e-5, atol=1e-5)
    assert full.coef_.dtype == full.intercept_.dtype == logits.dtype == dtype


def test_classes_without_images_are_refused():
    """add_classes says why, and what to do."""
    X, y = problem()
    with pytest.raises(ValueError, match=r"from its images alone\. Fit again with images"):
        LinearProbeClassifier(10).fit(X, y).add_classes({7: X[0]})


@pytest.mark.parametrize(
    ("name", "value"), [("C", 0), ("C", "best"), ("normalize", "l2"), ("max_iter", 0)]
)
def test_bad_parameters_are_refused(name, value):
    """The message names the parameter."""
    X, y = problem()
    with pytest.raises(ValueError, match=f"The {name!r} parameter of LinearProbeClassifier must"):
        LinearProbeClassifier(**{name: value}).fit(X, y)


def test_other_width_is_refused():
    """A row of another model's width is an error at prediction."""
    X, y = problem()
    with pytest.raises(ValueError, match="10 features"):
        LinearProbeClassifier(10).fit(X, y).predict(X[:, :9])
