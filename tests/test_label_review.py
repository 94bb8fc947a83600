"""Wrong labels, images to label next, images of none of the classes: properties on small tasks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import log_loss, roc_auc_score

from sklearn_taskres import TaskResClassifier, TaskResGDAClassifier, ZeroShotClassifier
from sklearn_taskres.inspection import label_suspects, next_to_label, none_of_these, predict_top
from sklearn_taskres.inspection._figures import calibration_error, log_loss_of, share_of
from sklearn_taskres.inspection._held_out import deal

ANIMALS = np.array(["bird", "cat", "dog"])


@pytest.fixture(scope="module")
def task():
    """Base (3, 12), 60 rows around it, labels."""
    rng = np.random.default_rng(0)
    base = 10 * rng.normal(size=(3, 12))
    codes = np.tile(np.arange(3), 20)
    return base, base[codes] + 8 * rng.normal(size=(60, 12)), ANIMALS[codes]


def test_wrong_labels_come_first(task):
    """Three labels are changed; they are the first suspects, with the true label as suggestion."""
    base, X, y = task
    wrong = y.copy()
    wrong[[4, 20, 33]] = ["dog", "bird", "cat"]
    clf = TaskResClassifier(base, max_epochs=5, random_state=0)
    suspects = label_suspects(clf, X, wrong)
    assert set(suspects.indices[:3].tolist()) == {4, 20, 33}
    assert_array_equal(suspects.suggested[:3], y[suspects.indices[:3]])
    assert len(suspects.indices) == 60
    assert (np.diff(suspects.probability) >= 0).all()
    again = label_suspects(clf, X, wrong)
    assert_array_equal(suspects.indices, again.indices)


def test_only_images_of_a_class_are_not_judged(task):
    """An image that is alone in its class trains in each fold and is not a suspect."""
    base, X, y = task
    some = [0, 3, 6, 1, 4, 7, 2]
    found = label_suspects(ZeroShotClassifier(base), X[some], y[some], cv=3)
    assert sorted(found.indices.tolist()) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="Each class has one image"):
        label_suspects(ZeroShotClassifier(base), X[:3], y[:3])
    with pytest.raises(ValueError, match=r"All images are labelled \['bird'\]"):
        label_suspects(ZeroShotClassifier(base), X[::3], y[::3])


def test_images_without_a_label_are_not_judged(task):
    """They are not suspects, and change neither the ranking nor the threshold."""
    base, X, y = task
    rng = np.random.RandomState(0)
    places = np.sort(rng.permutation(90)[:60])
    mixed, partly = rng.normal(size=(90, 12)), np.full(90, "none", dtype=object)
    mixed[places], partly[places] = X, y
    clf = TaskResGDAClassifier(base, max_epochs=5, random_state=0, unlabeled="none")
    alone, among = label_suspects(clf, X, y), label_suspects(clf, mixed, partly.astype(str))
    assert_array_equal(among.indices, places[alone.indices])
    assert_array_equal(among.probability, alone.probability)
    clf.fit(X, y)
    assert (
        none_of_these(clf, mixed, partly.astype(str)).threshold_
        == none_of_these(clf, X, y).threshold_
    )


@pytest.mark.parametrize("kind", ["shuffled", "narrow", "list"])
def test_rows_of_a_data_frame_go_by_their_places(task, kind):
    """Whatever its index and columns are called, and however many rows it has."""
    pandas = pytest.importorskip("pandas")
    base, X, y = task
    clf = ZeroShotClassifier(base)
    expected = label_suspects(clf, X[:9], y[:9], cv=2)
    frame = X[:9].tolist() if kind == "list" else pandas.DataFrame(X[:9])
    if kind == "shuffled":
        frame.index = [8, 0, 7, 1, 6, 2, 5, 3, 40]
        frame.columns = [f"e{i}" for i in range(12)]
    found = label_suspects(clf, frame, pandas.Series(y[:9], index=range(9, 0, -1)), cv=2)
    assert_array_equal(found.indices, expected.indices)
    assert_allclose(found.probability, expected.probability, rtol=1e-4)


@pytest.mark.parametrize("cv", [0, 1, None])
def test_folds_are_a_number(task, cv):
    """One sentence says so."""
    base, X, y = task
    with pytest.raises(ValueError, match="cv must be an integer of at least 2"):
        label_suspects(ZeroShotClassifier(base), X, y, cv=cv)


def test_folds_deal_each_class_evenly():
    """Sizes of a class in the folds differ by one at the most, and single ones are in none."""
    codes = np.repeat([0, 1, 2, 3], [1, 2, 7, 30])
    folds = deal(codes, 5, np.random.RandomState(0))
    assert folds[0] == -1
    for code in (1, 2, 3):
        sizes = np.bincount(folds[codes == code], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_next_to_label_is_uncertain_and_diverse():
    """Of two clusters between classes one image each is taken, before any certain one."""
    rng = np.random.default_rng(0)
    base = np.eye(4)
    sure = np.repeat(base, 20, axis=0)
    between = np.repeat([[1.0, 1, 0, 0], [0, 0, 1.0, 1]], 5, axis=0)
    pool = np.concatenate([sure, between]) + 0.01 * rng.normal(size=(90, 4))
    clf = ZeroShotClassifier(base, logit_scale=30).fit(None, list("abcd"))
    first, second = sorted(next_to_label(clf, pool, 2))
    assert 80 <= first < 85 <= second
    chosen = next_to_label(clf, pool, 200)
    assert sorted(chosen.tolist()) == list(range(90))
    only = next_to_label(clf, pool, 1, X_labeled=pool[80:85])
    assert only[0] >= 85
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        next_to_label(clf, pool, 0)


def test_none_of_these_ranks_other_things_lower(task):
    """Images of a direction that no class has score below; the threshold keeps the stated share."""
    base, X, y = task
    clf = TaskResClassifier(base, max_epochs=5, random_state=0).fit(X, y)
    rng = np.random.default_rng(1)
    others = 10 * rng.normal(size=(50, 12))
    codes = rng.integers(3, size=300)
    same = base[codes] + 8 * rng.normal(size=(300, 12))
    found = none_of_these(clf, X, y, share=0.9)
    scores = np.concatenate([found.score(same), found.score(others)])
    assert roc_auc_score(np.repeat([1, 0], [300, 50]), scores) > 0.9
    assert 0.8 < np.mean(~found.predict(same)) < 0.97
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        none_of_these(clf, X, y, share=1)


def test_figures_against_scikit_learn():
    """Log loss as scikit-learn has it; calibration and Wilson's interval by their definitions."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=200)
    codes = rng.integers(4, size=200)
    assert_allclose(log_loss_of(np.log(p), codes), log_loss(codes, p, labels=range(4)))
    error, confidence = 0.0, p.max(axis=1)
    for i in range(15):
        rows = (confidence >= i / 15) & (confidence < (i + 1) / 15)
        if rows.any():
            right = np.mean(p[rows].argmax(axis=1) == codes[rows])
            error += rows.mean() * abs(confidence[rows].mean() - right)
    assert_allclose(calibration_error(p, codes), error)
    assert_allclose(share_of(np.array([True] * 9 + [False])), (0.9, 0.595850, 0.982124), atol=1e-6)


def test_top_classes(task):
    """The first is predict's, probabilities fall, and k is bounded by the classes."""
    base, X, _ = task
    clf = ZeroShotClassifier(base, logit_scale=5).fit(None, ANIMALS)
    found = predict_top(clf, X, 9)
    assert [row[0].label for row in found] == clf.predict(X).tolist()
    assert {len(row) for row in found} == {3}
    assert_allclose([sum(c.probability for c in row) for row in found], 1)
    with pytest.raises(ValueError, match="k must be"):
        predict_top(clf, X, 0)
