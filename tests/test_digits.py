"""Real handwritten digits through the bundled model: what the quickstart promises."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    ZeroShotClassifier,
    sample_few_shot,
)

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXT = CLIPTextFeaturizer("glyph-clip")
_N_DRAWS = 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    """Embeddings, pixels and labels of all 1797 digits."""
    data = load_digits()
    X = CLIPFeaturizer("glyph-clip", cache=None).transform(data.images / 16)
    return X, data.data, data.target


def accuracies(clf, X, y, n_shots):
    """Accuracy in percent of each draw of training images, judged on all other rows."""
    scores = []
    for seed in range(_N_DRAWS):
        train = sample_few_shot(y, n_shots, random_state=seed)
        rest = np.setdiff1d(np.arange(len(y)), train)
        scores.append(100 * clf.fit(X[train], y[train]).score(X[rest], y[rest]))
    return np.array(scores)


def gain(ours, others):
    """Mean difference on the same draws, and its standard error."""
    difference = ours - others
    return difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5


def assert_above(ours, others):
    """The mean over draws is higher by more than two standard errors."""
    mean, error = gain(ours, others)
    assert mean > 2 * error


def assert_not_below(ours, others, resolution=0.5):
    """No loss shows, with draws enough that one of `resolution` points would."""
    mean, error = gain(ours, others)
    assert 4 * error < resolution
    assert mean > -2 * error


def taskres(**params):
    return TaskResClassifier(TEXT, class_names=NAMES, random_state=0, **params)


@pytest.mark.parametrize("n_shots", [1, 2, 4])
def test_taskres_leads_where_images_are_few(digits, n_shots):
    """TaskRes is above both ways to do without class names; regression draws level at four."""
    X, pixels, y = digits
    ours = accuracies(taskres(), X, y, n_shots)
    regression = make_pipeline(Normalizer(), LogisticRegression(C=10, max_iter=1000))
    compare = assert_above if n_shots < 4 else assert_not_below
    compare(ours, accuracies(regression, X, y, n_shots))
    assert_above(ours, accuracies(KNeighborsClassifier(1), pixels, y, n_shots))


@pytest.mark.parametrize("n_shots", [1, 2, 4, 8, 16])
def test_taskres_gains_on_zero_shot(digits, n_shots):
    """From one image per class on, the residual adds to what the names say."""
    X, _, y = digits
    zero_shot = ZeroShotClassifier(TEXT, class_names=NAMES)
    assert_above(accuracies(taskres(), X, y, n_shots), accuracies(zero_shot, X, y, n_shots))


@pytest.mark.parametrize("n_shots", [8, 16])
def test_the_enhanced_base_is_not_below_the_regular_one(digits, n_shots):
    """On the same draws, tuning the projection first does not cost accuracy."""
    X, _, y = digits
    enhanced = accuracies(taskres(enhanced_base=True), X, y, n_shots)
    assert_not_below(enhanced, accuracies(taskres(), X, y, n_shots))
