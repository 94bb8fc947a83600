"""What skorch promises its users holds in a fit: one test per row of the table in the docs."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
    ProgressBar,
)

from sklearn_taskres import CLIPAdapterClassifier, TaskResClassifier, TipAdapterClassifier


def problem():
    """Rows of four classes, and class embeddings."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(4, 12))
    y = np.arange(48) % 4
    return t[y] + rng.normal(scale=0.3, size=(48, 12)), y, t


def fit(*callbacks, **params):
    X, y, t = problem()
    params = {"max_epochs": 4, "batch_size": 16, "random_state": 0, **params}
    return TaskResClassifier(t, callbacks=list(callbacks), **params).fit(X, y)


def test_callbacks_change_nothing_by_looking():
    """A fit with callbacks learns what a fit without learns, to the last bit."""
    plain, watched = fit(), fit(EpochTimer(), PrintLog(sink=str), EarlyStopping("train_loss"))
    assert_array_equal(watched.residual_, plain.residual_)
    assert watched.history_ == plain.history_


def test_progress_bar(capsys):
    """ProgressBar counts the batches of an epoch: 48 rows are 3 batches of 16."""
    fit(ProgressBar(detect_notebook=False))
    assert "/3 [" in capsys.readouterr().err


def test_print_log_of_the_user():
    """PrintLog prints a line per epoch, with the learning rate to its digits."""
    lines = []
    fit(PrintLog(sink=lines.append, floatfmt=".6g"))
    assert sum("1e-05" in line for line in lines) == 1
    assert len(lines) == 4 + 2  # a header of two


def test_checkpoint_of_the_best_loss(tmp_path):
    """Checkpoint writes parameters when the training loss is the best so far."""
    fit(Checkpoint(monitor="train_loss_best", dirname=tmp_path))
    history = json.loads((tmp_path / "history.json").read_text())
    assert (tmp_path / "params.pt").stat().st_size > 0
    assert len(history) == 4  # the loss falls in every epoch, so the last one was written


def test_scores_on_training_and_validation_rows():
    """EpochScoring scores the rows of the epoch; a scoring function of one's own scores others."""
    X, y, _ = problem()

    def on_other_rows(net, *_):
        return float(np.mean(net.predict(X[:20]) == y[:20]))

    validation = EpochScoring(on_other_rows, name="valid_acc", on_train=True, use_caching=False)
    clf = fit(EpochScoring("accuracy", name="train_acc", on_train=True), validation, max_epochs=3)
    assert clf.history_[-1]["valid_acc"] == clf.score(X[:20], y[:20])
    assert 0 < clf.history_[-1]["train_acc"] <= 1


@pytest.mark.parametrize("kind", [TaskResClassifier, CLIPAdapterClassifier, TipAdapterClassifier])
def test_validation_rows_are_raw(kind):
    """A network asked for predictions normalises rows as the classifier does, for every method."""
    X, y, t = problem()
    seen = []

    def note(net, *_):
        seen.append(net.predict_proba(7 * X))
        return 0.0

    params = {"fine_tune": True} if kind is TipAdapterClassifier else {}
    score = EpochScoring(note, name="note", on_train=True, use_caching=False)
    clf = kind(t, callbacks=[score], max_epochs=2, random_state=0, **params).fit(X, y)
    assert_allclose(seen[-1], clf.predict_proba(7 * X), rtol=1e-5, atol=1e-8)


def test_early_stopping_on_a_score_of_ones_own():
    """A score on rows of one's own may be what EarlyStopping monitors."""
    score = EpochScoring(lambda *_: 1.0, name="valid_acc", on_train=True, use_caching=False)
    stop = EarlyStopping(monitor="valid_acc", lower_is_better=False, patience=2)
    assert fit(score, stop, max_epochs=9).n_iter_ == 3


@pytest.mark.parametrize("callback", [EarlyStopping(), Checkpoint()], ids=["stop", "save"])
def test_what_monitors_a_validation_set_is_refused(callback):
    """There is none, and the error says what to monitor."""
    with pytest.raises(ValueError, match=r"monitors .valid_loss.*no validation set"):
        fit(callback)


def test_a_pickle_of_the_net_is_refused(tmp_path):
    """It is private; the error says how to save the classifier."""
    with pytest.raises(ValueError, match=r"f_pickle='.*net.pkl'.*joblib"):
        fit(Checkpoint(monitor="train_loss_best", f_pickle=str(tmp_path / "net.pkl")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("residual", ["text", "both"])
def test_freezer(residual):
    """A frozen array stays at its start: under the written gradient as under autograd."""
    clf = fit(Freezer("x"), learn_alpha=True, residual=residual)
    assert not clf.residual_.any()
    assert fit(Freezer("alpha"), learn_alpha=True, residual=residual).alpha_ == 0.5


def test_gradient_clipping():
    """GradientNormClipping acts between gradient and step; Adam sees a smaller one, SGD too."""
    X, y, t = problem()
    free, clipped = (
        TipAdapterClassifier(t, fine_tune=True, callbacks=callbacks, weight_decay=0.0).fit(X, y)
        for callbacks in (None, [GradientNormClipping(1e-12)])
    )
    assert np.abs(clipped.cache_keys_ - free.cache_keys_).max() > 1e-3


def test_a_schedule_of_the_user_takes_the_place_of_the_recipes():
    """An LRScheduler decides about the learning rate alone; without one the recipe's does."""
    rates = fit(LRScheduler("StepLR", step_size=2, gamma=0.1, event_name="lr"), lr=0.1).history_
    assert_allclose([epoch["lr"] for epoch in rates], [0.1, 0.1, 0.01, 0.01])
    assert fit(lr=0.1).history_[0]["lr"] == 1e-5


def test_a_schedule_by_its_default_name_is_the_learning_rate():
    """`history_` has it as "lr", as documented, in both units of a schedule."""
    for unit in ("epoch", "batch"):
        rates = fit(LRScheduler("StepLR", step_size=2, step_every=unit), lr=0.1).history_
        assert all("lr" in epoch and "event_lr" not in epoch for epoch in rates)


@pytest.mark.parametrize("order", ["late", "not on train"])
def test_a_score_that_a_monitor_would_not_find(order):
    """It must come before what monitors it, and be computed in training."""
    score = EpochScoring(lambda *_: 1.0, name="valid_loss", on_train=order == "late")
    callbacks = [EarlyStopping(), score] if order == "late" else [score, EarlyStopping()]
    with pytest.raises(ValueError, match="put before it an EpochScoring"):
        fit(*callbacks)
    with pytest.raises(ValueError, match="no validation set"):
        fit(EarlyStopping)  # skorch makes one of a class
