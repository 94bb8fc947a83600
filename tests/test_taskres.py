"""TaskResClassifier against a naive loop, and the properties the paper promises."""

import copy
import signal
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_lr, naive_taskres
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler
from skorch.callbacks import Callback, EarlyStopping, EpochScoring

from sklearn_taskres import CLIPTextFeaturizer, TaskResClassifier, ZeroShotClassifier
from sklearn_taskres._classifiers.training import auto_lr, auto_max_epochs
from sklearn_taskres._formulas import learning_rate


def problem(n_rows=60, n_classes=5, d=12, dtype=np.float64, seed=0):
    """Raw class embeddings of CLIP's size and images around them."""
    rng = np.random.default_rng(seed)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    X = t[y] + rng.normal(scale=0.4, size=(n_rows, d))
    return X.astype(dtype), y, t.astype(dtype)


VARIANTS = {
    "text": {},
    "image": {"residual": "image"},
    "both": {"residual": "both"},
    "learned alpha": {"learn_alpha": True},
    "learned alpha, both": {"learn_alpha": True, "residual": "both", "alpha": 0.3},
    "strong weight decay": {"weight_decay": 0.1, "alpha": 2.0},
}


@pytest.mark.parametrize("n_epochs", [100, 200])
@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_equals_the_naive_loop_in_float64(variant, batch_size, n_epochs):
    """The same batches give the same residuals, alpha, losses and learning rates."""
    X, y, t = problem()
    clf = TaskResClassifier(
        base=t, batch_size=batch_size, max_epochs=n_epochs, random_state=3, **variant
    ).fit(X, y)
    naive = naive_taskres(X, y, t, batch_size=batch_size, n_epochs=n_epochs, seed=3, **variant)
    assert_allclose(clf.residual_, naive["x"], rtol=0, atol=1e-10)
    assert_allclose(clf.image_residual_, naive["x_image"], rtol=0, atol=1e-10)
    assert_allclose(clf.alpha_, naive["alpha"], rtol=0, atol=1e-10)
    assert_allclose(clf.coef_, naive["coef"], rtol=0, atol=1e-8)
    assert_allclose([e["train_loss"] for e in clf.history_], naive["losses"], atol=1e-10)
    assert_allclose([e["lr"] for e in clf.history_], naive["lrs"], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_equals_the_naive_loop_in_float32(variant, batch_size):
    """Every row of the classifier points where the naive loop's does."""
    X, y, t = problem(dtype=np.float32)
    clf = TaskResClassifier(
        base=t, batch_size=batch_size, precision="float32", random_state=3, **variant
    ).fit(X, y)
    n_epochs = clf.n_iter_
    naive = naive_taskres(X, y, t, batch_size=batch_size, n_epochs=n_epochs, seed=3, **variant)
    norms = np.linalg.norm(clf.coef_, axis=1) * np.linalg.norm(naive["coef"], axis=1)
    assert ((clf.coef_ * naive["coef"]).sum(axis=1) / norms).min() > 0.999999


def test_equals_the_naive_loop_with_sample_weights():
    """Weights multiply the losses, scaled to a mean of one."""
    X, y, t = problem()
    weight = np.random.default_rng(1).uniform(0.5, 3, len(y))
    clf = TaskResClassifier(base=t, max_epochs=50).fit(X, y, sample_weight=weight)
    naive = naive_taskres(X, y, t, n_epochs=50, sample_weight=weight)
    assert_allclose(clf.residual_, naive["x"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch_size", [256, 16], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("variant", [{}, {"residual": "both"}], ids=["text", "both"])
def test_equals_the_naive_loop_with_views(variant, batch_size):
    """Each epoch draws one view of each image; the clean slot 0 is not trained on."""
    X, y, t = problem()
    noise = np.random.default_rng(2).normal(scale=0.2, size=(len(y), 4, X.shape[1]))
    with_views = X[:, None] + noise * [[[0], [1], [1], [1]]]
    params = {"batch_size": batch_size, **variant}
    clf = TaskResClassifier(base=t, max_epochs=30, random_state=5, **params).fit(with_views, y)
    naive = naive_taskres(with_views[:, 1:], y, t, n_epochs=30, seed=5, **params)
    assert_allclose(clf.residual_, naive["x"], rtol=0, atol=1e-10)
    assert_allclose(clf.image_residual_, naive["x_image"], rtol=0, atol=1e-10)
    assert clf.n_features_in_ == X.shape[1]
    assert_array_equal(clf.predict_proba(with_views), clf.predict_proba(X))


def test_views_go_through_cross_validation():
    """An array with views is sliced, fitted on views and scored on clean rows."""
    from sklearn.model_selection import cross_val_score

    X, y, t = problem()
    with_views = np.repeat(X[:, None], 3, axis=1)
    clf = TaskResClassifier(base=t, max_epochs=20, random_state=0)
    views, clean = (cross_val_score(clf, rows, y, cv=3) for rows in (with_views, X))
    assert_array_equal(views, clean)  # all views are the clean image here


def test_a_view_that_is_not_finite_is_refused():
    """NaN in a view is found, not trained on."""
    X, y, t = problem()
    with_views = np.repeat(X[:, None], 2, axis=1)
    with_views[3, 1, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        TaskResClassifier(base=t).fit(with_views, y)


def test_class_weight_is_a_sample_weight():
    """class_weight and the same weights row by row learn the same residual."""
    X, y, t = problem()
    by_class = {0: 3.0, 1: 1.0, 2: 0.5, 3: 1.0, 4: 2.0}
    a = TaskResClassifier(base=t, max_epochs=20, class_weight=by_class).fit(X, y)
    rows = np.array([by_class[c] for c in y])
    b = TaskResClassifier(base=t, max_epochs=20).fit(X, y, sample_weight=rows)
    assert_array_equal(a.residual_, b.residual_)


@pytest.mark.parametrize("n_epochs", [100, 200])
@pytest.mark.parametrize("lr", [2e-3, 2e-4])
def test_learning_rate_is_the_closed_form(lr, n_epochs):
    """All epochs follow the published schedule, REFERENCE's figures among them."""
    rates = [learning_rate(e, n_epochs, lr) for e in range(n_epochs)]
    assert_allclose(rates, [naive_lr(e, n_epochs, lr) for e in range(n_epochs)], rtol=1e-15)
    if (lr, n_epochs) == (2e-3, 100):
        first = [1e-5, 0.002, 0.00199950656, 0.001998026728, 0.001995561965, 0.001992114701]
        assert_allclose(rates[:6], first, rtol=1e-9)
        assert_allclose(rates[-1], 1.97327157e-6, rtol=1e-8)


@pytest.mark.parametrize("residual", ["text", "image", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_zero_is_zero_shot_to_the_last_bit(dtype, residual):
    """With alpha = 0 logits and probabilities are the zero-shot classifier's."""
    X, y, t = problem(dtype=dtype)
    zero_shot = ZeroShotClassifier(base=t).fit(X, y)
    clf = TaskResClassifier(base=t, alpha=0, residual=residual, max_epochs=5).fit(X, y)
    assert_array_equal(clf.decision_function(X), zero_shot.decision_function(X))
    assert_array_equal(clf.predict_proba(X), zero_shot.predict_proba(X))


@settings(max_examples=15, deadline=None)
@given(
    alpha=st.floats(0.1, 4), n_classes=st.integers(2, 6), d=st.integers(2, 20), s=st.integers(0, 99)
)
def test_alpha_multiplies_the_step(alpha, n_classes, d, s):
    """(alpha, lr, weight_decay) learns the same alpha * x as (1, alpha lr, weight_decay/alpha²)."""
    X, y, t = problem(24, n_classes, d, seed=s)
    common = {"base": t, "max_epochs": 10, "logit_scale": 5}  # keeps gradients above Adam's eps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few dimensions: zero-shot may be at chance
        a = TaskResClassifier(alpha=alpha, lr=2e-6, weight_decay=1e-3, **common).fit(X, y)
        b = TaskResClassifier(alpha=1, lr=alpha * 2e-6, weight_decay=1e-3 / alpha**2, **common).fit(
            X, y
        )
    expected = alpha * a.residual_
    assert_allclose(b.residual_, expected, rtol=0, atol=0.01 * np.abs(expected).max())


def test_row_order_does_not_matter_in_a_full_batch():
    """Shuffled rows learn the same residual."""
    X, y, t = problem()
    order = np.random.default_rng(0).permutation(len(y))
    a = TaskResClassifier(base=t, max_epochs=30).fit(X, y)
    b = TaskResClassifier(base=t, max_epochs=30).fit(X[order], y[order])
    assert_allclose(a.residual_, b.residual_, atol=1e-9)


@pytest.mark.parametrize(
    ("images", "batch_size", "n_classes", "epochs"),
    [(1, 256, 10, 100), (4, 256, 10, 100), (5, 256, 10, 200), (16, 256, 1000, 200),
     (32, 256, 1000, 99), (1, 1, 13_000, 1)],
)  # fmt: skip
def test_auto_epochs_follow_the_recipe(images, batch_size, n_classes, epochs):
    """100 epochs up to 4 images per class, else 200, never more steps than ImageNet's recipe."""
    y = np.repeat(np.arange(n_classes), images)
    assert auto_max_epochs(y, batch_size, many=200) == epochs


def test_auto_epochs_go_by_the_median_class():
    """One large class does not change the recipe of a 4-shot task."""
    y = np.concatenate([np.repeat(np.arange(9), 4), np.full(100, 9)])
    assert auto_max_epochs(y, 256, many=200) == 100


def test_auto_lr_is_smaller_from_1000_classes_on():
    """2e-3, and ImageNet's 2e-4."""
    assert [auto_lr(999), auto_lr(1000)] == [2e-3, 2e-4]


def test_same_seed_same_model_whatever_the_global_seeds():
    """random_state alone decides: global generators of NumPy and torch play no part."""
    import torch

    X, y, t = problem()
    clf = TaskResClassifier(base=t, batch_size=16, max_epochs=10, random_state=0)
    first = copy.deepcopy(clf.fit(X, y))
    np.random.seed(1)  # noqa: NPY002 (what a user's script may have done)
    torch.manual_seed(1)
    second = clf.fit(X, y)
    for name in ("residual_", "coef_", "base_"):
        assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.history_ == second.history_
    other = TaskResClassifier(base=t, batch_size=16, max_epochs=10, random_state=1).fit(X, y)
    assert not np.array_equal(first.residual_, other.residual_)


def test_same_model_on_any_n_jobs():
    """A search gives identical figures with one and with two workers."""
    from sklearn.model_selection import GridSearchCV

    X, y, t = problem()
    clf = TaskResClassifier(base=t, batch_size=16, max_epochs=10, random_state=0)
    one, two = (
        GridSearchCV(clf, {"alpha": [0, 0.5, 1]}, cv=2, n_jobs=n, scoring="neg_log_loss").fit(X, y)
        for n in (1, 2)
    )
    assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert_array_equal(one.best_estimator_.residual_, two.best_estimator_.residual_)


class Recorder(Callback):
    """A user's callback that counts what it is told, on the class since fit clones it."""

    calls: list = []  # noqa: RUF012

    def on_train_begin(self, net, **kwargs):
        self.calls.append("train")

    def on_batch_end(self, net, batch, **kwargs):
        self.calls.append(len(batch[1]))


def test_callbacks_are_cloned_and_see_batches():
    """skorch callbacks are notified of train and batches; training is the same with them."""
    X, y, t = problem()
    Recorder.calls.clear()
    callback = Recorder()
    params = {"base": t, "batch_size": 16, "max_epochs": 2, "random_state": 0}
    watched = TaskResClassifier(callbacks=[callback], **params).fit(X, y)
    assert Recorder.calls == ["train"] + [16] * 6
    plain = TaskResClassifier(**params).fit(X, y)
    assert_array_equal(watched.residual_, plain.residual_)
    assert_allclose(
        [e["train_loss"] for e in watched.history_], [e["train_loss"] for e in plain.history_]
    )


def test_early_stopping_and_scoring_callbacks_work():
    """EarlyStopping ends training after an epoch; EpochScoring's figures reach history_."""
    X, y, t = problem()
    stop = EarlyStopping(monitor="train_loss", patience=3, threshold=10.0, threshold_mode="abs")
    score = ("acc", EpochScoring("accuracy", name="train_acc", on_train=True))
    clf = TaskResClassifier(base=t, max_epochs=50, callbacks=[score, stop]).fit(X, y)
    assert clf.n_iter_ == len(clf.history_) == 4  # one to set the mark, three that miss it
    assert 0 < clf.history_[0]["train_acc"] <= 1


class Interrupt(Callback):
    def on_batch_begin(self, net, **kwargs):
        raise KeyboardInterrupt


def test_ctrl_c_reaches_the_user():
    """An interrupted fit is interrupted, not taken for a finished one."""
    X, y, t = problem()
    with pytest.raises(KeyboardInterrupt):
        TaskResClassifier(base=t, callbacks=[Interrupt()]).fit(X, y)


class Signal(Callback):
    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """Python's own answer to Ctrl-C, which a process started in the background does without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_between_epochs_is_no_early_stopping():
    """A signal that strikes while a callback works is not taken for the callback's own stop."""
    X, y, t = problem()
    with pytest.raises(KeyboardInterrupt):
        TaskResClassifier(base=t, callbacks=[Signal()]).fit(X, y)


def test_scoring_callbacks_get_probabilities():
    """A skorch score on probabilities is the training loss, for equal weights."""
    X, y, t = problem()
    score = EpochScoring("neg_log_loss", name="score", on_train=True)
    clf = TaskResClassifier(base=t, max_epochs=3, callbacks=(score,)).fit(X, y)
    for epoch in clf.history_:
        assert_allclose(-epoch["score"], epoch["train_loss"], rtol=1e-5)


def test_verbose_prints_epochs(capsys):
    """verbose=1 prints loss and learning rate of each epoch, verbose=0 nothing."""
    X, y, t = problem()
    TaskResClassifier(base=t, max_epochs=2).fit(X, y)
    assert capsys.readouterr().out == ""
    TaskResClassifier(base=t, max_epochs=2, verbose=1).fit(X, y)
    assert "train_loss" in capsys.readouterr().out


def test_bfloat16_products_stay_near_float32_and_leave_float64_alone():
    """precision="bfloat16" moves a float32 fit a little and a float64 fit not at all."""
    for dtype, bound in [(np.float32, 0.05), (np.float64, 0)]:
        X, y, t = problem(dtype=dtype)
        full = TaskResClassifier(base=t, max_epochs=50).fit(X, y)
        low = TaskResClassifier(base=t, max_epochs=50, precision="bfloat16").fit(X, y)
        difference = np.abs(full.residual_ - low.residual_).max()
        assert difference <= bound
        assert (difference > 0) == (bound > 0)


def test_every_device_learns_the_same(device):
    """A fit on any device is the CPU's to float precision, and is NumPy afterwards."""
    X, y, t = problem(dtype=np.float32)
    here = TaskResClassifier(base=t, device=device, batch_size=16, random_state=0).fit(X, y)
    cpu = TaskResClassifier(base=t, device="cpu", batch_size=16, random_state=0).fit(X, y)
    assert type(here.coef_) is np.ndarray
    assert_allclose(here.coef_, cpu.coef_, atol=1e-2)


def test_base_norm_sets_the_mean_row_norm():
    """A base of lost norm is brought to the one that the user names."""
    X, y, t = problem()
    clf = TaskResClassifier(base=t, base_norm=10, max_epochs=2).fit(X, y)
    assert_allclose(np.linalg.norm(clf.base_, axis=1).mean(), 10)
    assert_allclose(clf.base_ / np.linalg.norm(clf.base_), t / np.linalg.norm(t))
    grown = clf.add_classes({7: t[0]})
    assert_allclose(grown.base_[-1], clf.base_[0])


def test_class_means_have_the_size_of_clips_text_embeddings():
    """Class means are scaled to 0.44 an element, root mean square of the mean row."""
    X, y, _ = problem()
    clf = TaskResClassifier(base="class_means", max_epochs=2).fit(X, y)
    assert_allclose(np.linalg.norm(clf.base_, axis=1).mean(), 0.44 * 12**0.5)


def test_one_image_a_class_draws_no_warning():
    """scikit-learn's warning about many unique classes does not reach one-shot users."""
    X, y, t = problem(5)
    TaskResClassifier(base=t, max_epochs=2).fit(X, y)


def test_class_names_in_all_three_forms():
    """Sequence, dict and the labels themselves pick the same rows of an array base."""
    X, y, t = problem()
    names = np.array(["ant", "bee", "cat", "dog", "emu"])
    by_order = TaskResClassifier(base=t, max_epochs=3).fit(X, names[y])
    by_list = TaskResClassifier(base=t, class_names=names, max_epochs=3).fit(X, y)
    shuffled = {int(c): names[c] for c in (3, 0, 4, 1, 2)}
    by_dict = TaskResClassifier(base=t[list(shuffled)], class_names=shuffled, max_epochs=3).fit(
        X, y
    )
    assert_array_equal(by_order.coef_, by_list.coef_)
    assert_array_equal(by_order.coef_, by_dict.coef_)


@pytest.mark.parametrize("class_names", [list("abcde"), dict(enumerate("abcde"))])
def test_a_fold_that_lacks_a_class_keeps_names_and_rows_together(class_names):
    """Without class 2 the other classes keep their own rows of the base."""
    X, y, t = problem()
    kept = y != 2
    clf = TaskResClassifier(base=t, class_names=class_names, max_epochs=3)
    with pytest.warns(UserWarning, match="never predicted") as caught:
        clf.fit(X[kept], y[kept])
    assert caught[0].filename == __file__
    clone(clf).fit(X[kept], y[kept])  # said once
    assert clf.classes_.tolist() == [0, 1, 3, 4]
    assert_array_equal(clf.base_, t[[0, 1, 3, 4]])


def bad(message, **kwargs):
    return pytest.param(kwargs, message, id=message[:40])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        bad("X has 12 features, but .*an array.* have 7", base=np.ones((5, 7))),
        bad("base has 4 rows for 5 labels", base=np.eye(4, 12)),
        bad(r"class_names has no name for \[4\]", class_names=dict(enumerate("abcd"))),
        bad(
            "base has 4 rows and class_names 5 names", base=np.eye(4, 12), class_names=list("abcde")
        ),
        bad("The 'alpha' parameter of TaskResClassifier must be .* Got -1", alpha=-1),
        bad("The 'lr' parameter of TaskResClassifier must be .* Got 0", lr=0),
        bad("learn_alpha=True can't start from alpha=0", alpha=0, learn_alpha=True),
        bad("enhanced_base=True tunes .*base is not text", enhanced_base=True),
        bad("The 'residual' parameter of TaskResClassifier must be", residual="nope"),
        bad("The 'precision' parameter of TaskResClassifier must be", precision="int8"),
        bad("The 'device' parameter must be None or a torch device", device="toaster"),
    ],
)
def test_bad_parameters_are_refused_in_one_sentence(params, message):
    """The error says what is wrong, what was seen and what to do."""
    X, y, t = problem()
    with pytest.raises(ValueError, match=message):
        TaskResClassifier(**{"base": t, "max_epochs": 2, **params}).fit(X, y)


def test_bad_data_is_refused_in_one_sentence():
    """One class, NaN, integer labels for a text base."""
    X, y, t = problem()
    with pytest.raises(ValueError, match="can't train on one class: y holds only 3"):
        TaskResClassifier(base=t).fit(X, np.full(len(y), 3))
    with pytest.raises(ValueError, match="contains NaN"):
        TaskResClassifier(base=t).fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match=r"labels \(such as 0\) are not names. Pass class_names"):
        TaskResClassifier().fit(X, y)
    with pytest.raises(ValueError, match="'base__templates' sets a parameter of base, but base is"):
        TaskResClassifier().set_params(base__templates="{} texture.")


def test_labels_that_a_sequence_can_not_be_matched_with_are_refused():
    """Fewer string labels than names: which is missing is unknown, so the user is asked."""
    X, y, t = problem()
    labels = np.array(list("abcde"))[y]
    kept = y != 2
    clf = TaskResClassifier(base=t, class_names=list("vwxyz"))
    with pytest.raises(ValueError, match="class_names has 5 names for 4 labels"):
        clf.fit(X[kept], labels[kept])


def test_a_sequence_is_never_matched_by_a_guess():
    """If labels may count from 1 a missing class is an error, not a neighbour's row."""
    X, y, t = problem()
    clf = TaskResClassifier(base=t, max_epochs=2)
    assert_array_equal(clone(clf).fit(X, y + 1).base_, t)
    with pytest.raises(ValueError, match="base has 5 rows for 4 labels"):
        clf.fit(X[y != 4], y[y != 4] + 1)


def test_names_are_words_and_their_order_is_clear():
    """A missing name is not the word "None", and a Series must say what it means."""
    import pandas as pd

    X, y, _ = problem()
    with pytest.raises(ValueError, match=r"class_names must be words.*\[None\]"):
        TaskResClassifier(class_names=["a", None, "c", "d", "e"]).fit(X, y)
    with pytest.raises(ValueError, match="class_names is a Series"):
        TaskResClassifier(class_names=pd.Series(list("abcde"))).fit(X, y)


@pytest.mark.model
def test_selected_and_added_classes_share_nothing():
    """Setting parameters of the new classifier leaves the old one alone."""
    text = CLIPTextFeaturizer("glyph-clip")
    names = ["zero", "one", "two"]
    full = ZeroShotClassifier(text).fit(None, names)
    part = full.select_classes(names[:2]).set_params(base__templates="the digit {}")
    assert part.base.templates != full.base.templates


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"x": np.ones(12)}, "are of another kind than classes_"),
        ({}, "add_classes takes a dict"),
        (["x"], "add_classes takes a dict .* or a list of names if the labels are names"),
        ({9: "nine"}, "a name alone cannot become a class"),
        ({9: np.ones(3)}, r"must have the shape \(12,\)"),
        ({1: np.ones(12)}, "in classes_ already"),
    ],
)
def test_bad_new_classes_are_refused(classes, message):
    """Labels of another kind, nothing, a name without a text base, another width, known labels."""
    X, y, t = problem()
    clf = TaskResClassifier(base=t, max_epochs=2).fit(X, y)
    with pytest.raises(ValueError, match=message):
        clf.add_classes(classes)


