"""What a fitted classifier is in the end: one linear map of image rows, for most methods."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._classifiers.base import BaseCLIPClassifier
from .._classifiers.linear_probe import LinearProbeClassifier
from .._classifiers.taskres import task_residual
from .._clip.featurizer import CLIPFeaturizer


class LinearMap(NamedTuple):
    """Logits are ``unit(X + shift) @ coef.T + intercept``, or without unit rows."""

    classes: np.ndarray
    #: (n_classes, d) and (n_classes,).
    coef: np.ndarray
    intercept: np.ndarray
    #: Added to the rows, (d,), or None.
    shift: np.ndarray | None
    #: Whether rows are scaled to unit norm.
    is_unit: bool


def fitted_classifier(model: Any) -> BaseCLIPClassifier:
    """Return the fitted classifier that a model is, or that a search has found.

    Raises
    ------
    TypeError
        If it is not a classifier of this package.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    check_is_fitted(model)
    best = getattr(model, "best_estimator_", model)
    if not isinstance(best, BaseCLIPClassifier):
        raise TypeError(
            f"Only classifiers of sklearn_taskres are exported, or a pipeline of CLIPFeaturizer "
            f"and one of them. Got {type(best).__name__}."
        )
    return best


def parts_of(model: Any) -> tuple[CLIPFeaturizer | None, BaseCLIPClassifier]:
    """Return the featurizer of a pipeline, None for a classifier alone, and the classifier.

    Raises
    ------
    TypeError
        If the pipeline has another step.
    """
    if not isinstance(model, Pipeline):
        return None, fitted_classifier(model)
    steps = [step for _, step in model.steps if step not in (None, "passthrough")]
    others = [step for step in steps[:-1] if not isinstance(step, CLIPFeaturizer)]
    if others:
        raise TypeError(
            f"The pipeline has a {type(others[0]).__name__}, which can't be exported. It may have "
            f"a CLIPFeaturizer and a classifier, as make_taskres_pipeline() makes it."
        )
    if len(steps) != 2:
        raise TypeError(
            f"The pipeline must have two steps, a CLIPFeaturizer and a classifier. Got "
            f"{len(steps)}."
        )
    return steps[0], fitted_classifier(steps[1])


def linear_map(classifier: BaseCLIPClassifier) -> LinearMap:
    """Return the linear map that a fitted classifier is.

    Raises
    ------
    TypeError
        If its method is not one.
    """
    if classifier._is_not_linear:
        raise TypeError(
            f"{type(classifier).__name__} {classifier._is_not_linear}, and is not one linear map. "
            f"Export another method, or deploy it with joblib or push_to_hub."
        )
    coef = classifier.coef_
    intercept = getattr(classifier, "intercept_", np.zeros_like(coef[:, 0]))
    shift: np.ndarray | None = None
    residual = getattr(classifier, "image_residual_", np.zeros(1))
    if residual.any():
        alpha = residual.dtype.type(classifier.alpha_)
        shift = task_residual(np.zeros_like(residual), residual, alpha)
    is_unit = classifier.normalize if isinstance(classifier, LinearProbeClassifier) else True
    return LinearMap(classifier.classes_, coef, intercept, shift, is_unit)
