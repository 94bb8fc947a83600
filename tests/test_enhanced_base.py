"""The enhanced base against a naive loop, and what it promises, on a tiny random CLIP."""

import numpy as np
import pytest
import torch
from naive import naive_batches, naive_lr
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres import CLIPTextFeaturizer, TaskResClassifier

NAMES = ["ant", "bee", "cat", "dog"]


def naive_projection(features, X, y, *, scale, penalty, lr, n_epochs, batch_size, seed):
    """Tune P by a plain autograd loop: cross-entropy of cosines plus λ‖P - P0‖²."""
    z = torch.nn.functional.normalize(torch.tensor(X), dim=1)
    h = torch.tensor(features.hidden.astype(X.dtype))
    P0 = torch.tensor(features.projection.astype(X.dtype))
    b = 0 if features.bias is None else torch.tensor(features.bias.astype(X.dtype))
    P = P0.clone().requires_grad_()
    adam = torch.optim.Adam([P], lr=lr)
    rng = np.random.RandomState(seed)
    for epoch in range(n_epochs):
        adam.param_groups[0]["lr"] = naive_lr(epoch, n_epochs, lr)
        for rows in naive_batches(len(y), batch_size, rng):
            logits = scale * z[rows] @ torch.nn.functional.normalize(h @ P + b, dim=1).T
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y[rows]))
            loss = loss + penalty * torch.linalg.norm(P - P0) ** 2
            adam.zero_grad()
            loss.backward()
            adam.step()
    return P.detach().numpy()


@pytest.fixture(params=["vit", "siglip"])
def task(request, make_clip):
    """Text base of a tiny CLIP (without and with a bias) and images around its class embeddings."""
    text = CLIPTextFeaturizer(make_clip(request.param))
    t = text.transform(NAMES).astype(np.float64)
    rng = np.random.default_rng(0)
    y = np.arange(24) % 4
    return text, t[y] + rng.normal(scale=np.abs(t).mean(), size=(24, t.shape[1])), y


def classifier(text, **params):
    return TaskResClassifier(
        text, class_names=NAMES, enhanced_base=True, max_epochs=3, random_state=7, **params
    )


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")  # a random CLIP may be at chance
@pytest.mark.parametrize("batch_size", [256, 8])
def test_equals_the_naive_loop(task, batch_size):
    """Projection and tuned base are the naive loop's, with λ = 1 / shots by default."""
    text, X, y = task
    clf = classifier(text, batch_size=batch_size, enhanced_lr=1e-3).fit(X, y)
    features = text.class_features(NAMES)
    P = naive_projection(
        features,
        X,
        y,
        scale=text.logit_scale(),
        penalty=1 / 6,
        lr=1e-3,
        n_epochs=50,
        batch_size=batch_size,
        seed=7,
    )
    bias = 0 if features.bias is None else features.bias
    assert_allclose(clf.text_projection_, P, rtol=0, atol=1e-10)
    assert_allclose(clf.base_, features.hidden @ P + bias, rtol=0, atol=1e-8)
    assert len(clf.enhanced_history_) == 50
    assert clf.enhanced_history_[-1]["train_loss"] < clf.enhanced_history_[0]["train_loss"]


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_the_tuned_base_does_not_depend_on_alpha(task):
    """One seed gives one tuned base, whatever alpha is searched; alpha = 0 is that base alone."""
    text, X, y = task
    fits = [classifier(text, alpha=a, batch_size=8).fit(X, y) for a in (0, 0.5, 2)]
    for clf in fits[1:]:
        assert_array_equal(clf.text_projection_, fits[0].text_projection_)
    unit_base = fits[0].base_ / np.linalg.norm(fits[0].base_, axis=1, keepdims=True)
    assert_allclose(fits[0].coef_, fits[0].logit_scale_ * unit_base, rtol=1e-14)


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_a_large_penalty_leaves_the_regular_base(task):
    """The penalty holds the projection at CLIP's own."""
    text, X, y = task
    clf = classifier(text, enhanced_penalty=1e6, enhanced_lr=1e-6).fit(X, y)
    assert_allclose(clf.base_, text.transform(NAMES), atol=1e-3)


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_added_classes_go_through_the_tuned_projection(task):
    """A class added after an enhanced base is embedded as the trained ones are."""
    text, X, y = task
    clf = classifier(text).fit(X, y)
    grown = clf.add_classes({4: "bee"})
    assert_allclose(grown.base_[4], clf.base_[1], atol=1e-6)
    assert not np.allclose(grown.base_[4], text.transform(["bee"])[0], atol=1e-6)
    assert_array_equal(grown.residual_[4], 0)


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_a_regular_refit_forgets_the_projection(task):
    """Fitting again without the enhanced base leaves nothing of it behind."""
    text, X, y = task
    clf = classifier(text).fit(X, y).set_params(enhanced_base=False).fit(X, y)
    assert clf.text_projection_ is None
    assert clf.enhanced_history_ == []
    assert_allclose(clf.base_, text.transform(NAMES), rtol=1e-6)
