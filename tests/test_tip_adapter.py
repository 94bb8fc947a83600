"""TipAdapterClassifier against naive references, and the properties of a cache."""

import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from naive import naive_batches
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres import ZeroShotClassifier
from sklearn_taskres._classifiers import tip_adapter
from sklearn_taskres._classifiers.tip_adapter import (
    TipAdapterClassifier,
    in_chunks,
    tip_adapter_logits,
)
from sklearn_taskres._held_out import held_out_score, shot_folds


def problem(n_rows=60, n_classes=5, d=12, dtype=np.float64):
    """Raw class embeddings, poor ones, and images around better ones."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    X = t[y] + rng.normal(scale=0.4, size=(n_rows, d))
    t += rng.normal(scale=0.4, size=t.shape)
    return X.astype(dtype), y, t.astype(dtype)


def with_views_of(X):
    noise = np.random.default_rng(2).normal(scale=0.2, size=(len(X), 4, X.shape[1]))
    return X[:, None] + noise * [[[0], [1], [1], [1]]]


def normed(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def naive_tip(queries, X, y, t, alpha, beta, weight=None, scale=100.0):
    """Each query asks each cached image by itself."""
    logits = []
    for f in normed(queries):
        row = [scale * f @ text for text in normed(t)]
        for i, key in enumerate(normed(X)):
            vote = math.exp(-beta * (1 - f @ key))
            row[y[i]] += alpha * vote * (1 if weight is None else weight[i])
        logits.append(row)
    return np.array(logits)


@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.17, 1), (10.0, 5.5), (3.0, 0)])
def test_equals_the_naive_loop(alpha, beta, weighted):
    """Logits are zero-shot's plus the votes of all cached images."""
    X, y, t = problem()
    queries = np.random.default_rng(1).normal(size=(30, 12))
    weight = np.random.default_rng(1).uniform(0.5, 3, len(y)) if weighted else None
    clf = TipAdapterClassifier(t, alpha=alpha, beta=beta).fit(X, y, sample_weight=weight)
    naive = naive_tip(queries, X, y, t, alpha, beta, weight)
    assert_allclose(clf.decision_function(queries), naive, rtol=0, atol=1e-10)


def test_a_key_is_the_mean_of_the_unit_views():
    """With views, the cache holds their normalised means, and the clean row only zero-shot sees."""
    X, y, t = problem()
    views = with_views_of(X)
    clf = TipAdapterClassifier(t, alpha=2.0, beta=3.0).fit(views, y)
    keys = normed(normed(views[:, 1:]).mean(axis=1))
    assert_allclose(clf.cache_keys_, keys, rtol=0, atol=1e-12)
    assert_allclose(clf.decision_function(X), naive_tip(X, keys, y, t, 2.0, 3.0), atol=1e-10)


def naive_fine_tuning(X, y, t, *, alpha, beta, batch_size, n_epochs, seed, weight=None):
    """The published loop: the keys are the weights of a linear layer under AdamW."""
    rng = np.random.RandomState(seed)
    views = X[:, 1:] if X.ndim == 3 else None
    keys = normed(X) if views is None else normed(normed(views).mean(axis=1))
    adapter = torch.nn.Linear(*keys.shape[::-1], bias=False, dtype=torch.float64)
    adapter.weight.data = torch.tensor(keys)
    values = torch.eye(len(t), dtype=torch.float64)[y]
    if weight is not None:
        values *= torch.tensor(weight)[:, None]
    loss_weight = torch.ones(len(y)) if weight is None else torch.tensor(weight / weight.mean())
    adamw = torch.optim.AdamW(adapter.parameters(), lr=1e-3, eps=1e-4)
    n_steps = n_epochs * max(1, len(y) // batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, n_steps)
    for _ in range(n_epochs):
        rows_now = X
        if views is not None:
            drawn = rng.randint(views.shape[1], size=len(y))
            rows_now = np.stack([views[i, j] for i, j in enumerate(drawn)])
        for rows in naive_batches(len(y), batch_size, rng):
            f = torch.tensor(normed(rows_now[rows]))
            votes = ((-1) * (beta - beta * adapter(f))).exp() @ values
            logits = 100.0 * f @ torch.tensor(normed(t)).T + alpha * votes
            losses = torch.nn.functional.cross_entropy(
                logits, torch.tensor(y[rows]), reduction="none"
            )
            adamw.zero_grad()
            (loss_weight[rows] * losses).mean().backward()
            adamw.step()
            cosine.step()
    return adapter.weight.detach().numpy()


@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("variant", ["plain", "views", "weights"])
def test_fine_tuning_equals_the_naive_loop(variant, batch_size):
    """The keys are those of AdamW under a cosine that goes down step by step."""
    X, y, t = problem()
    rows = with_views_of(X) if variant == "views" else X
    weight = np.random.default_rng(1).uniform(0.5, 3, len(y)) if variant == "weights" else None
    params = {"alpha": 2.0, "beta": 5.5, "batch_size": batch_size}
    clf = TipAdapterClassifier(t, fine_tune=True, random_state=4, **params)
    clf.fit(rows, y, sample_weight=weight)
    keys = naive_fine_tuning(rows, y, t, n_epochs=20, seed=4, weight=weight, **params)
    assert abs(keys - TipAdapterClassifier(t).fit(rows, y).cache_keys_).max() > 1e-3
    assert_allclose(clf.cache_keys_, keys, rtol=0, atol=1e-9)
    assert clf.n_iter_ == len(clf.history_) == 20


def test_fine_tuning_starts_from_the_cache():
    """A step that goes nowhere leaves the training-free classifier."""
    X, y, t = problem()
    params = {"alpha": 2.0, "beta": 3.0, "weight_decay": 0, "max_epochs": 1}
    clf = TipAdapterClassifier(t, fine_tune=True, lr=1e-12, **params).fit(X, y)
    free = TipAdapterClassifier(t, **params).fit(X, y)
    assert_allclose(clf.decision_function(X), free.decision_function(X), atol=1e-8)


def test_the_schedule_is_torchs_cosine():
    """Steps have the learning rates of CosineAnnealingLR; the history shows an epoch's last."""
    X, y, t = problem()
    clf = TipAdapterClassifier(t, fine_tune=True, batch_size=20, max_epochs=4).fit(X, y)
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 12)
    naive = []
    for _ in range(12):
        naive.append(sgd.param_groups[0]["lr"])
        sgd.step()
        cosine.step()
    ours = [tip_adapter.cosine_schedule(i, 12, 1e-3) for i in range(12)]
    assert_allclose(ours, naive, rtol=1e-9)
    assert_allclose([epoch["lr"] for epoch in clf.history_], naive[2::3], rtol=1e-9)


