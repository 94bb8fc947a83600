"""Encoders without a text side: class means compared with logistic regression.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_own_encoder.py``: ten minutes on two
cores. The rows are CLIP's image embeddings of textures (dtd, 47 classes) and of the digits, used as
if nobody had their text side. Textures are drawn from val and judged on test, on the same draws for
all. Nothing is tuned here except what a method chooses by itself on its training images.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklearn_taskres import (
    CLIPFeaturizer,
    GDAClassifier,
    LinearProbeClassifier,
    TaskResClassifier,
    TaskResGDAClassifier,
    sample_few_shot,
)

SHOTS, DRAWS = (1, 2, 4, 8, 16), range(5)
#: The method that the others are compared with: what most people would write.
REFERENCE = "LogisticRegression, unit rows, C=10"
METHODS = {
    REFERENCE: lambda seed: make_pipeline(Normalizer(), LogisticRegression(C=10, max_iter=2000)),
    "LogisticRegression, unit rows, C=1": lambda seed: make_pipeline(
        Normalizer(), LogisticRegression(max_iter=2000)
    ),
    "LogisticRegression, unit rows, C=100": lambda seed: make_pipeline(
        Normalizer(), LogisticRegression(C=100, max_iter=2000)
    ),
    "LinearProbeClassifier": lambda seed: LinearProbeClassifier(random_state=seed),
    "nearest class mean, unit rows": lambda seed: make_pipeline(Normalizer(), NearestCentroid()),
    "GDAClassifier": lambda seed: GDAClassifier(),
    'TaskResClassifier("class_means")': lambda seed: TaskResClassifier(
        "class_means", random_state=seed
    ),
    'TaskResGDAClassifier("class_means")': lambda seed: TaskResGDAClassifier(
        "class_means", random_state=seed
    ),
}


def textures():
    """Training rows and test rows of the 47 textures."""
    with np.load(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"]) / "clip_vitb32_dtd.npz") as data:
        train = data["X_val"].astype(np.float32), data["y_val"]
        return *train, data["X_test"].astype(np.float32), data["y_test"]


def digits():
    """Training rows and test rows of scikit-learn's digits, by the model of the package."""
    data = load_digits()
    X = CLIPFeaturizer("glyph-clip").transform(data.images / 16)
    X, X_test, y, y_test = train_test_split(
        X, data.target, stratify=data.target, test_size=0.5, random_state=0
    )
    return X, y, X_test, y_test


def measure(name, X, y, X_test, y_test):
    """Print accuracies, in percent, and their paired differences from the reference."""
    print(f"{name}: {len(np.unique(y))} classes, {X.shape[1]} features, {len(y_test)} test images")
    print(f"{'images per class':40}" + "".join(f"{k:>16}" for k in SHOTS))
    found = {}
    for method, make in METHODS.items():
        for k in SHOTS:
            rows = [sample_few_shot(y, k, random_state=seed) for seed in DRAWS]
            fits = (make(seed).fit(X[r], y[r]) for seed, r in zip(DRAWS, rows, strict=True))
            found[method, k] = np.array([100 * clf.score(X_test, y_test) for clf in fits])
        cells = (cell(found[method, k], found[REFERENCE, k]) for k in SHOTS)
        print(f"{method:40}" + "".join(f"{text:>16}" for text in cells), flush=True)


def cell(values, reference):
    """Mean accuracy, and the mean difference from the reference with its standard error."""
    difference = values - reference
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return f"{values.mean():.1f} {difference.mean():+.1f}±{error:.1f}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
    measure("textures", *textures())
    measure("digits", *digits())
