"""CLIPAdapterClassifier against a naive loop with nn.Linear, and the properties of its branches."""

import numpy as np
import pytest
import torch
from naive import naive_batches, naive_lr
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres import ZeroShotClassifier
from sklearn_taskres._classifiers.clip_adapter import (
    CLIPAdapterClassifier,
    clip_adapter_logits,
)
from sklearn_taskres._classifiers.training import auto_max_epochs

BRANCHES = ["image", "text", "text-direct", "text-additive"]


def problem(n_rows=60, n_classes=5, d=12, dtype=np.float64):
    """Raw class embeddings of CLIP's size and images around them."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    X = t[y] + rng.normal(scale=0.4, size=(n_rows, d))
    return X.astype(dtype), y, t.astype(dtype)


def naive_linear(n_in, n_out, rng):
    layer = torch.nn.Linear(n_in, n_out, bias=False, dtype=torch.float64)
    start = rng.uniform(-1 / np.sqrt(n_in), 1 / np.sqrt(n_in), (n_out, n_in))
    layer.weight.data = torch.tensor(start)
    return layer


def naive_logits(z, t, branch, ratio, bottleneck, scale=100.0):
    """The published equations, one branch after the other."""
    if branch == "image":
        z = (1 - ratio) * z + ratio * bottleneck(z)
    elif branch == "text":
        t = (1 - ratio) * t + ratio * bottleneck(t)
    elif branch == "text-direct":
        t = bottleneck(t)
    else:
        t = t + ratio * bottleneck(t)
    z, t = torch.nn.functional.normalize(z, dim=1), torch.nn.functional.normalize(t, dim=1)
    return scale * z @ t.T


def naive_adapter(X, y, t, *, branch, ratio=0.2, batch_size=32, n_epochs, seed=0, weight=None):
    """Return the two layers and the logits of the clean X after a plain autograd loop."""
    rng = np.random.RandomState(seed)
    t, d = torch.tensor(t), t.shape[1]
    first = naive_linear(d, d // 4, rng)
    second = naive_linear(d // 4, d, rng)
    bottleneck = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU())
    adam = torch.optim.Adam(bottleneck.parameters(), lr=1e-3, weight_decay=5e-4)
    weight = torch.ones(len(y)) if weight is None else torch.tensor(weight / weight.mean())
    for epoch in range(n_epochs):
        adam.param_groups[0]["lr"] = naive_lr(epoch, n_epochs, 1e-3)
        z = X
        if X.ndim == 3:
            drawn = rng.randint(X.shape[1], size=len(y))
            z = np.stack([X[i, j] for i, j in enumerate(drawn)])
        for rows in naive_batches(len(y), batch_size, rng):
            logits = naive_logits(torch.tensor(z[rows]), t, branch, ratio, bottleneck)
            losses = torch.nn.functional.cross_entropy(
                logits, torch.tensor(y[rows]), reduction="none"
            )
            adam.zero_grad()
            (weight[rows] * losses).mean().backward()
            adam.step()
    return first.weight.detach().numpy(), second.weight.detach().numpy(), bottleneck


@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_equals_the_naive_loop(branch, batch_size):
    """The same seed gives the weights and logits of two nn.Linear layers under autograd."""
    X, y, t = problem()
    clf = CLIPAdapterClassifier(t, branch=branch, batch_size=batch_size, max_epochs=40)
    clf.set_params(random_state=3).fit(X, y)
    first, second, bottleneck = naive_adapter(
        X, y, t, branch=branch, batch_size=batch_size, n_epochs=40, seed=3
    )
    assert_allclose(clf.w1_, first, rtol=0, atol=1e-10)
    assert_allclose(clf.w2_, second, rtol=0, atol=1e-10)
    logits = naive_logits(torch.tensor(X), torch.tensor(t), branch, 0.2, bottleneck)
    assert_allclose(clf.decision_function(X), logits.detach().numpy(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("branch", ["image", "text"])
def test_equals_the_naive_loop_with_views_and_weights(branch):
    """Each epoch draws one view of each image, and weights multiply the losses."""
    X, y, t = problem()
    rng = np.random.default_rng(2)
    with_views = X[:, None] + rng.normal(scale=0.2, size=(len(y), 4, X.shape[1]))
    weight = rng.uniform(0.5, 3, len(y))
    clf = CLIPAdapterClassifier(t, branch=branch, max_epochs=20, random_state=5)
    clf.fit(with_views, y, sample_weight=weight)
    first, second, _ = naive_adapter(
        with_views[:, 1:], y, t, branch=branch, n_epochs=20, seed=5, weight=weight
    )
    assert_allclose(clf.w1_, first, rtol=0, atol=1e-10)
    assert_allclose(clf.w2_, second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("branch", ["image", "text", "text-additive"])
def test_ratio_zero_is_zero_shot(branch, dtype):
    """Without a share of the network, logits are zero-shot's to the last bit."""
    X, y, t = problem(dtype=dtype)
    clf = CLIPAdapterClassifier(t, branch=branch, ratio=0, max_epochs=3, random_state=0).fit(X, y)
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert_array_equal(clf.decision_function(X), zero_shot.decision_function(X))
    assert_array_equal(clf.predict(X), zero_shot.predict(X))


