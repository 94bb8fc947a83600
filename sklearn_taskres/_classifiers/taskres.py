"""Task Residual Tuning: a residual learned on top of CLIP's text classifier.

The formula and its derivative come first, then the training that one fit and a search share, then
the estimator.
"""

import functools
import math
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._class_base.names import class_names_of
from .._formulas import Formula, row_norms, scaled_classifier, unit
from .._held_out import images_per_class
from .._messages import warn_user
from .._rows import chunks
from .._typing import Base, Callbacks, ClassNames, ClassWeight, Device, Precision, RandomState
from . import enhanced_base
from .training import TrainedClassifier, auto_lr


def task_residual(t, x, alpha):
    """Put the residual on top of the base, t' = t + αx: Equation 4 of the TaskRes paper."""
    return t + alpha * x if isinstance(x, np.ndarray) else t.addcmul(x, alpha)  # in one pass


def taskres_logits(z, *, t, alpha, scale, x=None, x_image=None):
    """Logits (n, K) of image rows z (n, D) under t' = t + αx, with t and x (K, D).

    With a residual on the image, x_image (D,), z are raw rows; without one, unit rows. Of C
    candidates at once, x (C, K, D) and alpha (C, 1, 1), they are (C, n, K).
    """
    if x_image is not None:
        z = unit(task_residual(z, x_image, alpha))
    t = t if x is None else task_residual(t, x, alpha)
    return z @ scaled_classifier(t, scale).mT


def taskres_gradient(z, y, loss_weight, *, t, alpha, scale, x):
    """Weighted cross-entropy of :func:`taskres_logits`, and its derivatives by x and alpha.

    Written by hand for the residual on the text: two matrix products of B·K·D, and three passes
    over arrays of K·D. With P = (softmax − onehot) · loss_weight, s the scale and L the logits,
    the derivative by t' is, row by row, ``s Pᵀz / ‖t'‖ − (P∘L summed over the batch) t' / ‖t'‖²``.

    Of C candidates that see the same batch, each has its own loss. Adam takes each element by
    itself, so that they are trained together as each would be alone.

    Parameters
    ----------
    z : tensor of shape (B, D)
        Unit image rows, in the precision of the products.
    y : tensor of shape (B,)
        Classes of the rows.
    loss_weight : tensor of shape (B,)
        Weight of each row in the loss: 1 / B, times its sample weight.
    t : tensor of shape (K, D)
        Base.
    alpha : tensor of shape (1, 1), or (C, 1, 1)
        Scale of the residual; if it requires a gradient, that is returned, too.
    scale : float
        Logit scale.
    x : tensor of shape (K, D), or (C, K, D)
        Residual.

    Returns
    -------
    loss : tensor of shape (), or (C,)
    logits : tensor of shape (B, K), or (C, B, K)
        Those of :func:`taskres_logits`.
    gradients : dict of str to tensor
        ``x``, and ``alpha`` where that is learned.
    """
    import torch

    learns_alpha = alpha.requires_grad
    moved = task_residual(t, x, alpha)  # t', ([C,] K, D)
    inverse = torch.linalg.vector_norm(moved, dim=-1, keepdim=True).reciprocal_()  # 1 / ‖t'‖
    inverse.nan_to_num_(nan=math.nan, posinf=1)  # a zero row stays zero, as in `unit`
    factor = inverse * scale
    # The first product. Classes come first, ([C,] K, B), since sums along rows in memory are slow.
    logits = (moved @ z.T).to(t.dtype).mul_(factor)
    errors = logits.log_softmax(dim=-2)
    truth = y.expand(*errors.shape[:-2], 1, -1)
    log_p_truth = errors.gather(-2, truth)
    loss = -(log_p_truth * loss_weight).sum(dim=(-2, -1))
    # (P − onehot) · loss_weight; p − 1 of the true class is taken without cancellation.
    errors.exp_().scatter_(-2, truth, log_p_truth.expm1_()).mul_(loss_weight)
    # Times s / ‖t'‖, and times a known α: what follows is then the derivative by x, else by t'.
    errors.mul_(factor if learns_alpha else factor * alpha)
    # What the second product holds along t', where a step would change nothing: s ΣP∘L / ‖t'‖².
    along = (errors * logits).sum(dim=-1, keepdim=True).mul_(inverse)
    # The second product, less that / s. It takes the place of t', which is not needed any more.
    product = (errors @ z).to(t.dtype)
    slope = torch.addcmul(product, moved, along, value=-1 / scale, out=moved)
    gradients = {"x": slope}
    if learns_alpha:
        gradients = {"alpha": (slope * x).sum(dim=(-2, -1), keepdim=True), "x": slope.mul_(alpha)}
    return loss, logits.mT, gradients


