"""Which labels look wrong, what to label next, and which images belong to none of the classes."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from .._formulas import unit
from ._estimators import classifier_and_rows
from ._held_out import best_of, held_out_fits, held_out_log_proba, labeled

#: Images of a pool that are compared with each other; of a larger pool the most uncertain.
_MOST_COMPARED = 5000
#: Temperature of the probabilities in the score of `none_of_these`.
_TEMPERATURE = 5.0


class LabelSuspects(NamedTuple):
    """Labelled images, the most doubtful label first.

    Attributes
    ----------
    indices : ndarray of shape (n_judged,), int
        Places of the images in X. Images that are the only one of their class are not judged, nor
        those without a label (`TaskResGDAClassifier` has a parameter `unlabeled`).
    probability : ndarray of shape (n_judged,)
        Probability of the label that the image has, by a model that has not seen the image.
    suggested : ndarray of shape (n_judged,)
        Most probable other label.
    suggested_probability : ndarray of shape (n_judged,)
        Its probability. Above `probability`, the model contradicts the label.
    """

    indices: np.ndarray
    probability: np.ndarray
    suggested: np.ndarray
    suggested_probability: np.ndarray


def label_suspects(
    estimator: Any, X: Any, y: Any, *, cv: int = 5, random_state: Any = 0
) -> LabelSuspects:
    """Rank labelled images by how improbable their labels are, the most doubtful first.

    Each image is judged by a model that was fitted without it: the estimator is cloned and fitted
    in `cv` folds. Embeddings are computed once.

    Parameters
    ----------
    estimator : estimator
        A classifier with ``predict_log_proba``, fitted or not, a pipeline that ends in one, or a
        fitted search, whose best estimator is taken.
    X : array-like of shape (n_samples, ...)
        What it takes: embeddings, or images before a pipeline.
    y : array-like of shape (n_samples,)
        Labels, some of them perhaps wrong.
    cv : int, default=5
        Folds. Raise it if there are fewer than four images per class: each model is then fitted on
        more of them, at the cost of one fit per fold.
    random_state : int, RandomState instance or None, default=0
        Which images share a fold.

    Returns
    -------
    LabelSuspects

    Raises
    ------
    ValueError
        If no class has two images, or there is one class only.

    Notes
    -----
    With five wrong labels among 160 digits, all five are among the first eight suspects in the
    median of ten draws; of DTD at 16 images per class with 24 of 752 labels wrong, 17 of the first
    24 suspects are wrong (`TaskResGDAClassifier`; ``python tests/measure_review.py suspects``,
    2026-11-29, AMD EPYC with two cores). So look at each before changing it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> from sklearn_taskres.inspection import label_suspects
    >>> X = np.repeat(np.eye(2), 3, axis=0)
    >>> y = ["cat", "cat", "dog", "dog", "dog", "dog"]
    >>> suspects = label_suspects(ZeroShotClassifier(np.eye(2)), X, y)
    >>> int(suspects.indices[0]), str(suspects.suggested[0])
    (2, 'cat')
    """
    estimator = best_of(estimator)
    X, y, places = labeled(estimator, X, column_or_1d(y))
    log_proba, classes = held_out_log_proba(estimator, X, y, cv=cv, random_state=random_state)
    suspects = rank_labels(log_proba, np.searchsorted(classes, y), classes)
    return suspects._replace(indices=places[suspects.indices])


def rank_labels(log_proba: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> LabelSuspects:
    """Rank labels by held-out log-probabilities (n_samples, n_classes), NaN if not judged."""
    rows = np.arange(len(codes))
    given = log_proba[rows, codes]
    others = log_proba.copy()
    others[rows, codes] = -np.inf
    best = others.argmax(axis=1)
    order = np.argsort(given, kind="stable")[: np.count_nonzero(np.isfinite(given))]
    return LabelSuspects(
        order, np.exp(given[order]), classes[best[order]], np.exp(others[order, best[order]])
    )


def next_to_label(estimator: Any, X_pool: Any, n: int = 20, *, X_labeled: Any = None) -> np.ndarray:
    """Choose the unlabelled images whose labels would help most: uncertain, and unlike each other.

    Image after image, it takes the one that covers most uncertainty: the sum over the pool of how
    near each image comes to one that is chosen or labelled, weighted by one minus the margin
    between the two most probable classes.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier of the package, or a pipeline or search that ends in one.
    X_pool : array-like of shape (n_pool, ...)
        Unlabelled, what the estimator takes: embeddings, or images before a pipeline.
    n : int, default=20
        Images to choose.
    X_labeled : array-like of shape (n_labeled, ...), optional
        Images that have labels already, so that none like them is chosen. Pass the training images.

    Returns
    -------
    ndarray of shape (min(n, n_pool),), int
        Places in `X_pool`, the most useful first.

    Raises
    ------
    ValueError
        If n is not a positive integer.

    Notes
    -----
    Of a pool of more than 5000 the most uncertain 5000 are compared with each other, which takes
    100 MB; time grows with n times their square. Twenty chosen images added 1.1 points to digits
    and 1.6 to DTD, forty random ones 0.6 and 1.0, from four images per class (the user guide has
    the table; ``python tests/measure_review.py next``).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> from sklearn_taskres.inspection import next_to_label
    >>> clf = ZeroShotClassifier(np.eye(2)).fit(None, ["cat", "dog"])
    >>> next_to_label(clf, [[1, 0], [1, 1], [0, 1]], 1)
    array([1])
    """
    if not (isinstance(n, int | np.integer) and n >= 1):
        raise ValueError(f"n must be an integer of at least 1. Got {n!r} instead.")
    classifier, rows = classifier_and_rows(estimator, X_pool)
    check_is_fitted(classifier)
    first, second = np.sort(classifier.predict_proba(rows), axis=1)[:, :-3:-1].T
    uncertainty = 1 - (first - second)
    candidates = np.sort(np.argsort(-uncertainty, kind="stable")[:_MOST_COMPARED])
    rows = unit(check_array(rows, dtype=np.float32))
    centre = rows.mean(axis=0)
    rows = unit(rows[candidates] - centre)
    covered = np.full(len(rows), -1.0, dtype=np.float32)
    if X_labeled is not None:
        labeled = check_array(
            _clean(classifier_and_rows(estimator, X_labeled)[1]), dtype=np.float32
        )
        covered = (rows @ unit(unit(labeled) - centre).T).max(axis=1)
    return candidates[_covering(rows, uncertainty[candidates], covered, n)]


def _covering(rows: np.ndarray, weight: np.ndarray, covered: np.ndarray, n: int) -> np.ndarray:
    """Greedily choose n rows (n_rows, d) that raise the weighted nearness of all rows most."""
    nearness, chosen = rows @ rows.T, []
    free = np.ones(len(rows), dtype=bool)
    for _ in range(min(n, len(rows))):
        gain = weight @ np.maximum(nearness - covered[:, None], 0)
        best = int(np.argmax(np.where(free, gain, -1)))
        chosen.append(best)
        free[best] = False
        covered = np.maximum(covered, nearness[:, best])
    return np.array(chosen)


class NoneOfThese:
    """Tells images that belong to none of a classifier's classes; `none_of_these` makes it.

    Attributes
    ----------
    threshold_ : float
        Images that score below it belong to none of the classes.
    """

    def __init__(self, signs: "_Signs", held_out: np.ndarray, share: float) -> None:
        self._signs = signs
        self._mean, self._scale = held_out.mean(axis=0), held_out.std(axis=0) + 1e-12
        self.threshold_ = float(np.quantile(self._standardised(held_out), 1 - share))

    def _standardised(self, signs: np.ndarray) -> np.ndarray:
        return ((signs - self._mean) / self._scale).mean(axis=1)

    def score(self, X: Any) -> np.ndarray:
        """Return how much each image belongs to some class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What the estimator takes.

        Returns
        -------
        ndarray of shape (n_samples,)
            0 for a typical image of the classes, in units of their standard deviation.
        """
        return self._standardised(self._signs.of(classifier_and_rows(self._signs.estimator, X)[1]))

    def predict(self, X: Any) -> np.ndarray:
        """Return whether each image belongs to none of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What the estimator takes.

        Returns
        -------
        ndarray of shape (n_samples,), bool
        """
        return self.score(X) < self.threshold_


class _Signs:
    """Signs that an image belongs to a class: near its images, near its name, and no rival."""

    def __init__(self, estimator: Any, X: np.ndarray, y: np.ndarray) -> None:
        self.estimator = estimator
        self.classifier = classifier_and_rows(estimator, None)[0]
        self.centre = unit(X).mean(axis=0)
        around = unit(unit(X) - self.centre)
        means = [around[y == label].mean(axis=0) for label in np.unique(y)]
        self.prototypes = unit(np.array(means))

    def of(self, X: Any) -> np.ndarray:
        """Signs (n_samples, 3) of embeddings, the higher the more."""
        X = check_array(_clean(X), dtype=[np.float32, np.float64])
        near_images = (unit(unit(X) - self.centre) @ self.prototypes.T).max(axis=1)
        near_name = (unit(X) @ unit(self.classifier.base_).T).max(axis=1)
        flat = log_softmax(self.classifier.predict_log_proba(X) / _TEMPERATURE, axis=1)
        return np.stack([near_images, near_name, flat.max(axis=1)], axis=1).astype(float)


def _clean(X: Any) -> Any:
    """Return rows without their views."""
    return X[:, 0] if getattr(X, "ndim", 2) == 3 else X


def none_of_these(
    estimator: Any, X: Any, y: Any, *, share: float = 0.95, cv: int = 5, random_state: Any = 0
) -> NoneOfThese:
    """Learn to tell images that belong to none of the classes, from training images alone.

    The score is the mean of three signs, each standardised on images held out: how near an image is
    to the mean of a class's images, how near to a class's name, and how far the most probable class
    is ahead. It ranks better than the highest probability alone, which is high for many images of
    other things.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier of the package that has a base, or a pipeline or search that ends in
        one.
    X : array-like of shape (n_samples, ...)
        The images that it was fitted on.
    y : array-like of shape (n_samples,)
        Their labels.
    share : float, default=0.95
        Share of held-out images of the classes that are to score above the threshold, in (0, 1).
        Raise it if sending away a good image costs more than letting a wrong one in.
    cv : int, default=5
        Folds in which images are held out, a fit for each.
    random_state : int, RandomState instance or None, default=0
        Which images share a fold.

    Returns
    -------
    NoneOfThese
        Its ``score`` and ``predict`` take what the estimator takes.

    Raises
    ------
    ValueError
        If `share` is not in (0, 1), or each class has one image.

    Notes
    -----
    Area under the ROC curve, compared with the highest probability: digits against letters 94 and
    81 %; 37 classes of DTD against 10 others, which are textures too, 76 and 73 %. At
    ``share=0.95`` it tells 74 % of those letters, but only 17 % of those textures (16 images per
    class, `TaskResGDAClassifier`; ``python tests/measure_review.py none``, 2026-11-29, AMD EPYC
    with two cores).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> from sklearn_taskres.inspection import none_of_these
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(np.eye(3)[:2], 8, axis=0) + 0.1 * rng.normal(size=(16, 3))
    >>> y = [0] * 8 + [1] * 8
    >>> clf = ZeroShotClassifier(np.eye(3)[:2]).fit(None, [0, 1])
    >>> none_of_these(clf, X, y).predict([[1.0, 0, 0], [-1.0, -1, 1]]).tolist()
    [False, True]
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, as 0.95 does. Got {share!r} instead.")
    estimator = best_of(estimator)
    classifier, rows = classifier_and_rows(estimator, X)
    check_is_fitted(classifier)
    rows, y = check_array(_clean(rows), dtype=[np.float32, np.float64]), column_or_1d(y)
    check_consistent_length(rows, y)
    rows, y, _ = labeled(classifier, rows, y)
    parts = held_out_fits(classifier, rows, y, cv, check_random_state(random_state))
    held_out = [_Signs(fitted, rows[seen], y[seen]).of(rows[out]) for out, seen, fitted in parts]
    return NoneOfThese(_Signs(estimator, rows, y), np.concatenate(held_out), share)
