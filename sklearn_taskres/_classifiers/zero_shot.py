"""Zero-shot classification: the base alone, no training."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from .._fitting import all_or_nothing
from .._formulas import scaled_classifier
from .._typing import Base, ClassNames, fit_context
from .base import BaseCLIPClassifier


class ZeroShotClassifier(BaseCLIPClassifier):
    """CLIP's zero-shot classifier: the class whose text is nearest to the image.

    Logits are cosines between image and class embeddings, times CLIP's logit scale [1]_. Nothing
    is learned from images, so it also fits without any: ``fit(None, labels)``. It is the starting
    point of every other method, and the one to beat.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where the class embeddings come from. None is ``CLIPTextFeaturizer()``, the CLIP that
        `CLIPFeaturizer` takes by default. Rows of an array are named by `class_names`, or else by
        the sorted labels. ``"class_means"`` takes the mean embedding of each class's images and
        needs no text. Change it whenever the images were embedded by another model.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels; a sequence in the order of the sorted labels. None: the labels are the
        names.
    base_norm : float or None, default=None
        Mean norm to which the rows of the base are scaled. Cosines do not see it; here it only
        changes `base_`.
    logit_scale : float or None, default=None
        Logit scale 1/τ. None takes the CLIP's own, or 100 if the base is not text. It changes
        probabilities, never labels.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t.
    coef_ : ndarray of shape (n_classes, n_features)
        Logit scale times the unit rows of `base_`.
    logit_scale_ : float
        Logit scale 1/τ.
    n_parameters_ : int
        Number of values that training tuned: none.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResClassifier : Learns a residual on top of these class embeddings.

    Notes
    -----
    Costs one pass of the class names through the text tower, and one matrix product to predict.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
       ICML 2021. arXiv:2103.00020

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> base = 10 * np.eye(3, 4)
    >>> clf = ZeroShotClassifier(base=base).fit(None, ["bird", "cat", "dog"])
    >>> clf.predict([[0.1, 0.9, 0.0, 0.2]])
    array(['cat'], dtype='<U4')
    """

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        base_norm: float | None = None,
        logit_scale: float | None = None,
    ) -> None:
        self.base = base
        self.class_names = class_names
        self.base_norm = base_norm
        self.logit_scale = logit_scale

    @all_or_nothing
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike | None, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Find the class embeddings.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or None
            Raw image embeddings. They are used for ``base="class_means"``, and to warn if they
            cannot come from the model of the base. None if there are no images.
        y : array-like of shape (n_samples,)
            Labels; without images, each class at least once.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the images in the class means.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        if X is not None:
            return super().fit(X, y, sample_weight)
        y = column_or_1d(y)
        check_classification_targets(np.repeat(y, 3))  # repeated: see the base's fit
        self.classes_ = np.unique(y)
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit on a data frame
        self._set_base(None, None, None)
        self.n_features_in_ = self.base_.shape[1]
        self._fit(None, None, None, None)
        return self

    def _fit(self, X, y, sample_weight, views):
        self.coef_ = scaled_classifier(self.base_, self.logit_scale_)
        self.n_parameters_ = 0