@pytest.mark.parametrize("fine_tune", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_zero_is_zero_shot(dtype, fine_tune):
    """Without votes, logits are zero-shot's to the last bit."""
    X, y, t = problem(dtype=dtype)
    clf = TipAdapterClassifier(t, alpha=0, fine_tune=fine_tune, random_state=0).fit(X, y)
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert_array_equal(clf.decision_function(X), zero_shot.decision_function(X))


def test_row_order_does_not_matter():
    """The votes of a shuffled cache are the same."""
    X, y, t = problem()
    order = np.random.default_rng(0).permutation(len(y))
    clf = TipAdapterClassifier(t, alpha=5.0, beta=4.0)
    logits = clf.fit(X, y).decision_function(X)
    shuffled = clf.fit(X[order], y[order]).decision_function(X)
    assert_allclose(shuffled, logits, rtol=0, atol=1e-11)


def test_integer_weights_are_repeated_rows():
    """A weight of 3 is three votes."""
    X, y, t = problem()
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    clf = TipAdapterClassifier(t, alpha=5.0, beta=4.0)
    weighted = clf.fit(X, y, sample_weight=weight).decision_function(X)
    repeated = clf.fit(X.repeat(weight, axis=0), y.repeat(weight)).decision_function(X)
    assert_allclose(weighted, repeated, rtol=0, atol=1e-11)


@pytest.mark.parametrize("views", [False, True], ids=["clean", "views"])
def test_the_search_asks_about_images_the_cache_lacks(views):
    """alpha_ and beta_ are the best of a naive search, fold by fold, over the grid."""
    X, y, t = problem()
    rows = with_views_of(X) if views else X
    keys = normed(rows[:, 1:]).mean(axis=1) if views else X
    clf = TipAdapterClassifier(t, random_state=7).fit(rows, y)
    folds = shot_folds(y, np.random.RandomState(7))
    scores = {}
    for alpha, beta in itertools.product([0.5, 4, 16, 32], [1, 4, 16]):  # the rest takes long
        logits = np.empty((len(y), 5))
        for kept, out in folds:
            logits[out] = naive_tip(X[out], keys[kept], y[kept], t, alpha, beta)
        scores[alpha, beta] = held_out_score(logits, y)
    chosen = np.empty((len(y), 5))
    for kept, out in folds:
        chosen[out] = naive_tip(X[out], keys[kept], y[kept], t, clf.alpha_, clf.beta_)
    assert clf.alpha_ in tip_adapter._ALPHAS
    assert clf.beta_ in tip_adapter._BETAS
    assert held_out_score(chosen, y) >= max(scores.values())
    assert clf.alpha_ > 0


def test_the_search_finds_what_is_planted():
    """Clusters that the base confuses ask for many votes; directions that it labels, for few."""
    _, y, _ = problem()
    rng = np.random.default_rng(0)
    base = rng.normal(size=(5, 12))
    images = base[y] + 0.01 * rng.normal(size=(60, 12))
    swapped = base[[1, 0, 2, 3, 4]]
    assert TipAdapterClassifier(swapped, random_state=0).fit(images, y).alpha_ >= 8
    anywhere = rng.normal(size=(60, 12))
    labels = (anywhere @ normed(base).T).argmax(axis=1)  # by the base
    assert TipAdapterClassifier(base, random_state=0).fit(anywhere, labels).alpha_ <= 1


def test_a_given_number_is_not_searched():
    """alpha searches with a fixed beta, and the reverse."""
    X, y, t = problem()
    assert TipAdapterClassifier(t, beta=0.7).fit(X, y).beta_ == 0.7
    clf = TipAdapterClassifier(t, alpha=1.3, random_state=0).fit(X, y)
    assert clf.alpha_ == 1.3
    assert clf.beta_ in tip_adapter._BETAS


def test_one_image_a_class_takes_the_defaults():
    """If nothing can be held out, and for fine-tuning, "auto" is 4."""
    X, y, t = problem()
    clf = TipAdapterClassifier(t, random_state=0).fit(X[:5], y[:5])
    assert (clf.alpha_, clf.beta_) == (4, 4)
    tuned = TipAdapterClassifier(t, fine_tune=True, beta=2, max_epochs=1).fit(X, y)
    assert (tuned.alpha_, tuned.beta_) == (4, 2)


@pytest.mark.parametrize("fine_tune", [False, True])
@pytest.mark.parametrize("labels", [np.array(list("abcde")), np.array(list("abcde"), dtype=object)])
def test_classes_can_be_selected_and_added(labels, fine_tune):
    """Kept classes keep their cached images and logits; a new class has none."""
    X, y, t = problem(n_rows=300, d=64)
    clf = TipAdapterClassifier(t, fine_tune=fine_tune, random_state=0).fit(X, labels[y])
    logits = clf.decision_function(X)
    part = clf.select_classes(["e", "a", "c"])
    assert_allclose(part.decision_function(X), logits[:, [0, 2, 4]], rtol=1e-12, atol=1e-12)
    assert len(part.cache_keys_) == len(part.cache_weights_) == 180
    assert len(clf.cache_keys_) == 300
    grown = part.add_classes({"b": t[1], "d": t[3]})
    zero_shot = ZeroShotClassifier(t).fit(X, labels[y]).decision_function(X)
    expected = np.where([True, False, True, False, True], logits, zero_shot)
    assert_allclose(grown.decision_function(X), expected, rtol=1e-12, atol=1e-12)


class Keys(np.ndarray):
    """Rows that note the shape of what others are multiplied with them to."""

    products: ClassVar[list] = []

    def __array_ufunc__(self, ufunc, method, *inputs, **how):
        plain = [np.asarray(array) for array in inputs]
        result = getattr(ufunc, method)(*plain, **how)
        if ufunc is np.matmul:
            self.products.append(result.shape)
        return result


def test_prediction_holds_few_affinities_at_a_time():
    """Rows are taken in chunks, of four million affinities at most; the logits are the same."""
    X, y, t = problem()
    clf = TipAdapterClassifier(t, alpha=2.0, beta=3.0).fit(X, y)
    rows, logits = np.tile(X, (40, 1)), np.tile(clf.decision_function(X), (40, 1))
    clf.cache_keys_ = np.tile(clf.cache_keys_, (50, 1)).view(Keys)
    clf.cache_classes_, clf.cache_weights_ = np.tile(y, 50), np.full(3000, 1 / 50)
    Keys.products.clear()
    assert_allclose(clf.decision_function(rows), logits, rtol=1e-12, atol=1e-12)
    assert Keys.products == [(1398, 3000), (1002, 3000)]  # of 2²² affinities, 1398 rows


@pytest.mark.parametrize(("n_keys", "n_rows"), [(2**18, 16), (2**22, 1), (2**22 + 1, 1)])
def test_chunks_are_one_row_at_least(n_keys, n_rows):
    """However many keys there are; and all rows are taken, the last ones too."""
    z, sizes = np.arange(60).reshape(30, 2), []

    def logits(part, factor):
        sizes.append(len(part))
        return factor * part

    assert_array_equal(in_chunks(logits, z, n_keys, factor=3), 3 * z)
    assert sizes == [n_rows] * (30 // n_rows) + [30 % n_rows] * (n_rows == 16)


def test_parameters_are_counted():
    """Nothing is tuned without training; with it, every cached value."""
    X, y, t = problem()
    assert TipAdapterClassifier(t).fit(X, y).n_parameters_ == 0
    tuned = TipAdapterClassifier(t, fine_tune=True, max_epochs=1).fit(X, y)
    assert tuned.n_parameters_ == 60 * 12


def test_formula_is_one_for_numpy_and_torch():
    """Arrays and tensors give the same logits."""
    X, y, t = problem()
    arrays = {"z": normed(X), "classifier": t, "keys": normed(X), "values": np.eye(5)[y]}
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    ours = tip_adapter_logits(**arrays, alpha=2.0, beta=3.0)
    assert_allclose(ours, tip_adapter_logits(**tensors, alpha=2.0, beta=3.0).numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": -1.0}, "'alpha' parameter of TipAdapterClassifier must be"),
        ({"beta": "best"}, "'beta' parameter of TipAdapterClassifier must be"),
        ({"fine_tune": "yes"}, "'fine_tune' parameter"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    """The message names the parameter and what it may be."""
    X, y, t = problem()
    with pytest.raises(ValueError, match=message):
        TipAdapterClassifier(t, **params).fit(X, y)
