"""How much memory many images take, beyond their embeddings."""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

_FEW = 1000


def measure(n=10_000, side=256):
    """Return peak resident sizes in MB after `transform` of a thousand and of n JPEG files.

    Parameters
    ----------
    n : int, default=10_000
        Number of images, all different.
    side : int, default=256
        Their pixels a side.

    Returns
    -------
    dict
        Of MB: the two peaks, how much they differ, and the size of the embeddings.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_images(Path(folder), n, side)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            few, many, embeddings = pool.apply(_peaks, (paths,))
    growth = {"growth": many - few, "embeddings": embeddings}
    return {"n": n, f"peak_{_FEW}": few, f"peak_{n}": many, **growth}


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
    peaks = []
    for some in (paths[:_FEW], paths):
        X = featurizer.transform(some)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
    return (*peaks, X.nbytes / 1e6)
