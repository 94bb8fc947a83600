"""TaskResGDAClassifier held against all other methods, and if its Gaussian should step back.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_taskres_gda.py [PART ...]``; without
parts all run, in about half an hour on two cores. Textures (dtd, 47 classes) are drawn from val and
judged on test; with ``--val`` they are judged on the rest of val, for whoever tunes something.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    TaskResGDAClassifier,
    sample_few_shot,
)
from sklearn_taskres._classifiers.gaussian import class_moments
from sklearn_taskres._classifiers.held_out_gaussian import log_likelihoods
from sklearn_taskres._classifiers.text_gaussian import text_gaussian
from sklearn_taskres.benchmark.methods import METHODS
from sklearn_taskres.inspection._figures import calibration_error

SHOTS, DRAWS = (1, 2, 4, 8, 16), range(10)
#: Everything that needs no text tower, at its defaults.
EXISTING = (
    "zero-shot",
    "linear-probe",
    "clip-adapter",
    "tip-adapter",
    "tip-adapter-f",
    "gda",
    "gda-text-prior",
    "clap",
    "prolip",
    "taskres",
    "taskres-alpha-1",
)
OURS = "taskres-gda"


class Task:
    """Image rows to draw shots from, image rows to judge on, and raw class embeddings."""

    def __init__(self, X, y, X_test, y_test, base):
        self.X, self.y, self.X_test, self.y_test, self.base = X, y, X_test, y_test, base

    def draw(self, n_shots, seed):
        """Rows of one draw."""
        return sample_few_shot(self.y, n_shots, random_state=seed)

    def among(self, classes):
        """The same task with these classes only, numbered anew."""
        number = {label: i for i, label in enumerate(classes)}
        parts = []
        for X, y in ((self.X, self.y), (self.X_test, self.y_test)):
            rows = np.isin(y, classes)
            parts += [X[rows], np.array([number[label] for label in y[rows]])]
        return Task(*parts, self.base[classes])

    def fit(self, method, rows, seed, y=None, base=None):
        """Fit a method on some rows."""
        base = self.base if base is None else base
        clf = METHODS[method](base, [str(i) for i in range(len(base))], seed)
        return clf.fit(self.X[rows], self.y[rows] if y is None else y)

    def accuracy(self, clf):
        """Accuracy in percent."""
        return 100 * np.mean(clf.predict(self.X_test) == self.y_test)


def textures(judge="test"):
    """The 47 textures."""
    with np.load(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"]) / "clip_vitb32_dtd.npz") as data:
        X, y, base = data["X_val"].astype(np.float32), data["y_val"], data["text"]
        if judge == "test":
            X_test, y_test = data["X_test"].astype(np.float32), data["y_test"]
        else:
            X, X_test, y, y_test = train_test_split(X, y, stratify=y, test_size=0.3, random_state=0)
    return Task(X, y, X_test, y_test, 10 * base.astype(np.float32))


def digits():
    """scikit-learn's digits, embedded by the model that comes with the package."""
    data = load_digits()
    X = CLIPFeaturizer("glyph-clip").transform(data.images / 16)
    base = CLIPTextFeaturizer("glyph-clip").fit_transform([str(i) for i in range(10)])
    pool, test = train_test_split(
        np.arange(len(X)), stratify=data.target, test_size=0.5, random_state=0
    )
    return Task(X[pool], data.target[pool], X[test], data.target[test], base)


def paired(differences):
    """Mean and standard error of differences."""
    values = np.asarray(differences)
    return f"{values.mean():+6.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


def all_methods(task, shots, draws, change=lambda rows, seed: {}):
    """Print every method at every number of images; return accuracies by shots and method."""
    print(f"{'images per class':18}" + "".join(f"{k:>8}" for k in shots))
    found = {}
    for method in (*EXISTING, OURS):
        for k in shots:
            rows = [(task.draw(k, seed), seed) for seed in draws]
            found[k, method] = [
                task.accuracy(task.fit(method, r, seed, **change(r, seed))) for r, seed in rows
            ]
        means = "".join(f"{np.mean(found[k, method]):8.2f}" for k in shots)
        print(f"{method:18}{means}", flush=True)
    for k in shots:
        best = max(EXISTING, key=lambda name: np.mean(found[k, name]))
        difference = paired(np.subtract(found[k, OURS], found[k, best]))
        print(f"{k:2} images per class: {OURS} less the best of the others, {best}: {difference}")
    return found


def part_dtd(args):
    """Accuracy on the textures, all methods."""
    all_methods(textures(args.judge), SHOTS, DRAWS)


def part_digits(args):
    """Accuracy on the digits, all methods."""
    all_methods(digits(), SHOTS, DRAWS)


def part_few_classes(args):
    """Two, three and five textures: less TaskRes alone, and draws that fall below zero-shot."""
    task = textures(args.judge)
    for n_classes in (2, 3, 5):
        for k in SHOTS:
            difference, below = [], {"taskres": [], OURS: []}
            for seed in range(30):
                classes = np.sort(np.random.RandomState(seed).permutation(47)[:n_classes])
                few = task.among(classes)
                rows = few.draw(k, seed)
                zero_shot = few.accuracy(few.fit("zero-shot", rows, seed))
                found = {name: few.accuracy(few.fit(name, rows, seed)) for name in below}
                difference.append(found[OURS] - found["taskres"])
                for name, accuracy in found.items():
                    below[name].append(accuracy < zero_shot)
            shares = ", ".join(f"{name} {100 * np.mean(b):.0f} %" for name, b in below.items())
            print(
                f"{n_classes} classes, {k:2} images per class: less TaskRes {paired(difference)}; "
                f"below zero-shot: {shares}",
                flush=True,
            )


