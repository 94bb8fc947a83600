"""TaskResGDAClassifier against formulas with explicit inverses, and its properties."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import sqrtm
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sklearn_taskres import GDAClassifier, TaskResClassifier, TaskResGDAClassifier
from sklearn_taskres._classifiers.gaussian import class_moments
from sklearn_taskres._classifiers.held_out_gaussian import HeldOutGaussian, nearest_within
from sklearn_taskres._classifiers.taskres_gda import spread_of_wrong
from sklearn_taskres._classifiers.text_gaussian import text_gaussian
from sklearn_taskres._classifiers.training import torch_product

FIXED = {"prior_strength": 8.0, "gaussian_weight": 1.0, "calibrate": False, "max_epochs": 20}


def normalised(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def problem(n_rows=60, n_classes=5, d=12, noise=0.5, dtype=np.float64, seed=0):
    """Raw class embeddings and images around others; classes of unequal size."""
    rng = np.random.default_rng(seed)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.r_[np.arange(n_classes), rng.integers(0, n_classes, n_rows - n_classes)]
    seen = t + rng.normal(scale=0.3, size=t.shape)
    X = seen[y] + rng.normal(scale=noise, size=(n_rows, d))
    return X.astype(dtype), y, t.astype(dtype)


def naive_gaussian(X, y, t, kappa, rho=0.5):
    """W, b and what a class without images needs, step by step with explicit inverses."""
    z, u, n = normalised(X), normalised(t), np.bincount(y).astype(float)
    K, N = len(t), len(y)
    means = np.stack([z[y == c].mean(axis=0) for c in range(K)])
    g, directions = means.mean(axis=0), u - u.mean(axis=0)
    x = means - g
    a = max(0, (x * directions).sum() / (directions**2).sum())
    delta = x - a * directions
    R = (1 - rho) * np.eye(K) + rho * normalised(directions) @ normalised(directions).T
    Q = np.linalg.inv(R / kappa + np.diag(1 / n))
    S = sum(np.outer(row, row) for row in z - means[y]) + delta.T @ Q @ delta
    sigma = (S + np.trace(S) / N * np.eye(S.shape[0])) / N
    precision, root = np.linalg.inv(sigma), sqrtm(sigma).real
    d = directions @ root
    b = max(0, np.trace(x @ precision @ d.T) / np.trace(d @ precision @ d.T))
    mu = b * d + R / kappa @ Q @ (x - b * d)
    W = mu @ precision
    return W, -0.5 * np.diag(W @ mu.T) - W @ g, (g, u.mean(axis=0), directions, b, root, Q, x)


def term(X, y, t, kappa=8.0, **how):
    return text_gaussian(class_moments(X, y, **how), t, kappa)


def sigma_to(gaussian, exponent):
    """A power of the covariance, (D, D)."""
    vectors = gaussian.sigma.vectors
    return vectors * gaussian.sigma.values**exponent @ vectors.T


@pytest.mark.parametrize("kappa", [0.5, 8.0, 100.0])
@pytest.mark.parametrize("shape", [(60, 5, 12), (7, 5, 30), (5, 5, 9), (40, 12, 6)])
def test_the_term_equals_its_formulas(shape, kappa):
    """Weights and intercepts are those of explicit inverses and a matrix square root."""
    X, y, t = problem(*shape)
    ours, (W, b, _) = term(X, y, t, kappa), naive_gaussian(X, y, t, kappa)
    assert_allclose(ours.weights, W, rtol=1e-8, atol=1e-8)
    assert_allclose(ours.intercept, b, rtol=1e-8, atol=1e-8)


def test_limits_of_the_prior_strength():
    """An infinite strength is the text's directions alone, zero the means of the images alone."""
    X, y, t = problem()
    text, means = term(X, y, t, np.inf), term(X, y, t, 0.0)
    directions = normalised(t) - normalised(t).mean(axis=0)
    expected = text.scale * directions @ sigma_to(text, -0.5)
    assert_allclose(text.weights, expected, atol=1e-8)
    x = class_moments(X, y).means
    assert_allclose(means.weights, (x - x.mean(axis=0)) @ sigma_to(means, -1), atol=1e-8)
    for near, limit in ((1e9, text), (1e-9, means)):
        assert_allclose(term(X, y, t, near).weights, limit.weights, rtol=1e-4, atol=1e-4)


