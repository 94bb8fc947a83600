"""
Compare all methods
===================

Every method of the TaskRes paper's comparison, and two later ones, on handwritten digits with the
bundled ``glyph-clip``: the same few labelled images, the same test images, each method's choices
made on its training images alone. Accuracy and the time of a fit, from 1 to 16 images per class.
"""

# %%
# One interface
# -------------
# Images become embeddings once. All methods take them the same way, so that comparing is a loop.

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from sklearn_taskres import (
    CLAPClassifier,
    CLIPAdapterClassifier,
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    CoOpClassifier,
    GDAClassifier,
    LinearProbeClassifier,
    TaskResClassifier,
    TaskResGDAClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
    load_digit_images,
    sample_few_shot,
)

images, y, names = load_digit_images()
X = CLIPFeaturizer("glyph-clip").transform(images)
text = {"base": CLIPTextFeaturizer("glyph-clip"), "class_names": names}
methods = {
    "zero-shot": ZeroShotClassifier(**text),
    "linear probe": LinearProbeClassifier(random_state=0),
    "CoOp": CoOpClassifier(**text, n_context=4, random_state=0),
    "CLIP-Adapter": CLIPAdapterClassifier(**text, random_state=0),
    "Tip-Adapter": TipAdapterClassifier(**text, random_state=0),
    "Tip-Adapter-F": TipAdapterClassifier(**text, fine_tune=True, random_state=0),
    "GDA": GDAClassifier(**text, random_state=0),
    "CLAP": CLAPClassifier(**text, random_state=0),
    "TaskRes": TaskResClassifier(**text, random_state=0),
    "TaskRes + Gaussians": TaskResGDAClassifier(**text, random_state=0),
}

# %%
# The loop
# --------
# Two draws, so that this runs in a minute; papers take three and more. A first fit pays for the
# imports, so that no method's time holds them.

SHOTS, SEEDS = [1, 2, 4, 8, 16], range(2)
accuracy, seconds = ({name: np.zeros((len(SHOTS), len(SEEDS))) for name in methods} for _ in "as")
tuned = {}
start = time.perf_counter()
clone(methods["TaskRes"]).fit(X[:100], y[:100])
for name, method in methods.items():
    for i, n_shots in enumerate(SHOTS):
        for j, seed in enumerate(SEEDS):
            train = sample_few_shot(y, n_shots, random_state=seed)
            test = np.setdiff1d(np.arange(len(y)), train)
            begun = time.perf_counter()
            fitted = clone(method).fit(X[train], y[train])
            seconds[name][i, j] = time.perf_counter() - begun
            accuracy[name][i, j] = fitted.score(X[test], y[test])
            tuned[name] = fitted.n_parameters_

print("accuracy in %, seconds of a fit at 16 images per class, values tuned there\n")
print(
    f"{'images per class':24}" + "".join(f"{k:>7}" for k in SHOTS) + f"{'seconds':>9}{'tuned':>9}"
)
for name, values in accuracy.items():
    means = "".join(f"{100 * v:7.1f}" for v in values.mean(axis=1))
    print(f"{name:24}{means}{np.median(seconds[name][-1]):9.2f}{tuned[name]:9}")
best = [max(accuracy, key=lambda name: accuracy[name][i].mean()) for i in range(len(SHOTS))]
print("\nbest: " + ", ".join(f"{name} at {k}" for k, name in zip(SHOTS, best, strict=True)))

# %%
# The picture
# -----------
# Methods by their accuracy at 16 images per class. On a task this easy they are close, and what a
# fit costs tells them apart.

order = sorted(methods, key=lambda name: accuracy[name][-1].mean())
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4.5), sharey=True, width_ratios=[2, 1], layout="constrained"
)
for i, n_shots in enumerate(SHOTS):
    means = [100 * accuracy[name][i].mean() for name in order]
    color = plt.get_cmap("viridis_r")(i / (len(SHOTS) - 1))
    left.scatter(means, order, color=color, s=20 + 20 * i, label=n_shots, zorder=3)
left.set(xlabel="accuracy in %", title="Handwritten digits")
left.legend(title="images per class")
right.plot([np.median(seconds[name][-1]) for name in order], order, "o")
right.set(xlabel="seconds to fit 16 images per class", title="Cost", xscale="log")
for ax in (left, right):
    ax.grid(alpha=0.3)

print(f"took {time.perf_counter() - start:.0f} s")
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