def part_wrong_labels(args):
    """30 % of the images with a wrong label: zero-shot, TaskRes, both joined."""
    task = textures(args.judge)
    for k in SHOTS:
        found = {"zero-shot": [], "taskres": [], OURS: []}
        for seed in DRAWS:
            rng, rows = np.random.RandomState(seed), task.draw(k, seed)
            y = task.y[rows].copy()
            wrong = rng.permutation(len(y))[: round(0.3 * len(y))]
            y[wrong] = (y[wrong] + rng.randint(1, 47, len(wrong))) % 47
            kept = np.unique(y)  # a class may have lost its images
            judged = task.among(kept) if len(kept) < 47 else task
            number = np.searchsorted(kept, y)
            for name, values in found.items():
                clf = METHODS[name](task.base[kept], [str(c) for c in kept], seed)
                values.append(judged.accuracy(clf.fit(task.X[rows], number)))
        means = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in found.items())
        print(f"{k:2} images per class: {means}", flush=True)


def part_wrong_names(args):
    """The names of 30 % of the classes rotated among them, all methods."""
    task = textures(args.judge)

    def rotated(rows, seed):
        order, wrong = np.arange(47), np.random.RandomState(seed).permutation(47)[:14]
        order[wrong] = np.roll(wrong, 1)
        return {"base": task.base[order]}

    all_methods(task, SHOTS, DRAWS, rotated)


def part_many_images(args):
    """Up to 48 images per class judged on the rest of dtd's val and test together."""
    task = textures()
    X, y = np.concatenate([task.X, task.X_test]), np.concatenate([task.y, task.y_test])
    rows, rest = train_test_split(np.arange(len(X)), stratify=y, test_size=12 * 47, random_state=0)
    wide = Task(X[rows], y[rows], X[rest], y[rest], task.base)
    all_methods(wide, (8, 16, 32, 48), range(3))


def part_cost(args):
    """Seconds of a fit compared with TaskRes alone, and of the Gaussian of 1000 classes."""
    rng = np.random.default_rng(0)
    for n_classes, d in ((47, 512), (101, 512)):
        y = np.repeat(np.arange(n_classes), 16)
        base = rng.normal(size=(n_classes, d)).astype(np.float32)
        X = (base[y] + 3 * rng.normal(size=(len(y), d))).astype(np.float32)
        fits = TaskResClassifier(base, alpha=1.0), TaskResGDAClassifier(base)
        seconds = np.array([[_seconds(clf.fit, X, y) for clf in fits] for _ in range(40)])
        ratio = np.median(seconds[:, 1] / seconds[:, 0])
        best = seconds.min(axis=0)
        print(
            f"{n_classes} x {d}, 16 images per class: TaskRes {best[0]:.3f} s, joined "
            f"{best[1]:.3f} s, median ratio {ratio:.2f}"
        )
    y = np.repeat(np.arange(1000), 16)
    base = rng.normal(size=(1000, 1024)).astype(np.float32)
    X = (base[y] + 3 * rng.normal(size=(len(y), 1024))).astype(np.float32)
    seconds = min(_seconds(lambda: text_gaussian(class_moments(X, y), base, 8.0)) for _ in range(3))
    print(f"the Gaussian of 1000 x 1024, 16 images per class: {seconds:.2f} s")


def _seconds(function, *args):
    time.sleep(0.2)
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def part_calibration(args):
    """Log loss and expected calibration error (15 bins), of textures and digits."""
    for name, task in (("textures", textures(args.judge)), ("digits", digits())):
        for k in SHOTS:
            found = {"zero-shot": [], "taskres": [], OURS: []}
            for seed in DRAWS:
                rows = task.draw(k, seed)
                for method, values in found.items():
                    p = task.fit(method, rows, seed).predict_proba(task.X_test)
                    loss = -log_likelihoods(np.log(np.maximum(p, 1e-300)), task.y_test).mean()
                    values.append((loss, 100 * calibration_error(p, task.y_test)))
            texts = (
                f"{method} {np.mean(values, axis=0)[0]:.3f} / {np.mean(values, axis=0)[1]:.1f}"
                for method, values in found.items()
            )
            print(f"{name}, {k:2} images per class, log loss / error in points: {', '.join(texts)}")


def part_unlabeled(args):
    """What images without labels add, if balanced and if of a few classes only; on val."""
    with np.load(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"]) / "clip_vitb32_dtd.npz") as data:
        X, y, base = data["X_val"].astype(np.float32), data["y_val"], data["text"]
    base = 10 * base.astype(np.float32)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, test_size=0.3, random_state=0)
    pools = {"balanced": None, "25 classes": 25, "10 classes": 10, "5 classes": 5, "64 images": 64}
    for k in (1, 2, 4):
        for name, size in pools.items():
            differences = []
            for seed in DRAWS:
                rows = sample_few_shot(y, k, random_state=seed)
                pool = np.setdiff1d(np.arange(len(y)), rows)
                rng = np.random.RandomState(seed)
                if name.endswith("classes"):
                    pool = pool[np.isin(y[pool], rng.permutation(47)[:size])]
                elif name.endswith("images"):
                    pool = rng.permutation(pool)[:size]
                without = TaskResGDAClassifier(base, random_state=seed).fit(X[rows], y[rows])
                given = np.concatenate([y[rows], np.full(len(pool), -1)])
                both = np.concatenate([rows, pool])
                clf = TaskResGDAClassifier(base, random_state=seed).fit(X[both], given)
                differences.append(
                    100 * (clf.score(X_test, y_test) - without.score(X_test, y_test))
                )
            print(f"{k} images per class, pool {name:10}: {paired(differences)}", flush=True)


PARTS = {
    name.removeprefix("part_").replace("_", "-"): function
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