class Problem(NamedTuple):
    """What is known before the residual is learned, whatever alpha and weight decay are."""

    #: Image rows to train on, (n, D), or their views (n, v, D).
    rows: np.ndarray
    #: Class of each row.
    y: np.ndarray
    sample_weight: np.ndarray | None
    #: Base t, (K, D), and logit scale.
    t: np.ndarray
    scale: float
    #: What the residual is put on: "text", "image" or "both".
    residual: str
    learn_alpha: bool
    #: Learning rate and epochs, resolved.
    recipe: dict[str, Any]
    #: Draws the order of the batches, and the views.
    rng: np.random.RandomState


def formula_of(problem, alphas):
    """Return what is trained: :func:`taskres_logits` with all residuals at zero.

    One alpha gives x (K, D); several give the stack of all candidates, (C, K, D).
    """
    stack = () if len(alphas) == 1 else (len(alphas),)
    x = np.zeros((*stack, *problem.t.shape), dtype=problem.t.dtype)
    learned = {"x": x, "x_image": np.zeros_like(problem.t[0])}
    if problem.residual != "both":
        del learned["x_image" if problem.residual == "text" else "x"]
    constants = {"t": problem.t, "scale": problem.scale}
    alpha = np.array(alphas, dtype=np.float64).reshape(*stack, 1, 1)
    (learned if problem.learn_alpha else constants)["alpha"] = alpha
    if problem.residual != "text":  # raw rows, which move
        return Formula(taskres_logits, learned, constants)
    return Formula(taskres_logits, learned, constants, prepare=unit, gradient=taskres_gradient)


def train_candidates(problem, alphas, weight_decay, run):
    """Learn the residual for one alpha, or for several at once, which see the same batches.

    Parameters
    ----------
    problem : Problem
        What all of them share.
    alphas : sequence of float
        Scale of the residual, given or to start from, of each candidate.
    weight_decay : float
        L2 penalty, the same for all.
    run : callable
        The engine: `TrainedClassifier._run_engine`, or the like, which returns a Trained. Several
        candidates are trained without callbacks and without output.

    Returns
    -------
    list of Trained
        One per alpha: its learned arrays, and its own losses.
    """
    trained = run(
        formula_of(problem, alphas),
        problem.rows,
        problem.y,
        problem.sample_weight,
        weight_decay=weight_decay,
        rng=problem.rng,
        **problem.recipe,
    )
    if len(alphas) == 1:
        return [trained]
    return [
        trained._replace(
            parameters={name: stack[i] for name, stack in trained.parameters.items()},
            history=[{**epoch, "train_loss": epoch["train_loss"][i]} for epoch in trained.history],
        )
        for i in range(len(alphas))
    ]


