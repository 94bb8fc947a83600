"""The most probable classes of each image."""

from typing import Any, NamedTuple

import numpy as np


class ClassProbability(NamedTuple):
    """A class with its probability for one image."""

    label: Any
    probability: float


def predict_top(estimator: Any, X: Any, k: int = 3) -> list[list[ClassProbability]]:
    """Return the k most probable classes of each image, the best first.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier with ``predict_proba``, a pipeline or a search.
    X : array-like of shape (n_samples, ...)
        What it takes: embeddings, or images before a pipeline.
    k : int, default=3
        Classes per image; all of them if there are fewer.

    Returns
    -------
    list of list of ClassProbability
        ``label`` and ``probability`` of each class, one list per image.

    Raises
    ------
    ValueError
        If k is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> from sklearn_taskres.inspection import predict_top
    >>> clf = ZeroShotClassifier(np.eye(3), logit_scale=1).fit(None, ["bird", "cat", "dog"])
    >>> [(label, round(p, 2)) for label, p in predict_top(clf, [[0.0, 3.0, 1.0]], k=2)[0]]
    [('cat', 0.52), ('dog', 0.28)]
    """
    if not (isinstance(k, int | np.integer) and k >= 1):
        raise ValueError(f"k must be an integer of at least 1. Got {k!r} instead.")
    probabilities = estimator.predict_proba(X)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    labels = estimator.classes_.tolist()
    return [
        [ClassProbability(labels[i], float(row[i])) for i in best]
        for row, best in zip(probabilities, order.tolist(), strict=True)
    ]
