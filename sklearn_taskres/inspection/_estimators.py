"""From a fitted search or pipeline to the classifier inside, and to its zero-shot predictions."""

from sklearn.pipeline import Pipeline

from .._classifiers.zero_shot import ZeroShotClassifier


def classifier_and_rows(estimator, X):
    """Return the classifier at the end of an estimator, and X as that classifier gets it.

    Parameters
    ----------
    estimator : estimator
        A classifier of the package, a pipeline that ends in one, or a fitted search over either.
    X : array-like or None
        What the estimator takes; None stays None.

    Returns
    -------
    classifier : estimator
    rows : array-like or None

    Raises
    ------
    ValueError
        If there is no classifier with class embeddings at the end.
    """
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline):
            if X is not None and len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        else:
            _check_has_base(estimator)
            return estimator, X


def _check_has_base(estimator):
    if hasattr(estimator, "select_classes") and hasattr(estimator, "base"):
        return
    raise ValueError(
        f"{type(estimator).__name__} has no class embeddings to compare with. Pass a classifier "
        f"of this package that has a base, a pipeline that ends in one, or a search over them "
        f"that was fitted with refit=True; of other classifiers compare the predictions, with "
        f"from_predictions."
    )


def names_of_classes(classifier):
    """Return the name of each class of a fitted classifier; without `class_names`, the labels.

    Parameters
    ----------
    classifier : estimator
        A fitted classifier of the package.

    Returns
    -------
    list
        In the order of ``classes_``. A class that was added by an embedding goes by its label.
    """
    return [classifier._name_of.get(label, label) for label in classifier.classes_.tolist()]


def zero_shot_classifier(classifier, X=None, y=None):
    """Return the zero-shot classifier that a classifier starts from.

    Of a fitted one that is its `base_`, except for an enhanced base: tuning the text projection is
    part of the training, so the class names are embedded again by the CLIP as it came. (Of classes
    that were added to an enhanced base only the labels are known, not the names.)

    Parameters
    ----------
    classifier : estimator
        A classifier of the package, fitted or not.
    X : array-like of shape (n_samples, n_features), optional
        Rows for ``base="class_means"``, while the classifier is not fitted.
    y : array-like of shape (n_samples,), optional
        Labels, while the classifier is not fitted.

    Returns
    -------
    ZeroShotClassifier
        A fitted one.
    """
    is_fitted = hasattr(classifier, "classes_")
    if is_fitted and getattr(classifier, "text_projection_", None) is None:
        start = ZeroShotClassifier(classifier.base_, logit_scale=classifier.logit_scale_)
        return start.fit(None, classifier.classes_)
    names = ZeroShotClassifier().get_params(deep=False)
    given = {k: v for k, v in classifier.get_params(deep=False).items() if k in names}
    start = ZeroShotClassifier(**given)
    if start._class_base.is_from_images:
        return start.fit(X, y)
    return start.fit(None, classifier.classes_ if is_fitted else y)
