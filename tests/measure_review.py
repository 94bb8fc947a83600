"""Label review: wrong labels found, what chosen images are worth, images of none of the classes.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_review.py [PART ...]``; without parts
all run, in a few minutes on two cores. Textures (dtd, 47 classes) are drawn from val and judged on
test; with ``--val`` they are judged on a part of val, for whoever changes a function.
"""

import argparse

import numpy as np
import torch
from measure_taskres_gda import digits, paired, textures
from sklearn.metrics import roc_auc_score

from sklearn_taskres import CLIPFeaturizer
from sklearn_taskres._clip.glyph import render
from sklearn_taskres._clip.glyph.strokes import DIGITS, GLYPHS
from sklearn_taskres.benchmark.methods import METHODS
from sklearn_taskres.inspection import label_suspects, next_to_label, none_of_these

DRAWS = range(10)
#: What the command fits by default, and the paper's method.
CLASSIFIERS = ("taskres-gda", "taskres")
#: TaskRes trains for twice as many epochs if most classes have more than four images, which forty
#: random images bring about and twenty do not; the last is trained equally long with both.
LEARNERS = {"taskres-gda": {}, "taskres": {}, "taskres, 200 epochs": {"max_epochs": 200}}
CHOSEN, RANDOM = 20, 40


def part_suspects(args):
    """Wrong labels among the first suspects: 5 of 160 digits, 24 of 752 textures."""
    for name, task, wrong, first in (
        ("digits", digits(), 5, 8),
        ("textures", textures(args.judge), 24, 24),
    ):
        for method in CLASSIFIERS:
            found = [_found(task, method, wrong, first, seed) for seed in DRAWS]
            print(
                f"{name}, {method}: of {wrong} wrong labels {np.median(found):g} are among the "
                f"first {first} suspects in the median of {len(found)} draws, {min(found)} to "
                f"{max(found)}",
                flush=True,
            )


def _found(task, method, n_wrong, n_first, seed):
    """Count the wrong labels among the first suspects; 16 images per class."""
    rows, rng = task.draw(16, seed), np.random.RandomState(seed)
    y, n_classes = task.y[rows].copy(), len(task.base)
    wrong = rng.permutation(len(y))[:n_wrong]
    y[wrong] = (y[wrong] + rng.randint(1, n_classes, n_wrong)) % n_classes
    clf = METHODS[method](task.base, [str(i) for i in range(n_classes)], seed)
    suspects = label_suspects(clf, task.X[rows], y)
    return len(np.intersect1d(suspects.indices[:n_first], wrong))


def part_next(args):
    """Accuracy that 20 images chosen by next_to_label add to 4 per class, and 40 random ones."""
    for name, task in (("digits", digits()), ("textures", textures(args.judge))):
        for method in LEARNERS:
            gains = np.array([_gains(task, method, seed) for seed in DRAWS])
            chosen, same, twice = gains.T
            print(
                f"{name}, {method}: {CHOSEN} chosen {paired(chosen)}, {CHOSEN} random "
                f"{paired(same)}, {RANDOM} random {paired(twice)}; chosen less {RANDOM} random "
                f"{paired(chosen - twice)}",
                flush=True,
            )


def _gains(task, method, seed):
    """Points that the chosen, as many random, and twice as many random images add."""
    rows = task.draw(4, seed)
    pool = np.setdiff1d(np.arange(len(task.y)), rows)

    def fit(rows):
        names = [str(i) for i in range(len(task.base))]
        make = METHODS[method.partition(",")[0]]
        clf = make(task.base, names, seed, **LEARNERS[method])
        return clf.fit(task.X[rows], task.y[rows])

    start = fit(rows)
    chosen = next_to_label(start, task.X[pool], CHOSEN, X_labeled=task.X[rows])
    # five random draws, for their spread is larger than the gain
    shuffled = [np.random.RandomState([seed, i]).permutation(len(pool)) for i in range(5)]

    def gain(more):
        more_rows = np.concatenate([rows, pool[more]])
        return task.accuracy(fit(more_rows)) - task.accuracy(start)

    random = [np.mean([gain(order[:n]) for order in shuffled]) for n in (CHOSEN, RANDOM)]
    return gain(chosen), *random


def part_none(args):
    """AUROC of none_of_these and of the highest probability: letters, ten other textures."""
    task = digits()
    for name, coarse in (("letters of 8 x 8 pixels", 1.0), ("letters of 32 x 32 pixels", 0.0)):
        letters = _letters(coarse)
        _print_auroc(f"digits against {name}", [(task, letters, seed) for seed in DRAWS])
    _print_auroc("37 textures against 10 others", [(*_held_back(args.judge, s), s) for s in DRAWS])


def _letters(coarse):
    """Embeddings of letters in fonts, drawn as the bundled model's training pictures are."""
    images, labels, _, _ = render.draw(
        1000, torch.Generator().manual_seed(0), letters=1.0, coarse=coarse
    )
    assert not set(labels.tolist()) & set(range(len(DIGITS))), GLYPHS
    return CLIPFeaturizer("glyph-clip").transform(images.numpy())


def _held_back(judge, seed):
    """Return the task of 37 textures, and the rows of the other ten to judge on."""
    task, order = textures(judge), np.random.RandomState(seed).permutation(47)
    return task.among(np.sort(order[10:])), task.X_test[np.isin(task.y_test, order[:10])]


def _print_auroc(name, cases):
    """Print figures of both scores, and of the threshold, over tasks with strange rows."""
    for method in CLASSIFIERS:
        found = np.array([_auroc(method, *case) for case in cases])
        score, highest, kept, sent = 100 * found.mean(axis=0)
        print(
            f"{name}, {method}: AUROC {score:.1f} by the score, {highest:.1f} by the highest "
            f"probability, score less that {paired(100 * (found[:, 0] - found[:, 1]))}; at "
            f"share=0.95 it keeps {kept:.1f} % and tells {sent:.1f} % of the others",
            flush=True,
        )


def _auroc(method, task, others, seed):
    """Area by the score and by the highest probability, images kept, others told."""
    rows = task.draw(16, seed)
    clf = task.fit(method, rows, seed)
    judge = none_of_these(clf, task.X[rows], task.y[rows])
    X = np.concatenate([task.X_test, others])
    belongs = np.arange(len(X)) < len(task.X_test)
    highest = clf.predict_log_proba(X).max(axis=1)
    none = judge.predict(X)
    return (
        roc_auc_score(belongs, judge.score(X)),
        roc_auc_score(belongs, highest),
        np.mean(~none[belongs]),
        np.mean(none[~belongs]),
    )


PARTS = {
    name.removeprefix("part_"): function
    for name, function in list(globals().items())
    if name.startswith("part_")
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure")
    parser.add_argument("--val", dest="judge", action="store_const", const="val", default="test")
    args = parser.parse_args()
    for part in args.parts or PARTS:
        print(f"== {part}: {PARTS[part].__doc__}", flush=True)
        PARTS[part](args)


if __name__ == "__main__":
    main()
