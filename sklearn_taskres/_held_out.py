"""Choices made on training images alone: how many there are, and each held out once."""

import numpy as np
from scipy.special import logsumexp
from sklearn.model_selection import StratifiedKFold

#: Most parts that the training images are split into.
MOST_FOLDS = 5


def images_per_class(y):
    """Median number of rows per class, of the classes that have any."""
    counts = np.bincount(y)
    return float(np.median(counts[counts > 0]))


def shot_folds(y, rng):
    """Split training rows so that each is held out once, classes in equal shares.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    rng : numpy.random.RandomState
        Shuffles the rows.

    Returns
    -------
    list of (ndarray, ndarray)
        Rows to fit on and rows held out, of min(5, images of the smallest class) folds; an empty
        list if a class has one image, so that nothing can be held out.
    """
    n_folds = min(MOST_FOLDS, np.bincount(y).min())
    if n_folds < 2:
        return []
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=rng)
    return list(splitter.split(np.zeros((len(y), 1)), y))


def held_out_score(logits, y):
    """Return what a candidate is chosen by: accuracy, then the mean log-likelihood of the truth.

    Few held-out rows leave many candidates with one accuracy; the likelihood tells them apart.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Of held-out rows.
    y : ndarray of shape (n_samples,)
        Their classes.

    Returns
    -------
    tuple of (float, float)
        The larger is the better one.
    """
    likelihood = logits[np.arange(len(y)), y] - logsumexp(logits, axis=1)
    return float(np.mean(logits.argmax(axis=1) == y)), float(np.mean(likelihood))
