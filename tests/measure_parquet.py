"""Embeddings of 1 280 000 images from parquet to a fitted classifier, and the memory it takes.

Run ``python tests/measure_parquet.py [FOLDER]`` (3 GB in the folder, which is one for temporary
files by default; some minutes). Needs ``pip install 'sklearn-taskres[parquet]'`` and Linux.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sklearn_taskres import TaskResClassifier
from sklearn_taskres.benchmark.streamed import MemoryWatch
from sklearn_taskres.distributed import read_embeddings

N_FILES, ROWS, D, N_CLASSES, N_EPOCHS = 10, 128_000, 512, 1000, 2


def draw_file(i):
    """Return the labels of a file, and the generator and class embeddings for its rows."""
    base = np.random.default_rng(99).normal(size=(N_CLASSES, D)).astype(np.float32)
    rng = np.random.default_rng(i)
    return rng.integers(0, N_CLASSES, ROWS), rng, base


def write_file(i, file):
    """Write noisy class embeddings as float16 lists."""
    y, rng, base = draw_file(i)
    X = base[y] + rng.normal(scale=2, size=(ROWS, D)).astype(np.float32)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float16).ravel()), D)
    pq.write_table(pa.table({"embedding": rows}), file)


def main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        folder = Path(name)
        files = [folder / f"part-{i}.parquet" for i in range(N_FILES)]
        with multiprocessing.get_context("spawn").Pool(1) as child:  # keeps its memory to itself
            child.starmap(write_file, enumerate(files))
        y = np.concatenate([draw_file(i)[0] for i in range(N_FILES)])
        base = draw_file(0)[2]
        print(f"parquet: {sum(file.stat().st_size for file in files) / 1e9:.2f} GB", flush=True)
        TaskResClassifier(base, max_epochs=1).fit(base, np.arange(N_CLASSES))  # imports torch
        begun = time.perf_counter()
        with MemoryWatch() as watch:
            X = read_embeddings(files, folder / "X.npy")
        print(f"read {X.shape}, {X.dtype}: {time.perf_counter() - begun:.0f} s, ", end="")
        print(f"peak {watch.most / 1e6:.0f} MB, before {watch.before / 1e6:.0f} MB", flush=True)
        begun = time.perf_counter()
        with MemoryWatch() as watch:
            clf = TaskResClassifier(base, max_epochs=N_EPOCHS, random_state=0).fit(X, y)
        print(f"fit of {N_EPOCHS} epochs: {time.perf_counter() - begun:.0f} s, ", end="")
        print(f"peak {watch.most / 1e6:.0f} MB, accuracy {clf.score(X[:10_000], y[:10_000]):.3f}")


if __name__ == "__main__":
    main()
