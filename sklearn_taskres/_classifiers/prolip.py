"""ProLIP on embeddings: a linear map of the images that is learned near the identity."""

from numbers import Integral, Real
from typing import Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import Formula, scaled_classifier, unit
from .._held_out import images_per_class
from .._typing import Base, Callbacks, ClassNames, ClassWeight, Device, Precision, RandomState
from .training import TrainedClassifier


def mapped(z, x):
    """Map unit image rows z (n, D) by A = I + x, and bring them to unit norm again."""
    return unit(z + z @ x)


def prolip_logits(z, *, x, coef, pull):
    """Logits (n, K) under the map; `pull` belongs to :func:`prolip_penalty`."""
    return mapped(z, x) @ coef.T


def prolip_penalty(*, x, pull, **_):
    """λ‖A - I‖², summed over all elements."""
    return pull * (x * x).sum()


class ProLIPClassifier(TrainedClassifier):
    """ProLIP on CLIP embeddings: the image side learns one linear map, the texts stay.

    All images pass through a square map A that starts at the identity and is learned by
    cross-entropy plus λ‖A - I‖², with λ = 1 / images per class [1]_. The method tunes CLIP's last
    visual projection; on embeddings that is a map of their D elements. It was published with
    settings that need no validation set. Try it if images look different from CLIP's usual ones
    and classes share that difference.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where the class embeddings come from. None is ``CLIPTextFeaturizer()``, the CLIP that
        `CLIPFeaturizer` takes by default. Rows of an array are named by `class_names`, or else by
        the sorted labels. ``"class_means"`` takes the mean embedding of each class's images. Change
        it whenever the images were embedded by another model.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels; a sequence in the order of the sorted labels. None: the labels are the
        names.
    penalty : float or "auto", default="auto"
        Penalty λ. "auto" is 1 / images per class (median). The larger, the nearer A stays to I.
    base_norm : float or None, default=None
        Mean norm to which the rows of the base are scaled. Cosines do not see it.
    logit_scale : float or None, default=None
        Frozen logit scale 1/τ. None takes the CLIP's own, or 100 if the base is not text.
    lr : float, default=1e-4
        Learning rate of Adam; the schedule is one epoch at 1e-5, then a cosine down.
    max_epochs : int, default=300
        Epochs.
    batch_size : int, default=256
        Images per step. An incomplete last batch is dropped; fewer images in all are one batch.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss.
    callbacks : list of skorch callbacks or None, default=None
        Cloned, and notified while A is learned.
    device : str, torch.device or None, default=None
        Where to train. None takes CUDA, MPS or the CPU, in this order.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the matrix products in training. "auto" and "float32" are that of X.
    random_state : int, RandomState instance or None, default=None
        Order of the images in the batches, and which view is drawn.
    verbose : int, default=0
        1 prints an epoch's loss and learning rate as it ends.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t.
    image_map_ : ndarray of shape (n_features, n_features)
        Map A: unit image rows are multiplied by it from the right.
    coef_ : ndarray of shape (n_classes, n_features)
        Classifier ``logit_scale_ * unit(base_)`` of unit mapped images.
    logit_scale_ : float
        Logit scale 1/τ.
    history_ : list of dict
        A dict per epoch: ``epoch``, ``train_loss`` (penalty included), ``lr``, and what callbacks
        recorded.
    n_iter_ : int
        Epochs run.
    n_parameters_ : int
        Number of values that training tuned: n_features squared.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResGDAClassifier : The recommended default.
    CLIPAdapterClassifier : A bottleneck on the images.

    Notes
    -----
    A step is four matrix products more than zero-shot, of ``batch_size x n_features**2``, whatever
    the number of classes. The published method maps the wider features before CLIP's projection and
    trains on all images at once; here the embeddings after it are mapped, in batches.

    References
    ----------
    .. [1] Fahes, Vu, Bursuc, Pérez and de Charette, "CLIP's Visual Embedding Projector is a
       Few-shot Cornucopia", WACV 2026. arXiv:2410.05270

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ProLIPClassifier
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 10 * rng.normal(size=(12, 16))
    >>> clf = ProLIPClassifier(base=t, random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.image_map_.shape
    (16, 16)
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "penalty": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
    }
    _is_not_linear = "scales image rows to unit norm after its map"

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        penalty: float | Literal["auto"] = "auto",
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float = 1e-4,
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
        self.coef_ = scaled_classifier(self.base_, self.logit_scale_)
        d = X.shape[1]
        pull = 1 / images_per_class(y) if self.penalty == "auto" else self.penalty
        start = {"x": np.zeros((d, d), dtype=X.dtype)}
        constants = {"coef": self.coef_, "pull": pull}
        learned = self._train(
            Formula(prolip_logits, start, constants, prepare=unit, penalty=prolip_penalty),
            X if views is None else views,
            y,
            sample_weight,
            rng=check_random_state(self.random_state),
        )
        self.image_map_ = np.eye(d, dtype=X.dtype) + learned["x"]

    def _logits(self, rows):
        return super()._logits(unit(rows @ self.image_map_))
