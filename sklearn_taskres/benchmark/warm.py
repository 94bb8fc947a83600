"""How fast a folder gives back embeddings that are known, next to what else could keep them."""

import contextlib
import gc
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from PIL import Image

from .._clip.cache import EmbeddingCache
from . import fresh
from .random_clip import write_random_clip

N, D = 20_000, 512
#: A CLIP that encodes thousands of images per second, with embeddings as wide as ViT-B-32's.
_TINY = {
    "embed_dim": D,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 16,
        "head_width": 8,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


class Folder:
    """EmbeddingCache in a folder."""

    def __init__(self, folder):
        self.cache = EmbeddingCache(folder)

    def put(self, keys, rows):
        """Keep rows (n, D) under keys."""
        self.cache.put(keys, rows)

    def get(self, keys):
        """Return the rows of keys, and whether each was found."""
        return self.cache.get(keys, D)


class Npy:
    """A .npy per image, moved into place; no checksum."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def put(self, keys, rows):
        """Keep rows (n, D) under keys."""
        for key, row in zip(keys, rows, strict=True):
            scratch = self.folder / f"{key.hex()}.part"
            with scratch.open("wb") as file:
                np.save(file, row)
            scratch.rename(self.folder / f"{key.hex()}.npy")

    def get(self, keys):
        """Return the rows of keys, and whether each was found."""
        rows, found = np.zeros((len(keys), D), np.float32), np.zeros(len(keys), bool)
        for index, key in enumerate(keys):
            with contextlib.suppress(FileNotFoundError):
                rows[index], found[index] = np.load(self.folder / f"{key.hex()}.npy"), True
        return rows, found


class JoblibMemory:
    """joblib.Memory around a function of one image's key; its files are pickles."""

    def __init__(self, folder):
        self.rows = dict(zip(example_keys(), example_rows(), strict=True))
        self.missed = 0
        self.encode = joblib.Memory(folder, verbose=0).cache(self._encode, ignore=["self"])

    def _encode(self, key):
        self.missed += 1
        return self.rows[key]

    def put(self, keys, rows):
        """Keep rows (n, D) under keys."""
        for key in keys:
            self.encode(key)

    def get(self, keys):
        """Return the rows of keys, and whether each was found."""
        rows = np.stack([self.encode(key) for key in keys])
        return rows, np.arange(len(keys)) >= self.missed


STORES: dict[str, type] = {"EmbeddingCache": Folder, ".npy": Npy, "joblib.Memory": JoblibMemory}


def example_keys():
    """Return N keys as EmbeddingCache makes them, bytes."""
    rng = np.random.default_rng(1)
    return [rng.bytes(20) for _ in range(N)]


def example_rows():
    """Return N embeddings, float32 (N, D)."""
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def measure(repeats=3):
    """Return rates of writing and of reading in another order, each read in a fresh process.

    Parameters
    ----------
    repeats : int, default=3
        Fresh processes per figure; the median counts.

    Returns
    -------
    dict
        Embeddings per second by store ("write", "read"), and images per second through
        ``CLIPFeaturizer.transform`` of paths ("transform"), in all and after the imports.
    """
    results = {name: _measure_store(name, repeats) for name in STORES}
    return {"n": N, "d": D, "stores": results, "transform": _measure_transform(repeats)}


def _measure_store(name, repeats):
    with tempfile.TemporaryDirectory() as folder:
        store, keys, rows = STORES[name](folder), example_keys(), example_rows()
        begun = time.perf_counter()
        store.put(keys, rows)
        written = time.perf_counter() - begun
        read = np.median([fresh.call(_read, name, folder) for _ in range(repeats)])
    return {"write": N / written, "read": N / float(read)}


def _read(name, folder):
    """Seconds to open a store and read all of it in another order."""
    keys, rows, order = example_keys(), example_rows(), np.random.default_rng(2).permutation(N)
    asked = [keys[i] for i in order]
    begun = time.perf_counter()
    got, found = STORES[name](folder).get(asked)
    seconds = time.perf_counter() - begun
    if not found.all() or (got != rows[order]).any():
        raise AssertionError(f"{name} gave back other embeddings than it was given")
    return seconds


def _measure_transform(repeats):
    with tempfile.TemporaryDirectory() as scratch:
        model_name = write_random_clip(Path(scratch, "model"), _TINY)
        paths, cache = _write_images(Path(scratch, "images")), str(Path(scratch, "cache"))
        time.sleep(2.5)  # younger files are not trusted by their stamp
        fresh.call(_transform, model_name, paths, cache)
        runs = [fresh.call(_transform, model_name, paths, cache) for _ in range(repeats)]
    first, later = np.median(runs, axis=0)
    return {"first_call_with_imports": N / float(first), "call": N / float(later)}


def _write_images(folder):
    """Write N small images, all different, and return their paths."""
    folder.mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    paths = [str(folder / f"{i}.bmp") for i in range(N)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


def _transform(model_name, paths, cache):
    """Seconds to embed paths in another order, with all imports; and of the cache alone again."""
    from .. import CLIPFeaturizer

    order = np.random.default_rng(4).permutation(len(paths))
    featurizer = CLIPFeaturizer(model_name, cache=cache, batch_size=512)
    asked = [paths[i] for i in order]
    seconds = []
    for some in (asked[:1], asked):
        gc.collect()  # or else a full collection of what the imports left falls into one of them
        begun = time.perf_counter()
        featurizer.transform(some)
        seconds.append(time.perf_counter() - begun)
    return sum(seconds), seconds[1]
