"""
Measure the difficulty of a task
================================

How much CLIP knows of a task can be measured before training: relative transfer difficulty is the
accuracy of chance over that of zero-shot. Afterwards, the residual shows how far training had to
go, and the classes that got worse show what it cost. Here on handwritten digits, spoiled in eleven
ways.
"""

# %%
# Twelve tasks
# ------------
# 900 digits as they are, and spoiled. The labels stay the same, and so does which 16 images per
# class are trained on: only what CLIP makes of the images differs.

import sys
import warnings

import numpy as np
from scipy.ndimage import rotate

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    ZeroShotClassifier,
    load_digit_images,
    sample_few_shot,
)
from sklearn_taskres.inspection import (
    ClassGainDisplay,
    ResidualMagnitudeDisplay,
    TransferDifficultyDisplay,
    relative_transfer_difficulty,
)

images, y, names = load_digit_images()
images, y = images[:900], y[:900]
pixel = np.arange(8)


def turned(degrees):
    return rotate(images, degrees, axes=(1, 2), reshape=False, order=1)


spoiled = {
    "as they are": images,
    "turned by 30°": turned(30),
    "turned by 45°": turned(45),
    "turned by 90°": turned(90),
    "upside down": turned(180),
    "mirrored": images[:, :, ::-1],
    "black on white": 1 - images,
    "pale": 0.5 + 0.1 * images,
    "noise": images + np.random.default_rng(0).normal(0, 0.3, images.shape),
    "right half hidden": np.where(pixel >= 5, 0, images),
    "top hidden": np.where(pixel[:, None] < 3, 0, images),
    "coarse": images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2),
}
clip = CLIPFeaturizer("glyph-clip")
tasks = {name: clip.transform(np.clip(task, 0, 1)) for name, task in spoiled.items()}
text = {"base": CLIPTextFeaturizer("glyph-clip"), "class_names": names}
clf = TaskResClassifier(**text, random_state=0)
train = sample_few_shot(y, 16, random_state=0)
test = np.setdiff1d(np.arange(len(y)), train)

# %%
# Before training
# ---------------
# The difficulty of a class is that of its zero-shot *precision*: a class is hard when much is taken
# for it that is something else.

X = tasks["right half hidden"]
before = TransferDifficultyDisplay.from_estimator(clf, X[test], y[test], display_labels=names)

# %%
# If zero-shot is good already and the task is not easy, training can end below zero-shot, and a
# warning says so. It is a reason to compare, not a forecast: below, this task gains.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    whole = TransferDifficultyDisplay.from_estimator(
        clf, tasks["as they are"][test], y[test], display_labels=names
    )
print(caught[0].message)
assert whole.is_at_risk
assert not before.is_at_risk

# %%
# After training
# --------------
# Most classes get better. The hardest gets worse: training takes back what was wrongly taken for
# it, and some of what was right goes with it. ``worse_`` names such classes, the worst first; the
# mean over all images hides them.

clf.fit(X[train], y[train])
gains = ClassGainDisplay.from_estimator(clf, X[test], y[test], display_labels=names)
hardest = before.class_difficulties.argmax()
print(f"hardest before: {names[hardest]}, worse after: {[names[label] for label in gains.worse_]}")
assert gains.worse_[0] == hardest

# %%
# Over all tasks
# --------------
# The paper's Figure 4, on twelve small tasks: harder transfers tend to have larger residuals. All
# were trained for the same number of steps, since residuals grow with them; if tasks differ in
# that, ``n_steps`` fits them anew. None ends below zero-shot.

zero_shot = ZeroShotClassifier(**text).fit(None, range(10))
fitted, difficulty = {}, {}
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Zero-shot, the class embeddings")  # at 90° it is at chance
    for name, X in tasks.items():
        fitted[name] = TaskResClassifier(**text, random_state=0).fit(X[train], y[train])
        difficulty[name] = relative_transfer_difficulty(y[test], zero_shot.predict(X[test]))
print(f"{'':18}difficulty  zero-shot  TaskRes")
for name, X in tasks.items():
    accuracy = [100 * c.score(X[test], y[test]) for c in (zero_shot, fitted[name])]
    print(f"{name:18}{difficulty[name]:10.2f}{accuracy[0]:9.1f} %{accuracy[1]:7.1f} %")
    assert accuracy[1] > accuracy[0]

magnitudes = ResidualMagnitudeDisplay.from_estimators(fitted, difficulty)
assert magnitudes.correlation_ > 0.3

if len(sys.argv) > 1:
    magnitudes.figure_.savefig(sys.argv[1], dpi=150)
