"""The Gaussian term of GDA: classes that differ in their mean and share one covariance."""

import numpy as np

from .._formulas import unit
from .class_embeddings import class_sums
from .selection import held_out_score

#: Weights that are tried for the term beside logits of cosines; 0 leaves it out.
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
        Both zero where rows do not scatter around their means, as with one image a class.
    """
    if views is not None:
        n_rows = 1 + views.shape[1]
        X = np.concatenate([X[:, None], views], axis=1).reshape(-1, X.shape[1])
        y = np.repeat(y, n_rows)
        sample_weight = None if sample_weight is None else np.repeat(sample_weight, n_rows)
    F = unit(X)
    weight = np.ones(len(y), dtype=F.dtype) if sample_weight is None else sample_weight
    weight = weight * max(1.0, len(y) / weight.sum())
    means = class_sums(F, y, weight / np.bincount(y, weight)[y])
    centred = (F - means[y]) * (weight[:, None] ** 0.5).astype(F.dtype)
    scatter = centred.T @ centred
    shrinkage = np.trace(scatter) / (weight.sum() - 1)
    if shrinkage <= np.finfo(F.dtype).eps:
        return np.zeros_like(means), np.zeros_like(means[:, 0])
    d = F.shape[1]
    W = d * np.linalg.solve(scatter + shrinkage * np.eye(d, dtype=F.dtype), means.T).T
    return W, -(W * means).sum(axis=1) / 2


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
