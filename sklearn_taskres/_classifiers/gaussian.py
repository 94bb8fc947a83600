"""The Gaussian term of GDA: classes that differ in their mean and share one covariance."""

import itertools
from typing import NamedTuple

import numpy as np

from .._class_base import class_sums
from .._formulas import unit
from .._held_out import held_out_score
from .._rows import chunks, working_dtype

#: Weights that are tried for the term next to logits of cosines; 0 leaves it out.
WEIGHTS = (0.0, *np.logspace(-4, 2, 49).tolist())


def gaussian_classifier(X, y, sample_weight=None, views=None):
    """Estimate the linear classifier of Gaussians with equal priors and one covariance.

    Its logits of unit rows f are ``f @ W.T + b`` with W = μ Σ⁻¹ and b = -½ μ Σ⁻¹ μ, row by row.
    The precision is shrunk, Σ⁻¹ = d (S + tr(S) / (N - 1) I)⁻¹, with the scatter S of the unit rows
    around their classes' means, as GDA's authors do it (arXiv:2402.04087).

    Parameters
    ----------
    X : ndarray of shape (n_samples, d)
        Image rows, of any norm.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1, each at least once.
    sample_weight : ndarray of shape (n_samples,), optional
        How often each row counts. Weights that sum to less than the number of rows are scaled up
        to it, since N would mean nothing for weights that sum to 1.
    views : ndarray of shape (n_samples, n_views, d), optional
        More rows of the same images, each counting as much.

    Returns
    -------
    W : ndarray of shape (n_classes, d)
    b : ndarray of shape (n_classes,)
        Both zero if rows do not scatter around their means, as with one image per class.
    """
    moments, n_slots = class_moments(X, y, sample_weight, views), 1
    if views is not None:
        n_slots += views.shape[1]
    means, scatter = moments.means, n_slots * moments.scatter
    shrinkage = np.trace(scatter) / (n_slots * moments.counts.sum() - 1)
    if shrinkage <= np.finfo(means.dtype).eps:
        return np.zeros_like(means), np.zeros_like(means[:, 0])
    d = len(scatter)
    W = d * np.linalg.solve(scatter + shrinkage * np.eye(d, dtype=means.dtype), means.T).T
    return W, -(W * means).sum(axis=1) / 2


class ClassMoments(NamedTuple):
    """What Gaussians of one covariance are estimated from."""

    #: Images of each class, or the sum of their weights, (K,).
    counts: np.ndarray
    #: Mean of the unit rows of each class, (K, D).
    means: np.ndarray
    #: Scatter of the unit rows around the means of their classes, (D, D).
    scatter: np.ndarray


def images(y, sample_weight=None):
    """Return how many images each row (n,) counts as: its weight, if the sum is not below n."""
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    return weight * images_per_weight(weight)


def images_per_weight(weight):
    """Return what makes weights of n rows sum to n, or 1 if they do not sum to less."""
    total = weight.sum()
    return max(1.0, len(weight) / total) if total > 0 else 1.0


def class_moments(X, y, sample_weight=None, views=None, *, product=np.matmul):
    """Return counts, means and the scatter within classes of unit rows.

    Parameters
    ----------
    X, y, sample_weight, views
        Those of :func:`gaussian_classifier`. The views of an image share its weight with the clean
        row, so that they change no count.
    product : callable
        Multiplies two matrices.

    Returns
    -------
    ClassMoments
    """
    slots = [X] if views is None else [X, *views.swapaxes(0, 1)]
    dtype, d = working_dtype(X), X.shape[1]
    weight = images(y, sample_weight)
    counts = np.bincount(y, weight)
    weight = (weight / len(slots)).astype(dtype)
    share = weight / counts[y]
    means, scatter = np.zeros((len(counts), d), dtype=dtype), np.zeros((d, d), dtype=dtype)
    for part, rows in _all_chunks(slots):
        means += class_sums(unit(rows), y[part], share[part], len(means))
    for part, rows in _all_chunks(slots):
        centred = (unit(rows) - means[y[part]]) * (weight[part, None] ** 0.5).astype(dtype)
        scatter += product(centred.T, centred)
    return ClassMoments(counts.astype(dtype), means, scatter)


def _all_chunks(slots):
    return itertools.chain.from_iterable(map(chunks, slots))


def best_weight(logits, gaussian_logits, y):
    """Return the weight in `WEIGHTS` of the term that labels held-out rows best.

    Parameters
    ----------
    logits, gaussian_logits : ndarray of shape (n_samples, n_classes)
        Of held-out rows: without the term, and of the term alone.
    y : ndarray of shape (n_samples,)
        Their classes.

    Returns
    -------
    float
        The smallest of those with the best score.
    """
    return max(WEIGHTS, key=lambda a: held_out_score(logits + a * gaussian_logits, y))
