"""TaskRes joined with the text-prior Gaussian: the sum of two linear maps of the images.

The formula of the join comes first, then the estimator, which has a TaskResClassifier and a
:class:`.text_gaussian.TextGaussian`.
"""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import scaled_classifier, unit
from .._rows import chunks
from .gaussian import class_moments, images
from .taskres import TaskResClassifier
from .text_gaussian import default_strength, text_gaussian
from .training import TrainedClassifier

#: What `_prepare` finds out, and the TaskRes inside needs, too.
_PREPARED = (
    "classes_",
    "base_",
    "logit_scale_",
    "n_features_in_",
    "feature_names_in_",
    "_name_of",
    "_base_factor",
)
#: Images per class from which on the residual may move in full; weights may round a 2 down.
_TWO_IMAGES = 1.5
#: Classes from which on the Gaussian counts in full: with fewer, its wrong classes say little.
_FULL_WEIGHT = 10


def spread_of_wrong_logits(X, y, weights, intercept, sample_weight=None):
    """Mean over the rows of the standard deviation of their wrong classes' logits.

    The true class is left out, since its logit is large in training; of two classes both count.

    Parameters
    ----------
    X : ndarray of shape (n_samples, d)
        Image rows, of any norm.
    y : ndarray of shape (n_samples,)
        Class of each row.
    weights : ndarray of shape (n_classes, d)
    intercept : ndarray of shape (n_classes,) or float
        A linear map of unit rows.
    sample_weight : ndarray of shape (n_samples,), optional

    Returns
    -------
    float
    """
    spreads = np.empty(len(y))
    for part, rows in chunks(X):
        logits = unit(rows) @ weights.T + intercept
        wrong = np.ones(logits.shape, dtype=bool)
        if logits.shape[1] > 2:
            np.put_along_axis(wrong, y[part, None], False, axis=1)
        spreads[part] = logits.std(axis=1, where=wrong)
    return float(np.average(spreads, weights=sample_weight))


def joined(taskres, gaussian, weight):
    """Weighted mean of two arrays, (A + w·W) / (1 + w): the same for weights and intercepts."""
    return (taskres + weight * gaussian) / (1 + weight)


