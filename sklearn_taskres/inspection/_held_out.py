"""Log-probabilities of labelled images from models that have not seen them."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state, column_or_1d, get_tags

from .._classifiers.unlabeled import unlabeled_rows
from .._messages import listed


def best_of(estimator: Any) -> Any:
    """Return the estimator that a fitted search found best, or the estimator itself."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    return estimator


def labeled(estimator: Any, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Leave out images without a label, for a classifier that may be trained on some.

    Returns
    -------
    X, y
        Of the images that have a label.
    places : ndarray of shape (n_labeled,), int
        Where they stand among all.
    """
    classifier = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    rows = unlabeled_rows(y, getattr(classifier, "unlabeled", None))
    if rows is None:
        return X, y, np.arange(len(y))
    places = np.flatnonzero(~rows)
    return _taken(X, places), y[places], places


def classifier_and_training_rows(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return what is to be fitted in each fold, and the rows that it takes.

    Steps that learn nothing, such as CLIPFeaturizer, see each image once, outside of the folds;
    with views they give those, too.
    """
    if not isinstance(estimator, Pipeline) or any(
        get_tags(step).requires_fit for _, step in estimator.steps[:-1]
    ):
        return estimator, X
    for _, step in estimator.steps[:-1]:
        X = step.fit_transform(X)
    return estimator[-1], X


def held_out_log_proba(
    estimator: Any, X: Any, y: Any, *, cv: int = 5, random_state: Any = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Predict each image by a model that was fitted without it.

    Each class is dealt out to the folds by itself, so that every fold is trained on every class. An
    image that is the only one of its class trains in all folds, and is not predicted.

    Parameters
    ----------
    estimator : estimator
        A classifier with ``predict_log_proba``, or a pipeline that ends in one. Cloned for each
        fold.
    X : array-like of shape (n_samples, ...)
        What it takes.
    y : array-like of shape (n_samples,)
        Labels.
    cv : int, default=5
        Folds, of which each image is held out in one.
    random_state : int, RandomState instance or None, default=0
        Which images share a fold.

    Returns
    -------
    log_proba : ndarray of shape (n_samples, n_classes), float64
        NaN for images that are the only one of their class.
    classes : ndarray of shape (n_classes,)
        The sorted labels.

    Raises
    ------
    ValueError
        If no class has two images, or there is one class only.
    """
    y = column_or_1d(y)
    classifier, rows = classifier_and_training_rows(estimator, X)
    classes = np.unique(y)
    log_proba = np.full((len(y), len(classes)), np.nan)
    rng = check_random_state(random_state)
    for held_out, _, fitted in held_out_fits(classifier, rows, y, cv, rng):
        log_proba[held_out] = fitted.predict_log_proba(_taken(rows, held_out))
    return log_proba, classes


def held_out_fits(
    classifier: Any, rows: Any, y: np.ndarray, cv: int, rng: np.random.RandomState
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield the indices held out, those seen, and a clone fitted on them, for each fold.

    Raises
    ------
    ValueError
        As `held_out_log_proba`, or if `cv` is not an integer of at least 2.
    """
    if not (isinstance(cv, Integral) and cv >= 2):
        raise ValueError(f"cv must be an integer of at least 2. Got {cv!r} instead.")
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"All images are labelled {listed(classes.tolist())}: add another class.")
    folds = deal(codes, cv, rng)
    if (folds < 0).all():
        raise ValueError(
            "Each class has one image, so none can be held out. Add images: two per class will do."
        )
    yield from _fits(classifier, rows, y, folds)


def held_out_predictions(
    classifier: Any, rows: Any, y: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return the label that each image gets from a model fitted without its fold.

    Parameters
    ----------
    classifier : estimator
    rows : array-like of shape (n_samples, ...)
    y : ndarray of shape (n_samples,)
    folds : ndarray of shape (n_samples,), int
        From `deal`. Images of fold -1 keep their own label.

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    predicted = y.copy()
    for held_out, _, fitted in _fits(classifier, rows, y, folds):
        predicted[held_out] = fitted.predict(_taken(rows, held_out))
    return predicted


def _fits(
    classifier: Any, rows: Any, y: np.ndarray, folds: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    for fold in np.unique(folds[folds >= 0]):
        held_out, seen = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        yield held_out, seen, clone(classifier).fit(_taken(rows, seen), y[seen])


def deal(codes: np.ndarray, n_folds: int, rng: np.random.RandomState) -> np.ndarray:
    """Deal each class out to folds, 0 to n_folds - 1; -1 for the only image of a class."""
    folds = np.full(len(codes), -1)
    for code in range(codes.max() + 1):
        rows = rng.permutation(np.flatnonzero(codes == code))
        if len(rows) > 1:
            folds[rows] = (rng.randint(n_folds) + np.arange(len(rows))) % n_folds
    return folds


def _taken(rows: Any, indices: np.ndarray) -> Any:
    """Rows by their places, also of a data frame or a column, whatever its index is."""
    return _safe_indexing(rows, indices)
