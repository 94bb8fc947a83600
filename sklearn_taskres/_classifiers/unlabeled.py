"""Images without labels that join Gaussian classes: each belongs to all of them, more or less."""

import numpy as np

from .._formulas import unit
from .._rows import chunks, working_dtype
from .gaussian import ClassMoments
from .training import torch_product

#: What an image without a label counts, compared with one that has a label.
_WEIGHT = 0.3


def unlabeled_rows(y, mark):
    """Return which rows have no label: a mask (n_samples,), or None if all have one.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    mark : int, str or None
        What stands in the place of a label. A string marks no row among integers, nor an integer
        among strings.
    """
    labels = np.asarray(y)
    if mark is None or labels.ndim != 1 or isinstance(mark, str) != (labels.dtype.kind in "UO"):
        return None
    rows = labels == mark
    return rows if rows.any() else None


class UnlabeledImages:
    """Images without labels, and their part in the estimate of Gaussian classes.

    Parameters
    ----------
    X : ndarray of shape (n_unlabeled, d)
        Image rows, of any norm.
    sample_weight : ndarray of shape (n_unlabeled,), optional

    Attributes
    ----------
    n_images : float
        How many labelled images they count as.
    """

    def __init__(self, X, sample_weight=None):
        dtype, d = working_dtype(X), X.shape[1]
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        self._X, self._weight = X, (_WEIGHT * weight).astype(dtype)
        self.n_images = float(self._weight.sum())
        self._second = np.zeros((d, d), dtype=dtype)  # the same, whatever the classes are
        for part, rows in chunks(X):
            z = unit(rows)
            self._second += torch_product((z * self._weight[part, None]).T, z)

    def moments(self, probabilities):
        """Moments of the classes (K, ...) in which each image has its probabilities.

        Parameters
        ----------
        probabilities : callable
            Unit rows (n, d) to probabilities of the classes (n, K).

        Returns
        -------
        ClassMoments
        """
        totals = []  # of each chunk: counts (K,) and sums (K, D)
        for part, rows in chunks(self._X):
            z = unit(rows)
            shares = (probabilities(z) * self._weight[part, None]).astype(z.dtype)
            totals.append((shares.sum(axis=0), torch_product(shares.T, z)))
        counts, sums = (sum(parts[1:], start=parts[0]) for parts in zip(*totals, strict=True))
        means = sums / np.maximum(counts, np.finfo(sums.dtype).tiny)[:, None]
        scatter = self._second - torch_product((means * counts[:, None]).T, means)
        return ClassMoments(counts, means, scatter)


def merged(one, other):
    """Moments of the images of two ClassMoments taken together."""
    counts = one.counts + other.counts
    share = (other.counts / counts)[:, None]
    apart = other.means - one.means
    between = torch_product((apart * (one.counts[:, None] * share)).T, apart)
    return ClassMoments(counts, one.means + share * apart, one.scatter + other.scatter + between)