def test_a_weight_is_as_many_images():
    """Counts are sums of weights."""
    X, y, t = problem()
    weight = np.random.default_rng(1).integers(1, 4, len(y))
    repeated = term(np.repeat(X, weight, axis=0), np.repeat(y, weight), t)
    weighted = term(X, y, t, sample_weight=weight.astype(float))
    assert_allclose(weighted.weights, repeated.weights, rtol=1e-8, atol=1e-8)


def test_views_that_are_the_image_change_nothing():
    """Views share the weight of their image, so copies of it add nothing."""
    X, y, t = problem()
    views = np.repeat(X[:, None], 3, axis=1)
    assert_allclose(term(X, y, t, views=views).weights, term(X, y, t).weights, atol=1e-8)


def test_joined_logits_are_the_sum_of_both_parts():
    """The mean of TaskRes's logits and of the Gaussian's, at the same spread of wrong classes."""
    X, y, t = problem()
    clf = TaskResGDAClassifier(t, **FIXED).fit(X, y)
    taskres = TaskResClassifier(t, alpha=1.0, max_epochs=20).fit(X, y)
    W, b, _ = naive_gaussian(X, y, t, 8.0)
    gaussian, logits = normalised(X) @ W.T + b, taskres.decision_function(X)
    scale = spread_of_wrong(logits, y).mean() / spread_of_wrong(gaussian, y).mean()
    assert_allclose(clf.decision_function(X), (logits + scale * gaussian) / 2, atol=1e-8)
    assert_allclose(clf.gaussian_scale_, scale)
    assert_array_equal(clf.taskres_.residual_, taskres.residual_)
    assert clf.n_parameters_ == taskres.n_parameters_ + W.size + b.size


def test_spread_leaves_the_true_class_out():
    """The plain standard deviation of what is left; of two classes both count."""
    logits, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    expected = [np.delete(row, c).std() for row, c in zip(logits, y, strict=True)]
    assert_allclose(spread_of_wrong(logits, y), expected)
    assert_allclose(spread_of_wrong(logits[:, :2], y % 2), logits[:, :2].std(axis=1))


@pytest.mark.parametrize("params", [FIXED, {"max_epochs": 20}], ids=["fixed", "auto"])
def test_orders_do_not_matter(params):
    """Neither that of the rows nor that of the classes."""
    X, y, t = problem()
    logits = TaskResGDAClassifier(t, **params).fit(X, y).decision_function(X)
    order = np.random.default_rng(2).permutation(len(y))
    shuffled = TaskResGDAClassifier(t, **params).fit(X[order], y[order])
    assert_allclose(shuffled.decision_function(X), logits, atol=1e-7)
    names = np.array([3, 1, 4, 0, 2])  # of class c
    renamed = TaskResGDAClassifier(t[np.argsort(names)], **params).fit(X, names[y])
    assert_allclose(renamed.decision_function(X)[:, names], logits, atol=1e-7)


def test_a_class_without_images_lies_where_its_name_and_the_others_say():
    """The prior's conditional mean, by explicit inverses; the other classes stay."""
    X, y, t = problem()
    clf = TaskResGDAClassifier(t, **FIXED).fit(X, y)
    new = np.random.default_rng(3).normal(scale=0.44, size=12)
    grown = clf.add_classes({9: new})
    _, _, (g, centre, directions, b, root, Q, x) = naive_gaussian(X, y, t, 8.0)
    direction = normalised(new) - centre
    shared = 0.5 / 8 * normalised(direction) @ normalised(directions).T
    mu = b * direction @ root + shared @ Q @ (x - b * directions @ root)
    W = mu @ np.linalg.inv(root @ root)
    zero_shot = 100 * normalised(new)
    assert_allclose(grown.coef_[5], (zero_shot + clf.gaussian_scale_ * W) / 2, rtol=1e-6)
    intercept = clf.gaussian_scale_ * (-0.5 * W @ mu - W @ g) / 2
    assert_allclose(grown.intercept_[5], intercept, rtol=1e-6)
    before = clf.decision_function(X)
    assert_allclose(grown.decision_function(X)[:, :5], before, atol=1e-9)
    assert grown.taskres_.classes_.tolist() == [0, 1, 2, 3, 4, 9]
    assert clf.select_classes([0, 4]).taskres_.residual_.shape == (2, 12)


