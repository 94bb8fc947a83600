"""What honest selection costs GDA and the linear probe: chosen on shots, against the test's best.

Run ``python tests/measure_selection.py`` with SKLEARN_TASKRES_TEST_DATA set (minutes): five draws
of dtd. "best" tries every value on the test rows, which no user can, and which plain loops in the
literature did; "chosen" is the estimator, which sees training images only.
"""

import os
from pathlib import Path

import numpy as np

from sklearn_taskres import GDAClassifier, LinearProbeClassifier, sample_few_shot
from sklearn_taskres._classifiers.gaussian import WEIGHTS

SHOTS, SEEDS = (1, 4, 16), range(5)
CS = np.logspace(-1, 4, 11)


def main():
    data = np.load(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"]) / "clip_vitb32_dtd.npz")
    X, X_test, t = (data[k].astype(np.float32) for k in ("X_val", "X_test", "text"))
    y, y_test = data["y_val"], data["y_test"]
    methods = {
        "GDA": lambda alpha: GDAClassifier(10 * t, alpha=alpha, random_state=0),
        "linear probe": lambda C: LinearProbeClassifier(C, random_state=0),
    }
    for name, make in methods.items():
        for n_shots in SHOTS:
            rows = [sample_few_shot(y, n_shots, random_state=seed) for seed in SEEDS]

            def scores_of(value, make=make, rows=rows):
                fits = (make(value).fit(X[r], y[r]) for r in rows)
                return 100 * np.array([fit.score(X_test, y_test) for fit in fits])

            chosen = scores_of("auto")
            best = np.max([scores_of(v) for v in (WEIGHTS if name == "GDA" else CS)], axis=0)
            print(
                f"{name}, {n_shots} shots: chosen {chosen.mean():.2f}, the test's best in each draw"
                f" {best.mean():.2f}, cost {np.mean(best - chosen):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
