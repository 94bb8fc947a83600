"""Gaussian discriminant analysis: a closed-form linear map of images on top of the text."""

import math
from numbers import Real
from typing import Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import scaled_classifier, unit
from .._held_out import shot_folds
from .._typing import Base, ClassNames, RandomState
from .base import BaseCLIPClassifier
from .gaussian import best_weight, class_moments, gaussian_classifier
from .text_gaussian import DEFAULT_STRENGTH, text_gaussian
from .training import torch_product

#: If alpha can't be searched: this times (N - K) / (N - 1), so 0.01 at two images per class.
_DEFAULT_ALPHA = 0.02


def gaussian_map(X, y, sample_weight=None, views=None):
    """Weights W (K, D) and intercepts b (K,) of the Gaussian term f Wᵀ + b, as published.

    W = μ Σ⁻¹ and b_c = log(1/K) - ½ μ_cᵀ Σ⁻¹ μ_c, where Σ⁻¹ = D pinv((N - 1) Cov + tr(Cov) I). Cov
    is the covariance of the unit rows around the means of their classes, with N - 1 as its
    denominator although K means were taken off. What is inverted has a condition number of at most
    N, so that a solver gives what the pseudo-inverse gives. Without scatter the matrix is zero, as
    is its pseudo-inverse, and W = 0.

    Parameters are those of :func:`.gaussian.gaussian_classifier`.
    """
    W, b = gaussian_classifier(X, y, sample_weight, views)
    return W, b - math.log(len(b))


