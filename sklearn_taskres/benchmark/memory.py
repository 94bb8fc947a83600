"""How much memory many images take, beyond their embeddings."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import fresh


def measure(n=10_000, side=256):
    """Return peak resident sizes after `transform` of ever more JPEG files.

    Parameters
    ----------
    n : int, default=10_000
        Number of images, all different.
    side : int, default=256
        Their pixels per side.

    Returns
    -------
    dict
        In MB: the peaks after a quarter, half and all of the images, each encoded anew, and the
        size of all embeddings. What the last peak is above the one before is growth with n.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_images(Path(folder), n, side)
        peaks, embeddings = fresh.call(_peaks, paths)
    return {**peaks, "embeddings": embeddings}


def _write_images(folder, n, side):
    """JPEG files of noise that was enlarged; returns their paths."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i}.jpg") for i in range(n)]
    for path in paths:
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return paths


def _peaks(paths):
    import resource  # not on Windows
    import sys

    from .. import CLIPFeaturizer

    featurizer = CLIPFeaturizer("glyph-clip", cache=None, batch_size=256)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    peaks = {}
    for n in (len(paths) // 4, len(paths) // 2, len(paths)):
        X = featurizer.transform(paths[:n])
        peaks[f"peak after {n}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return peaks, X.nbytes / 1e6
