"""TaskRes joined with the text-prior Gaussian: the sum of two linear maps of the images.

The formula of the join comes first, then the estimator, which has a TaskResClassifier and a
:class:`.text_gaussian.TextGaussian`.
"""

import functools
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

from .._formulas import scaled_classifier, unit
from .._held_out import images_per_class
from .._rows import chunks
from .._typing import (
    Base,
    Callbacks,
    ClassNames,
    ClassWeight,
    Device,
    NewClasses,
    Precision,
    RandomState,
)
from .base import _clean_and_views, _refuse_missing_labels
from .gaussian import class_moments, images, images_per_weight
from .held_out_gaussian import HeldOutGaussian, log_likelihoods, nearest_within
from .taskres import TaskResClassifier
from .text_gaussian import DEFAULT_STRENGTH, Covariance, TextGaussian, text_gaussian
from .training import TrainedClassifier, torch_product
from .unlabeled import UnlabeledImages, merged, unlabeled_rows

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
#: Fewest classes times images for the Gaussian, and for an alpha of 1.
_LEAST_DATA = 100
#: Fewest images per class (median) for an alpha of 1; weights may round a 2 down.
_TWO_IMAGES = 1.5
#: Candidates for the prior strength, and for 1 / temperature.
_STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_SHARPNESSES = 2.0 ** (np.arange(-12, 13) / 6)
#: Rounds in which images without labels join.
_ROUNDS = 5
#: With fewer classes than this, the Gaussian counts less.
_MANY_CLASSES = 10
#: Mean probability that zero-shot gives to the wrong classes. From the first value on, both parts
#: count the same; below the second, the Gaussian's weight grows no further.
_MUCH_DOUBT, _LITTLE_DOUBT = 0.4, 0.05
#: Fewest images to choose anything by.
_LEAST_FOR_CHOICES = 20


def spread_of_wrong(logits, y):
    """Return the standard deviation of the wrong classes' logits of each row, (n,).

    The true class is left out, since its logit is large in training; of two classes both count.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
    y : ndarray of shape (n_samples,)
        Class of each row.
    """
    n_classes = logits.shape[1]
    if n_classes == 2:
        return logits.std(axis=1)
    wrong = logits[np.arange(n_classes) != y[:, None]]
    return wrong.reshape(len(y), n_classes - 1).std(axis=1)


def joined(taskres, gaussian, weight):
    """Weighted mean of two arrays, (A + w·W) / (1 + w): the same for weights and intercepts."""
    return (taskres + weight * gaussian) / (1 + weight)


def probabilities(coef, intercept, z):
    """Return the probabilities (n, K) of the classes for unit rows z (n, D)."""
    return softmax(torch_product(z, coef.T) + intercept, axis=1)


def doubts(logits, y):
    """Return the probability (n,) that logits (n, K) give to other classes than y (n,)."""
    return -np.expm1(log_likelihoods(logits, y))


def sharpest(logits, y):
    """Return the log-likelihoods (n,) of y at the sharpness that makes it most likely."""
    return max((log_likelihoods(b * logits, y) for b in _SHARPNESSES[::4]), key=np.mean)


