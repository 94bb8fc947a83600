"""Augmented views of an image: random crops and flips, seeded by the image itself."""

import hashlib
import math

import numpy as np
from PIL import Image

from .memory import BUDGET

#: Name of an augmentation to its smallest crop, as a share of the area, and whether it flips.
AUGMENTATIONS = {
    "taskres": (0.08, True),
    "taskres-no-flip": (0.08, False),
    "tip": (0.5, True),
    "tip-no-flip": (0.5, False),
}
#: Width / height of a crop, as usual for CLIP and ImageNet.
_RATIOS = (3 / 4, 4 / 3)
#: Tries to fit a crop into the image before the largest central one is taken.
_TRIES = 10


def view_generator(digest, view, random_state):
    """Return the generator of one view, the same wherever the image lies and on any machine.

    Parameters
    ----------
    digest : bytes
        Digest of the image's content.
    view : int
        Number of the view, from 1 on.
    random_state : int or None
        Seed of the user; None is 0.
    """
    seed = hashlib.sha256(digest + f"/{view}/{random_state or 0}".encode()).digest()
    return np.random.default_rng(int.from_bytes(seed[:16], "little"))


def augment_image(image, augment, rng, size):
    """Return a view of an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    augment : str or callable
        A key of `AUGMENTATIONS`, or a function of (image, rng) to a PIL image of mode RGB.
    rng : numpy.random.Generator
        Source of all randomness.
    size : int or pair of int
        Height and width of what the encoder takes.

    Raises
    ------
    RuntimeError
        If a callable raises ValueError, which would be taken for an image that can't be read.
    TypeError
        If it does not return an image.
    """
    if callable(augment):  # it may draw into its image, and may embed others
        with BUDGET.lend():
            return _augmented_by(augment, image.copy(), rng)
    smallest, flips = AUGMENTATIONS[augment]
    height, width = (size, size) if isinstance(size, int) else size
    box = _random_box(image.width, image.height, smallest, rng)
    view = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flips and rng.random() < 0.5 else view


def _augmented_by(augment, image, rng):
    try:
        view = augment(image, rng)
    except ValueError as error:
        size = f"{image.width} x {image.height}"
        raise RuntimeError(f"augment fails on an image of {size}: {error}") from error
    if not isinstance(view, Image.Image) or 0 in view.size:
        raise TypeError(f"augment must return a PIL image with pixels. Got {view!r:.60}.")
    return view


def _random_box(width, height, smallest, rng):
    """Box (left, top, right, bottom) of a share of the area in [smallest, 1] and a ratio."""
    for _ in range(_TRIES):
        area = width * height * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(*np.log(_RATIOS)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width, height):
    """Largest box of an allowed ratio in the middle of the image."""
    w = min(width, round(height * _RATIOS[1]))
    h = min(height, round(width / _RATIOS[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
