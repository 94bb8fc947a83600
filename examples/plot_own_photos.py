"""
Classify your own photos
========================

One folder a class is all it takes: the folders' names are the names of the classes, a few images in
each are enough, and what comes out is one small file that labels new images.
"""

# %%
# A folder of images
# ------------------
# The images here are scikit-learn's handwritten digits, written as PNG files into a temporary
# folder, three a class. Take your own folder, and leave ``"glyph-clip"`` out further down: the
# default CLIP knows photographs.

import sys
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from sklearn_taskres import (
    UnreadableImagesError,
    load_digit_images,
    load_image_folder,
    make_taskres_pipeline,
    sample_few_shot,
)

images, digits, words = load_digit_images()
y = np.array(words)[digits]
temporary = tempfile.TemporaryDirectory()
folder, inbox = Path(temporary.name) / "photos", Path(temporary.name) / "inbox"


def write(row, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(images[row] * 255).astype(np.uint8)).save(path)


train = sample_few_shot(y, 3, random_state=0)
for row in train:
    write(row, folder / y[row] / f"{row}.png")
print(
    *sorted(str(path.relative_to(temporary.name)) for path in folder.rglob("*.png"))[:5], sep="\n"
)

# %%
# A file that can't be read
# -------------------------
# Real folders hold broken files. One is added: the first half of a PNG, as of a download that
# stopped.

whole = next((folder / "seven").glob("*.png")).read_bytes()
(folder / "seven" / "download.png").write_bytes(whole[: len(whole) // 2])

paths, labels = load_image_folder(folder)
model = make_taskres_pipeline("glyph-clip", random_state=0)
unreadable = []
try:
    model.fit(paths, labels)
except UnreadableImagesError as error:
    unreadable = error.indices
    print(str(error).replace(temporary.name, "…"))

# %%
# The error lists all such files, and which rows they are. All others were read and are kept, so the
# second call encodes nothing again.

assert [Path(paths[index]).name for index in unreadable] == ["download.png"]
paths, labels = np.delete(paths, unreadable), np.delete(labels, unreadable)
model.fit(paths, labels)
print(f"trained on {len(paths)} images of {len(model.classes_)} classes")

# %%
# One file to keep
# ----------------
# The model holds a few small arrays, and the name of its CLIP.

joblib.dump(model, folder.parent / "digits.joblib")
saved = joblib.load(folder.parent / "digits.joblib")
print(f"saved in {(folder.parent / 'digits.joblib').stat().st_size / 1024:.0f} kB")

# %%
# New files
# ---------
# 300 files that nobody has labelled, but that we know the answers of.

new = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(y)), train))[:300]
files = [inbox / f"{row}.png" for row in new]
for row, path in zip(new, files, strict=True):
    write(row, path)

predicted = saved.predict(files)
certainty = saved.predict_proba(files).max(axis=1)
is_right = predicted == y[new]
print(f"{100 * is_right.mean():.1f} % of {len(files)} new files are labelled correctly")
print(f"{files[0].name} is a {predicted[0]}, with a probability of {certainty[0]:.2f}")

# %%
# Which labels to check
# ---------------------
# Most mistakes are among the tenth of the files whose label is the least certain: check those
# first, and put the ones you corrected into the folders.

order = np.argsort(certainty)
n_wrong, n_found = np.sum(~is_right), np.sum(~is_right[order[:30]])
print(f"{n_found} of the {n_wrong} mistakes are among the 30 least certain files")
assert is_right.mean() > 0.9
assert n_found > n_wrong / 2

figure, axes = plt.subplots(2, 7, figsize=(8, 3.8), layout="constrained")
for ax, index in zip(axes.flat, order, strict=False):
    ax.imshow(Image.open(files[index]), cmap="gray_r")
    color = "black" if is_right[index] else "tab:red"
    ax.set_title(f"{predicted[index]}\n{certainty[index]:.2f}", color=color, fontsize=11)
    ax.set_axis_off()
figure.suptitle(f"The least certain of {len(files)} new files: label and probability; red is wrong")
temporary.cleanup()

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