@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_new_classes_of_any_number_type(dtype):
    """Labels are numbers among numbers, whatever type y had."""
    X, y, t = problem()
    clf = TaskResClassifier(base=t, max_epochs=2).fit(X, y.astype(dtype))
    assert clf.add_classes({10: t[0], 7: t[1]}).classes_.tolist() == [0, 1, 2, 3, 4, 7, 10]


def test_integer_base_is_read_as_floats():
    """base_norm scales a base of integers, as any other."""
    clf = ZeroShotClassifier(np.eye(3, dtype=int), base_norm=0.5).fit(None, list("abc"))
    assert_allclose(clf.base_, 0.5 * np.eye(3))


def test_weights_that_leave_nothing_are_refused():
    """Class weights may not be negative, nor all zero."""
    X, y, t = problem()
    for weight in (-1.0, 0.0):
        clf = TaskResClassifier(base=t, class_weight=dict.fromkeys(range(5), weight))
        with pytest.raises(ValueError, match="must not be negative, nor all zero"):
            clf.fit(X, y)


def test_unit_norm_base_draws_a_warning():
    """An array base of unit rows is almost always a lost norm."""
    X, y, t = problem()
    unit_rows = t / np.linalg.norm(t, axis=1, keepdims=True)
    with pytest.warns(UserWarning, match="rows of base have unit norm.*base_norm=10"):
        TaskResClassifier(base=unit_rows, max_epochs=2).fit(X, y)
    TaskResClassifier(base=unit_rows, base_norm=10, max_epochs=2).fit(X, y)  # no warning


