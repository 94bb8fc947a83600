"""
Classify your own photos
========================

Put the images of each class into a folder that has the class's name. A few images per class are
enough. The result is one small file that labels new images.
"""

# %%
# A folder of images
# ------------------
# The images here are signs with a letter, drawn by Pillow: letters of some colour on a darker
# ground, turned a little, with noise. They are written as PNG files into a temporary folder, four
# per class. Take your own folder, and leave ``"glyph-clip"`` out further down: the default CLIP
# knows photographs.

import sys
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sklearn_taskres import (
    TaskResGDAClassifier,
    UnreadableImagesError,
    ZeroShotClassifier,
    load_image_folder,
    make_taskres_pipeline,
)
from sklearn_taskres.inspection import NearestImagesDisplay

SIDE, LETTERS = 64, "EFHKNRST"
rng = np.random.default_rng(0)
temporary = tempfile.TemporaryDirectory()
folder, inbox = Path(temporary.name) / "photos", Path(temporary.name) / "inbox"


def draw_sign(letter):
    ground, ink = (tuple(rng.integers(*span, 3).tolist()) for span in ((0, 90), (170, 256)))
    font = ImageFont.load_default(size=int(rng.integers(56, 68)))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    place = SIDE / 2 + rng.normal(0, 2, size=2)
    ImageDraw.Draw(image).text(tuple(place), letter, fill=ink, font=font, anchor="mm")
    image = image.rotate(rng.normal(0, 6), Image.Resampling.BICUBIC, fillcolor=ground)
    noisy = np.asarray(image) + rng.normal(0, 6, size=(SIDE, SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


for letter in LETTERS:
    (folder / f"letter {letter}").mkdir(parents=True)
    for i in range(4):
        draw_sign(letter).save(folder / f"letter {letter}" / f"{i}.png")
print(*sorted(str(path.relative_to(temporary.name)) for path in folder.rglob("*.png"))[:5], "…")

# %%
# A file that can't be read
# -------------------------
# Real folders hold broken files. One is added: the first half of a PNG, as of a download that
# stopped.

whole = (folder / "letter K" / "0.png").read_bytes()
(folder / "letter K" / "download.png").write_bytes(whole[: len(whole) // 2])

paths, labels = load_image_folder(folder)
model = make_taskres_pipeline("glyph-clip", classifier=TaskResGDAClassifier, random_state=0)
unreadable = []
try:
    model.fit(paths, labels)
except UnreadableImagesError as error:
    unreadable = error.indices
    print(str(error).replace(temporary.name, "…"))

# %%
# The error lists all unreadable files, and which rows they are. The others were read, and their
# embeddings are kept, so the second call encodes nothing again.

assert [Path(paths[index]).name for index in unreadable] == ["download.png"]
paths, labels = np.delete(paths, unreadable), np.delete(labels, unreadable)
model.fit(paths, labels)
print(f"trained on {len(paths)} images of {len(model.classes_)} classes")

# %%
# Save the model
# --------------
# The model holds a few small arrays, and the name of its CLIP.

joblib.dump(model, folder.parent / "signs.joblib")
saved = joblib.load(folder.parent / "signs.joblib")
print(f"saved in {(folder.parent / 'signs.joblib').stat().st_size / 1024:.0f} kB")

# %%
# Label new files
# ---------------
# Draw 320 files and keep the answers aside. The names alone label two thirds of them correctly;
# four images per class make a large difference.

inbox.mkdir()
answers = np.repeat([f"letter {letter}" for letter in LETTERS], 40)
files = [inbox / f"{i}.png" for i in range(len(answers))]
for answer, path in zip(answers, files, strict=True):
    draw_sign(answer[-1]).save(path)

predicted = saved.predict(files)
certainty = saved.predict_proba(files).max(axis=1)
is_right = predicted == answers
names_alone = ZeroShotClassifier(model["taskres"].base).fit(None, labels)
zero_shot = names_alone.score(model["clip"].transform(files), answers)
print(f"correct labels of {len(files)} new files")
print(f"  by the names alone      {100 * zero_shot:.1f} %")
print(f"  with 4 images per class {100 * is_right.mean():.1f} %")
assert is_right.mean() > zero_shot + 0.1

# %%
# Check the least certain labels first
# ------------------------------------
# Labels with a low probability are wrong more often. Check those first, and put the images that you
# corrected into the folders.

order = np.argsort(certainty)
first, others = ~is_right[order[:32]], ~is_right[order[32:]]
print("wrong labels")
print(f"  of the {len(first)} least certain files {first.sum()}")
print(f"  of the {len(others)} others {others.sum()}")
assert first.mean() > 2 * others.mean()

figure, axes = plt.subplots(2, 8, figsize=(8, 3.4), layout="constrained")
for ax, index in zip(axes.flat, order, strict=False):
    ax.imshow(Image.open(files[index]))
    color = "black" if is_right[index] else "tab:red"
    ax.set_title(f"{predicted[index]}\n{certainty[index]:.2f}", color=color, fontsize=10)
    ax.set_axis_off()
figure.suptitle(f"The least certain of {len(files)} new files: label and probability; red is wrong")

# %%
# See what the classifier looks for
# ---------------------------------
# The images that are nearest to the name of a class, and those that are nearest to the class after
# training.

nearest = NearestImagesDisplay.from_estimator(saved, files, files, "letter F", 8, y=answers)
before, after = nearest.n_right_
print(f"of the 8 images nearest to letter F {before} are one by the name, {after} after training")
temporary.cleanup()

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