class TaskResClassifier(TrainedClassifier):
    """Task Residual Tuning: few-shot classification on CLIP embeddings.

    CLIP's text embeddings t of the class names are the base classifier and stay as they are. A
    residual x, zero at the start, is learned on top, t' = t + αx, by cross-entropy on the cosines
    between t' and the image embeddings [1]_. What CLIP knows beforehand stays in t, what the task
    adds goes into x.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        Where t comes from. None is ``CLIPTextFeaturizer()``, the CLIP that `CLIPFeaturizer` takes
        by default. Rows of an array are named by `class_names`, or else by the sorted labels, and
        must be raw: unit rows act like a ten-fold learning rate. ``"class_means"`` takes the mean
        embedding of each class's images, for encoders without a text side. Change it whenever the
        images were embedded by another model, or to search over prompts (``base__templates``).
    class_names : dict of label to str, sequence of str, or None
        Names of the labels. A sequence is in the order of the sorted labels; if there are fewer
        labels than names, as in a fold that lacks a class, integer labels index it from 0, and a
        warning says so. Pass a dict if labels count from 1. None: the labels are the names.
    alpha : float, default=0.5
        Scale α of the residual. 0 is zero-shot (or the enhanced base alone). Adam makes its step
        whatever the gradient's size, so (alpha, lr, weight_decay) acts as
        (1, alpha * lr, weight_decay / alpha**2): alpha is how far the classifier may move. Raise it
        for classes that CLIP knows badly and for many images (1.0 on flowers in the paper), lower
        it if zero-shot is already good; search it over ``[0, 0.1, 0.25, 0.5, 1, 2]``.
    learn_alpha : bool, default=False
        Learn α together with x, from `alpha` on. It moves by hardly more than the sum of the
        learning rates, about 0.1 in 100 steps.
    enhanced_base : bool, default=False
        Tune CLIP's text projection on the task first, and learn x on top of the result: the
        paper's starred results. Needs a text base. Try it from 8 images per class on.
    residual : {"text", "image", "both"}, default="text"
        Where a residual is learned: on the class embeddings, or one for all image embeddings
        (before they are normalised, so X must be raw), or both. "text" is the paper's best.
    base_norm : float or None, default=None
        Mean norm to which the rows of t are scaled; None leaves them as they are, and scales class
        means to 0.44 an element (root mean square), as in CLIP's text embeddings. The larger t, the
        smaller a step. Set it for an array base whose raw norm was lost.
    logit_scale : float or None, default=None
        Frozen logit scale 1/τ. None takes the CLIP's own, or 100 if the base is not text.
    lr : float or "auto", default="auto"
        Learning rate of Adam; the schedule is one epoch at 1e-5, then a cosine down. "auto" is
        2e-3, and 2e-4 from 1000 classes on.
    max_epochs : int or "auto", default="auto"
        Epochs. "auto" is 100 up to 4 images per class (median), else 200, and never more than 12
        400 steps.
    batch_size : int, default=256
        Images per step. An incomplete last batch is dropped; fewer images in all are one batch.
    weight_decay : float, default=5e-4
        L2 penalty in Adam's gradient, on x itself and on a learned α.
    enhanced_lr : float, default=1e-4
        Learning rate of Adam for the text projection, under the same schedule.
    enhanced_epochs : int, default=50
        Epochs for the text projection.
    enhanced_penalty : float or "auto", default="auto"
        Weight λ of λ‖P - P₀‖², which holds the projection P near CLIP's. "auto" is 1 / images per
        class.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss. "balanced" evens out classes of unequal size.
    callbacks : list of skorch callbacks or None, default=None
        Cloned, and notified while x is learned. There is no validation set: monitor "train_loss",
        and score with ``on_train=True``. They are part of a pickle, as any parameter.
    device : str, torch.device or None, default=None
        Where to train. None takes CUDA, MPS or the CPU, in this order. The fitted classifier is
        NumPy whatever it was trained on; give the device as a str, and its pickle needs no torch.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the matrix products in training. "float32" is that of X; "bfloat16" lowers the
        products of float32, never those of float64. "auto" is "bfloat16" for large classifiers if
        the device has units for it: from 32 768 elements on (64 classes of 512) on a CPU that has
        Intel's AMX or AMD's AVX512-BF16, and from 131 072 on with CUDA, compute capability 8.0 or
        higher. Set "float32" to have one result on all of them; mean accuracies on real embeddings
        differ by up to 0.1 points.
    random_state : int, RandomState instance or None, default=None
        Order of the images in the batches; with one batch per epoch it has no influence.
    verbose : int, default=0
        1 prints an epoch's loss and learning rate as it ends.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw class embeddings t; with `enhanced_base` the tuned ones.
    residual_ : ndarray of shape (n_classes, n_features)
        Residual x; zeros with ``residual="image"``.
    image_residual_ : ndarray of shape (n_features,)
        Residual added to every image embedding; zeros with ``residual="text"``.
    alpha_ : float
        Scale α, given or learned.
    coef_ : ndarray of shape (n_classes, n_features)
        Classifier ``logit_scale_ * unit(base_ + alpha_ * residual_)``.
    logit_scale_ : float
        Logit scale 1/τ.
    text_projection_ : ndarray of shape (text_width, n_features) or None
        Tuned text projection; None without `enhanced_base`.
    history_ : list of dict
        A dict per epoch: ``epoch``, ``train_loss``, ``lr``, and what callbacks recorded.
    enhanced_history_ : list of dict
        The same for the text projection; empty without `enhanced_base`.
    n_iter_ : int
        Epochs run for x.
    n_parameters_ : int
        Number of values that training tuned: n_classes * n_features for the residual on the text.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResGDAClassifier : Joins it with Gaussians of the images: more accurate, as fast.
    ZeroShotClassifier : The base alone.
    CLIPFeaturizer : Images to the embeddings this classifier takes.

    Notes
    -----
    A step is two matrix products of ``batch_size x n_features x n_classes``; memory is a few
    copies of X and of the classifier. Training does not stop early and selects nothing: the last
    epoch is the model. It does not choose alpha for you; search it with
    :class:`~sklearn.model_selection.GridSearchCV`.

    Negative transfer, a result below zero-shot, has been seen with one or two images per class if
    zero-shot is already good: keep alpha=0 among the candidates of a search.

    References
    ----------
    .. [1] Yu, Lu, Jin, Chen and Wang, "Task Residual for Tuning Vision-Language Models", CVPR 2023.
       arXiv:2211.10277

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifier
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 10 * rng.normal(size=(12, 16))
    >>> clf = TaskResClassifier(base=t, random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.residual_.shape
    (3, 16)
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "learn_alpha": ["boolean"],
        "enhanced_base": ["boolean"],
        "residual": [StrOptions({"text", "image", "both"})],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "enhanced_lr": [Interval(Real, 0, None, closed="neither")],
        "enhanced_epochs": [Interval(Integral, 1, None, closed="left")],
        "enhanced_penalty": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    }
    _class_arrays = (*TrainedClassifier._class_arrays, "residual_")
    _streams_rows = True
    _unit_rows_act = "ten"

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        alpha: float = 0.5,
        learn_alpha: bool = False,
        enhanced_base: bool = False,
        residual: Literal["text", "image", "both"] = "text",
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float | Literal["auto"] = "auto",
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 256,
        weight_decay: float = 5e-4,
        enhanced_lr: float = 1e-4,
        enhanced_epochs: int = 50,
        enhanced_penalty: float | Literal["auto"] = "auto",
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
        self.learn_alpha = learn_alpha
        self.enhanced_base = enhanced_base
        self.residual = residual
        self.base_norm = base_norm
        self.logit_scale = logit_scale
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.enhanced_lr = enhanced_lr
        self.enhanced_epochs = enhanced_epochs
        self.enhanced_penalty = enhanced_penalty
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, X, y, sample_weight, views):
        rng = check_random_state(self.random_state)
        problem = self._problem(X, y, sample_weight, views, rng)
        run = functools.partial(self._run_engine, callbacks=self.callbacks)
        (trained,) = train_candidates(problem, [self.alpha], self.weight_decay, run)
        self._install(trained)

    def _problem(self, X, y, sample_weight, views, rng):
        """Describe what there is to learn; an enhanced base is tuned here."""
        self._check_combinations()
        rows = X if views is None else views
        self._tune_base(rows, y, sample_weight, rng)
        return Problem(
            rows,
            y,
            sample_weight,
            self.base_,
            self.logit_scale_,
            self.residual,
            self.learn_alpha,
            self._recipe(y),
            rng,
        )

    def _recipe(self, y):
        """Return learning rate and epochs, "auto" being resolved."""
        lr = auto_lr(len(self.classes_)) if self.lr == "auto" else self.lr
        return {"lr": lr, "max_epochs": self._epochs(y, self.batch_size, many=200)}

    def _check_combinations(self):
        """Refuse what is legal alone and meaningless together."""
        if self.learn_alpha and self.alpha == 0:
            raise ValueError(
                "learn_alpha=True can't start from alpha=0: the gradients of alpha and of the "
                "residual are both zero there. Start from alpha=0.5."
            )
        if self.enhanced_base and self._class_base.text is None:
            raise ValueError(
                "enhanced_base=True tunes a CLIP's text projection, and base is not text. Pass "
                "base=CLIPTextFeaturizer(...) with the model that made X, or enhanced_base=False."
            )

    def _warn_about(self, data):
        super()._warn_about(data)
        rows = next(chunks(data[0]))[1]
        if self.residual != "text" and np.allclose(row_norms(rows), 1, atol=1e-3):
            warn_user(
                f"residual={self.residual!r} adds to raw image embeddings, and the rows of X have "
                f"unit norm: on them it is another, weaker method. Embed with normalize=False."
            )

    def _tune_base(self, rows, y, sample_weight, rng):
        """Replace the base by the enhanced one where it is asked for."""
        self.text_projection_, self.enhanced_history_ = None, []
        if not self.enhanced_base:
            return
        names = class_names_of(self.classes_, self.class_names)
        features = self._class_base.text.class_features(names)
        automatic = self.enhanced_penalty == "auto"
        self.text_projection_, self.enhanced_history_ = enhanced_base.tune_text_projection(
            features,
            rows,
            y,
            sample_weight,
            logit_scale=self.logit_scale_,
            penalty=1 / images_per_class(y) if automatic else self.enhanced_penalty,
            run=self._run_engine,
            lr=self.enhanced_lr,
            max_epochs=self.enhanced_epochs,
            rng=rng,
        )
        self._install_base(enhanced_base.class_embeddings(features, self.text_projection_))

    def _install(self, trained):
        """Become the classifier that was learned; a residual that was not learned is zero."""
        learned = self._keep(trained)
        self.residual_ = learned.get("x", np.zeros_like(self.base_))
        self.image_residual_ = learned.get("x_image", np.zeros_like(self.base_[0]))
        self.alpha_ = float(np.asarray(learned.get("alpha", self.alpha)).item())
        t = task_residual(self.base_, self.residual_, self.base_.dtype.type(self.alpha_))
        self.coef_ = scaled_classifier(t, self.logit_scale_)
        if self.text_projection_ is not None:
            self.n_parameters_ += self.text_projection_.size

    def _rows(self, X):
        if self.image_residual_.any():
            X = task_residual(X, self.image_residual_, self.image_residual_.dtype.type(self.alpha_))
        return super()._rows(X)

    def _embed_names(self, names):
        if self.text_projection_ is None:
            return super()._embed_names(names)
        features = self._class_base.text.class_features(names)
        return enhanced_base.class_embeddings(features, self.text_projection_)

    def _new_rows(self, base, names):
        return {**super()._new_rows(base, names), "residual_": np.zeros_like(base)}
