"""Context optimisation: the words around the class names, learned through CLIP's text tower."""

from numbers import Integral, Real
from typing import Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._class_base.names import class_names_of
from .._formulas import Formula, scaled_classifier, unit
from .._typing import Base, Callbacks, ClassNames, ClassWeight, Device, Precision, RandomState
from .training import TrainedClassifier

#: Standard deviation of context vectors that start at random.
_START_STD = 0.02
_MOMENTUM = 0.9


def coop_logits(z, *, context, tower, scale):
    """Logits (n, K) of unit image rows z (n, d), with class embeddings g(prompts) from the tower.

    `tower` maps the context vectors (M, W), or (K, M, W), to raw class embeddings (K, d).
    """
    return z @ scaled_classifier(tower(context), scale).T


class CoOpClassifier(TrainedClassifier):
    """CoOp: a learned prompt in place of "a photo of a".

    Context vectors v_1..v_M stand before each class name where the words of a template would, the
    frozen text tower g makes class embeddings of these prompts, and the logits are
    s · f · g([v_1..v_M, name]) with unit embeddings. Cross-entropy trains the context vectors, by
    back-propagation through the tower, and nothing else [1]_.

    Parameters
    ----------
    base : CLIPTextFeaturizer or None, default=None
        The CLIP whose text tower the prompts go through. None is ``CLIPTextFeaturizer()``, the one
        that `CLIPFeaturizer` takes by default. Its templates make `base_`, and no prompt. Change it
        whenever the images were embedded by another model. Arrays and "class_means" have no text
        tower and are refused.
    class_names : dict of label to str, sequence of str, or None
        Names of the labels, as in `TaskResClassifier`. None: the labels are the names.
    n_context : int, default=16
        Number of context vectors M. Lower it if the model reads few tokens (the error says how
        many fit; "glyph-clip" reads 16 in all) and if images are few: 4 is the other published
        value.
    class_specific : bool, default=False
        Learn a context for every class instead of one for all. Try it from four images per class
        on. No class can be added to it later.
    class_token_position : {"end", "middle"}, default="end"
        Whether the name stands behind the context, or between its halves. A full stop ends both.
    context_init : str or None, default=None
        Words from whose token embeddings the context starts, such as "a photo of a"; `n_context` is
        then the number of their tokens. None draws from a normal distribution with a standard
        deviation of 0.02. Words start training from a prompt that works: give them if there is
        one image per class, with `class_specific` above all.
    base_norm : float or None, default=None
        Mean norm to which the rows of the base are scaled. Cosines do not see it; here it only
        changes `base_`.
    logit_scale : float or None, default=None
        Frozen logit scale 1/τ. None takes the CLIP's own.
    lr : float, default=2e-3
        Learning rate of SGD with momentum 0.9; the schedule is one epoch at 1e-5, then a cosine
        down. Change it if the training loss in `history_` does not fall.
    max_epochs : int or "auto", default="auto"
        Epochs. "auto" is 50 for one image per class (median), 100 up to four, else 200. 0 leaves
        the context at its start.
    batch_size : int, default=32
        Images per step. An incomplete last batch is dropped; fewer images in all are one batch.
    weight_decay : float, default=5e-4
        L2 penalty in the gradient, on the context vectors.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss. "balanced" evens out classes of unequal size.
    callbacks : list of skorch callbacks or None, default=None
        As in `TaskResClassifier`, notified while the context is learned.
    device : str, torch.device or None, default=None
        Where to train, and where the text tower is loaded. None takes the device of `base`.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        As in `TaskResClassifier`, except that "auto" is "float32".
    random_state : int, RandomState instance or None, default=None
        Start of the context, and the order of the images in the batches.
    verbose : int, default=0
        1 prints an epoch's loss and learning rate as it ends.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    base_ : ndarray of shape (n_classes, n_features)
        Raw zero-shot class embeddings t, from the base's own templates. Prediction does not use
        them.
    context_ : ndarray of shape (n_context, W), or (n_classes, n_context, W)
        Learned context vectors, in the space of the tower's token embeddings of width W.
    coef_ : ndarray of shape (n_classes, n_features)
        Classifier ``logit_scale_ * unit(g(prompts))``.
    logit_scale_ : float
        Logit scale 1/τ.
    history_ : list of dict
        A dict per epoch: ``epoch``, ``train_loss``, ``lr``, and what callbacks recorded.
    n_iter_ : int
        Epochs run.
    n_parameters_ : int
        Number of values that training tuned: the elements of `context_`.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    Raises
    ------
    ValueError
        From `fit`, if the base is not text, its text tower is not open_clip's plain text
        transformer (CoCa and Hugging Face towers are not), or the context does not fit into the
        tokens that it reads.

    See Also
    --------
    TaskResClassifier : Learns on the class embeddings themselves, with no tower in the loop.

    Notes
    -----
    Every step runs all prompts forward and backward through the text tower, whatever the batch: 47
    classes took about a second per step on one CPU core with the tower of ViT-B-32, for which a GPU
    is advisable, and a fit on digits with the bundled model 3 seconds in all. Prompts are cut after
    the longest one, which changes nothing. Prediction is one matrix product, and needs neither the
    tower nor torch.

    The tower computes in float32 whatever the dtype of X; the rest follows X. The context of the
    last epoch is the result. The published code augments the images: pass views for that.

    A class added later by its name gets the learned context; one added as an embedding is taken as
    it is.

    References
    ----------
    .. [1] Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022.
       arXiv:2109.01134

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import CLIPTextFeaturizer, CoOpClassifier
    >>> text = CLIPTextFeaturizer("glyph-clip")
    >>> t = text.transform(["one", "seven"])
    >>> y = np.repeat(["one", "seven"], 4)
    >>> X = np.repeat(t, 4, axis=0) + np.random.default_rng(0).normal(scale=0.1, size=(8, 128))
    >>> clf = CoOpClassifier(text, n_context=4, max_epochs=5, random_state=0).fit(X, y)
    >>> clf.context_.shape
    (4, 64)
    >>> clf.predict(t)
    array(['one', 'seven'], dtype='<U5')
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **TrainedClassifier._parameter_constraints,
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "class_specific": ["boolean"],
        "class_token_position": [StrOptions({"end", "middle"})],
        "context_init": [None, str],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        base: Base = None,
        *,
        class_names: ClassNames = None,
        n_context: int = 16,
        class_specific: bool = False,
        class_token_position: Literal["end", "middle"] = "end",  # noqa: S107 (no password)
        context_init: str | None = None,
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float = 2e-3,
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 32,
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
        self.n_context = n_context
        self.class_specific = class_specific
        self.class_token_position = class_token_position
        self.context_init = context_init
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

    def _set_base(self, X, y, sample_weight):
        self._require_text_tower()
        super()._set_base(X, y, sample_weight)

    def _require_text_tower(self):
        if not self._class_base.has_prompt_tower:
            raise ValueError(
                f"CoOpClassifier trains through the text tower of a CLIP, so base must be a "
                f"CLIPTextFeaturizer, that of the model that made X, and not "
                f"{self._class_base.kind()}."
            )

    def _prompt_tower(self, names, context):
        """Tower for prompts of some names; `context` is a number of vectors, or words."""
        return self._class_base.text.prompt_tower(
            names,
            context,
            self.class_token_position,
            device=self.device,
            dtype=self.base_.dtype,
        )

    def _fit(self, X, y, sample_weight, views):
        rng = check_random_state(self.random_state)
        context = self.n_context if self.context_init is None else self.context_init
        tower = self._prompt_tower(self._names(), context)
        self.context_ = self._start(tower, rng)
        self.history_, self.n_iter_ = [], 0  # of max_epochs=0
        n_epochs = self._epochs(y, None, one=50, many=200)
        if n_epochs > 0:
            rows = X if views is None else views
            self._learn_context(tower, rows, y, sample_weight, n_epochs, rng)
        self.n_parameters_ = self.context_.size
        self.coef_ = self._coef(tower)

    def _start(self, tower, rng):
        """Context vectors before training, (M, W) or (K, M, W)."""
        n_contexts = [len(self.classes_)] if self.class_specific else []
        shape = (*n_contexts, tower.n_context, tower.width)
        start = rng.normal(0, _START_STD, shape) if tower.start is None else tower.start
        return np.broadcast_to(start, shape).astype(self.base_.dtype)

    def _names(self):
        return class_names_of(self.classes_, self.class_names)

    def _learn_context(self, tower, rows, y, sample_weight, n_epochs, rng):
        constants = {"tower": tower, "scale": self.logit_scale_}
        learned = self._train(
            Formula(coop_logits, {"context": self.context_}, constants, prepare=unit),
            rows,
            y,
            sample_weight,
            max_epochs=n_epochs,
            rng=rng,
            optimizer="SGD",
            momentum=_MOMENTUM,
            weight_decay=self.weight_decay,
            device=tower.device,
        )
        self.context_ = learned["context"]

    def _coef(self, tower):
        return scaled_classifier(tower.embed(self.context_), self.logit_scale_)

    @property
    def _cannot_add_classes(self) -> str | None:
        if self.context_.ndim == 2:
            return None
        return "with class_specific=True each class learns a context of its own from its images."

    def _new_rows(self, base, names):
        """Put the learned context before the names; an embedding keeps its zero-shot weights."""
        rows = super()._new_rows(base, names)
        named = [i for i, name in enumerate(names) if name is not None]
        if named:
            tower = self._prompt_tower([names[i] for i in named], self.context_.shape[-2])
            rows["coef_"][named] = self._coef(tower)
        return rows

    def _with_class_arrays(self, rows_of):
        changed = super()._with_class_arrays(rows_of)
        if self.context_.ndim == 3:
            changed.context_ = rows_of("context_")
        return changed
