"""Where the enhanced base's default learning rate comes from: DTD and digits, development rows.

DTD ships no features before the projection, so they are made from the text embeddings t by a random
rotation Q: h = t Qᵀ and P = Q give t back, with elements of the size that CLIP's have. Fits on rows
drawn from DTD's val part, or the first half of the digits; judged on the other rows of it. Last
comes the default rate on all digits.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_enhanced_base.py`` for the table.
"""

import os
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from sklearn_taskres import CLIPFeaturizer, CLIPTextFeaturizer, TaskResClassifier, sample_few_shot
from sklearn_taskres._clip.text import ClassFeatures

SHOTS, SEEDS = [1, 4, 8, 16], range(5)
RATES = [3e-5, 1e-4, 2e-4, 3e-4, 1e-3]


class RotatedText:
    """Stand-in for a text featurizer whose class names are row numbers of t (K, d)."""

    model_name, pretrained = "DTD", "val"

    def __init__(self, t):
        self.t = t
        rng = np.random.default_rng(0)
        self.Q = np.linalg.qr(rng.normal(size=(t.shape[1],) * 2))[0].astype(t.dtype)

    def transform(self, names):
        return self.t[np.asarray(names, dtype=int)]

    def class_features(self, names):
        return ClassFeatures(self.transform(names) @ self.Q.T, self.Q, None)

    def logit_scale(self):
        return 100.0


def dtd(folder):
    with np.load(Path(folder) / "clip_vitb32_dtd.npz") as data:
        text = RotatedText(10 * data["text"].astype(np.float32))
        return text, list(map(str, range(47))), data["X_val"].astype(np.float32), data["y_val"]


def digits(n_rows=898):
    data = load_digits()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    X = CLIPFeaturizer("glyph-clip").transform(data.images[:n_rows] / 16)
    return CLIPTextFeaturizer("glyph-clip"), names, X, data.target[:n_rows]


def accuracy(task, n_shots, seed, **params):
    text, names, X, y = task
    train = sample_few_shot(y, n_shots, random_state=seed)
    rest = np.setdiff1d(np.arange(len(y)), train)
    clf = TaskResClassifier(text, class_names=names, random_state=seed, **params)
    return 100 * clf.fit(X[train], y[train]).score(X[rest], y[rest])


def main():
    tasks = {"digits": digits(), "DTD": dtd(os.environ["SKLEARN_TASKRES_TEST_DATA"])}
    for name, task in tasks.items():
        print(f"{name}: mean of {len(SEEDS)} draws; base alone / with residual")
        print("shots       " + "".join(f"{k:>16}" for k in SHOTS))
        for rate in [None, *RATES]:
            params = {} if rate is None else {"enhanced_base": True, "enhanced_lr": rate}
            cells = []
            for k in SHOTS:
                alone, full = (
                    np.mean([accuracy(task, k, s, alpha=a, **params) for s in SEEDS])
                    for a in (0, 0.5)
                )
                cells.append(f"{alone:8.2f} / {full:5.2f}")
            print(f"{'regular' if rate is None else rate!s:12}" + "".join(cells), flush=True)
    task = digits(1797)
    for k in (8, 16):
        regular, enhanced = (
            np.mean([accuracy(task, k, s, enhanced_base=e) for s in SEEDS]) for e in (False, True)
        )
        print(f"all digits, {k} shots: regular {regular:.2f}, enhanced {enhanced:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
