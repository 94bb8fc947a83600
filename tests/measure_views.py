"""What augmented views do to TaskRes on digits: crops without flip, paired with no views.

Run ``python tests/measure_views.py`` (a minute): five draws at 1, 2 and 4 images per class, ten
views per image, tested on all other rows; mean accuracies and paired differences in percent.
"""

import numpy as np
from sklearn.datasets import load_digits

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    ZeroShotClassifier,
    sample_few_shot,
)

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SHOTS, SEEDS, N_VIEWS = (1, 2, 4), range(5), 10


def main():
    digits = load_digits()
    images, y = digits.images / 16, digits.target
    clean = CLIPFeaturizer("glyph-clip").transform(images)
    text = CLIPTextFeaturizer("glyph-clip")
    clf = TaskResClassifier(text, class_names=NAMES, random_state=0)
    zero_shot = ZeroShotClassifier(text, class_names=NAMES).fit(None, np.arange(10))
    for augment in ("tip-no-flip", "taskres-no-flip"):
        clip = CLIPFeaturizer("glyph-clip", n_views=N_VIEWS, augment=augment)
        views = clip.fit_transform(images[:200])
        of_views = np.mean([zero_shot.score(views[:, i], y[:200]) for i in range(1, 1 + N_VIEWS)])
        print(
            f"augment={augment!r}, {N_VIEWS} views; zero-shot on 200 digits: clean "
            f"{100 * zero_shot.score(views[:, 0], y[:200]):.1f}, their views {100 * of_views:.1f}"
        )
        for n_shots in SHOTS:
            scores = []
            for seed in SEEDS:
                train = sample_few_shot(y, n_shots, random_state=seed)
                test = np.setdiff1d(np.arange(len(y)), train)
                without = clf.fit(clean[train], y[train]).score(clean[test], y[test])
                views = clip.fit_transform(images[train])
                scores.append((without, clf.fit(views, y[train]).score(clean[test], y[test])))
            without, with_views = 100 * np.mean(scores, axis=0)
            differences = 100 * np.diff(scores, axis=1)[:, 0]
            error = differences.std(ddof=1) / len(SEEDS) ** 0.5
            print(
                f"  {n_shots} shots: without {without:.2f}, with {with_views:.2f}, "
                f"difference {differences.mean():+.2f} ± {error:.2f}"
            )


if __name__ == "__main__":
    main()
