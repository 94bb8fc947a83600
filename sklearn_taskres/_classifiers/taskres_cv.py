"""TaskRes with its settings searched: the candidates of a fold are trained together."""

import warnings
from collections.abc import Iterable
from numbers import Integral, Number
from typing import NamedTuple

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import ParameterGrid, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions

from .fitting import all_or_nothing
from .fold import Room, TaskResFold
from .recipe import auto_lr
from .search_table import SearchTable
from .taskres import TaskResClassifier

#: Parts that the rows are split into where `cv` does not say it.
_MOST_FOLDS = 5
#: Parameter of TaskResClassifier to the parameter here that lists its candidates.
_SEARCHED = {
    "alpha": "alphas",
    "weight_decay": "weight_decays",
    "enhanced_base": "enhanced_bases",
    "gaussian_weight": "gaussian_weights",
}


class Program(NamedTuple):
    """Candidates of a fold that are trained together, and the rows they are scored on."""

    clf: TaskResFold
    fold: int
    candidates: list[int]  # their places in the table
    pairs: list[tuple[float, float]]  # their alphas and weight decays
    held_out: list


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

    @all_or_nothing
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
                stacklevel=5,
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

        table, shared = SearchTable(self, candidates, len(folds)), {**shared, "verbose": 0}
        bar = tqdm(folds, desc="searching", unit="fold", disable=not self.verbose)
        data_of_folds = ([[_rows(a, rows) for a in data] for rows in fold] for fold in bar)
        is_watched = self.callbacks or self.residual != "text"
        (self._fit_each if is_watched else self._fit_together)(shared, table, data_of_folds)
        table.report_failures()
        return table.results()

    def _fit_each(self, shared, table, data_of_folds):
        """Fit the candidates one by one, as a grid search does."""
        for fold, (seen, held_out) in enumerate(data_of_folds):
            for i, params in enumerate(table.candidates):
                with table.failures_of([i], fold):
                    with table.fit_time_of([i], fold):
                        clf = _fit_quietly(TaskResClassifier(**shared, **params), *seen)
                    table.score(i, fold, clf, *held_out)

    def _fit_together(self, shared, table, data_of_folds):
        """Fit the candidates of each fold in a few programs, one on each thread of the CPU."""
        from .._training.threads import count_threads, map_in_threads

        n_threads, room = count_threads(self.device, self.base_.dtype), Room()

        def learn(program):
            with table.fit_time_of(program.candidates, program.fold):
                return program.clf.learn(program.pairs, room)

        programs = self._programs(shared, table, data_of_folds, n_threads)
        for program, learned in map_in_threads(learn, programs, n_threads):
            with table.failures_of(program.candidates, program.fold):
                params = [table.candidates[i] for i in program.candidates]
                fitted = program.clf.fitted(params, learned())
                for i, clf in zip(program.candidates, fitted, strict=True):
                    table.score(i, program.fold, clf, *program.held_out)

    def _programs(self, shared, table, data_of_folds, n_threads):
        """Yield what is trained together; folds that threads can't share evenly are split."""
        n_folds = table.values.shape[1]
        for fold, (seen, held_out) in enumerate(data_of_folds):
            n_parts = n_threads if fold >= n_folds - n_folds % n_threads else 1
            for is_enhanced, group in table.groups("enhanced_base").items():
                clf, programs = TaskResFold(**shared, enhanced_base=is_enhanced), []
                with table.failures_of(group, fold), table.fit_time_of(group, fold):
                    clf = _fit_quietly(clf, *seen)
                    members = [(i, table.candidates[i]) for i in group]
                    programs = list(clf.programs(members, n_parts, n_threads))
                for places, pairs in programs:
                    yield Program(clf, fold, places, pairs, held_out)


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
