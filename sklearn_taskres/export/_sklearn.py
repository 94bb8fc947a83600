"""A tuned classifier as plain scikit-learn, which any machine with scikit-learn can load."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from ._linear import fitted_classifier, linear_map


def to_sklearn(classifier: Any) -> Pipeline:
    """Return the same classifier as a pipeline of Normalizer and LogisticRegression.

    It takes image embeddings, and no part of it is of this package: it is pickled, converted by
    skl2onnx and served like any other.

    Parameters
    ----------
    classifier : object
        A fitted classifier of this package, or a fitted TaskResClassifierCV, whose best one is
        taken. Of a pipeline pass the last step, ``model[-1]``.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps "unit" and "linear"; for rows of float32 or float64 its probabilities are the
        classifier's to 1e-6. Bring rows of float16 to float32 before: Normalizer rounds to float16.
        The coefficients are float64, so that rows of float32 are multiplied in float64, as the
        classifier does it. A linear probe with ``normalize=False`` has a step that does nothing for
        "unit".

    Raises
    ------
    TypeError
        If it is not a classifier of this package, or its method is not one linear map:
        Tip-Adapter, CLIP-Adapter on the image branch, ProLIP, and TaskRes with an image residual.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifier
    >>> from sklearn_taskres.export import to_sklearn
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 8)), np.arange(20) % 2
    >>> clf = TaskResClassifier("class_means").fit(X, y)
    >>> plain = to_sklearn(clf)
    >>> bool(np.allclose(plain.predict_proba(X), clf.predict_proba(X), atol=1e-6))
    True
    """
    best = fitted_classifier(classifier)
    head = linear_map(best)
    if head.shift is not None:
        raise TypeError(
            f"{type(best).__name__} with residual={best.residual!r} moves the image rows before "
            f"they are normalised, which is not one linear map. Fit it with residual='text', or "
            f"use export_onnx."
        )
    coef, intercept = (array.astype(np.float64) for array in (head.coef, head.intercept))
    if len(head.classes) == 2:  # one row there, of the second class against the first
        coef, intercept = np.diff(coef, axis=0), np.diff(intercept)
    linear = LogisticRegression()
    linear.classes_, linear.n_features_in_ = head.classes, head.coef.shape[1]
    linear.coef_, linear.intercept_ = coef, intercept
    linear.n_iter_ = np.zeros(1, dtype=np.int32)
    unit: Any = Normalizer() if head.is_unit else FunctionTransformer()
    unit.n_features_in_ = head.coef.shape[1]
    return Pipeline([("unit", unit), ("linear", linear)])