class TaskResGDAClassifier(TrainedClassifier):
    """TaskRes joined with Gaussian classes that expect their means where the text says.

    Two classifiers that err differently: `TaskResClassifier` moves CLIP's class embeddings by
    gradient, and a Gaussian discriminant whitens the images and takes the class names for a prior
    over the class means, in closed form. The sum is one linear map. Take it first: on real CLIP
    embeddings it is the best of this package's methods from one image per class on, without a
    search.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where the class embeddings come from. None is ``CLIPTextFeaturizer()``, the CLIP that
        `CLIPFeaturizer` takes by default. Rows of an array are taken for raw text embeddings, as in
        `TaskResClassifier`. ``"class_means"`` takes the mean embedding of each class's images, for
        encoders without a text side: the Gaussians then have no prior, and with one image per class
        there are none. Change it whenever the images were embedded by another model.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels; a sequence in the order of the sorted labels. None: the labels are the
        names.
    alpha : float or "auto", default="auto"
        Scale of TaskRes's residual. "auto" is 0.5 with one image per class (median), else 1.
    prior_strength : float or "auto", default="auto"
        How many images per class the names are worth (κ). 0 is the means of the images alone,
        infinity the text alone. "auto" is 8 (1 + 1/n) with n images per class (median): a name is
        worth about eight images. Lower it if names say little about what is seen.
    gaussian_weight : float or "auto", default="auto"
        Weight of the Gaussian compared with TaskRes, after both were brought to the same spread of
        logits. 0 is TaskRes alone. "auto" is 1, and (n_classes - 1) / 9 below ten classes, where
        there are too few to tell directions apart.
    base_norm : float or None, default=None
        As in `TaskResClassifier`.
    logit_scale : float or None, default=None
        As in `TaskResClassifier`.
    lr, max_epochs, batch_size, weight_decay
        Training of the residual, as in `TaskResClassifier`.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes: in TaskRes's loss, and in the Gaussian as if each image were there
        so many times.
    callbacks : list of skorch callbacks or None, default=None
        As in `TaskResClassifier`.
    device, precision
        Where and how the residual is trained, as in `TaskResClassifier`.
    random_state : int, RandomState instance or None, default=None
        Order of the images in TaskRes's batches; with one batch per epoch it has no influence.
    verbose : int, default=0
        1 prints an epoch's loss and learning rate as it ends.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights of unit image embeddings: the mean of TaskRes's and of the Gaussian's, the latter
        times `gaussian_scale_`.
    intercept_ : ndarray of shape (n_classes,)
        Added to the logits.
    taskres_ : TaskResClassifier
        The TaskRes inside, fitted: its ``residual_``, ``history_`` and the like.
    alpha_ : float
        Scale of its residual.
    prior_strength_ : float
        κ, given or chosen.
    gaussian_weight_ : float
        Weight of the Gaussian; 0 where there is none.
    gaussian_scale_ : float
        What brings the Gaussian's logits to the spread of TaskRes's.
    logit_scale_ : float
        Logit scale 1/τ.
    history_ : list of dict
        TaskRes's: one dict per epoch.
    n_iter_ : int
        Its epochs.
    n_parameters_ : int
        Number of values that training tuned: n_classes * n_features for the residual, and
        n_classes * (n_features + 1) for the Gaussian.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X had string names.

    See Also
    --------
    TaskResClassifier : The published method, by gradient alone.
    GDAClassifier : The closed form alone; ``prior="text"`` is the Gaussian of this classifier.

    Notes
    -----
    A fit costs that of TaskRes, one eigendecomposition of an n_features x n_features matrix and a
    few products; the fitted classifier keeps that matrix, for `add_classes`. A class that is added
    has no images: the text alone says where its Gaussian lies, and the images of classes with
    similar names correct it.

    All classes are equally likely beforehand, however many images each has.

    References
    ----------
    .. [1] Yu, Lu, Jin, Chen and Wang, "Task Residual for Tuning Vision-Language Models", CVPR 2023.
       arXiv:2211.10277
    .. [2] Wang, Liang, Sheng, He, Wang and Tan, "A Hard-to-Beat Baseline for Training-free
       CLIP-based Adaptation", ICLR 2024. arXiv:2402.04087 (Gaussians without a prior)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResGDAClassifier
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 10 * rng.normal(size=(12, 16))
    >>> clf = TaskResGDAClassifier(base=t, random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.prior_strength_
    10.0
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "prior_strength": [StrOptions({"auto"}), Interval(Real, 0, None, closed="both")],
        "gaussian_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }
    _class_arrays = (*TrainedClassifier._class_arrays, "intercept_")
    _streams_rows = True
    _unit_rows_act = "ten"

    def __init__(
        self,
        base=None,
        *,
        class_names=None,
        alpha="auto",
        prior_strength="auto",
        gaussian_weight="auto",
        base_norm=None,
        logit_scale=None,
        lr="auto",
        max_epochs="auto",
        batch_size=256,
        weight_decay=5e-4,
        class_weight=None,
        callbacks=None,
        device=None,
        precision="auto",
        random_state=None,
        verbose=0,
    ):
        self.base = base
        self.class_names = class_names
        self.alpha = alpha
        self.prior_strength = prior_strength
        self.gaussian_weight = gaussian_weight
        self.base_norm = base_norm
        self.logit_scale = logit_scale
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, X, y, sample_weight, views):
        self._fit_taskres(X, y, sample_weight, views)  # first: NumPy's threads slow torch's down
        self._fit_gaussian(X, y, sample_weight, views)
        self.coef_, self.intercept_ = self._join(self.taskres_.coef_, self._gaussian_map())

    def _fit_taskres(self, X, y, sample_weight, views):
        own = self.get_params(deep=False)
        names = TaskResClassifier().get_params(deep=False).keys() & own.keys()
        automatic = self.alpha == "auto"
        self.alpha_ = float(auto_alpha(y, sample_weight) if automatic else self.alpha)
        taskres = TaskResClassifier(**{**{n: own[n] for n in names}, "alpha": self.alpha_})
        vars(taskres).update({n: vars(self)[n] for n in _PREPARED if n in vars(self)})
        taskres._fit(X, y, sample_weight, views)
        self.taskres_, self.history_, self.n_iter_ = taskres, taskres.history_, taskres.n_iter_
        self.n_parameters_ = taskres.n_parameters_

    def _fit_gaussian(self, X, y, sample_weight, views):
        moments = class_moments(X, y, sample_weight, views)
        self.prior_strength_ = self._strength(moments.counts)
        self._gaussian = text_gaussian(moments, self.base_, self.prior_strength_)
        self.gaussian_weight_ = self._weight() if self._gaussian else 0.0
        self.gaussian_scale_ = 0.0
        if self.gaussian_weight_ > 0:
            self.gaussian_scale_ = self._matching_scale(X, y, sample_weight)
            self.n_parameters_ += self.base_.size + len(self.base_)

    def _strength(self, counts):
        if self._class_base.is_from_images:
            return 0.0  # means of the images are no prior for themselves
        automatic = self.prior_strength == "auto"
        return default_strength(counts) if automatic else float(self.prior_strength)

    def _weight(self):
        if self.gaussian_weight != "auto":
            return float(self.gaussian_weight)
        return min(1.0, (len(self.classes_) - 1) / (_FULL_WEIGHT - 1))

    def _matching_scale(self, X, y, sample_weight):
        """Return what the Gaussian's logits must be multiplied by to spread as TaskRes's do."""
        taskres = spread_of_wrong_logits(X, y, self.taskres_.coef_, 0, sample_weight)
        gaussian = spread_of_wrong_logits(X, y, *self._gaussian_map(), sample_weight)
        return taskres / gaussian if gaussian > 0 else 0.0

    def _gaussian_map(self):
        """Weights and intercepts of the fitted classes' Gaussians; zero without any."""
        if self._gaussian is None:
            return np.zeros_like(self.base_), np.zeros_like(self.base_[:, 0])
        return self._gaussian.weights, self._gaussian.intercept

    def _join(self, taskres, gaussian):
        """Join TaskRes's weights with a Gaussian map of the same classes."""
        scale, weight = (
            self.base_.dtype.type(a) for a in (self.gaussian_scale_, self.gaussian_weight_)
        )
        weights, intercept = gaussian
        return joined(taskres, scale * weights, weight), joined(0, scale * intercept, weight)

    def _logits(self, X):
        return super()._logits(X) + self.intercept_

    # classes that leave or join ----------------------------------------------------------------

    def select_classes(self, labels):
        selected = super().select_classes(labels)
        selected.taskres_ = self.taskres_.select_classes(labels)
        return selected

    select_classes.__doc__ = TrainedClassifier.select_classes.__doc__

    def add_classes(self, classes):
        """Return a fitted classifier that also knows classes without training images.

        A new class lies where the text prior puts it, given the images of the others, and keeps its
        zero-shot weights in TaskRes; what was learned for the others is kept as it is.

        Parameters
        ----------
        classes : dict of label to str or array-like of shape (n_features,), or list of str
            As in `TaskResClassifier.add_classes`.

        Returns
        -------
        TaskResGDAClassifier
            A fitted one; this one stays unchanged.

        Raises
        ------
        ValueError
            If a label is known already or of another kind than the others, if there is neither a
            text base nor an embedding, or if the base is ``"class_means"``.
        """
        grown = super().add_classes(classes)
        grown.taskres_ = self.taskres_.add_classes(classes)
        return grown

    def _new_rows(self, base):
        zero_shot = scaled_classifier(base, self.logit_scale_)
        gaussian = np.zeros_like(base), np.zeros_like(base[:, 0])
        if self.gaussian_weight_ > 0:
            gaussian = self._gaussian.unseen(base)
        coef, intercept = self._join(zero_shot, gaussian)
        return {"base_": base, "coef_": coef, "intercept_": intercept}

    @property
    def _cannot_add_classes(self) -> str | None:
        if self.gaussian_weight_ > 0 and self._class_base.is_from_images:
            return "without text, its Gaussians lie at the means of their images."
        return None


def auto_alpha(y, sample_weight=None):
    """Scale of the residual: 0.5 for one image per class (median), else 1."""
    counts = np.bincount(y, images(y, sample_weight))
    return 0.5 if np.median(counts) < _TWO_IMAGES else 1.0
