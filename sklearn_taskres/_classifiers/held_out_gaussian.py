"""The text-prior Gaussian on images that it has not seen, without estimating it again.

What it is for: a prior strength and a temperature chosen from the training images. A fold holds out
one image of each class, so that all classes lose as much, and the fold's classifier follows from
the whole one in closed form: counts and means without the image, and a covariance without its
square, which is a change of rank one.
"""

import numpy as np

from .._formulas import unit
from .gaussian import images
from .text_gaussian import Covariance, fitted_scale

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
        from torch import from_numpy

        X, y, sample_weight, views = data
        self._sigma = Covariance(*map(from_numpy, (gaussian.sigma.values, gaussian.sigma.vectors)))
        self._centre, self._counts = map(from_numpy, (gaussian.image_centre, moments.counts))
        directions = from_numpy(gaussian.directions)
        x = from_numpy(moments.means) - self._centre
        self._x = self._sigma.whitened(x)
        self._prior = gaussian.scale * self._sigma.turned(directions)
        self._expected = self._sigma.whitened(fitted_scale(x, directions) * directions)
        self._strength = gaussian.strength
        weight = images(y, sample_weight).astype(moments.means.dtype)
        folds, step = _folds(X, y), -(-(len(x) ** 2) // _MOST_LOGITS)
        self._folds = [self._fold(X, y, weight, views, rows, step) for rows in folds]
        self.rows = np.concatenate([rows[::step] for rows in folds])
        self.y = y[self.rows]

    def _fold(self, X, y, weight, views, rows, step):
        """Return what :func:`_logits` needs of every step-th image of a fold."""
        from torch import from_numpy

        clean, slots = (
            None if a is None else a[rows].astype(weight.dtype, copy=False) for a in (X, views)
        )
        c, w, clean = map(from_numpy, (y[rows], weight[rows, None], unit(clean)))
        z = seen = self._sigma.whitened(clean - self._centre)
        if views is not None:
            slots = from_numpy(unit(slots))
            mean = (clean + slots.sum(dim=1)) / (1 + slots.shape[1])
            seen = self._sigma.whitened(mean - self._centre)
        # Counts and means without any of the images.
        counts, x = self._counts.clone(), self._x.clone()
        counts[c] = (counts[c] - w[:, 0]).clamp(min=0)
        left = counts[c, None]
        moved = (self._counts[c, None] * x[c] - w * seen) / (left + (left == 0))
        x[c] = moved * (left > 0)
        # Deviation e of an image of weight w from what the others let expect, of variance
        # (1 / w + 1 / (n + κ)) Σ.
        z, seen, c, w = z[::step], seen[::step], c[::step], w[::step]
        worth = (counts[c, None] + self._strength).clamp(min=_LEAST)
        expected = self._expected[c]
        e = seen - expected - counts[c, None] / worth * (x[c] - expected)
        room = self._counts.sum() * (1 / w + 1 / worth) - (e * e).sum(dim=1, keepdim=True)
        m, d = self._prior, x - self._prior
        z_m, z_d, e_d = z @ m.T, z @ d.T, e @ d.T
        e_m = (e * z).sum(dim=1, keepdim=True) - e @ m.T
        squares = ((a * b).sum(dim=1) for a, b in ((m, m), (m, d), (d, d)))
        return counts, room, z_m, z_d, e_m, e_d, *squares

    def logits(self, strength):
        """Logits (n_held, K) for a prior strength κ; a NumPy array."""
        return np.concatenate([_logits(strength, *fold).numpy() for fold in self._folds])


def _logits(strength, counts, room, z_m, z_d, e_m, e_d, mm, md, dd):
    """Logits (n, K) of rows z under class means m + s d, with s = n / (n + κ) and d = x̄ - m.

    All products with the means are sums of products with m and d, which no strength changes: z_m
    is z·m, e_m is e·(z - m), mm is m·m, and so on. The covariance is the whole one without e eᵀ.
    """
    share = counts / (counts + strength).clamp(min=_LEAST)
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
    from torch import from_numpy
    from torch.nn.functional import cross_entropy

    return -cross_entropy(from_numpy(logits).double(), from_numpy(y), reduction="none").numpy()


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
