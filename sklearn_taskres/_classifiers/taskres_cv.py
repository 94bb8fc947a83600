"""TaskRes with its settings searched: a fold's candidates are trained as one tensor program."""

import copy
import sys
import time
import warnings
from collections.abc import Iterable
from numbers import Integral, Number

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import ParameterGrid, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions

from .._formulas import unit
from .gaussian import gaussian_classifier
from .search_table import SearchTable
from .taskres import TaskResClassifier, auto_lr

#: Most bytes that the candidates of one tensor program take while they are trained.
_MOST_BYTES = 2**29
#: Parts that the rows are split into where `cv` does not say it.
_MOST_FOLDS = 5
#: Parameter of TaskResClassifier to the parameter here that lists its candidates.
_SEARCHED = {
    "alpha": "alphas",
    "weight_decay": "weight_decays",
    "enhanced_base": "enhanced_bases",
    "gaussian_weight": "gaussian_weights",
}


def stacked_logits(z, *, t, x, alpha, scale, **_):
    """Logits (C, n, K) of unit image rows z (n, D) under each t' = t + αx, x (C, K, D)."""
    return z @ (scale * unit(t + alpha * x)).mT


def stacked_gradient(z, y, weight, *, t, alpha, scale, x, weight_decay, learn_alpha):
    """Weighted cross-entropies of C candidates, summed, and the derivatives by x and alpha.

    The mathematics of `taskres_gradient` with a leading axis. Adam takes each element by itself, so
    that the sum of the losses trains each candidate as its own loss would. All share the rows: the
    logits are one matrix product, (B, D) by (D, C·K). Each candidate's weight decay λ is added
    here, as λx, which is what Adam does with its own.

    Parameters
    ----------
    z : tensor of shape (B, D)
        Unit image rows.
    y : tensor of shape (B,)
        Classes of the rows.
    weight : tensor of shape (B,)
        Weights of the rows.
    t : tensor of shape (K, D)
        The base that the candidates share.
    alpha, weight_decay : tensor of shape (C, 1, 1)
        Scale of the residual, and weight decay.
    scale : float
        Logit scale.
    x : tensor of shape (C, K, D)
        Residuals.
    learn_alpha : bool
        Whether to return the derivative by alpha.

    Returns
    -------
    loss : tensor of shape ()
    gradients : dict of str to tensor
        ``x``, and ``alpha`` where it is learned.
    """
    moved = t.addcmul(x, alpha)  # (C, K, D)
    norms = moved.norm(dim=2)
    norms += norms == 0  # as in `unit`
    factor, share = scale / norms, (weight / len(y))[:, None, None]
    logits = (z @ moved.flatten(0, 1).T).to(z.dtype).view(-1, *norms.shape)  # (B, C, K)
    errors = logits.mul_(factor).log_softmax(dim=2)
    columns = y[:, None, None].expand(-1, len(x), 1)
    of_truth = errors.gather(2, columns)
    loss = -(of_truth * share).sum()
    errors.exp_().scatter_(2, columns, of_truth.expm1_()).mul_(share)
    along = logits.mul_(errors).sum(dim=0) / norms**2
    slope = (errors.mul_(factor).flatten(1).T @ z).to(z.dtype).view_as(x)
    slope.addcmul_(moved, along[:, :, None], value=-1)
    gradients = {}
    if learn_alpha:
        gradients["alpha"] = (slope * x).sum(dim=(1, 2), keepdim=True) + weight_decay * alpha
    return loss, {**gradients, "x": slope.mul_(alpha).addcmul_(x, weight_decay)}


