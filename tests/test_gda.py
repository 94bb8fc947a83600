"""GDAClassifier against the published formula with a pseudo-inverse, and its properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from sklearn_taskres import ZeroShotClassifier, sample_few_shot
from sklearn_taskres._classifiers.gda import GDAClassifier
from sklearn_taskres._held_out import shot_folds


def normalised(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def problem(n_shots=6, n_classes=5, d=12, noise=0.4, dtype=np.float64, seed=0):
    """Raw class embeddings of CLIP's size, and images around others that text does not know."""
    rng = np.random.default_rng(seed)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.tile(np.arange(n_classes), n_shots)
    seen = t + rng.normal(scale=0.5, size=t.shape)
    X = seen[y] + rng.normal(scale=noise, size=(len(y), d))
    return X.astype(dtype), y, t.astype(dtype)


def with_views(X, n_views=3, seed=1):
    """Clean rows in slot 0, noisy copies behind them."""
    noise = np.random.default_rng(seed).normal(scale=0.3, size=(len(X), 1 + n_views, X.shape[1]))
    noise[:, 0] = 0
    return X[:, None] + noise


def naive_term(f, y):
    """W and b as published, for unit rows."""
    n_classes, (_, d) = y.max() + 1, f.shape
    means = np.stack([f[y == c].mean(axis=0) for c in range(n_classes)])
    centred = np.concatenate([f[y == c] - means[c] for c in range(n_classes)])
    cov = np.cov(centred.T)
    precision = d * np.linalg.pinv((len(f) - 1) * cov + np.trace(cov) * np.eye(d))
    W = means @ precision
    return W, np.array([np.log(1 / n_classes) - m @ precision @ m / 2 for m in means])


def naive_logits(X, y, t, alpha, at):
    """Logits of the rows `at`."""
    W, b = naive_term(normalised(X), y)
    f = normalised(at)
    return 100 * f @ normalised(t).T + alpha * (f @ W.T + b)


def naive_alpha(X, y, base_of, seed, weight=1):
    """Return the best alpha on held-out images; X (n, 1 + v, d), base_of(rows) the base."""
    weight = np.broadcast_to(weight, y.shape)
    candidates = [0.0, *np.logspace(-4, 2, 49)]
    logits = np.empty((len(candidates), len(y), y.max() + 1))
    for kept, held in shot_folds(y, np.random.RandomState(seed)):
        again = np.repeat(kept, weight[kept])
        rows, labels = np.concatenate(X[again]), np.repeat(y[again], X.shape[1])
        for i, alpha in enumerate(candidates):
            logits[i, held] = naive_logits(rows, labels, base_of(kept), alpha, X[held, 0])
    right = (logits.argmax(axis=2) == y).mean(axis=1)
    likelihood = log_softmax(logits, axis=2)[:, np.arange(len(y)), y].mean(axis=1)
    return candidates[max(range(len(candidates)), key=lambda i: (right[i], likelihood[i]))]


# the formula --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shots", [2, 6, 40], ids=["N < D", "N > D", "N >> D"])
@pytest.mark.parametrize("alpha", [0.03, 1.0, 100.0])
def test_equals_the_naive_pseudo_inverse_in_float64(alpha, n_shots):
    """Logits and probabilities are those of the published formula."""
    X, y, t = problem(n_shots)
    clf = GDAClassifier(t, alpha=alpha).fit(X, y)
    at = problem(seed=5)[0]
    expected = naive_logits(X, y, t, alpha, at)
    assert_allclose(clf.decision_function(at), expected, rtol=1e-9, atol=1e-9)
    assert_allclose(clf.predict_log_proba(at), log_softmax(expected, axis=1), rtol=1e-8, atol=1e-8)


def test_equals_the_naive_pseudo_inverse_in_float32():
    """float32 rows are computed in float32, and differ by rounding only."""
    X, y, t = problem(dtype=np.float32)
    clf = GDAClassifier(t, alpha=0.5).fit(X, y)
    assert clf.coef_.dtype == clf.intercept_.dtype == np.float32
    expected = naive_logits(X.astype(float), y, t.astype(float), 0.5, X.astype(float))
    assert_allclose(clf.decision_function(X), expected, rtol=1e-4, atol=1e-3)


def test_two_classes_equal_the_naive_pseudo_inverse():
    """The one logit of two classes is the second's minus the first's."""
    X, y, t = problem(n_classes=2)
    logits = naive_logits(X, y, t, 0.3, X)
    clf = GDAClassifier(t, alpha=0.3).fit(X, y)
    assert_allclose(clf.decision_function(X), logits[:, 1] - logits[:, 0], rtol=1e-9, atol=1e-9)


