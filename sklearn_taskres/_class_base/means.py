"""Means of images by class, and the norm that class embeddings have."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .._formulas import CLIP_TEXT_RMS, row_norms, unit
from .._rows import chunks, working_dtype


def class_means(
    X: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Mean of the unit rows of each class, (n_classes, d), scaled to the size of CLIP's text rows.

    Parameters
    ----------
    X : ndarray of shape (n_samples, d)
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,), optional
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    share = weight / np.bincount(y, weight)[y]
    means = np.zeros((y.max() + 1, X.shape[1]), dtype=working_dtype(X))
    for part, rows in chunks(X):
        means += class_sums(unit(rows), y[part], share[part], len(means))
    return means * norm_factor(means, CLIP_TEXT_RMS * means.shape[1] ** 0.5)


def class_sums(
    X: NDArray[Any], y: NDArray[Any], weight: NDArray[Any], n_classes: int
) -> NDArray[Any]:
    """Weighted sum of the rows of each class, (n_classes, d), in the dtype of X (n_samples, d)."""
    by_class = csr_array((weight, (y, np.arange(len(y)))), shape=(n_classes, len(y)))
    return (by_class @ X).astype(X.dtype, copy=False)


def norm_factor(rows: NDArray[Any], mean_norm: float) -> float:
    """Return the number that gives the rows, (n, d), the mean norm `mean_norm`."""
    norm = row_norms(rows).mean()
    if norm == 0:
        raise ValueError(
            f"All class embeddings are zero in {rows.dtype}, so they can't be scaled. Pass raw "
            f"embeddings: CLIP's have norms around 10."
        )
    return float(mean_norm / norm)