class TaskResClassifierCV(TaskResClassifier):
    """Task Residual Tuning with its settings chosen by cross-validation.

    Gives what :class:`~sklearn.model_selection.GridSearchCV` over `TaskResClassifier` gives with
    the same folds, `random_state` and `max_epochs`, and is faster: the candidates of a fold are
    trained together, on the same batches. After `fit` it is a fitted TaskRes.

    Parameters
    ----------
    base : CLIPTextFeaturizer, array-like of shape (n_classes, n_features), "class_means" or None
        As in `TaskResClassifier`. ``"class_means"`` are the means of each fold's training rows.
    alphas : array-like of shape (n_alphas,), default=(0, 0.1, 0.25, 0.5, 1, 2)
        Candidates for the scale of the residual. 0 is zero-shot, the guard against a result below
        it: leave it in, unless `learn_alpha` is on, which can't start there.
    weight_decays : array-like, default=(5e-4,)
        Candidates for the L2 penalty.
    enhanced_bases : array-like of bool, default=(False,)
        Candidates for `enhanced_base`. Try ``(False, True)`` from 8 images a class on.
    gaussian_weights : array-like, default=(0.0,)
        Candidates for the weight of the Gaussian term. They share what is trained and cost next to
        nothing. Try ``(0, 0.01, 0.1, 1)`` from 4 images a class on.
    cv : int, splitter, iterable of (train, test) rows, or None, default=None
        Folds, as scikit-learn takes them. None is stratified folds without shuffling, as many as
        the smallest class has images and at most 5. Where it has one, there is nothing to search
        on: alpha is 0.5 where that is a candidate, and a warning says so.
    scoring : str, callable or None, default=None
        What a candidate is chosen by; None is accuracy. Change it to "neg_log_loss" where
        probabilities count, or where few images leave many candidates with one accuracy.
    refit : bool, default=True
        Fit the best candidate on all rows. Without, there is no prediction.
    class_names, learn_alpha, residual, base_norm, logit_scale
        As in `TaskResClassifier`.
    lr, max_epochs
        As in `TaskResClassifier`. "auto" is resolved once, on all rows, for folds and refit alike.
    batch_size, enhanced_lr, enhanced_epochs, enhanced_penalty, class_weight
        As in `TaskResClassifier`.
    callbacks : list of skorch callbacks or None, default=None
        As in `TaskResClassifier`. A callback watches one fit: candidates are then trained one by
        one.
    device, precision
        As in `TaskResClassifier`.
    random_state : int, RandomState instance or None, default=None
        Every candidate of every fold starts from the same state, as do the clones of a grid search;
        None draws one seed for all.
    verbose : int, default=0
        1 shows a progress bar of the folds, and prints the epochs of the refit.

    Attributes
    ----------
    best_params_ : dict
        alpha, weight_decay, enhanced_base and gaussian_weight of the best candidate.
    best_score_ : float
        Its mean score over the folds; NaN where there was nothing to search on.
    best_index_ : int
        Its place in `cv_results_`.
    cv_results_ : dict of str to array
        Scores and times of all candidates, in the format of
        :class:`~sklearn.model_selection.GridSearchCV`. The time that a fold's candidates took
        together is shared out equally.
    n_splits_ : int
        Number of folds; 0 where there was nothing to search on.
    classes_, base_, logit_scale_, n_features_in_, feature_names_in_
        As in `TaskResClassifier`.
    residual_, image_residual_, alpha_, coef_, intercept_, gaussian_weight_
        As in `TaskResClassifier`, of the refit.
    text_projection_, history_, enhanced_history_, n_iter_, n_parameters_
        As in `TaskResClassifier`, of the refit.

    See Also
    --------
    TaskResClassifier : One candidate.

    Notes
    -----
    A step is two matrix products of ``batch_size x n_features x (n_candidates * n_classes)``.
    Candidates that need more than 512 MB together are trained in turn, with the same result.
    ``residual="image"`` and "both" are trained one by one, as under callbacks. `score` is the
    accuracy whatever `scoring` is. Where a fit or a score fails, as the log loss on a fold that
    lacks a class, the score is NaN, and one warning says so; where all fail, the error is raised.

    `sample_weight` goes into each fit, and, as in GridSearchCV, into the scores where the scorer
    takes it; under metadata routing, where the scorer asks for it, or without `scoring`, this
    classifier (``set_score_request``).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifierCV
    >>> rng = np.random.default_rng(0)
    >>> t = 10 * rng.normal(size=(3, 16))              # class embeddings of three names
    >>> y = np.repeat(["bird", "cat", "dog"], 4)
    >>> X = np.repeat(t, 4, axis=0) + 30 * rng.normal(size=(12, 16))
    >>> clf = TaskResClassifierCV(base=t, alphas=[0, 1, 2], random_state=0).fit(X, y)
    >>> clf.n_splits_
    4
    >>> clf.cv_results_["mean_test_score"].shape
    (3,)
    >>> clf.alpha_ == clf.best_params_["alpha"]
    True
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **{k: v for k, v in TaskResClassifier._parameter_constraints.items() if k not in _SEARCHED},
        **{ours: ["array-like"] for ours in _SEARCHED.values()},
        "cv": [None, Integral, HasMethods(["split", "get_n_splits"]), Iterable],
        "scoring": [None, StrOptions(set(get_scorer_names())), callable],
        "refit": ["boolean"],
    }

    def __init__(
        self,
        base=None,
        *,
        alphas=(0, 0.1, 0.25, 0.5, 1, 2),
        weight_decays=(5e-4,),
        enhanced_bases=(False,),
        gaussian_weights=(0.0,),
        cv=None,
        scoring=None,
        refit=True,
        class_names=None,
        learn_alpha=False,
        residual="text",
        base_norm=None,
        logit_scale=None,
        lr="auto",
        max_epochs="auto",
        batch_size=256,
        enhanced_lr=1e-4,
        enhanced_epochs=50,
        enhanced_penalty="auto",
        class_weight=None,
        callbacks=None,
        device=None,
        precision="auto",
        random_state=None,
        verbose=0,
    ):
        self.base = base
        self.alphas = alphas
        self.weight_decays = weight_decays
        self.enhanced_bases = enhanced_bases
        self.gaussian_weights = gaussian_weights
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.class_names = class_names
        self.learn_alpha = learn_alpha
        self.residual = residual
        self.base_norm = base_norm
        self.logit_scale = logit_scale
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.enhanced_lr = enhanced_lr
        self.enhanced_epochs = enhanced_epochs
        self.enhanced_penalty = enhanced_penalty
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)  # the candidates' values are checked as such
    def fit(self, X, y, sample_weight=None, groups=None):
        """Search, and fit the best candidate on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or (n_samples, 1 + n_views, n_features)
            Raw image embeddings, as in `TaskResClassifier`. Folds are scored on the clean rows.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples in training, not negative.
        groups : array-like of shape (n_samples,), optional
            Groups of the samples, for a splitter that asks for them.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            As `TaskResClassifier` does, on all rows or on those of a fold.
        """
        candidates = self._candidates()
        super().fit(X, y, sample_weight)
        X, y, groups = indexable(X, y, groups)
        if _is_array(sample_weight):
            sample_weight = np.asarray(sample_weight)
        shared = self._shared_params()
        for params in candidates:
            TaskResClassifier(**shared, **params)._validate_params()
        folds = self._folds(X, y, sample_weight, groups)
        self.n_splits_ = len(folds)
        self.cv_results_ = self._search(shared, candidates, folds, (X, y, sample_weight))
        self.best_index_ = self._best_index(candidates)
        self.best_params_ = candidates[self.best_index_]
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        if self.refit:
            best = TaskResClassifier(**shared, **self.best_params_)
            fitted = vars(_fit_quietly(best, X, y, sample_weight))
            self.__dict__.update(
                {k: v for k, v in fitted.items() if k not in best.get_params(False)}
            )
        return self

    def __sklearn_is_fitted__(self):
        return self.refit and hasattr(self, "coef_")

    def _candidates(self):
        """List the candidates, dicts of parameters, in the order of GridSearchCV."""
        grid = {name: list(getattr(self, ours)) for name, ours in _SEARCHED.items()}
        empty = [_SEARCHED[name] for name, values in grid.items() if not values]
        if empty:
            raise ValueError(f"{empty[0]} is empty. Give at least one candidate.")
        if "auto" in grid["gaussian_weight"]:
            raise ValueError(
                "gaussian_weights must be numbers: the search takes the place of the 'auto' of "
                "TaskResClassifier. Pass such as (0, 0.01, 0.1, 1)."
            )
        if self.learn_alpha and 0 in grid["alpha"]:
            raise ValueError(
                f"learn_alpha=True can't start from alpha=0. Leave 0 out of alphas, such as "
                f"alphas=(0.5,). Got {self.alphas!r}."
            )
        return list(ParameterGrid(grid))

    def _fit(self, X, y, sample_weight, views):
        """Resolve what "auto" means, on all of the rows; the search is up to `fit`."""
        self._warn_about_unit_rows(X)
        lr = auto_lr(len(self.classes_)) if self.lr == "auto" else self.lr
        self._recipe = {"lr": lr, "max_epochs": self._n_epochs(y)}

    def _shared_params(self):
        """Parameters of TaskResClassifier that all candidates share."""
        seed = self.random_state
        if seed is None:
            seed = int(check_random_state(None).randint(np.iinfo(np.int32).max))
        names = TaskResClassifier().get_params(deep=False).keys() - _SEARCHED.keys()
        ours = {name: getattr(self, name) for name in names}
        return {**ours, **self._recipe, "random_state": seed}

    def _folds(self, X, y, sample_weight, groups):
        """Rows to fit on and rows to score on, a pair for each fold."""
        if self.cv is not None:
            return list(check_cv(self.cv, y, classifier=True).split(X, y, groups))
        rows, y = np.arange(len(y)), np.asarray(y)
        if _is_array(sample_weight):
            rows = rows[sample_weight > 0]  # the others are as good as left out
        n_folds = min(_MOST_FOLDS, np.unique(y[rows], return_counts=True)[1].min())
        if n_folds < 2:
            warnings.warn(
                "Some class has one image, so none can be held out and nothing is searched: the "
                "classifier takes alpha=0.5 where that is a candidate, else the first candidate.",
                UserWarning,
                stacklevel=4,
            )
            return []
        folds = StratifiedKFold(n_folds).split(rows, y[rows])
        return [(rows[train], rows[test]) for train, test in folds]

    def _best_index(self, candidates):
        if self.n_splits_ == 0:
            halves = [i for i, params in enumerate(candidates) if params["alpha"] == 0.5]
            return halves[0] if halves else 0
        return int(self.cv_results_["rank_test_score"].argmin())

    def _search(self, shared, candidates, folds, data):
        """Score each candidate on each fold; return the table of GridSearchCV."""
        from tqdm import tqdm

        table, room = SearchTable(self, candidates, len(folds)), _Room()
        shared = {**shared, "verbose": 0}
        bar = tqdm(folds, desc="searching", unit="fold", disable=not self.verbose)
        for fold, (train, test) in enumerate(bar):
            start = time.perf_counter()
            seen, held_out = ([_rows(a, rows) for a in data] for rows in (train, test))
            for group in self._groups(candidates):
                with table.failures_of(group, fold):
                    for i, clf in self._fitted(shared, group, candidates, seen, room):
                        table.score(i, fold, clf, *held_out)
            spent = time.perf_counter() - start - table.times[:, fold].sum()
            table.fit_times[:, fold] = spent / len(candidates)
        table.report_failures()
        return table.results()

    def _groups(self, candidates):
        """List the indices of the candidates that are trained together."""
        if self.callbacks or self.residual != "text":
            return [[i] for i in range(len(candidates))]
        groups: dict = {}
        for i, params in enumerate(candidates):
            groups.setdefault(params["enhanced_base"], []).append(i)
        return list(groups.values())

    def _fitted(self, shared, group, candidates, data, room):
        """Yield the index of each candidate of a group, and the candidate fitted on a fold."""
        params = candidates[group[0]]
        if self.callbacks or self.residual != "text":
            yield group[0], _fit_quietly(TaskResClassifier(**shared, **params), *data)
            return
        fold = TaskResFold(**shared, enhanced_base=params["enhanced_base"])
        fold = _fit_quietly(fold, *data)
        for i, clf in fold.candidates([candidates[i] for i in group], room):
            yield group[i], clf


class _Room:
    """How many candidates the device has had memory for; endless until it was found too small."""

    most = sys.maxsize

    def shrink(self, n_tried):
        if self.most == sys.maxsize:
            warnings.warn(
                f"The device has no memory for {n_tried} candidates at a time. Fewer are trained "
                f"together; the result is the same.",
                UserWarning,
                stacklevel=2,
            )
        self.most = n_tried // 2


class TaskResFold(TaskResClassifier):
    """TaskRes on the rows of a fold, fitted up to the residual: from there on candidates part."""

    def _learn_residual(self, rows, y, training):
        self._task = unit(rows), y, training

    def _fit_gaussian(self, data, training):
        self._data = data

    def candidates(self, candidates, room):
        """Yield index and fitted classifier; those that differ in the term alone share the rest."""
        pairs = list(dict.fromkeys((c["alpha"], c["weight_decay"]) for c in candidates))
        has_term = any(c["gaussian_weight"] > 0 for c in candidates)
        term = gaussian_classifier(**self._data) if has_term else None
        for pair, x, alpha in self._learned(pairs, room):
            for i, params in enumerate(candidates):
                if (params["alpha"], params["weight_decay"]) == pair:
                    yield i, self._fitted(x, alpha, params, term)

    def _fitted(self, x, alpha, params, term):
        clf = copy.copy(self).set_params(**params)
        clf.residual_, clf.alpha_ = x, alpha
        clf.image_residual_, clf.intercept_ = np.zeros_like(x[0]), np.zeros_like(x[:, 0])
        clf.coef_, clf.gaussian_weight_ = clf._coef(), float(params["gaussian_weight"])
        if clf.gaussian_weight_ > 0:
            clf.coef_ = clf.coef_ + clf.gaussian_weight_ * term[0]
            clf.intercept_ = clf.gaussian_weight_ * term[1]
        return clf

    def _learned(self, pairs, room):
        """Yield each pair of alpha and weight decay with its residual and its alpha."""
        from torch import OutOfMemoryError

        for pair in [pair for pair in pairs if pair[0] == 0]:  # α = 0 stops each gradient
            yield pair, np.zeros_like(self.base_), 0.0
        pairs = [pair for pair in pairs if pair[0] > 0]
        while pairs:
            chunk = pairs[: min(self._chunk_size(), room.most)]
            try:
                x, alpha = self._train(chunk)
            except OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                room.shrink(len(chunk))
                continue
            yield from zip(chunk, x, alpha, strict=True)
            pairs = pairs[len(chunk) :]

    def _chunk_size(self):
        """Candidates whose arrays of (K, D) and of (B, K) stay below the bound, at least one."""
        n_classes, d = self.base_.shape
        n_rows = min(self.batch_size, len(self._task[1]))
        # (K, D): x, two moments, gradient, the one before, t'; (B, K): logits, errors, their copy
        elements = n_classes * (6 * d + 3 * n_rows)
        return max(1, _MOST_BYTES // (elements * self.base_.itemsize))

    def _train(self, pairs):
        """Residuals (C, K, D) and alphas (C,) of C candidates, trained together."""
        from .._training import train

        rows, y, training = self._task
        alpha, decay = np.array(pairs, dtype=np.float64).T[:, :, None, None]  # (C, 1, 1) each
        learned = {"x": np.zeros((len(pairs), *self.base_.shape), dtype=rows.dtype)}
        constants = {"t": self.base_, "scale": self.logit_scale_, "learn_alpha": self.learn_alpha}
        (learned if self.learn_alpha else constants)["alpha"] = alpha
        trained = train(
            stacked_logits,
            learned,
            rows,
            y,
            constants={**constants, "weight_decay": decay},
            gradient=stacked_gradient,
            lr=self.lr,
            max_epochs=self.max_epochs,
            **{**training, "rng": copy.deepcopy(training["rng"])},  # the same draws for each chunk
        )
        alphas = trained.parameters.get("alpha", alpha)
        return trained.parameters["x"], [float(a) for a in alphas.ravel()]


def _fit_quietly(clf, *data):
    """Fit a clone, as a grid search does; all rows together have drawn the warnings already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return clone(clf).fit(*data)


def _rows(array, rows):
    """Rows of anything that has rows; other weights stay what they are."""
    return _safe_indexing(array, rows) if _is_array(array) else array


def _is_array(weight):
    """Whether weights are neither missing nor one number for all."""
    return not (weight is None or isinstance(weight, Number))
