"""
Search with cached embeddings
=============================

A grid search over a whole pipeline, from images to labels, asks for the embedding of each image
many times over. The featurizer keeps embeddings by the content of the image, so the CLIP runs once
an image, however many candidates and folds there are, and not at all when the search is repeated.
"""

# %%
# A search over the whole pipeline
# --------------------------------
# Prompt and alpha are searched together: 6 candidates, 4 folds, 160 images. Scikit-learn fits and
# scores each pair of candidate and fold, and fits the best on all images at the end.

import sys
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV

from sklearn_taskres import (
    EmbeddingCache,
    load_digit_images,
    make_taskres_pipeline,
    sample_few_shot,
)

images, y, names = load_digit_images()
train = sample_few_shot(y, 16, random_state=0)
pipeline = make_taskres_pipeline("glyph-clip", class_names=names, random_state=0)
grid = {
    "taskres__base__templates": ["a photo of a {}.", "a handwritten digit {}"],
    "taskres__alpha": [0, 0.5, 2],
}
pipeline.fit(images[:20], y[:20])  # imports torch and loads the CLIP, so that no time below does


def search(cache):
    found = GridSearchCV(pipeline.set_params(clip__cache=cache), grid, cv=4)
    begun = time.perf_counter()
    found.fit(images[train], y[train])
    return found, time.perf_counter() - begun


# %%
# Without a cache
# ---------------
# Every fit and every score encodes its images: all 160 for each of 24 pairs, and 160 at the end.

seconds = {}
uncached, seconds["without a cache"] = search(cache=None)
n_encoded = (len(uncached.cv_results_["params"]) * uncached.n_splits_ + 1) * len(train)
print(f"{n_encoded} embeddings asked for, of {len(train)} images")

# %%
# With one
# --------
# A folder is shared by processes (``n_jobs=2``) and by runs. The default, ``"memory"``, does the
# same within a process.

folder = tempfile.TemporaryDirectory()
cache = EmbeddingCache(folder.name)
cached, seconds["new folder"] = search(cache)
assert cache.entries == len(train)
print(f"{cache.entries} embeddings kept, in {cache.size / 1024:.0f} kB")

again, seconds["the same folder again"] = search(cache)
assert cache.entries == len(train)
assert again.best_params_ == cached.best_params_ == uncached.best_params_
for name in ("mean_test_score", "std_test_score"):
    assert np.allclose(cached.cv_results_[name], uncached.cv_results_[name])
    assert np.array_equal(cached.cv_results_[name], again.cv_results_[name])
print(f"best: {again.best_params_}")

# %%
# It is the content that counts
# -----------------------------
# Copies, another order, or another search find the embeddings again. Only what is new is encoded.

clip = pipeline["clip"]
clip.transform(images[train[::-1]].copy())
assert cache.entries == len(train)
new = np.setdiff1d(np.arange(len(y)), train)[:10]
clip.transform(images[np.concatenate([train, new])])
assert cache.entries == len(train) + len(new)
folder.cleanup()

# %%
# The picture
# -----------
# What is left with a cache is the training of 25 classifiers.

for name, spent in seconds.items():
    print(f"{name:22}{spent:6.1f} s")
assert seconds["the same folder again"] < seconds["without a cache"]

figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
bars = ax.barh(list(seconds), list(seconds.values()), color=["0.75", "tab:blue", "tab:blue"])
encoded = [n_encoded, len(train), 0]
labels = [f"{s:.1f} s, {n} encoded" for s, n in zip(seconds.values(), encoded, strict=True)]
ax.bar_label(bars, labels, padding=4)
ax.set(xlim=(0, 1.45 * max(seconds.values())), xlabel="seconds")
ax.set_title(f"One grid search over {len(train)} images, three times")
ax.invert_yaxis()
ax.spines[["top", "right"]].set_visible(False)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
