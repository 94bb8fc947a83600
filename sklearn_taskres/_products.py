"""Matrix products of NumPy that leave the cores to torch."""

import functools

from threadpoolctl import ThreadpoolController

#: Multiplications up to which one thread will do: ten milliseconds.
_SMALL = 2**29


def cosine_logits(rows, classifier):
    """Logits (n, K) of unit rows (n, d) under class weights (K, d), ``rows @ classifier.T``.

    A small product runs on one thread. OpenBLAS's threads keep the cores busy for a tenth of a
    second after each product, and in that time every operation of torch waits for a core: a fit
    that follows a prediction, as in a search, would take half as long again.
    """
    if len(rows) * classifier.size > _SMALL:
        return rows @ classifier.T
    with _controller().limit(limits=1, user_api="blas"):
        return rows @ classifier.T


@functools.cache
def _controller():
    return ThreadpoolController()
