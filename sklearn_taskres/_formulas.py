"""The formulas that training, search and prediction share, each written once for NumPy and torch.

Every function takes arrays or tensors and uses only what the two have in common, so that nothing
here imports torch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

#: Learning rate of the first epoch of every schedule, whatever the base rate.
WARM_UP_LR = 1e-5
#: Root mean square of an element of OpenAI CLIP's raw text embeddings (norm ~10 at 512 elements).
CLIP_TEXT_RMS = 0.44


def row_norms(rows):
    """Euclidean norm of each row, (..., n, d) to (..., n, 1)."""
    return _squared_norms(rows) ** 0.5


def _squared_norms(rows):
    """Sum of the squares of each row, (..., n, 1); in NumPy without an array of all squares."""
    if isinstance(rows, np.ndarray):
        with np.errstate(over="ignore"):
            return np.vecdot(rows, rows)[..., None]
    return (rows * rows).sum(axis=-1, keepdims=True)


def unit(rows, name="X"):
    """Rows divided by their norms, (..., n, d); a zero row stays zero, with a finite gradient.

    Arrays whose norms overflow are refused by their `name`: divided by infinity, their rows would
    be zero and point nowhere.
    """
    squares = _squared_norms(rows)
    if isinstance(rows, np.ndarray):
        _check_squares(squares, name)
    return rows / (squares + (squares == 0)) ** 0.5


def check_norms(rows, name):
    """Raise ValueError if a norm of rows (n, d) overflows their dtype."""
    _check_squares(_squared_norms(rows), name)


def _check_squares(squares, name):
    if not np.isfinite(squares).all():
        raise ValueError(
            f"{name} overflows: the norm of a row is too large for {squares.dtype}. Scale X and "
            f"base down (CLIP's embeddings have norms around 10), or take a smaller alpha or lr."
        )


def scaled_classifier(t, scale):
    """Cosine classifier, (K, d): unit class embeddings times the logit scale 1/τ."""
    return scale * unit(t, "A learned class embedding")


def learning_rate(epoch, n_epochs, lr):
    """Learning rate of an epoch (counted from 0): one warm-up epoch, then a cosine down to zero.

    The published recipe steps a cosine scheduler of ``n_epochs`` after a constant first epoch, so
    the cosine's argument lags by one epoch and the last rate is not zero.
    """
    if epoch == 0:
        return min(WARM_UP_LR, lr)
    return 0.5 * lr * (1 + math.cos(math.pi * (epoch - 1) / n_epochs))


class Formula(NamedTuple):
    """What a method trains: how image rows become logits, and of which arrays.

    The functions compute with operators alone, so that NumPy and torch both run them.
    """

    #: ``logits(z, **learned, **constants)`` returns the logits (b, n_classes) of rows z (b, d).
    logits: Callable
    #: Start values of what is learned.
    learned: dict[str, np.ndarray]
    #: Arrays and numbers that stay as they are.
    constants: dict[str, Any]
    #: ``prepare(X)`` makes rows of X, or of a part of it, what `logits` wants, each by itself.
    prepare: Callable = lambda rows: rows
    #: ``penalty(**learned, **constants)`` is added to the mean cross-entropy.
    penalty: Callable | None = None
    #: The derivative written by hand, if that is faster than autograd: ``gradient(z, y,
    #: loss_weight, **learned, **constants)`` returns the weighted sum of cross-entropies (a 0-d
    #: tensor, or (C,) of C candidates), the logits, and a dict of the derivatives. It runs without
    #: a graph, and may not go with a penalty. It takes rows to matrix products alone: if those run
    #: in bfloat16, the rows come in that.
    gradient: Callable | None = None


class Trained(NamedTuple):
    """What training makes of a formula."""

    #: What was learned.
    parameters: dict[str, np.ndarray]
    #: Per epoch a dict of epoch, train_loss, lr and what callbacks recorded.
    history: list[dict[str, Any]]
