"""
Add classes without images
==========================

A classifier that was trained on some classes can take in more of them by name alone: CLIP knows
what the words mean. Here it learns from the digits 0 to 7, and is then told that "eight" and "nine"
exist.
"""

# %%
# Trained on eight classes
# ------------------------
# 16 images of each of the digits 0 to 7. An eight or a nine can only be labelled wrongly.

import sys

import matplotlib.pyplot as plt
import numpy as np

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    TaskResClassifier,
    ZeroShotClassifier,
    load_digit_images,
    sample_few_shot,
)

images, y, names = load_digit_images()
X = CLIPFeaturizer("glyph-clip").transform(images)
text = CLIPTextFeaturizer("glyph-clip")

train = sample_few_shot(y, 16, random_state=0)
train = train[y[train] < 8]
test = np.setdiff1d(np.arange(len(y)), train)
clf = TaskResClassifier(text, class_names=names[:8], random_state=0).fit(X[train], y[train])
print(f"classes: {clf.classes_.tolist()}")

# %%
# Two more, by name
# -----------------
# ``add_classes`` returns a new classifier. What was learned for the old classes stays as it is; a
# new class gets the weights that its name has in CLIP, and a residual of zero.

wider = clf.add_classes({8: "eight", 9: "nine"})
print(f"classes: {wider.classes_.tolist()}")
assert np.array_equal(wider.residual_[:8], clf.residual_)
assert not wider.residual_[8:].any()
assert clf.classes_.tolist() == list(range(8))

# %%
# And back to fewer
# -----------------
# ``select_classes`` is the way back: the logits of what is left are columns of the others. Use it
# if you know that an image shows one of a few classes.

narrow = wider.select_classes([1, 7])
logits = wider.decision_function(X[:5])
assert np.allclose(narrow.decision_function(X[:5]), logits[:, 7] - logits[:, 1], atol=1e-4)
ones_and_sevens = test[np.isin(y[test], [1, 7])]
print("ones and sevens, labelled correctly among")
print(f"  all ten classes: {100 * wider.score(X[ones_and_sevens], y[ones_and_sevens]):.1f} %")
print(f"  the two of them: {100 * narrow.score(X[ones_and_sevens], y[ones_and_sevens]):.1f} %")

# %%
# What it costs
# -------------
# The new classes compete with trained ones: a nine that looks like a four meets a four that has
# learned what fours look like here. Zero-shot, where no class was trained, is the measure.

zero_shot = ZeroShotClassifier(text, class_names=names).fit(None, range(10))


def recall(classifier):
    predicted = classifier.predict(X[test])
    return np.array([np.mean(predicted[y[test] == label] == label) for label in range(10)])


recalls = {
    "trained on 0 to 7": recall(clf),
    "then told of 8 and 9": recall(wider),
    "zero-shot": recall(zero_shot),
}
print(f"\n{'recall in %':22}" + "".join(f"{name:>7}" for name in names))
for method, values in recalls.items():
    print(f"{method:22}" + "".join(f"{100 * value:7.1f}" for value in values))
before, after, untrained = recalls.values()
assert not before[8:].any()
assert after[8:].min() > 0.7
assert after[:8].mean() > untrained[:8].mean()

# %%
# The picture
# -----------

figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
places = np.arange(10)
ax.bar(places - 0.2, 100 * before, 0.4, color="0.75", label="trained on 0 to 7")
ax.bar(places + 0.2, 100 * after, 0.4, label="the same, told of 8 and 9")
ax.hlines(
    100 * untrained, places - 0.4, places + 0.4, color="black", label="zero-shot, no class trained"
)
for label in (8, 9):
    ax.annotate("0 %", (label - 0.2, 1), ha="center", color="0.4")
ax.set_xticks(places, names)
ax.set(ylabel="recall in %", ylim=(0, 104), title="Eight and nine, added by name without an image")
figure.legend(loc="outside lower center", ncols=3)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