class TaskResGDAClassifier(TrainedClassifier):
    """TaskRes joined with Gaussian classes that expect their means where the text says.

    Two classifiers that err differently: `TaskResClassifier` moves CLIP's class embeddings by
    gradient, and a Gaussian discriminant whitens the images and takes the class names for a prior
    over the class means, in closed form. The sum is one linear map. Take it first: on real CLIP
    embeddings of textures it is the most accurate of this package's methods, or level with the
    best, at 1 to 48 images per class, without a search. The page "Comparing methods" of the guide
    names the cells in which another one is ahead.

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
        Scale of TaskRes's residual. "auto" is 0.5 with one image per class (median) or if n_classes
        * n_samples is below 100, else 1.
    prior_strength : float or "auto", default="auto"
        How many images per class the names are worth (κ). 0 is the means of the images alone,
        infinity the text alone. "auto" is 8, a name being worth about eight images; from two images
        per class on (median), and 20 in all, one of 1, 2, 4, 8 and 16: the one nearest to 8 under
        which held-out images are not clearly less likely (two standard errors) than under the best.
        At least 8 if some rows have no label. Set it to fix what names are worth.
    gaussian_weight : float or "auto", default="auto"
        Weight of the Gaussian compared with TaskRes, after both were brought to the same spread of
        logits. 0 is TaskRes alone. "auto" is 0.4 / e, but at least 1 and at most 8. Here e is the
        mean probability that zero-shot CLIP gives to the wrong classes of the training images: if
        the names alone are almost always right, TaskRes has few errors to learn from. With fewer
        than ten classes it is (n_classes - 1) / 9, and otherwise 1 with ``"class_means"``. It is 0
        if n_classes * n_samples is below 100: little is known then, and the classifier is
        `TaskResClassifier`. Rows without a label raise it, at most to twice as much.
    calibrate : bool, default=True
        Divide all logits by a temperature: the one nearest to 1 under which held-out images are not
        clearly less likely (two standard errors) than under the best. Labels do not change. The
        images are held out from the Gaussian, whose probabilities are judged. With one image per
        class, fewer than 20 images or ``"class_means"`` the temperature is 1.
    unlabeled : int, str or None, default=-1
        The label of rows without a label, which is scikit-learn's -1 for integer labels. For labels
        that are strings name one, such as ``"unlabeled"``; it becomes no class. These rows join the
        Gaussian, each counting 0.3 images and belonging to the classes as the classifier guesses,
        in five rounds. None: every label is a class, -1 as well.
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
        Weight of the Gaussian; 0 if there is none.
    temperature_ : float
        What all logits were divided by.
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
        n_classes * (n_features + 1) for the Gaussian if there is one.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

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
    8.0
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "prior_strength": [StrOptions({"auto"}), Interval(Real, 0, None, closed="both")],
        "gaussian_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "calibrate": ["boolean"],
        "unlabeled": [None, Integral, str],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }
    _class_arrays = (*TrainedClassifier._class_arrays, "intercept_")
    _streams_rows = True
    _unit_rows_act = "ten"
    _gaussian: TextGaussian | None
    #: What a fitted one holds besides arrays, numbers and estimators; a model file may name them.
    _data_types = (TextGaussian, Covariance)

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        alpha: float | Literal["auto"] = "auto",
        prior_strength: float | Literal["auto"] = "auto",
        gaussian_weight: float | Literal["auto"] = "auto",
        calibrate: bool = True,
        unlabeled: int | str | None = -1,
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float | Literal["auto"] = "auto",
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 256,
        weight_decay: float = 5e-4,
        class_weight: ClassWeight = None,
        callbacks: Callbacks = None,
        device: Device = None,
        precision: Precision = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.base = base
        self.class_names = class_names
        self.alpha = alpha
        self.prior_strength = prior_strength
        self.gaussian_weight = gaussian_weight
        self.calibrate = calibrate
        self.unlabeled = unlabeled
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

    def _prepare(self, X, y, sample_weight):
        """Part rows without labels from the others, and prepare these; return both for `_fit`."""
        y, rows = _labels(X, y, self.unlabeled)
        if rows is None:
            return *super()._prepare(X, y, sample_weight), None
        if rows.all():
            raise ValueError(
                f"Every row of y is {self.unlabeled!r}, the label of rows without a label. Label "
                f"some images of each class, or pass unlabeled=None if {self.unlabeled!r} is a "
                f"class."
            )
        labeled, rest = np.flatnonzero(~rows), np.flatnonzero(rows)
        weights = [None, None]
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
            weights = [weight[labeled], weight[rest] * images_per_weight(weight[labeled])]
        data = super()._prepare(_safe_indexing(X, labeled), _safe_indexing(y, labeled), weights[0])
        pool, _ = _clean_and_views(_safe_indexing(X, rest))
        pool = self._validated(pool, streams=True, reset=False)
        return *data, UnlabeledImages(pool.astype(data[0].dtype, copy=False), weights[1])

    def _fit(self, X, y, sample_weight, views, unlabeled=None):
        data = X, y, sample_weight, views
        n_unlabeled = 0 if unlabeled is None else unlabeled.n_images
        n_images = images(y, sample_weight).sum() + n_unlabeled
        weight = self._weight(n_images, X, y, sample_weight)
        moments = class_moments(*data, product=torch_product) if weight else None
        self._fit_taskres(*data)
        self._gaussian = None
        self.prior_strength_ = self._first_strength()
        self.gaussian_weight_ = self.gaussian_scale_ = 0.0
        self.temperature_ = 1.0
        if moments is not None:
            self._fit_gaussian(data, unlabeled, moments, weight)
        self.coef_, self.intercept_ = self._join(self.taskres_.coef_, self._gaussian_map())

    def _fit_taskres(self, X, y, sample_weight, views):
        own = self.get_params(deep=False)
        names = TaskResClassifier().get_params(deep=False).keys() & own.keys()
        automatic = self.alpha == "auto"
        self.alpha_ = float(auto_alpha(y, sample_weight) if automatic else self.alpha)
        taskres = TaskResClassifier(**{**{n: own[n] for n in names}, "alpha": self.alpha_})
        for name in _PREPARED:
            if hasattr(self, name):
                setattr(taskres, name, getattr(self, name))
        taskres._fit(X, y, sample_weight, views)
        self.taskres_, self.history_, self.n_iter_ = taskres, taskres.history_, taskres.n_iter_
        self.n_parameters_ = taskres.n_parameters_

    def _fit_gaussian(self, data, unlabeled, moments, weight):
        X, y, sample_weight, _ = data
        self._gaussian = text_gaussian(moments, self.base_, self.prior_strength_)
        if self._gaussian is None:
            return
        held_out, chooses = None, self.prior_strength == "auto" or self.calibrate
        can_hold_out = images_per_class(y) >= 2 and len(y) >= _LEAST_FOR_CHOICES
        if chooses and can_hold_out and not self._class_base.is_from_images:
            held_out = HeldOutGaussian(data, moments, self._gaussian)
        if held_out is not None and self.prior_strength == "auto":
            self._choose_strength(held_out, X, moments)
        self.gaussian_scale_ = self._matching_scale(X, y, sample_weight)
        self.gaussian_weight_ = weight
        if held_out is not None and self.calibrate:
            self._choose_temperature(held_out)
        if unlabeled is not None:
            self._learn_from(unlabeled, moments, data)
        self.n_parameters_ += self.base_.size + len(self.base_)

    def _first_strength(self):
        """Return the prior strength as given, or as "auto" begins."""
        if self._class_base.is_from_images:  # class means know no prior
            return 0.0
        return float(DEFAULT_STRENGTH if self.prior_strength == "auto" else self.prior_strength)

    def _weight(self, n_images, X, y, sample_weight):
        """Return the Gaussian's weight, given or as `gaussian_weight` says of "auto"."""
        if self.gaussian_weight != "auto":
            return float(self.gaussian_weight)
        n_classes = len(self.classes_)
        if n_classes * n_images < _LEAST_DATA:
            return 0.0
        if n_classes < _MANY_CLASSES:
            return (n_classes - 1) / (_MANY_CLASSES - 1)
        if self._class_base.is_from_images:  # class means label their own images well
            return 1.0
        parts = [doubts(self._zero_shot_logits(rows), y[part]) for part, rows in chunks(X)]
        doubt = np.average(np.concatenate(parts), weights=sample_weight)
        return float(max(1, _MUCH_DOUBT / max(doubt, _LITTLE_DOUBT)))

    def _choose_strength(self, held_out, X, moments):
        """Take another prior strength if held-out images are clearly more likely under it."""
        rows = unit(X[held_out.rows].astype(self.base_.dtype, copy=False))
        taskres = torch_product(rows, self.taskres_.coef_.T)
        wanted = spread_of_wrong(taskres, held_out.y).mean()
        found = []
        for strength in _STRENGTHS:
            logits = held_out.logits(strength)
            spread = spread_of_wrong(logits, held_out.y).mean()
            logits *= wanted / spread if spread > 0 else 1
            found.append(sharpest(logits, held_out.y))
        chosen = nearest_within(_STRENGTHS, found, DEFAULT_STRENGTH)
        if chosen != self.prior_strength_:
            self.prior_strength_ = chosen
            self._gaussian = text_gaussian(moments, self.base_, chosen)

    def _choose_temperature(self, held_out):
        """Take another temperature than 1 if held-out images are clearly more likely under it."""
        logits = self.gaussian_scale_ * held_out.logits(self.prior_strength_)
        found = [log_likelihoods(b * logits, held_out.y) for b in _SHARPNESSES]
        self.temperature_ = float(1 / nearest_within(_SHARPNESSES, found, 1))

    def _learn_from(self, unlabeled, moments, data):
        """Let images without labels join the Gaussian, as what the classifier takes them for.

        Rounds of expectation and maximisation. Classes stay tied to the text and to their labelled
        images, so that a class that no image shows keeps its place. TaskRes learns nothing from
        these images, so the Gaussian's weight grows by their share.
        """
        if self.prior_strength == "auto":  # guessed labels need the text more than given ones do
            self.prior_strength_ = max(self.prior_strength_, DEFAULT_STRENGTH)
        if self.gaussian_weight == "auto":
            n_labeled = moments.counts.sum()
            self.gaussian_weight_ *= 1 + unlabeled.n_images / (unlabeled.n_images + n_labeled)
        for _ in range(_ROUNDS):
            linear_map = self._join(self.taskres_.coef_, self._gaussian_map())
            soft = unlabeled.moments(functools.partial(probabilities, *linear_map))
            self._gaussian = text_gaussian(merged(moments, soft), self.base_, self.prior_strength_)
            self.gaussian_scale_ = self._matching_scale(*data[:3])

    def _matching_scale(self, X, y, sample_weight):
        """Return what the Gaussian's logits must be multiplied by to spread as TaskRes's do."""
        spreads = np.empty((2, len(y)))
        weights, intercept = self._gaussian_map()
        for part, rows in chunks(X):
            z = unit(rows)
            spreads[0, part] = spread_of_wrong(torch_product(z, self.taskres_.coef_.T), y[part])
            spreads[1, part] = spread_of_wrong(torch_product(z, weights.T) + intercept, y[part])
        taskres, gaussian = np.average(spreads, axis=1, weights=sample_weight)
        return float(taskres / gaussian) if gaussian > 0 else 0.0

    def _gaussian_map(self):
        """Weights and intercepts of the fitted classes' Gaussians; zero without any."""
        if self._gaussian is None:
            return np.zeros_like(self.base_), np.zeros_like(self.base_[:, 0])
        return self._gaussian.weights, self._gaussian.intercept

    def _join(self, taskres, gaussian):
        """Join TaskRes's weights with a Gaussian map of the same classes."""
        weight, scale, temperature = (
            self.base_.dtype.type(value)
            for value in (self.gaussian_weight_, self.gaussian_scale_, self.temperature_)
        )
        weights, intercept = (scale * a for a in gaussian)
        return joined(taskres, weights, weight) / temperature, joined(
            0, intercept, weight
        ) / temperature

    def _logits(self, rows):
        return super()._logits(rows) + self.intercept_

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy on the images that have a label.

        Images without one, marked as `unlabeled` says, are left out, so that cross-validation and
        searches judge by the labels that are known.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError
            If no image has a label.
        """
        y, rows = _labels(X, y, self.unlabeled)
        if rows is None:
            return super().score(X, y, sample_weight)
        kept = np.flatnonzero(~rows)
        if len(kept) == 0:
            raise ValueError(
                f"Every row of y is {self.unlabeled!r}, the label of rows without a label. Pass "
                f"some rows with labels to judge by."
            )
        weight = None if sample_weight is None else _safe_indexing(sample_weight, kept)
        return super().score(_safe_indexing(X, kept), _safe_indexing(y, kept), weight)

    # classes that leave or join ----------------------------------------------------------------

    def select_classes(self, labels: ArrayLike) -> Self:
        selected = super().select_classes(labels)
        selected.taskres_ = self.taskres_.select_classes(labels)
        return selected

    select_classes.__doc__ = TrainedClassifier.select_classes.__doc__

    def rename_classes(self, labels: Mapping[Any, Any]) -> Self:
        renamed = super().rename_classes(labels)
        renamed.taskres_ = self.taskres_.rename_classes(labels)
        return renamed

    rename_classes.__doc__ = TrainedClassifier.rename_classes.__doc__

    def add_classes(self, classes: NewClasses) -> Self:
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

    def _new_rows(self, base, names):
        zero_shot = scaled_classifier(base, self.logit_scale_)
        gaussian = np.zeros_like(base), np.zeros_like(base[:, 0])
        if self._gaussian is not None:
            gaussian = self._gaussian.unseen(base)
        coef, intercept = self._join(zero_shot, gaussian)
        return {"base_": base, "coef_": coef, "intercept_": intercept}

    @property
    def _cannot_add_classes(self) -> str | None:
        if self.gaussian_weight_ > 0 and self._class_base.is_from_images:
            return "without text, its Gaussians lie at the means of their images."
        return None


def _labels(X, y, mark):
    """Return y as an array (n,), and the mask of the rows without a label, or None."""
    if y is None:  # scikit-learn has a sentence for it
        return y, None
    _refuse_missing_labels(y)
    y = column_or_1d(y, warn=True)
    rows = unlabeled_rows(y, mark)
    if rows is not None:
        check_consistent_length(X, y)
    return y, rows


def auto_alpha(y, sample_weight=None):
    """Scale of the residual: 0.5 for one image per class (median) or little data, else 1."""
    counts = np.bincount(y, images(y, sample_weight))
    is_little = len(counts) * counts.sum() < _LEAST_DATA
    return 0.5 if np.median(counts) < _TWO_IMAGES or is_little else 1.0
