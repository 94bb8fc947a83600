"""The part "map" of ``benchmark speed``: memory of a fit on a memory map of float16."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from .. import TaskResClassifier
from .timing import memory_of_process

N_CLASSES, EPOCHS = 100, 2
_CHUNK = 10_000


def measure(options, device, say, n_rows=1_280_000, d=512):
    """Fit random rows in a file, and watch the memory that is the process's own.

    Other arguments than the size of the file, and the result, are those of :func:`.fits.measure`.
    """
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % N_CLASSES
    t = rng.standard_normal((N_CLASSES, d)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "X.npy")
        _write(path, t, y, rng)
        X = np.load(path, mmap_mode="r")
        clf = TaskResClassifier(t, max_epochs=EPOCHS, device=options.device, random_state=0)
        clf.fit(X[:1000], y[:1000])  # imports torch
        with MemoryWatch() as watch:
            start = time.perf_counter()
            clf.fit(X, y)
            seconds = time.perf_counter() - start
    say(
        f"\nFit of {n_rows:,} x {d} float16 rows in a memory map, {N_CLASSES} classes, {EPOCHS} "
        f"epochs: {seconds:.1f} s. Anonymous memory: {watch.before / 1e6:.0f} MB before, at most "
        f"{watch.most / 1e6:.0f} MB; the rows in float32 would be {4 * n_rows * d / 1e6:,.0f} MB."
    )
    return {"seconds": seconds, "bytes_before": watch.before, "bytes_at_most": watch.most}


def _write(path, t, y, rng):
    """Write rows around their class embeddings, a few at a time."""
    X = np.lib.format.open_memmap(path, "w+", np.float16, (len(y), t.shape[1]))
    for start in range(0, len(y), _CHUNK):
        rows = slice(start, start + _CHUNK)
        noise = rng.standard_normal((len(y[rows]), t.shape[1]), dtype=np.float32)
        X[rows] = t[y[rows]] + 6 * noise


class MemoryWatch:
    """Bytes of anonymous memory of this process: `before` a block, and `most` within it."""

    def __enter__(self):
        self.before = self.most = memory_of_process("RssAnon") or 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._is_over.wait(0.005):
            self.most = max(self.most, memory_of_process("RssAnon") or 0)

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