def test_unit_norm_images_draw_a_warning_where_their_norm_counts():
    """A residual on unit image rows is another method; on text it makes no difference."""
    X, y, t = problem()
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    with pytest.warns(UserWarning, match="rows of X have unit norm"):
        TaskResClassifier(base=t, residual="image", max_epochs=2).fit(X, y)
    TaskResClassifier(base=t, max_epochs=2).fit(X, y)


@pytest.mark.parametrize("entrance", ["fit", "pipeline", "search"])
def test_embeddings_of_another_model_draw_a_warning(entrance):
    """If zero-shot is at chance on the training rows, it is said at the line that calls fit."""
    X, y, t = problem(d=40)
    rotated = X @ np.linalg.qr(np.random.default_rng(5).normal(size=(40, 40)))[0]
    clf = TaskResClassifier(base=t, max_epochs=2)
    if entrance == "pipeline":
        clf = Pipeline([("scale", MaxAbsScaler()), ("taskres", clf)])
    if entrance == "search":
        clf = GridSearchCV(clf, {"alpha": [0.5, 1]}, cv=2)
    said = "no better than chance. Do base and X come from the same"
    with pytest.warns(UserWarning, match=said) as caught:
        clf.fit(rotated, y)
    assert {warning.filename for warning in caught} == {__file__}


