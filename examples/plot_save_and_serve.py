"""
Save a model and serve its predictions
======================================

A fitted model is a few small arrays and no network. Where the images have been embedded already,
a process that loads it predicts with NumPy alone: it answers much sooner, and never imports
torch.
"""

# %%
# Train, and save
# ---------------
# The whole pipeline takes images. Its last step alone takes embeddings.

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import skops.io
from sklearn.datasets import load_digits

import sklearn_taskres
from sklearn_taskres import make_taskres_pipeline, sample_few_shot

digits = load_digits()
images, y = digits.images[:500] / 16, digits.target[:500]
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
train = sample_few_shot(y, 8, random_state=0)
model = make_taskres_pipeline("glyph-clip", class_names=names, random_state=0)
model.fit(images[train], y[train])

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
joblib.dump(model, folder / "pipeline.joblib")
joblib.dump(model["taskres"], folder / "classifier.joblib")

# %%
# Exchange
# --------
# A joblib file can run code when it is loaded: load only your own. A skops file cannot. It names
# the types that it holds, and whoever loads it says which are trusted. Compress it: skops spells
# out the training history in long words.

skops.io.dump(model["taskres"], folder / "classifier.skops", compression=zipfile.ZIP_DEFLATED)
types = skops.io.get_untrusted_types(file=folder / "classifier.skops")
print("types to trust:", *types, sep="\n  ")
assert all(name.startswith("sklearn_taskres.") for name in types)
exchanged = skops.io.load(folder / "classifier.skops", trusted=types)

X = model["clip"].transform(images)
assert np.array_equal(exchanged.predict_proba(X), model["taskres"].predict_proba(X))

# %%
# Serve
# -----
# Two fresh processes label 500 digits: from images with the pipeline, and from embeddings with the
# classifier. Each says whether it imported torch.

np.save(folder / "embeddings.npy", X)
np.save(folder / "images.npy", images)
SERVER = """
import sys, joblib, numpy
model, data, answers = sys.argv[1:]
numpy.save(answers, joblib.load(model).predict(numpy.load(data)))
print("torch" in sys.modules)
"""


def serve(model, data):
    files = [folder / name for name in (model, data, "answers.npy")]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", SERVER, *files], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - begun
    return np.load(files[-1]), done.stdout.strip() == "True", seconds


from_images, needs_torch, image_seconds = serve("pipeline.joblib", "images.npy")
assert needs_torch
from_embeddings, needs_torch, embedding_seconds = serve("classifier.joblib", "embeddings.npy")
assert not needs_torch
assert np.array_equal(from_images, from_embeddings)
assert np.array_equal(from_images, model.predict(images))
assert embedding_seconds < image_seconds
print(f"from images, with torch:        {image_seconds:.1f} s")
print(f"from embeddings, without torch: {embedding_seconds:.1f} s")

# %%
# The picture
# -----------
# The model's size beside that of its CLIP's weights. This CLIP is tiny; common ones have hundreds
# of megabytes. The model is little more than three arrays of classes by features, here 10 by 128.

weights = next(Path(sklearn_taskres.__file__).parent.rglob("glyph-clip.safetensors"))
files = {
    "its CLIP": weights,
    "pipeline.joblib": folder / "pipeline.joblib",
    "classifier.joblib": folder / "classifier.joblib",
    "classifier.skops": folder / "classifier.skops",
}
sizes = [path.stat().st_size / 1024 for path in files.values()]
print(*(f"{name:18}{size:6.0f} kB" for name, size in zip(files, sizes, strict=True)), sep="\n")
assert sizes[0] > 20 * max(sizes[1:])
temporary.cleanup()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
bars = left.barh(list(files), sizes, color=["0.75", *["tab:blue"] * 3])
left.bar_label(bars, fmt="{:.0f} kB", padding=4)
left.set(title="Size", xlim=(0, 1.35 * max(sizes)), xticks=[])
left.invert_yaxis()
seconds = [image_seconds, embedding_seconds]
bars = right.barh(["images,\nwith torch", "embeddings,\nwithout torch"], seconds)
right.bar_label(bars, fmt="{:.1f} s", padding=4)
right.set(title=f"A fresh process labels {len(y)} digits", xticks=[])
right.set_xlim(0, 1.25 * max(seconds))
right.invert_yaxis()
for ax in (left, right):
    ax.spines[["top", "right", "bottom"]].set_visible(False)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
