"""Which parameters CoOp needs with the bundled model, and what it gains on its zero-shot: digits.

Parameters are compared on the first half of the digits, fitted on shots drawn from it and judged on
its other rows. Some, CHOSEN, are then judged on all digits, each draw on all other rows.

Run ``OMP_NUM_THREADS=1 python tests/measure_coop.py`` for both tables, ``... final`` for the second
alone.
"""

import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    CoOpClassifier,
    TaskResClassifier,
    ZeroShotClassifier,
    sample_few_shot,
)

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXT = CLIPTextFeaturizer("glyph-clip")
SEEDS = range(5)
#: What the development half chose: lr makes no difference, 4 vectors are as good as 12, and a
#: context for each class is the best.
CHOSEN = [
    {"n_context": 4},
    {"context_init": "a photo of a"},
    {"n_context": 4, "class_specific": True},
    {"context_init": "a photo of a", "class_specific": True},
]
CANDIDATES = [
    *({"n_context": m, "lr": lr} for m in (4, 8, 12) for lr in (1e-3, 2e-3, 5e-3, 1e-2)),
    *({"context_init": "a photo of a", "lr": lr} for lr in (1e-3, 2e-3, 5e-3, 1e-2)),
    {"n_context": 4, "class_specific": True},
    {"n_context": 4, "class_specific": True, "lr": 1e-2},
    {"context_init": "a photo of a", "class_specific": True},
    {"n_context": 4, "class_token_position": "middle"},
]


def digits(n_rows=1797):
    data = load_digits()
    X = CLIPFeaturizer("glyph-clip").transform(data.images[:n_rows] / 16)
    return X, data.target[:n_rows]


def measured(make, X, y, n_shots):
    """Accuracies in percent over the draws, each on all other rows, and seconds of each fit."""
    scores, seconds = [], []
    for seed in SEEDS:
        train = sample_few_shot(y, n_shots, random_state=seed)
        rest = np.setdiff1d(np.arange(len(y)), train)
        start = time.perf_counter()
        clf = make(seed).fit(X[train], y[train])
        seconds.append(time.perf_counter() - start)
        scores.append(100 * clf.score(X[rest], y[rest]))
    return np.array(scores), np.array(seconds)


def coop(**params):
    return lambda seed: CoOpClassifier(TEXT, class_names=NAMES, random_state=seed, **params)


def zero_shot(seed):
    return ZeroShotClassifier(TEXT, class_names=NAMES)


def taskres(seed):
    return TaskResClassifier(TEXT, class_names=NAMES, random_state=seed)


def table(title, rows, shots, X, y):
    print(f"{title}: mean ± standard deviation of {len(SEEDS)} draws, (seconds of the slowest fit)")
    print(f"{'shots':58}" + "".join(f"{k:>20}" for k in shots))
    for name, make in rows.items():
        print(f"{name:58}", end="")
        for k in shots:
            scores, seconds = measured(make, X, y, k)
            cell = f"{scores.mean():.2f} ± {scores.std(ddof=1):.2f} ({seconds.max():.1f})"
            print(f"{cell:>20}", end="", flush=True)
        print()


def main():
    torch.set_num_threads(1)
    if "final" not in sys.argv:
        rows = {"zero-shot": zero_shot} | {str(params): coop(**params) for params in CANDIDATES}
        table("first 898 digits", rows, [8, 16], *digits(898))
    rows = {"zero-shot": zero_shot, "TaskRes": taskres}
    rows |= {str(params): coop(**params) for params in CHOSEN}
    table("all digits", rows, [1, 2, 4, 8, 16], *digits())


if __name__ == "__main__":
    sys.exit(main())