def test_diverged_training_is_an_error():
    """A residual that is not finite never becomes a model."""
    X, y, t = problem()
    with pytest.raises(ValueError, match="Training diverged: 'x' holds values"):
        TaskResClassifier(base=t, lr=1e200, max_epochs=5).fit(X, y)


def test_names_that_are_the_labels_in_another_order_are_refused():
    """A sequence names the sorted labels, so the same words shuffled would swap classes."""
    rng = np.random.default_rng(0)
    t, y = rng.normal(size=(3, 8)), np.repeat(["ant", "bee", "cat"], 4)
    X = np.repeat(t, 4, axis=0)
    TaskResClassifier(t, class_names=["ant", "bee", "cat"], base_norm=3, max_epochs=1).fit(X, y)
    clf = TaskResClassifier(t, class_names=["cat", "ant", "bee"], base_norm=3, max_epochs=1)
    with pytest.raises(
        ValueError, match=r"'cat' would name the class 'ant'\. Leave class_names out"
    ):
        clf.fit(X, y)


@pytest.mark.model  # it would, if the weights were there
def test_a_missing_default_clip_names_the_base():
    """If base=None asks for a CLIP that is not there, the error says that base asked for it."""
    X, y = np.eye(4), ["ant", "ant", "bee", "bee"]
    with pytest.raises(OSError, match=r"'ViT-B-32'.* not in the cache") as info:
        TaskResClassifier().fit(X, y)
    assert "TaskResClassifier asked for this CLIP, since base=None" in info.value.__notes__[0]
    with pytest.raises(OSError, match=r"'ViT-B-32'.* not in the cache") as info:
        TaskResClassifier(CLIPTextFeaturizer()).fit(X, y)
    assert not hasattr(info.value, "__notes__")