def test_class_means_have_no_prior():
    """Means of the images are not a prior for themselves, and a class needs images."""
    X, y, _ = problem()
    clf = TaskResGDAClassifier("class_means", max_epochs=5).fit(X, y)
    assert clf.prior_strength_ == 0
    with pytest.raises(ValueError, match="without text, its Gaussians lie at the means"):
        clf.add_classes({9: X[0]})
    one = np.arange(5)
    alone = TaskResGDAClassifier("class_means", gaussian_weight=1.0).fit(X[one], y[one])
    assert alone.gaussian_weight_ == 0


@pytest.mark.parametrize("n_rows", [5, 9, 19])
def test_few_images_are_left_to_taskres(n_rows):
    """Below 100 for classes times images, it is TaskRes with its defaults, to the last bit."""
    X, y, t = problem(n_rows)
    clf = TaskResGDAClassifier(t).fit(X, y)
    assert_array_equal(clf.coef_, TaskResClassifier(t).fit(X, y).coef_)
    assert clf.gaussian_weight_ == clf.gaussian_scale_ == 0
    assert clf.add_classes({9: t[0]}).coef_.shape == (6, 12)


def test_calibration_changes_no_label():
    """It divides all logits by one number, which noisy names make larger than 1."""
    X, y, t = problem(200, noise=1.5)
    t = t + np.random.default_rng(4).normal(scale=2, size=t.shape)
    calibrated, plain = (
        TaskResGDAClassifier(t, calibrate=c, max_epochs=20).fit(X, y) for c in (True, False)
    )
    assert calibrated.temperature_ != 1
    assert plain.temperature_ == 1
    assert_allclose(
        calibrated.decision_function(X) * calibrated.temperature_, plain.decision_function(X)
    )
    assert_array_equal(calibrated.predict(X), plain.predict(X))


def test_wrong_names_lower_the_prior_strength():
    """Names of which two are exchanged are trusted less than right ones."""
    X, y, t = problem(60, n_classes=10, d=24)
    right = TaskResGDAClassifier(t, max_epochs=5).fit(X, y)
    t[:2] = t[[1, 0]]
    wrong = TaskResGDAClassifier(t, max_epochs=5).fit(X, y)
    assert wrong.prior_strength_ < right.prior_strength_ == 8


def test_one_image_per_class_chooses_nothing():
    """There is nothing to hold out."""
    X, y, t = problem(20, n_classes=20, noise=1.5)
    clf = TaskResGDAClassifier(t).fit(X, y)
    assert (clf.prior_strength_, clf.gaussian_weight_, clf.temperature_) == (8, 1, 1)
    assert clf.alpha_ == 0.5


def test_the_nearest_that_is_not_clearly_worse_is_taken():
    """Within the standard errors of the best one the default's neighbourhood wins."""
    rng = np.random.default_rng(0)
    best = rng.normal(size=100)
    noise = rng.normal(size=100)
    likelihoods = [best, best - 0.001 - 0.1 * noise, best - 1]
    assert nearest_within([1.0, 4.0, 8.0], likelihoods, 8.0) == 4.0
    assert nearest_within([1.0, 4.0, 8.0], likelihoods, 1.0) == 1.0


