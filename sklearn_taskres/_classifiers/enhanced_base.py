"""The enhanced base: CLIP's text projection, tuned on the task before the residual is learned."""

import numpy as np

from .._formulas import Formula, scaled_classifier, unit
from .._rows import working_dtype


def projected_logits(z, *, P, h, b, scale, P0, penalty):
    """Logits (n, K) of unit image rows z (n, D) against t = hP + b, with h (K, W) and P (W, D)."""
    return z @ scaled_classifier(h @ P + b, scale).T


def distance_to_start(*, P, h, b, scale, P0, penalty):
    """Penalty λ‖P - P0‖² (squared Frobenius norm) that keeps the projection near CLIP's own."""
    return penalty * ((P - P0) ** 2).sum()


def tune_text_projection(features, X, y, sample_weight=None, *, logit_scale, penalty, run, **how):
    """Tune the text projection on image rows.

    Parameters
    ----------
    features : ClassFeatures
        Text features before the projection, h (n_classes, W), the projection P0 (W, d) and its
        bias (d,) or None.
    X : ndarray of shape (n_samples, d), or (n_samples, n_views, d)
        Image rows of any norm; their dtype is the dtype of computation.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,) or None, default=None
        Weights of the rows.
    logit_scale : float
        Frozen logit scale 1/τ.
    penalty : float
        Weight λ of ‖P - P0‖².
    run : callable
        The engine, called as :func:`~sklearn_taskres._training.train` is.
    **how
        Further arguments of the engine.

    Returns
    -------
    projection : ndarray of shape (W, d)
        The tuned projection.
    history : list of dict
        Training history, a dict per epoch.
    """
    start = features.projection.astype(working_dtype(X))
    bias = 0.0 if features.bias is None else features.bias.astype(start.dtype)
    constants = {"h": features.hidden, "b": bias, "scale": logit_scale}
    constants |= {"P0": start, "penalty": float(penalty)}
    formula = Formula(
        projected_logits, {"P": start}, constants, prepare=unit, penalty=distance_to_start
    )
    trained = run(formula, X, y, sample_weight, **how)
    return trained.parameters["P"], trained.history


def class_embeddings(features, projection):
    """Class embeddings t = hP + b, (n_classes, d), under a projection (W, d)."""
    t = features.hidden.astype(projection.dtype) @ projection
    return t if features.bias is None else t + np.asarray(features.bias, dtype=projection.dtype)
