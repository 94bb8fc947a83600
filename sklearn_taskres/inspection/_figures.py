"""How good predictions are: accuracy with its interval, calibration, confusions."""

from typing import NamedTuple

import numpy as np

#: Quantile of the normal distribution that leaves 2.5 % above it.
_Z95 = 1.959963984540054
#: Bins of the expected calibration error, as papers have them.
_BINS = 15


class Share(NamedTuple):
    """A share of images, and the 95 % interval of Wilson around it, all in [0, 1]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (100 * part for part in self)
        return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def share_of(is_right: np.ndarray) -> Share:
    """Return the share of True with its 95 % interval.

    Wilson's interval stays within [0, 1] and holds for few images and for shares near 1.

    Parameters
    ----------
    is_right : ndarray of shape (n_samples,), bool
        At least one.

    Returns
    -------
    Share
    """
    n, p = len(is_right), float(np.mean(is_right))
    centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * (p * (1 - p) / n + _Z95**2 / (4 * n**2)) ** 0.5
    return Share(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def calibration_error(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Return the expected calibration error: mean distance of confidence from accuracy.

    Parameters
    ----------
    probabilities : ndarray of shape (n_samples, n_classes)
    codes : ndarray of shape (n_samples,), int
        Column of the true class of each.

    Returns
    -------
    float
        Over 15 bins of equal width, weighted by their images; in [0, 1].
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, confidence - is_right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(codes))


def log_loss_of(log_proba: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean negative log-probability of the true classes, in nats."""
    return float(-np.mean(log_proba[np.arange(len(codes)), codes]))


def confusions(codes: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Return how many images of each class (rows) were taken for which (columns), (K, K) int."""
    cells = np.bincount(codes * n_classes + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)