@pytest.mark.parametrize("n_views", [0, 2])
@pytest.mark.parametrize("kappa", [0.0, 2.0, 8.0, np.inf])
def test_held_out_logits_are_those_of_gaussians_without_the_image(kappa, n_views):
    """Counts, means and covariance without the held-out images, by explicit inverses.

    The fold holds out an image of each class; the covariance loses the image's own deviation.
    """
    rng = np.random.default_rng(6)
    y = np.tile(np.arange(5), 3)
    t = rng.normal(size=(5, 12))
    X = t[y] + rng.normal(size=(15, 12))
    views = X[:, None] + 0.1 * rng.normal(size=(15, n_views, 12)) if n_views else None
    weight = rng.uniform(0.3, 3, 15)
    assert weight.sum() > 15  # weights that sum to less are scaled up
    moments = class_moments(X, y, weight, views)
    gaussian = text_gaussian(moments, t, 8.0)
    held_out = HeldOutGaussian((X, y, weight, views), moments, gaussian)
    assert_array_equal(np.sort(held_out.rows), np.arange(15))
    assert_array_equal(held_out.y, y[held_out.rows])
    Z, g = normalised(X), gaussian.image_centre
    seen = Z if views is None else (Z + normalised(views).sum(axis=1)) / (1 + n_views)
    sigma = sigma_to(gaussian, 1)
    directions = normalised(t) - normalised(t).mean(axis=0)
    prior = gaussian.scale * directions @ sigma_to(gaussian, 0.5)
    x = moments.means - g
    plain = max(0, (x * directions).sum() / (directions**2).sum()) * directions
    for fold in held_out.rows.reshape(3, 5):
        kept = ~np.isin(np.arange(15), fold)
        n = np.bincount(y[kept], weight[kept])
        sums = np.array([weight[kept & (y == c)] @ seen[kept & (y == c)] for c in range(5)])
        x = sums / n[:, None] - g
        share = (n / (n + kappa))[:, None]
        means = prior + share * (x - prior)
        for row in fold:
            c = y[row]
            e = seen[row] - g - (plain + (n / (n + 8))[:, None] * (x - plain))[c]
            removed = np.outer(e, e) / (1 / weight[row] + 1 / (n[c] + 8)) / weight.sum()
            precision = np.linalg.inv(sigma - removed)
            apart = Z[row] - g - means
            expected = -0.5 * np.einsum("kd,de,ke->k", apart, precision, apart)
            found = held_out.logits(kappa)[held_out.rows == row][0]
            assert_allclose(found - found[0], expected - expected[0], rtol=1e-8, atol=1e-8)