@pytest.mark.parametrize(
    ("ablation", "ratio"),
    [({"branch": "text-direct"}, 1.0), ({"branch": "text-additive", "ratio": 0.5}, 1 / 3)],
    ids=["direct", "additive"],
)
def test_ablations_are_text_with_another_ratio(ablation, ratio):
    """A cosine sees no length, so t + αφ(t) is the blend with r = α / (1 + α)."""
    X, y, t = problem()
    params = {"max_epochs": 40, "random_state": 0}
    clf = CLIPAdapterClassifier(t, **ablation, **params).fit(X, y)
    text = CLIPAdapterClassifier(t, branch="text", ratio=ratio, **params).fit(X, y)
    assert_allclose(clf.coef_, text.coef_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("branch", BRANCHES)
def test_lengths_do_not_matter(branch):
    """A network without biases learns the same from images and classes of any norm."""
    X, y, t = problem()
    lengths = np.random.default_rng(1).uniform(0.1, 10, len(y))[:, None]
    clf = CLIPAdapterClassifier(t, branch=branch, max_epochs=20, random_state=0).fit(X, y)
    scaled = CLIPAdapterClassifier(20 * t, branch=branch, max_epochs=20, random_state=0)
    scaled.fit(lengths * X, y)
    assert_allclose(scaled.decision_function(X), clf.decision_function(X), rtol=0, atol=1e-8)


@pytest.mark.parametrize("branch", BRANCHES)
def test_integer_weights_are_repeated_rows(branch):
    """In a full batch a weight of 3 is three copies of the row."""
    X, y, t = problem()
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    clf = CLIPAdapterClassifier(t, branch=branch, max_epochs=20, batch_size=256, random_state=0)
    weighted = clf.fit(X, y, sample_weight=weight).decision_function(X)
    repeated = clf.fit(X.repeat(weight, axis=0), y.repeat(weight)).decision_function(X)
    assert_allclose(weighted, repeated, rtol=0, atol=1e-9)


@pytest.mark.parametrize("on_image", [True, False], ids=["image", "text"])
def test_formula_is_one_for_numpy_and_torch(on_image):
    """Arrays and tensors give the same logits."""
    X, _, t = problem()
    rng = np.random.default_rng(0)
    arrays = {"z": X, "t": t, "w1": rng.normal(size=(3, 12)), "w2": rng.normal(size=(12, 3))}
    numbers = {"scale": 100.0, "on_image": on_image, "keep": 0.4, "add": 0.6}
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    assert_allclose(
        clip_adapter_logits(**arrays, **numbers),
        clip_adapter_logits(**tensors, **numbers).numpy(),
        atol=1e-11,
    )


def test_start_is_that_of_torch_layers():
    """The start weights fill the range of nn.Linear's, by the seed and nothing else."""
    base = np.random.default_rng(0).normal(size=(5, 256))
    y = np.arange(5).repeat(4)
    images = base[y]
    params = {"ratio": 0, "weight_decay": 0, "max_epochs": 1}  # nothing moves
    clf, again, other = (
        CLIPAdapterClassifier(base, random_state=seed, **params).fit(images, y)
        for seed in (0, 0, 1)
    )
    layer = torch.nn.Linear(256, 64)
    assert clf.w1_.shape == layer.weight.shape
    assert_allclose(abs(clf.w1_).max(), layer.weight.abs().max().item(), rtol=1e-3)
    assert_allclose(clf.w1_.std(), layer.weight.std().item(), rtol=0.05)
    assert_allclose(abs(clf.w2_).max(), 64**-0.5, rtol=1e-3)
    assert_array_equal(clf.w2_, again.w2_)
    assert (clf.w2_ != other.w2_).all()


@pytest.mark.parametrize("branch", ["image", "text"])
def test_it_learns(branch):
    """If the class embeddings are poor, training images lift the accuracy."""
    X, y, t = problem(n_rows=100, d=32)
    poor = t + np.random.default_rng(3).normal(scale=0.6, size=t.shape)
    zero_shot = ZeroShotClassifier(poor).fit(X, y).score(X, y)
    clf = CLIPAdapterClassifier(poor, branch=branch, lr=0.01, random_state=0).fit(X, y)
    assert clf.score(X, y) > zero_shot + 0.05
    assert clf.history_[-1]["train_loss"] < clf.history_[0]["train_loss"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_classes_can_be_selected_and_added(branch):
    """Logits of kept classes stay; a new class goes through the network where the others do."""
    X, y, t = problem()
    clf = CLIPAdapterClassifier(t, branch=branch, max_epochs=20, random_state=0).fit(X, y)
    logits = clf.decision_function(X)
    part = clf.select_classes([0, 2, 3])
    assert_allclose(part.decision_function(X), logits[:, [0, 2, 3]], rtol=1e-13)
    grown = part.add_classes({1: t[1], 4: t[4]})  # back to where it was
    assert_allclose(grown.coef_, clf.coef_, rtol=1e-12)
    assert_allclose(grown.decision_function(X), logits, rtol=1e-12)


def test_parameters_are_counted():
    """n_parameters_ is the size of the two layers, the hidden one never empty."""
    X, y, t = problem()
    for reduction, n_hidden in ((4, 3), (3, 4), (100, 1)):
        clf = CLIPAdapterClassifier(t, reduction=reduction, max_epochs=1).fit(X, y)
        assert clf.w1_.shape == (n_hidden, 12)
        assert clf.w2_.shape == (12, n_hidden)
        assert clf.n_parameters_ == 2 * 12 * n_hidden


@pytest.mark.parametrize(
    ("n_shots", "n_classes", "batch_size", "expected"),
    [(1, 47, 32, 100), (4, 47, 32, 100), (5, 47, 32, 50), (16, 1000, 32, 24), (1, 3, 32, 100)],
)
def test_automatic_epochs(n_shots, n_classes, batch_size, expected):
    """100 epochs up to 4 images per class, else 50, and never more than 12 400 steps."""
    y = np.repeat(np.arange(n_classes), n_shots)
    assert auto_max_epochs(y, batch_size, many=50) == expected
    X, y, t = problem()
    assert CLIPAdapterClassifier(t, random_state=0).fit(X[:10], y[:10]).n_iter_ == 100


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ratio": 1.5}, "'ratio' parameter of CLIPAdapterClassifier must be a float in the range"),
        ({"branch": "both"}, "'branch' parameter of CLIPAdapterClassifier must be a str among"),
        ({"reduction": 0}, "'reduction' parameter"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    """The message names the parameter and what it may be."""
    X, y, t = problem()
    with pytest.raises(ValueError, match=message):
        CLIPAdapterClassifier(t, **params).fit(X, y)