class GDAClassifier(BaseCLIPClassifier):
    """Gaussian discriminant analysis on top of CLIP's zero-shot logits, in closed form.

    The images of each class are taken for Gaussian, with one covariance for all classes; Bayes'
    rule then gives logits that are linear in the image embedding, and alpha times these is added
    to the zero-shot logits [1]_. No gradient is computed: a fit is one linear system. Take it from
    two images per class on, or if fits must be cheap; with one image use another method.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where the class embeddings come from. None is ``CLIPTextFeaturizer()``, the CLIP that
        `CLIPFeaturizer` takes by default. Rows of an array are named by `class_names`, or else by
        the sorted labels. ``"class_means"`` takes the mean embedding of each class's images, for
        encoders without a text side. Change it whenever the images were embedded by another model.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels; a sequence in the order of the sorted labels. None: the labels are the
        names.
    alpha : float or "auto", default="auto"
        Weight of the Gaussian term. 0 is zero-shot. "auto" chooses among 0 and 49 values from 1e-4
        to 1e2: each training image is held out once, and the value with the highest accuracy on
        them is taken, among equal ones that with the highest likelihood. If nothing can be held
        out, or no scatter is left when it is (two images per class without views), it is
        ``0.02 * (N - K) / (N - 1)`` for N rows of K classes: 0.01 at two images per class. Give a
        number to make the fit free of chance.
    prior : {"text"} or None, default=None
        "text" gives the class means a prior at the class names, worth eight images, and takes the
        Gaussians alone, without zero-shot's logits and `alpha`: the closed-form half of
        `TaskResGDAClassifier`, which is more accurate. It also works with one image per class.
        None is the published method.
    base_norm : float or None, default=None
        Mean norm to which the rows of the base are scaled. Cosines do not see it; here it only
        changes `base_`.
    logit_scale : float or None, default=None
        Logit scale 1/τ of the zero-shot term. None takes the CLIP's own, or 100 if the base is
        not text.
    random_state : int, RandomState instance or None, default=None
        Which images are held out together.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t.
    alpha_ : float
        Weight of the Gaussian term, given or chosen.
    coef_ : ndarray of shape (n_classes, n_features)
        Classifier ``logit_scale_ * unit(base_) + alpha_ * W``, for unit image embeddings; with
        ``prior="text"`` the Gaussians' weights alone.
    intercept_ : ndarray of shape (n_classes,)
        ``alpha_ * b``.
    logit_scale_ : float
        Logit scale 1/τ.
    n_parameters_ : int
        Number of values that training tuned: n_classes * (n_features + 1) for W and b, which are
        estimated from the images, though by no gradient; 0 if ``alpha_`` is 0.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResGDAClassifier : Joins a Gaussian with TaskRes, the recommended default.
    TaskResClassifier : Learns by gradient, and from one image per class on.
    LinearProbeClassifier : A linear map of the images without the text.

    Notes
    -----
    With one image per class and no views, rows do not scatter within a class, so the Gaussian term
    says nothing and the classifier is zero-shot. If X has views, the clean embedding and all views
    are rows of their image's class; an image is held out with its views, and judged by the clean
    one.

    All classes are equally likely beforehand, as published, however many images each has; hence
    no `class_weight`. Sample weights count rows: 2 is the same as the row twice. Weights whose sum
    is below the number of rows are scaled up to it. `add_classes` is refused: a class without
    images has no mean.

    A fit costs one product of ``n_features**2 * n_rows`` and the solution of one linear system,
    up to six times with ``alpha="auto"``, and holds a matrix of ``n_features**2``.

    References
    ----------
    .. [1] Wang, Liang, Sheng, He, Wang and Tan, "A Hard-to-Beat Baseline for Training-free
       CLIP-based Adaptation", ICLR 2024. arXiv:2402.04087

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import GDAClassifier
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 10 * rng.normal(size=(12, 16))
    >>> clf = GDAClassifier(base=t, random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.coef_.shape, clf.intercept_.shape
    ((3, 16), (3,))
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **BaseCLIPClassifier._parameter_constraints,
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "prior": [None, StrOptions({"text"})],
        "random_state": ["random_state"],
    }
    _class_arrays = (*BaseCLIPClassifier._class_arrays, "intercept_")
    _cannot_add_classes = "the Gaussian of a class has its images' mean."

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        alpha: float | Literal["auto"] = "auto",
        prior: Literal["text"] | None = None,
        base_norm: float | None = None,
        logit_scale: float | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.base = base
        self.class_names = class_names
        self.alpha = alpha
        self.prior = prior
        self.base_norm = base_norm
        self.logit_scale = logit_scale
        self.random_state = random_state

    def _fit(self, X, y, sample_weight, views):
        if self.prior == "text":
            self._fit_text_prior(X, y, sample_weight, views)
            return
        W, b = gaussian_map(X, y, sample_weight, views)
        self.alpha_ = float(self.alpha if self.alpha != "auto" else 0)
        if self.alpha == "auto" and W.any():
            self.alpha_ = self._choose_alpha(X, y, sample_weight, views)
        alpha = X.dtype.type(self.alpha_)
        self.coef_ = scaled_classifier(self.base_, self.logit_scale_) + alpha * W
        self.intercept_ = alpha * b
        self.n_parameters_ = W.size + b.size if self.alpha_ else 0

    def _fit_text_prior(self, X, y, sample_weight, views):
        """Take the closed form with a text prior, alone; zero-shot if there is no scatter."""
        strength = 0.0 if self._class_base.is_from_images else DEFAULT_STRENGTH
        moments = class_moments(X, y, sample_weight, views, product=torch_product)
        gaussian = text_gaussian(moments, self.base_, strength)
        self.alpha_ = 1.0 if gaussian else 0.0
        self.coef_ = scaled_classifier(self.base_, self.logit_scale_)
        self.intercept_ = np.zeros_like(self.base_[:, 0])
        if gaussian:
            self.coef_, self.intercept_ = gaussian.weights, gaussian.intercept
        self.n_parameters_ = self.base_.size + len(self.base_) if gaussian else 0

    def _choose_alpha(self, X, y, sample_weight, views):
        """Return the alpha that labels held-out images best, or a small one without any."""
        held_out = self._held_out(X, y, sample_weight, views)
        if held_out is not None:
            zero_shot, gaussian = held_out
            return best_weight(zero_shot, gaussian, y)
        n_rows = len(y) * (1 if views is None else 1 + views.shape[1])
        return _DEFAULT_ALPHA * (n_rows - len(self.classes_)) / (n_rows - 1)

    def _held_out(self, X, y, sample_weight, views):
        """Both terms of each image's logits (n, K), from maps that did not see it, if possible."""
        zero_shot, gaussian = np.empty((2, len(y), len(self.classes_)), dtype=X.dtype)
        folds = shot_folds(y, check_random_state(self.random_state))
        for kept, held in folds:
            seen = [None if a is None else a[kept] for a in (X, y, sample_weight, views)]
            W, b = gaussian_map(*seen)
            if not W.any():
                return None
            f = unit(X[held])
            zero_shot[held] = f @ scaled_classifier(self._base_of(*seen[:3]), self.logit_scale_).T
            gaussian[held] = f @ W.T + b
        return (zero_shot, gaussian) if folds else None

    def _base_of(self, X, y, sample_weight):
        """Class embeddings that have not seen the images held out."""
        class_base = self._class_base
        if not class_base.is_from_images:
            return self.base_
        return class_base.embed(self.classes_, None, X, y, sample_weight)

    def _logits(self, rows):
        return super()._logits(rows) + self.intercept_
