"""ProLIPClassifier against a plain autograd loop, and its properties."""

import numpy as np
import torch
from naive import naive_lr
from numpy.testing import assert_allclose

from sklearn_taskres import ProLIPClassifier, ZeroShotClassifier


def problem(n_rows=40, n_classes=4, d=10):
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    return t[y] + rng.normal(scale=0.6, size=(n_rows, d)), y, t


def naive_prolip(X, y, t, penalty, lr, n_epochs):
    """Learn A by Adam on all rows at once, from the identity."""
    unit = torch.nn.functional.normalize
    z, classes = unit(torch.tensor(X)), 100 * unit(torch.tensor(t))
    identity = torch.eye(X.shape[1], dtype=z.dtype)
    A = identity.clone().requires_grad_()
    adam = torch.optim.Adam([A], lr=lr)
    for epoch in range(n_epochs):
        adam.param_groups[0]["lr"] = naive_lr(epoch, n_epochs, lr)
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(unit(z @ A) @ classes.T, torch.tensor(y))
        (loss + penalty * ((A - identity) ** 2).sum()).backward()
        adam.step()
    return A.detach().numpy()


def test_equals_a_plain_loop():
    """The map is that of autograd on the formula, with λ = 1 / images per class."""
    X, y, t = problem()
    clf = ProLIPClassifier(t, lr=1e-2, max_epochs=15).fit(X, y)
    assert_allclose(clf.image_map_, naive_prolip(X, y, t, 0.1, 1e-2, 15), atol=1e-8)
    assert clf.n_parameters_ == 100


def test_a_large_penalty_is_zero_shot():
    """Then the map stays at the identity."""
    X, y, t = problem()
    clf = ProLIPClassifier(t, penalty=1e6, lr=1e-6, max_epochs=5).fit(X, y)
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert_allclose(clf.decision_function(X), zero_shot.decision_function(X), atol=1e-2)


def test_an_added_class_sees_mapped_images():
    """Its logits are those of its text and the images that the map has moved."""
    X, y, t = problem()
    clf = ProLIPClassifier(t, lr=1e-2, max_epochs=15).fit(X, y)
    grown = clf.add_classes({7: t[0] + t[1]})
    assert_allclose(grown.decision_function(X)[:, :4], clf.decision_function(X))
    z = X / np.linalg.norm(X, axis=1, keepdims=True) @ clf.image_map_
    new = (t[0] + t[1]) / np.linalg.norm(t[0] + t[1])
    expected = 100 * z @ new / np.linalg.norm(z, axis=1)
    assert_allclose(grown.decision_function(X)[:, 4], expected)
