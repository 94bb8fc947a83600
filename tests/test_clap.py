"""CLAPClassifier against a naive loop, and what its penalty promises."""

import warnings

import numpy as np
import pytest
import torch
from naive import naive_batches, naive_lr
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres._classifiers.clap import CLAPClassifier, stable_reach
from sklearn_taskres._classifiers.zero_shot import ZeroShotClassifier


def problem(n_rows=60, n_classes=5, d=12, seed=0):
    """Raw class embeddings of CLIP's norm, 10, and images around them."""
    rng = np.random.default_rng(seed)
    t = rng.normal(scale=10 / d**0.5, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    return t[y] + rng.normal(scale=14 / d**0.5, size=(n_rows, d)), y, t


def naive_penalties(X, y, t, weight, scale=100.0):
    """Mean zero-shot probability of the true class over the shots of each class."""
    X, t = torch.tensor(X), torch.tensor(t)
    cosines = torch.nn.functional.cosine_similarity(X[:, None], t[None], dim=2)
    probabilities = torch.softmax(scale * cosines, dim=1).numpy()
    return np.array(
        [np.average(probabilities[y == c, c], weights=weight[y == c]) for c in range(len(t))]
    )


def naive_clap(
    X, y, t, *, penalty=None, views=None, weight=None, n_epochs=300, batch_size=256, seed=0, lr=0.1
):
    """W, λ and losses of a plain loop: autograd, and SGD with momentum written out.

    A class whose penalty has a curvature 2λ/K above 1/lr gets the learning rate K/2λ.
    """
    weight = np.ones(len(y)) if weight is None else weight
    lam = naive_penalties(X, y, t, weight) if penalty is None else np.full(len(t), penalty)
    row_lr = np.array([lr if v == 0 else min(lr, len(t) / (2 * v)) for v in lam])[:, None]
    t, lam, row_lr = torch.tensor(t), torch.tensor(lam), torch.tensor(row_lr)
    weight = torch.tensor(weight / weight.mean())
    w, velocity = t.clone().requires_grad_(), torch.zeros_like(t)
    rng, losses = np.random.RandomState(seed), []
    for epoch in range(n_epochs):
        rows = X
        if views is not None:
            drawn = rng.randint(views.shape[1], size=len(y))
            rows = np.stack([views[i, j] for i, j in enumerate(drawn)])
        for batch in naive_batches(len(y), batch_size, rng):
            f = torch.nn.functional.normalize(torch.tensor(rows[batch]), dim=1)
            logits = 100 * f @ torch.nn.functional.normalize(w, dim=1).T
            errors = torch.nn.functional.cross_entropy(
                logits, torch.tensor(y[batch]), reduction="none"
            )
            loss = (weight[batch] * errors).mean() + (lam * ((w - t) ** 2).sum(dim=1)).mean()
            (gradient,) = torch.autograd.grad(loss, w)
            velocity = 0.9 * velocity + gradient
            with torch.no_grad():
                w -= naive_lr(epoch, n_epochs, lr) / lr * row_lr * velocity
            losses.append(loss.item())
    return w.detach().numpy(), lam.numpy(), losses


@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("penalty", [None, 0.0, 3.0, 1e3, 1e8])
def test_equals_the_naive_loop(penalty, batch_size):
    """The same batches give the same weights, penalties and losses, in float64."""
    X, y, t = problem()
    params = {} if penalty is None else {"penalty": penalty}
    clf = CLAPClassifier(t, batch_size=batch_size, random_state=3, **params).fit(X, y)
    w, lam, losses = naive_clap(X, y, t, penalty=penalty, batch_size=batch_size, seed=3)
    assert_allclose(clf.weights_, w, rtol=0, atol=1e-8)
    assert_allclose(clf.penalty_, lam, rtol=1e-12)
    assert np.ptp(lam) > 0.1 or penalty is not None
    n_epochs = len(clf.history_)
    naive_losses = np.reshape(losses, (n_epochs, -1)).mean(axis=1)
    assert_allclose([e["train_loss"] for e in clf.history_], naive_losses, rtol=1e-7, atol=1e-9)
    assert_allclose(clf.coef_, 100 * w / np.linalg.norm(w, axis=1, keepdims=True), atol=1e-7)


def test_equals_the_naive_loop_with_views_and_weights():
    """Each epoch draws a view; weights count in the loss and in λ, which the clean rows give."""
    X, y, t = problem()
    rng = np.random.default_rng(2)
    noise = rng.normal(scale=0.2, size=(len(y), 3, X.shape[1]))
    with_views = np.concatenate([X[:, None], X[:, None] + noise], axis=1)
    weight = rng.uniform(0.5, 3, len(y))
    clf = CLAPClassifier(t, max_epochs=50, random_state=5).fit(with_views, y, weight)
    w, lam, _ = naive_clap(X, y, t, views=with_views[:, 1:], weight=weight, n_epochs=50, seed=5)
    assert_allclose(clf.weights_, w, rtol=0, atol=1e-8)
    assert_allclose(clf.penalty_, lam, rtol=1e-12)


def test_repeated_rows_are_integer_weights():
    """A row of weight 2 is the row twice."""
    X, y, t = problem()
    weight = np.random.default_rng(1).integers(1, 4, len(y))
    once = CLAPClassifier(t, max_epochs=50).fit(X, y, sample_weight=weight)
    often = CLAPClassifier(t, max_epochs=50).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    assert_allclose(once.weights_, often.weights_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("penalty", [1e4, 1e8, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_penalty_holds_the_weights(penalty, dtype):
    """Any penalty trains stably, and a large one keeps W within 0.02 of the base."""
    X, y, t = problem()
    X, t = X.astype(dtype), t.astype(dtype)
    clf = CLAPClassifier(t, penalty=penalty).fit(X, y)
    assert np.abs(clf.weights_ - t).max() < 0.02
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert np.mean(clf.predict(X) == zero_shot.predict(X)) > 0.95
    free = CLAPClassifier(t, penalty=0).fit(X, y)
    assert np.abs(free.weights_ - t).max() > 0.3


def test_a_moderate_penalty_reaches_its_minimum():
    """If plain SGD diverges, the shortened steps still find where the gradients cancel."""
    X, y, t = problem()
    assert stable_reach(np.full(5, 100.0), 0.1)[0] < 0.6  # plain SGD: 0.1 * 2 * 100 / 5 = 4 > 3.8
    clf = CLAPClassifier(t, penalty=100).fit(X, y)
    w = torch.tensor(clf.weights_, requires_grad=True)
    f = torch.nn.functional.normalize(torch.tensor(X), dim=1)
    logits = 100 * f @ torch.nn.functional.normalize(w, dim=1).T
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y))
    (gradient,) = torch.autograd.grad(loss, w)
    pull = 2 * 100 / 5 * (clf.weights_ - t)
    assert_allclose(gradient.numpy(), -pull, rtol=0, atol=1e-3 * np.abs(pull).max())


def test_published_penalties_leave_the_steps_alone():
    """λ is a probability in the paper; for those every class has the published learning rate."""
    assert_array_equal(stable_reach(np.array([0.0, 0.5, 1.0]), 0.1), 1)


def test_a_class_that_zero_shot_knows_gets_the_larger_penalty():
    """The penalty is near 1 for images that lie on their text and near 0 for those far off."""
    t = 4 * np.eye(3, 8)
    X = np.concatenate([t[[0, 1]], [[1.0, 0, 0, 0.5, 0, 0, 0, 0]]])
    clf = CLAPClassifier(t, max_epochs=1).fit(X, [0, 1, 2])
    assert_allclose(clf.penalty_, [1, 1, 0], atol=1e-6)


def test_selected_and_added_classes_keep_their_rows():
    """Weights and penalties follow the classes; a new class has its text row and no penalty."""
    X, y, t = problem()
    clf = CLAPClassifier(t, max_epochs=20).fit(X, y)
    assert clf.n_parameters_ == t.size
    part = clf.select_classes([3, 1])
    assert_array_equal(part.weights_, clf.weights_[[1, 3]])
    assert_array_equal(part.penalty_, clf.penalty_[[1, 3]])
    grown = clf.add_classes({-1: np.ones(12)})
    assert_array_equal(grown.weights_[0], np.ones(12))
    assert np.isnan(grown.penalty_).tolist() == [True] + 5 * [False]
    assert_array_equal(grown.weights_[1:], clf.weights_)


def test_float32_follows_float64():
    """Computation in float32 gives the same classifier to its rounding."""
    X, y, t = problem()
    double = CLAPClassifier(t).fit(X, y)
    single = CLAPClassifier(t).fit(X.astype(np.float32), y)
    assert single.weights_.dtype == single.penalty_.dtype == single.coef_.dtype == np.float32
    assert_allclose(single.weights_, double.weights_, atol=2e-3)


def test_unit_rows_warn_unless_their_norm_is_given():
    """A base that lost its norm is named; base_norm brings it back."""
    X, y, t = problem()
    rows = t / np.linalg.norm(t, axis=1, keepdims=True)
    with pytest.warns(UserWarning, match="unit norm.*base_norm=10") as caught:
        CLAPClassifier(rows, max_epochs=1).fit(X, y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CLAPClassifier(rows, base_norm=10, max_epochs=1).fit(X, y)


@pytest.mark.parametrize("bad", [{"penalty": -1}, {"penalty": "best"}, {"penalty": np.inf}])
def test_a_penalty_out_of_range_is_refused(bad):
    """The error names the parameter."""
    X, y, t = problem()
    with pytest.raises(ValueError, match="The 'penalty' parameter of CLAPClassifier must be"):
        CLAPClassifier(t, **bad).fit(X, y)
