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


@pytest.fixture(scope="module")
def digits():
    """Embeddings, pixels and labels of all 1797 digits."""
    data = load_digits()
    X = CLIPFeaturizer("glyph-clip", cache=None).transform(data.images / 16)
    return X, data.data, data.target


def accuracy(clf, X, y, n_shots):
    """Mean accuracy in percent over five draws, each judged on all other rows."""
    scores = []
    for seed in range(5):
        train = sample_few_shot(y, n_shots, random_state=seed)
        rest = np.setdiff1d(np.arange(len(y)), train)
        scores.append(100 * clf.fit(X[train], y[train]).score(X[rest], y[rest]))
    return np.mean(scores)


def taskres(**params):
    return TaskResClassifier(TEXT, class_names=NAMES, random_state=0, **params)


@pytest.mark.parametrize("n_shots", [1, 2, 4])
def test_taskres_leads_where_images_are_few(digits, n_shots):
    """With up to four images a class TaskRes is above both ways to do without class names."""
    X, pixels, y = digits
    ours = accuracy(taskres(), X, y, n_shots)
    regression = make_pipeline(Normalizer(), LogisticRegression(C=10, max_iter=1000))
    assert ours > accuracy(regression, X, y, n_shots)
    assert ours > accuracy(KNeighborsClassifier(1), pixels, y, n_shots)


@pytest.mark.parametrize("n_shots", [1, 2, 4, 8, 16])
def test_taskres_gains_on_zero_shot(digits, n_shots):
    """From one image a class on, the residual adds to what the names say."""
    X, _, y = digits
    zero_shot = ZeroShotClassifier(TEXT, class_names=NAMES)
    assert accuracy(taskres(), X, y, n_shots) > accuracy(zero_shot, X, y, n_shots)


@pytest.mark.parametrize("n_shots", [8, 16])
def test_the_enhanced_base_is_not_below_the_regular_one(digits, n_shots):
    """On the same draws, tuning the projection first does not cost accuracy."""
    X, _, y = digits
    enhanced = accuracy(taskres(enhanced_base=True), X, y, n_shots)
    assert enhanced >= accuracy(taskres(), X, y, n_shots)
