"""CLAP: a linear probe that starts at the text embeddings and is held near them, class by class."""

from numbers import Integral, Real
from typing import Literal

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import Formula, scaled_classifier, unit
from .._typing import Base, Callbacks, ClassNames, ClassWeight, Device, Precision, RandomState
from .training import TrainedClassifier

_MOMENTUM = 0.9


def clap_weights(t, x, reach):
    """Class weights W (K, D) at t, plus what was learned, x (K, D), in units of `reach` (K, 1)."""
    return t + reach * x


def clap_logits(z, *, x, t, reach, scale, pull):
    """Logits (n, K) of unit image rows z (n, D); `pull` belongs to :func:`clap_penalty`."""
    return z @ scaled_classifier(clap_weights(t, x, reach), scale).T


def clap_penalty(*, x, pull, **_):
    """Mean over the classes of λ‖w - t‖², with pull = λ reach² / K of shape (K, 1)."""
    return (pull * x * x).sum()


def zero_shot_confidence(logits, y, sample_weight=None):
    """Mean zero-shot probability of the true class over the images of each class, (K,).

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Zero-shot logits.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,), optional
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    truth = softmax(logits.astype(np.float64), axis=1)[np.arange(len(y)), y]
    return np.bincount(y, weight * truth) / np.bincount(y, weight)


def stable_reach(penalty, lr):
    """Root of each class's share of the learning rate, (K,): 1 unless the penalty is too steep.

    The penalty's curvature in w is 2λ/K. Gradient steps overshoot it where they are longer than
    its inverse, so the learning rate of a class is the smaller of `lr` and K/2λ. SGD on x in
    w = t + reach·x moves w with the learning rate reach²·lr.

    Parameters
    ----------
    penalty : ndarray of shape (n_classes,)
        Penalties λ.
    lr : float
    """
    return 1 / np.maximum(1, lr * 2 * penalty / len(penalty)) ** 0.5


class CLAPClassifier(TrainedClassifier):
    """CLAP, the class-adaptive linear probe on CLIP embeddings.

    Class weights W start at CLIP's raw text embeddings t and are all learned, by cross-entropy on
    the scaled cosines between W and the image embeddings, plus the mean over the classes of
    λ‖w - t‖² [1]_. A class's λ is how sure zero-shot is of its images: what CLIP knows well stays
    near its text, what CLIP knows badly may move.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where t comes from. None is ``CLIPTextFeaturizer()``, the CLIP that `CLIPFeaturizer` takes
        by default. Rows of an array are named by `class_names`, or else by the sorted labels, and
        must be raw: on unit rows the same learning rate acts about a hundred times as strongly.
        ``"class_means"`` takes the mean embedding of each class's images, for encoders without a
        text side. Change it whenever the images were embedded by another model.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels, as in `TaskResClassifier`. None: the labels are the names.
    penalty : float or "auto", default="auto"
        Penalty λ. "auto" is the method: for each class the mean zero-shot probability of the true
        class over its images. A number replaces it, the same for all classes: 0 lets the weights
        move freely, the larger it is the nearer they stay to t.
    base_norm : float or None, default=None
        Mean norm to which the rows of t are scaled; None leaves them as they are, and scales class
        means to 0.44 an element (root mean square), as in CLIP's text embeddings. Set it for an
        array base whose raw norm was lost (about 10 for OpenAI's CLIP).
    logit_scale : float or None, default=None
        Frozen logit scale 1/τ. None takes the CLIP's own, or 100 if the base is not text.
    lr : float, default=0.1
        Learning rate of SGD with momentum 0.9; the schedule is one epoch at 1e-5, then a cosine
        down. Raise it for a CLIP of a small logit scale, whose gradients are small. A class whose
        penalty is so steep that the steps would overshoot, λ > n_classes / (2 * lr), gets the
        learning rate n_classes / (2λ).
    max_epochs : int, default=300
        Epochs.
    batch_size : int, default=256
        Images per step. An incomplete last batch is dropped; fewer images in all are one batch.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss. "balanced" evens out classes of unequal size.
    callbacks : list of skorch callbacks or None, default=None
        As in `TaskResClassifier`, notified while W is learned.
    device, precision
        Where and how to train, as in `TaskResClassifier`; the precision "auto" is "float32".
    random_state : int, RandomState instance or None, default=None
        Order of the images in the batches, and which view is drawn; with one batch per epoch and no
        views it has no influence.
    verbose : int, default=0
        1 prints an epoch's loss and learning rate as it ends.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t.
    weights_ : ndarray of shape (n_classes, n_features)
        Learned class weights W, of the size of `base_`.
    penalty_ : ndarray of shape (n_classes,)
        Penalty λ of each class; NaN for a class that `add_classes` brought.
    coef_ : ndarray of shape (n_classes, n_features)
        Classifier ``logit_scale_ * unit(weights_)``.
    logit_scale_ : float
        Logit scale 1/τ.
    history_ : list of dict
        A dict per epoch: ``epoch``, ``train_loss`` (penalty included), ``lr``, and what callbacks
        recorded.
    n_iter_ : int
        Epochs run.
    n_parameters_ : int
        Number of values that training tuned: n_classes * n_features.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResClassifier : Learns a residual on the same weights, held back by steps and weight decay.

    Notes
    -----
    A step is two matrix products of ``batch_size x n_features x n_classes``; memory is a few
    copies of X and of the classifier. Training does not stop early and selects nothing: the last
    epoch is the model. Penalties are computed from the clean images, also if training draws views.

    References
    ----------
    .. [1] Silva-Rodríguez, Hajimiri, Ben Ayed and Dolz, "A Closer Look at the Few-Shot Adaptation
       of Large Vision-Language Models", CVPR 2024. arXiv:2312.12730

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import CLAPClassifier
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 10 * rng.normal(size=(12, 16))
    >>> clf = CLAPClassifier(base=t, random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.penalty_.shape
    (3,)
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "penalty": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
    }
    _class_arrays = (*TrainedClassifier._class_arrays, "weights_", "penalty_")
    _unit_rows_act = "a hundred"

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        penalty: float | Literal["auto"] = "auto",
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float = 0.1,
        max_epochs: int = 300,
        batch_size: int = 256,
        class_weight: ClassWeight = None,
        callbacks: Callbacks = None,
        device: Device = None,
        precision: Precision = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.base = base
        self.class_names = class_names
        self.penalty = penalty
        self.base_norm = base_norm
        self.logit_scale = logit_scale
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, X, y, sample_weight, views):
        penalty = self._penalties(X, y, sample_weight)
        reach = stable_reach(penalty, self.lr)[:, None]
        constants = {
            "t": self.base_,
            "reach": reach,
            "scale": self.logit_scale_,
            "pull": penalty[:, None] * reach**2 / len(penalty),
        }
        start = {"x": np.zeros_like(self.base_)}
        learned = self._train(
            Formula(clap_logits, start, constants, prepare=unit, penalty=clap_penalty),
            X if views is None else views,
            y,
            sample_weight,
            optimizer="SGD",
            momentum=_MOMENTUM,
            rng=check_random_state(self.random_state),
        )
        self.weights_ = clap_weights(self.base_, learned["x"], reach.astype(X.dtype))
        self.penalty_ = penalty.astype(X.dtype)
        self.coef_ = scaled_classifier(self.weights_, self.logit_scale_)

    def _penalties(self, X, y, sample_weight):
        """Penalty λ of each class, (K,) in float64."""
        if self.penalty != "auto":
            return np.full(len(self.base_), float(self.penalty))
        return zero_shot_confidence(self._zero_shot_logits(X), y, sample_weight)

    def _new_rows(self, base, names):
        unknown = np.full(len(base), np.nan, dtype=base.dtype)
        return {**super()._new_rows(base, names), "weights_": base, "penalty_": unknown}
