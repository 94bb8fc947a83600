"""What calibration does to accuracy and log loss: CalibratedClassifierCV by each of its methods.

Run ``python tests/measure_calibration.py`` with SKLEARN_TASKRES_TEST_DATA set (two minutes): dtd,
real CLIP ViT-B/32 embeddings, images drawn from val, judged on test. Needs scikit-learn 1.8.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss

from sklearn_taskres import TaskResClassifier, sample_few_shot

SHOTS, SEEDS = (4, 8, 16), range(3)
METHODS = {
    "uncalibrated": None,
    "sigmoid (the default)": {},
    "isotonic": {"method": "isotonic"},
    "temperature": {"method": "temperature"},
    "temperature, ensemble=False": {"method": "temperature", "ensemble": False},
}


def scores(params, X, y, X_test, y_test, t):
    """Accuracy in percent and log loss of one fit."""
    clf = TaskResClassifier(10 * t, random_state=0)
    if params is not None:
        clf = CalibratedClassifierCV(clf, cv=3, **params)
    clf.fit(X, y)
    p = clf.predict_proba(X_test).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    return 100 * np.mean(clf.classes_[p.argmax(axis=1)] == y_test), log_loss(y_test, p)


def main():
    data = np.load(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"]) / "clip_vitb32_dtd.npz")
    X, X_test, t = (data[k].astype(np.float32) for k in ("X_val", "X_test", "text"))
    for n_shots in SHOTS:
        rows = [sample_few_shot(data["y_val"], n_shots, random_state=seed) for seed in SEEDS]
        for method, params in METHODS.items():
            found = [
                scores(params, X[r], data["y_val"][r], X_test, data["y_test"], t) for r in rows
            ]
            accuracy, loss = np.mean(found, axis=0)
            print(
                f"{n_shots:2} images per class, {method:27} accuracy {accuracy:.1f} %, log loss "
                f"{loss:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