def test_moments_are_the_same_whoever_multiplies():
    """The joined fit lets torch multiply, the closed form alone NumPy."""
    X, y, _ = problem(40)
    for dtype in (np.float32, np.float64):
        by_numpy = class_moments(X.astype(dtype), y)
        by_torch = class_moments(X.astype(dtype), y, product=torch_product)
        for one, other in zip(by_numpy, by_torch, strict=True):
            assert one.dtype == other.dtype == dtype
            assert_allclose(other, one, rtol=0, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("doubt", [0.6, 0.2, 0.01])
def test_the_gaussian_counts_more_where_names_leave_little_to_learn(doubt):
    """0.4 / e for a share e of the probability on wrong classes, between 1 and 8."""
    n_classes, scale = 12, 10.0
    y = np.repeat(np.arange(n_classes), 4)
    # Of cosine `gap` with their own name, of cosine 0 with the others and with each other.
    gap = np.log((1 - doubt) / doubt * (n_classes - 1)) / scale
    X = np.hstack([gap * np.eye(n_classes)[y], np.sqrt(1 - gap**2) * np.eye(48)])
    t = 10 * np.eye(n_classes, n_classes + 48)
    clf = TaskResGDAClassifier(t, logit_scale=scale, max_epochs=2).fit(X, y)
    assert_allclose(clf.gaussian_weight_, np.clip(0.4 / doubt, 1, 8))
    single = clf.fit(X.astype(np.float16), y, np.linspace(1, 2, len(y)))
    assert_allclose(single.gaussian_weight_, np.clip(0.4 / doubt, 1, 8), rtol=0.02)
    fixed = clf.set_params(gaussian_weight=1.0).fit(X, y)
    assert fixed.gaussian_weight_ == 1


def test_class_means_do_not_raise_the_gaussian_s_weight():
    """They label their own images well, which says nothing."""
    X, y, _ = problem(48, n_classes=12, d=24, noise=0.1)
    clf = TaskResGDAClassifier("class_means", max_epochs=2).fit(X, y)
    assert clf.gaussian_weight_ == 1


def test_a_doubted_image_counts_as_its_weight_says():
    """The weight of the join follows from a weighted mean."""
    X, y, t = problem(48, n_classes=12, d=24, noise=0.1)
    weight = np.where(y < 6, 3.0, 1.0)
    clf = TaskResGDAClassifier(t, logit_scale=5.0, max_epochs=2).fit(X, y, weight)
    logits = 5 * normalised(X) @ normalised(t).T
    p = np.exp(logits)[np.arange(48), y] / np.exp(logits).sum(axis=1)
    expected = 0.4 / np.average(1 - p, weights=weight)
    assert 1 < expected < 8
    assert_allclose(clf.gaussian_weight_, expected)


def test_no_prior_and_a_class_that_keeps_nothing():
    """A prior strength of 0, and a class whose other image weighs next to nothing."""
    X, y, t = (a[:24] if len(a) > 24 else a for a in problem(24, n_classes=3, dtype=np.float32))
    rows = np.r_[np.flatnonzero(y == 0)[:2], np.flatnonzero(y > 0)]
    X, y = np.concatenate([X[rows], X[rows]]), np.concatenate([y[rows], y[rows]])
    weight = np.where(y == 0, 1e-9, 1.0)
    weight[0] = 1
    clf = TaskResGDAClassifier(t, prior_strength=0.0, max_epochs=2).fit(X, y, weight)
    assert np.isfinite(clf.temperature_)
    assert np.isfinite(clf.coef_).all()


def test_few_classes_lower_the_gaussian_s_weight():
    """(n_classes - 1) / 9 below ten classes."""
    X, y, t = problem()
    assert_allclose(TaskResGDAClassifier(t, max_epochs=2).fit(X, y).gaussian_weight_, 4 / 9)


def test_from_twenty_images_of_five_classes_on_both_join():
    """100 is classes times images."""
    X, y, t = problem(20)
    clf = TaskResGDAClassifier(t, max_epochs=2).fit(X, y)
    assert clf.gaussian_weight_ > 0
    assert clf.alpha_ == 1


@pytest.mark.parametrize("names", [None, ["a", "b", "c", "d", "e"]], ids=["integers", "strings"])
def test_images_without_labels_help(names):
    """Rows marked as unlabelled become no class, and raise the accuracy on others."""
    X, y, t = problem(400, noise=0.55, seed=5)
    labels, mark = (y, -1) if names is None else (np.array(names)[y], "?")
    train, test = np.arange(15), np.arange(200, 400)
    partly = np.where(np.arange(200) < 15, labels[:200], mark)
    clf = TaskResGDAClassifier(t, class_names=names, unlabeled=mark, max_epochs=20)
    few = clf.fit(X[train], labels[train]).score(X[test], labels[test])
    clf.fit(X[:200], partly)
    assert mark not in clf.classes_
    assert len(clf.classes_) == 5
    assert clf.score(X[test], labels[test]) > few


def test_weights_of_any_scale_let_images_without_labels_join():
    """Weights that sum to one are those that sum to the number of rows."""
    X, y, t = problem()
    partly = np.where(np.arange(60) < 15, y, -1)
    clf = TaskResGDAClassifier(t, **FIXED)
    joined = clf.fit(X, partly).decision_function(X)
    assert_allclose(clf.fit(X, partly, np.full(60, 1 / 60)).decision_function(X), joined, atol=1e-8)
    alone = clf.fit(X[:15], y[:15]).decision_function(X)
    assert np.abs(joined - alone).max() > 1e-3


def test_labels_are_checked_before_the_mark_is_looked_for():
    """A column, missing labels and too many of them, with images without a label among them."""
    pandas = pytest.importorskip("pandas")
    X, y, t = problem()
    partly = np.where(np.arange(60) < 30, y, -1)
    clf = TaskResGDAClassifier(t, **FIXED)
    expected = clf.fit(X, partly).predict(X)
    with pytest.warns(DataConversionWarning):
        assert_array_equal(clf.fit(X, partly[:, None]).predict(X), expected)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(X[:50], partly)
    words = pandas.Series(np.where(partly < 0, "?", "abcde"[0]), dtype="string")
    words[3] = pandas.NA
    with pytest.raises(ValueError, match="no label in 1 of 60 rows, the first at 3"):
        clf.set_params(unlabeled="?").fit(X, words)
    with pytest.raises(ValueError, match="no label in 1 of 60 rows"):
        clf.score(X, words)
    names = np.array(list("abcde"))[y]
    strings = pandas.Series(np.where(partly < 0, "?", names), dtype="string").values
    clf.set_params(unlabeled="?", class_names=list("abcde")).fit(X, strings)
    assert_array_equal(clf.classes_, list("abcde"))


def test_images_without_labels_take_weights_and_none_is_an_error():
    """A weight of zero leaves a row out; with no label at all there is nothing to learn."""
    X, y, t = problem()
    partly = np.where(np.arange(60) < 30, y, -1)
    weight = np.where(partly == -1, 0.0, 1.0)
    clf = TaskResGDAClassifier(t, **FIXED)
    ignored = clf.fit(X, partly, sample_weight=weight).decision_function(X)
    alone = clf.fit(X[:30], y[:30]).decision_function(X)
    assert_allclose(ignored, alone, atol=1e-8)
    with pytest.raises(ValueError, match=r"Every row of y is -1.* pass unlabeled=None"):
        clf.fit(X, np.full(60, -1))
    rows = y < 2
    clf = TaskResGDAClassifier(t[:2], **FIXED, unlabeled=None)
    binary = clf.fit(X[rows], np.array([-1, 1])[y[rows]])
    assert binary.classes_.tolist() == [-1, 1]


def test_scores_are_of_the_labels_that_are_known():
    """Rows without a label are right or wrong in no score, nor in cross-validation."""
    X, y, t = problem(120)
    partly = np.where(np.arange(120) % 2, y, -1)
    clf = TaskResGDAClassifier(t, **FIXED).fit(X, partly)
    known, weight = partly >= 0, np.linspace(1, 2, 120)
    assert clf.score(X, partly) == clf.score(X[known], y[known])
    assert clf.score(X, partly, weight) == clf.score(X[known], y[known], weight[known])
    assert clf.score(X.tolist(), partly.tolist()) == clf.score(X, partly)
    with pytest.raises(ValueError, match=r"Every row of y is -1.* rows with labels"):
        clf.score(X, np.full(120, -1))
    folds = StratifiedKFold(3)
    found = cross_val_score(clf, X, partly, cv=folds)
    for score, (seen, rest) in zip(found, folds.split(X, partly), strict=True):
        judged = rest[partly[rest] >= 0]
        expected = clone(clf).fit(X[seen], partly[seen]).predict(X[judged]) == y[judged]
        assert_allclose(score, expected.mean())


def test_gda_with_a_text_prior_is_the_term_alone():
    """The same weights, without zero-shot."""
    X, y, t = problem()
    ours = term(X, y, t, product=torch_product)
    clf = GDAClassifier(t, prior="text").fit(X, y)
    assert_array_equal(clf.coef_, ours.weights)
    assert_array_equal(clf.intercept_, ours.intercept)


def test_float32_gives_float64_s_labels_and_a_pickle_can_add_classes():
    """Single precision is close, and what adds classes survives a pickle."""
    X, y, t = problem()
    wide = TaskResGDAClassifier(t, **FIXED).fit(X, y)
    X, t = X.astype(np.float32), t.astype(np.float32)
    single = TaskResGDAClassifier(t, **FIXED).fit(X, y)
    assert single.coef_.dtype == single.intercept_.dtype == np.float32
    assert_allclose(single.coef_, wide.coef_, rtol=1e-2, atol=2e-2)
    again = pickle.loads(pickle.dumps(single))  # noqa: S301
    assert_array_equal(again.add_classes({9: t[0]}).coef_, single.add_classes({9: t[0]}).coef_)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_after_the_closed_form_does_not_wait():
    """OpenMP's threads do not survive the fork; in a process in which nothing else was trained."""
    code = """
import numpy as np
from children import run_in_child
from sklearn_taskres import GDAClassifier
rng = np.random.default_rng(0)
t, y = rng.normal(size=(60, 512)), np.repeat(np.arange(60), 8)
X = t[y] + rng.normal(size=(480, 512))
clf = GDAClassifier(t, prior="text").fit(X, y)
assert run_in_child(lambda: clf.fit(X, y)) == 0
"""
    how = {"cwd": Path(__file__).parent, "env": {**os.environ, "OMP_NUM_THREADS": "2"}}
    subprocess.run([sys.executable, "-c", code], check=True, **how)  # noqa: S603 (our own code)