def test_classes_of_unequal_size_are_equally_likely():
    """The prior is uniform, however many images per class has."""
    X, y, t = problem()
    few = (y != 0) | (np.arange(len(y)) < 10)
    clf = GDAClassifier(t, alpha=1.0).fit(X[few], y[few])
    assert_allclose(clf.decision_function(X), naive_logits(X[few], y[few], t, 1.0, X), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_row_order_does_not_matter(seed):
    """Shuffled rows give the same classifier."""
    X, y, t = problem()
    order = np.random.default_rng(seed).permutation(len(y))
    clf = GDAClassifier(t, alpha=0.3)
    coef, intercept = clf.fit(X, y).coef_, clf.intercept_
    clf.fit(X[order], y[order])
    assert_allclose(clf.coef_, coef, rtol=1e-10, atol=1e-10)
    assert_allclose(clf.intercept_, intercept, rtol=1e-10, atol=1e-10)


# if there is no scatter ------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ["auto", 0.5])
@pytest.mark.parametrize("copies", [1, 3], ids=["one image", "three copies"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_image_a_class_is_zero_shot(dtype, copies, alpha):
    """Without scatter inside classes the images say nothing, copies of one image included."""
    X, y, t = problem(n_shots=1, dtype=dtype)
    at = problem(dtype=dtype)[0]
    clf = GDAClassifier(t, alpha=alpha).fit(np.tile(X, (copies, 1)), np.tile(y, copies))
    zero_shot = ZeroShotClassifier(t).fit(None, y)
    assert_array_equal(clf.coef_, zero_shot.coef_)
    assert_allclose(clf.predict_proba(at), zero_shot.predict_proba(at), atol=1e-5)
    assert clf.alpha_ == (0 if alpha == "auto" else alpha)


def test_alpha_zero_is_zero_shot():
    """alpha=0 is the base alone, to the last bit."""
    X, y, t = problem()
    clf = GDAClassifier(t, alpha=0).fit(X, y)
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert_array_equal(clf.decision_function(X), zero_shot.decision_function(X))
    assert clf.n_parameters_ == 0


# views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shots", [1, 4])
def test_views_are_rows_of_their_images_class(n_shots):
    """Clean row and views count alike, so one image per class with views has scatter."""
    X, y, t = problem(n_shots)
    views = with_views(X)
    clf = GDAClassifier(t, alpha=0.2).fit(views, y)
    expected = naive_logits(np.concatenate(views), np.repeat(y, 4), t, 0.2, X)
    assert_allclose(clf.decision_function(X), expected, rtol=1e-9, atol=1e-9)


def test_sample_weights_are_those_of_the_views():
    """An image of weight 2 is the image and its views twice."""
    X, y, t = problem(4)
    views, weight = with_views(X), 1 + np.arange(len(y)) % 3
    clf = GDAClassifier(t, alpha=0.2).fit(views, y, sample_weight=weight)
    again = GDAClassifier(t, alpha=0.2).fit(np.repeat(views, weight, axis=0), np.repeat(y, weight))
    assert_allclose(clf.decision_function(X), again.decision_function(X), rtol=1e-9, atol=1e-9)


# weights ------------------------------------------------------------------------------------


def test_sample_weights_count_rows():
    """Integer weights equal repeated rows, and 0 equals a row left out."""
    X, y, t = problem()
    weight = np.arange(len(y)) % 4
    clf = GDAClassifier(t, alpha=0.3).fit(X, y, sample_weight=weight)
    again = GDAClassifier(t, alpha=0.3).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_allclose(clf.coef_, again.coef_, rtol=1e-10)
    assert_allclose(clf.intercept_, again.intercept_, rtol=1e-10)


def test_small_sample_weights_are_scaled_up():
    """Weights that sum to one, as boosting passes them, act as weights of mean one."""
    X, y, t = problem()
    weight = np.random.default_rng(0).uniform(0.5, 1.5, size=len(y))
    small = GDAClassifier(t, alpha=0.3).fit(X, y, sample_weight=weight / weight.sum())
    mean_one = GDAClassifier(t, alpha=0.3).fit(X, y, sample_weight=weight / weight.mean())
    assert_allclose(small.coef_, mean_one.coef_, rtol=1e-9)


# alpha --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_views", [0, 3])
@pytest.mark.parametrize("base", ["text", "class_means"])
def test_auto_is_the_naive_choice_on_held_out_images(base, n_views, seed):
    """Each image is held out once with its views, class means included, and judged clean."""
    X, y, t = problem(3, noise=1.0, seed=seed)  # so hard that no two candidates are equal
    views = with_views(X, n_views)

    def base_of(rows):
        if base == "text":
            return t
        return np.stack([normalised(X)[rows][y[rows] == c].mean(axis=0) for c in range(len(t))])

    clf = GDAClassifier(t if base == "text" else base, random_state=seed).fit(views, y)
    assert clf.alpha_ == pytest.approx(naive_alpha(views, y, base_of, seed))


def test_auto_weights_the_images_that_are_not_held_out():
    """In each fold a weight of 2 is an image twice."""
    X, y, t = problem(3, noise=1.0, seed=3)
    weight = 1 + 5 * (np.arange(len(y)) % 3)
    expected = naive_alpha(X[:, None], y, lambda rows: t, 3, weight)
    assert GDAClassifier(t, random_state=3).fit(X, y, weight).alpha_ == pytest.approx(expected)
    assert naive_alpha(X[:, None], y, lambda rows: t, 3) != expected


def test_auto_depends_on_the_seed_alone():
    """The same seed gives the same classifier, whatever the global generator does."""
    X, y, t = problem(3)
    coefs = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (must have no influence)
        coefs.append(GDAClassifier(t, random_state=0).fit(X, y).coef_)
    assert_array_equal(*coefs)


def test_alpha_is_the_default_where_it_cannot_be_searched():
    """Two images per class, or one class with one image, leave 0.02 (N - K) / (N - 1)."""
    X, y, t = problem(2)
    assert GDAClassifier(t).fit(X, y).alpha_ == pytest.approx(0.02 * 5 / 9)
    X, y, t = problem(3)
    rows = np.flatnonzero((y > 0) | (np.arange(len(y)) < 5))
    assert GDAClassifier(t).fit(X[rows], y[rows]).alpha_ == pytest.approx(0.02 * 8 / 12)
    X, y, t = problem(1)
    assert GDAClassifier(t).fit(with_views(X), y).alpha_ == pytest.approx(0.02 * 15 / 19)


@pytest.mark.parametrize(("n_shots", "gain"), [(2, 6), (4, 10), (16, 19)])
def test_auto_gains_on_real_embeddings(test_data, n_shots, gain):
    """On val of DTD, shots of it train and the rest judges: above zero-shot at every count."""
    with np.load(f"{test_data}/clip_vitb32_dtd.npz") as data:
        X, y, t = data["X_val"].astype(np.float32), data["y_val"], data["text"].astype(np.float32)
    gains = []
    for seed in range(3):
        train = sample_few_shot(y, n_shots, random_state=seed)
        rest = np.setdiff1d(np.arange(len(y)), train)
        clf, zero_shot = GDAClassifier(t, random_state=0), ZeroShotClassifier(t)
        scores = [c.fit(X[train], y[train]).score(X[rest], y[rest]) for c in (clf, zero_shot)]
        gains.append(100 * (scores[0] - scores[1]))
    assert np.mean(gains) > gain


# classes and parameters -----------------------------------------------------------------------


def test_selected_classes_keep_their_intercepts():
    """Logits of a selection are columns of the whole."""
    X, y, t = problem()
    full = GDAClassifier(t, alpha=1.0).fit(X, y)
    part = full.select_classes([0, 3, 4])
    expected = full.decision_function(X)[:, [0, 3, 4]]
    assert_allclose(part.decision_function(X), expected, rtol=1e-12)
    assert part.intercept_.shape == (3,)


def test_classes_without_images_are_refused():
    """add_classes says why, and what to do."""
    X, y, t = problem()
    with pytest.raises(ValueError, match=r"without images: .* mean\. Fit again with images"):
        GDAClassifier(t, alpha=1.0).fit(X, y).add_classes({7: t[0]})


def test_parameters_are_counted():
    """W and b are estimated from the images."""
    X, y, t = problem()
    assert GDAClassifier(t, alpha=1.0).fit(X, y).n_parameters_ == 5 * (12 + 1)


@pytest.mark.parametrize("alpha", [-1, "best", None])
def test_bad_alpha_is_refused(alpha):
    """The message names the parameter."""
    X, y, t = problem()
    with pytest.raises(ValueError, match="The 'alpha' parameter of GDAClassifier must be"):
        GDAClassifier(t, alpha=alpha).fit(X, y)
