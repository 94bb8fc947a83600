"""TaskRes on real CLIP embeddings (DTD, 47 textures): the estimator, the naive loop, variants.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_dtd.py`` for the table.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from naive import naive_taskres

from sklearn_taskres import TaskResClassifier, ZeroShotClassifier, sample_few_shot

SHOTS = [1, 4, 8, 16]
N_DRAWS = 10
VARIANTS = {
    "learn_alpha": {"learn_alpha": True},
    "alpha=0.1": {"alpha": 0.1},
    "alpha=1": {"alpha": 1.0},
    "alpha=2": {"alpha": 2.0},
    "bfloat16": {"precision": "bfloat16"},
}


class DTD:
    """Embeddings of the val rows to draw from and of the test rows, and the raw base."""

    def __init__(self, folder):
        with np.load(Path(folder) / "clip_vitb32_dtd.npz") as data:
            self.X, self.y = data["X_val"].astype(np.float32), data["y_val"]
            self.X_test, self.y_test = data["X_test"].astype(np.float32), data["y_test"]
            self.base = 10 * data["text"].astype(np.float32)

    def draw(self, n_shots, seed):
        rows = sample_few_shot(self.y, n_shots, random_state=seed)
        return self.X[rows], self.y[rows]

    def estimator(self, n_shots, seed, **params):
        """Test accuracy in percent of a fit on one draw."""
        X, y = self.draw(n_shots, seed)
        clf = TaskResClassifier(self.base, random_state=seed, **params).fit(X, y)
        return 100 * clf.score(self.X_test, self.y_test)

    def naive(self, n_shots, seed):
        """The same of the naive loop with default parameters."""
        X, y = self.draw(n_shots, seed)
        n_epochs = 100 if n_shots <= 4 else 200
        coef = naive_taskres(X, y, self.base, n_epochs=n_epochs, seed=seed)["coef"]
        return 100 * np.mean((self.X_test @ coef.T).argmax(axis=1) == self.y_test)

    def zero_shot(self):
        clf = ZeroShotClassifier(self.base).fit(None, np.arange(len(self.base)))
        return 100 * clf.score(self.X_test, self.y_test)


def main():
    dtd = DTD(os.environ["SKLEARN_TASKRES_TEST_DATA"])
    print(f"zero-shot {dtd.zero_shot():.2f}; mean of {N_DRAWS} draws, {time.strftime('%Y-%m-%d')}")
    print("shots      " + "".join(f"{k:>8}" for k in SHOTS))
    rows = {
        "estimator": dtd.estimator,
        "naive loop": dtd.naive,
        **{n: lambda k, s, p=p: dtd.estimator(k, s, **p) for n, p in VARIANTS.items()},
    }
    for name, accuracy in rows.items():
        means = [np.mean([accuracy(k, seed) for seed in range(N_DRAWS)]) for k in SHOTS]
        print(f"{name:11}" + "".join(f"{mean:8.2f}" for mean in means), flush=True)


if __name__ == "__main__":
    sys.exit(main())
