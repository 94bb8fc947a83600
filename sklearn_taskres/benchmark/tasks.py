"""Made-up tasks of any size for the measurements of speed, as hard as a real one."""

from typing import NamedTuple

import numpy as np

#: Standard deviation of an element of a class's direction, as in CLIP's raw text embeddings.
_SPREAD = 0.44
#: Noise of the class embeddings and of the images, in units of it: zero-shot labels most, not all.
_TEXT_NOISE, _IMAGE_NOISE = 1.0, 6.0
_TEST_SHOTS = 10


class Task(NamedTuple):
    """Class embeddings (K, D), training rows (n, D) and test rows, with their classes."""

    t: np.ndarray
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray

    def accuracy(self, weights):
        """Accuracy of linear class weights (K, D) on the test rows, in percent."""
        return 100 * float(np.mean((self.X_test @ weights.T).argmax(axis=1) == self.y_test))


def make_task(n_classes, d, shots):
    """Make a task in float32.

    Parameters
    ----------
    n_classes, d : int
        Classes K and width D.
    shots : int
        Training images per class.
    """
    rng = np.random.default_rng(0)

    def noisy(rows, noise):
        return (rows + noise * _SPREAD * rng.standard_normal(rows.shape)).astype(np.float32)

    directions = _SPREAD * rng.standard_normal((n_classes, d))
    y, y_test = (np.repeat(np.arange(n_classes), n) for n in (shots, _TEST_SHOTS))
    X, X_test = (noisy(directions[labels], _IMAGE_NOISE) for labels in (y, y_test))
    return Task(noisy(directions, _TEXT_NOISE), X, y, X_test, y_test)
