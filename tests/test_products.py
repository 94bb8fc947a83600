"""Products of NumPy: the right numbers, and one thread where that will do."""

import numpy as np
from numpy.testing import assert_array_equal
from threadpoolctl import ThreadpoolController

from sklearn_taskres import _products


def blas_threads():
    """Threads of each BLAS library that NumPy may use."""
    blas = ThreadpoolController().select(user_api="blas")
    return [library["num_threads"] for library in blas.info()]


class Watched(np.ndarray):
    """Notes how many threads BLAS has when it is multiplied."""

    def __matmul__(self, other):
        self.seen = blas_threads()
        return np.asarray(self) @ other


def test_small_products_run_on_one_thread(monkeypatch):
    """A small product has one thread, a large one all, and afterwards all are there."""
    before = blas_threads()
    rows, classifier = np.ones((3, 4)).view(Watched), np.arange(20.0).reshape(5, 4)
    for most, expected in ((60, [1] * len(before)), (59, before)):
        monkeypatch.setattr(_products, "_SMALL", most)
        logits = _products.cosine_logits(rows, classifier)
        assert_array_equal(logits, np.ones((3, 1)) * classifier.sum(axis=1))
        assert rows.seen == expected
        assert blas_threads() == before
