"""The text-prior Gaussian on images that it has not seen, without estimating it again.

What it is for: a prior strength and a temperature chosen from the training images. A fold holds out
one image of each class, so that all classes lose as much, and the fold's classifier follows from
the whole one in closed form: counts and means without the image, and a covariance without its
square, which is a change of rank one.
"""

import numpy as np

from .._formulas import unit
from .gaussian import images
from .text_gaussian import fitted_scale

#: Images that are enough to choose by, and images of a class that are always held out.
_ENOUGH_ROWS, _ENOUGH_FOLDS = 100, 5
#: Standard errors that make a difference clear.
_CLEAR = 2
#: What counts as a number of images at least, so that none can divide.
_LEAST = np.finfo(np.float32).eps
#: Most logits of a fold, so that a choice is cheap.
_MOST_LOGITS = 2**19


class HeldOutGaussian:
    """Logits of held-out images for any prior strength.

    Prior deviations of different classes are taken for independent here (ρ = 0): the means of a
    fold are then weighted means of m and x̄, whatever the strength.

    Parameters
    ----------
    data : tuple of X, y, sample_weight, views
        Training images, as for :func:`.gaussian.class_moments`.
    moments : ClassMoments
        Of these images.
    gaussian : TextGaussian
        Estimated from them.

    Attributes
    ----------
    rows : ndarray of shape (n_held,)
        Images that are held out, in the order of the logits.
    y : ndarray of shape (n_held,)
        Their classes.
    """

    def __init__(self, data, moments, gaussian):
        X, y, sample_weight, views = data
        sigma = gaussian.sigma
        self._centre, self._sigma, self._counts = gaussian.image_centre, sigma, moments.counts
        x = moments.means - gaussian.image_centre
        self._x = sigma.whitened(x)
        self._prior = gaussian.scale * sigma.turned(gaussian.directions)
        scale = fitted_scale(x, gaussian.directions)
        self._expected = sigma.whitened(scale * gaussian.directions)
        self._strength = gaussian.strength
        weight = images(y, sample_weight).astype(x.dtype)
        folds, step = _folds(X, y), -(-(len(x) ** 2) // _MOST_LOGITS)
        self._folds = [self._fold(X, y, weight, views, rows, step) for rows in folds]
        self.rows = np.concatenate([rows[::step] for rows in folds])
        self.y = y[self.rows]

    def _fold(self, X, y, weight, views, rows, step):
        """Return what :func:`_logits` needs of every step-th image of a fold."""
        clean = unit(X[rows].astype(self._x.dtype, copy=False))
        z = seen = self._sigma.whitened(clean - self._centre)
        if views is not None:
            slots = unit(views[rows].astype(clean.dtype, copy=False))
            mean = (clean + slots.sum(axis=1)) / (1 + slots.shape[1])
            seen = self._sigma.whitened(mean - self._centre)
        # Counts and means without any of the images.
        counts, x, c = self._counts.copy(), self._x.copy(), y[rows]
        counts[c] = np.maximum(counts[c] - weight[rows], 0)
        left = counts[c, None]
        moved = (self._counts[c, None] * x[c] - weight[rows, None] * seen) / (left + (left == 0))
        x[c] = np.where(left > 0, moved, 0)
        # Deviation e of an image of weight w from what the others let expect, of variance
        # (1 / w + 1 / (n + κ)) Σ.
        z, seen, c, w = z[::step], seen[::step], c[::step], weight[rows, None][::step]
        worth = np.maximum(counts[c, None] + self._strength, _LEAST)
        expected = self._expected[c]
        e = seen - expected - counts[c, None] / worth * (x[c] - expected)
        room = self._counts.sum() * (1 / w + 1 / worth) - (e * e).sum(axis=1, keepdims=True)
        m, d = self._prior, x - self._prior
        z_m, z_d, e_d = z @ m.T, z @ d.T, e @ d.T
        e_m = (e * z).sum(axis=1, keepdims=True) - e @ m.T
        squares = ((a * b).sum(axis=1) for a, b in ((m, m), (m, d), (d, d)))
        return counts, room, z_m, z_d, e_m, e_d, *squares

    def logits(self, strength):
        """Logits (n_held, K) for a prior strength κ."""
        return np.concatenate([_logits(strength, *fold) for fold in self._folds])


def _logits(strength, counts, room, z_m, z_d, e_m, e_d, mm, md, dd):
    """Logits (n, K) of rows z under class means m + s d, with s = n / (n + κ) and d = x̄ - m.

    All products with the means are sums of products with m and d, which no strength changes: z_m
    is z·m, e_m is e·(z - m), mm is m·m, and so on. The covariance is the whole one without e eᵀ.
    """
    share = counts / np.maximum(counts + strength, _LEAST)
    along = e_m - share * e_d
    squares = mm + 2 * share * md + share**2 * dd
    return z_m + share * z_d - squares / 2 - along**2 / (2 * room)


def _folds(X, y):
    """Rows of each fold: the i-th image of every class that has another one.

    The order of the rows does not matter: images are sorted by their first element.
    """
    order = np.lexsort((X[:, 0], y))
    counts = np.bincount(y)
    place = np.arange(len(y)) - (np.cumsum(counts) - counts)[y[order]]
    place[counts[y[order]] < 2] = -1
    wanted = max(_ENOUGH_FOLDS, _ENOUGH_ROWS // len(counts))
    n_folds = min(wanted, counts.max(), max(1, _MOST_LOGITS // len(counts) ** 2))
    return [order[place == i] for i in range(n_folds)]


def log_likelihoods(logits, y):
    """Logarithm of the probability of the true class of each row, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted[np.arange(len(y)), y] - np.log(np.exp(shifted).sum(axis=1))


def nearest_within(candidates, likelihoods, default):
    """Return the candidate nearest to a default that is not clearly worse than the best one.

    Two standard errors of the paired difference count as clear.

    Parameters
    ----------
    candidates : sequence of float
        Positive; the default need not be among them.
    likelihoods : sequence of ndarray of shape (n_held,)
        Log-likelihood of each held-out image under each candidate.
    default : float
    """
    best = max(likelihoods, key=np.mean)
    kept = []
    for candidate, values in zip(candidates, likelihoods, strict=True):
        loss = best - values
        if loss.mean() <= _CLEAR * loss.std() / len(loss) ** 0.5:
            kept.append(candidate)
    return min(kept, key=lambda value: (abs(np.log(value / default)), value))
