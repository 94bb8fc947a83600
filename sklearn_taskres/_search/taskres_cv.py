"""TaskRes with its settings searched: the candidates of a fold are trained together."""

import copy
from collections.abc import Iterable, Mapping
from numbers import Integral, Number
from typing import Any, Literal, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import ParameterGrid, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from .._class_base import check_nested_params
from .._classifiers.taskres import TaskResClassifier
from .._fitting import all_or_nothing
from .._held_out import MOST_FOLDS
from .._messages import warn_user
from .._persistence import VersionStamp
from .._typing import (
    Base,
    Callbacks,
    ClassNames,
    ClassWeight,
    Device,
    NewClasses,
    Precision,
    RandomState,
    fit_context,
)
from .jobs import Fold, MemoryLimit, TrainingJob
from .table import SearchTable, shares
from .threads import count_threads, map_in_threads

#: Parameter of TaskResClassifier to the parameter here that lists its candidates.
_SEARCHED = {
    "alpha": "alphas",
    "weight_decay": "weight_decays",
    "enhanced_base": "enhanced_bases",
}


class TaskResClassifierCV(ClassifierMixin, VersionStamp):
    """Task Residual Tuning with its settings chosen by cross-validation.

    Gives what :class:`~sklearn.model_selection.GridSearchCV` over `TaskResClassifier` gives with
    the same folds, `random_state` and `max_epochs`, and is faster: the candidates of a fold are
    trained together, on the same batches. After `fit` it predicts with `best_estimator_`, and has
    the attributes of that.

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
        Candidates for `enhanced_base`. Try ``(False, True)`` from 8 images per class on.
    cv : int, splitter, iterable of (train, test) rows, or None, default=None
        Folds, as scikit-learn takes them. None is stratified folds without shuffling, as many as
        the smallest class has images and at most 5. If it has one, there is nothing to search
        on: alpha is 0.5 where that is a candidate, and a warning says so.
    scoring : str, callable or None, default=None
        What a candidate is chosen by; None is accuracy. Change it to "neg_log_loss" if
        probabilities count, or if few images leave many candidates with one accuracy.
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
    best_estimator_ : TaskResClassifier
        The best candidate, fitted on all rows. Only with ``refit=True``.
    best_params_ : dict
        alpha, weight_decay and enhanced_base of the best candidate.
    best_score_ : float
        Its mean score over the folds; NaN if there was nothing to search on.
    best_index_ : int
        Its place in `cv_results_`.
    cv_results_ : dict of str to array
        Scores and times of all candidates, in the format of
        :class:`~sklearn.model_selection.GridSearchCV`. The time that a fold's candidates took
        together is shared out equally.
    n_splits_ : int
        Number of folds; 0 if there was nothing to search on.
    classes_, base_, logit_scale_, n_features_in_, feature_names_in_
        As in `TaskResClassifier`.
    residual_, image_residual_, alpha_, coef_
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
    accuracy whatever `scoring` is. If a fit or a score fails, as the log loss on a fold that
    lacks a class, the score is NaN, and one warning says so; if all fail, the error is raised. A
    scorer gets fitted classifiers. Of candidates that are trained together, that of ``alpha=0`` has
    nothing to learn: it is not trained, its `history_` is empty and its `n_iter_` is 0.

    `sample_weight` goes into each fit, and, as in GridSearchCV, into the scores if the scorer
    takes it; under metadata routing, if the scorer asks for it, or without `scoring`, this
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

    best_estimator_: TaskResClassifier

    def __init__(
        self,
        base: Base = None,
        *,
        alphas: Iterable[float] = (0, 0.1, 0.25, 0.5, 1, 2),
        weight_decays: Iterable[float] = (5e-4,),
        enhanced_bases: Iterable[bool] = (False,),
        cv: Any = None,
        scoring: Any = None,
        refit: bool = True,
        class_names: ClassNames = None,
        learn_alpha: bool = False,
        residual: Literal["text", "image", "both"] = "text",
        base_norm: float | None = None,
        logit_scale: float | None = None,
        lr: float | Literal["auto"] = "auto",
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 256,
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
        self.alphas = alphas
        self.weight_decays = weight_decays
        self.enhanced_bases = enhanced_bases
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
    @fit_context(prefer_skip_nested_validation=False)  # the candidates' values are checked as such
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
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
        shared = TaskResClassifier(**self._shared_params())
        for params in candidates:
            copy.copy(shared).set_params(**params)._validate_params()
        data = shared._prepare(X, y, sample_weight)
        shared._warn_about(data)
        shared.set_params(**shared._recipe(data[1]))  # "auto" means the same in all folds
        self.n_features_in_ = shared.n_features_in_
        X, y, groups = indexable(X, y, groups)
        if _is_array(sample_weight):
            sample_weight = np.asarray(sample_weight)
        folds = self._folds(X, y, sample_weight, groups)
        self.n_splits_ = len(folds)
        self.cv_results_ = self._search(shared, candidates, folds, (X, y, sample_weight))
        self.best_index_ = self._best_index(candidates)
        self.best_params_ = candidates[self.best_index_]
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        if hasattr(self, "best_estimator_"):
            del self.best_estimator_  # of an earlier fit
        if self.refit:
            best = clone(shared).set_params(**self.best_params_, verbose=self.verbose)
            self.best_estimator_ = best._learn(best._prepare(X, y, sample_weight))
        return self

    def __sklearn_is_fitted__(self):
        return "best_estimator_" in vars(self)

    def __getattr__(self, name):
        """Find what a fitted TaskRes has, such as ``coef_`` and ``classes_``, in the best one."""
        if name.endswith("_") and not name.startswith("_") and "best_estimator_" in vars(self):
            return getattr(self.best_estimator_, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of a text base by ``base__<name>`` among them.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The search.

        Raises
        ------
        ValueError
            If there is no such parameter, or ``base__<name>`` is set while `base` has none.
        """
        check_nested_params(self, params)
        return super().set_params(**params)

    # prediction, by the best estimator --------------------------------------------------------

    def _fitted(self) -> TaskResClassifier:
        if hasattr(self, "cv_results_") and not hasattr(self, "best_estimator_"):
            raise NotFittedError(
                f"This {type(self).__name__} searched with refit=False, so nothing was fitted on "
                f"all rows. Pass refit=True, or fit a TaskResClassifier with best_params_."
            )
        check_is_fitted(self)
        return self.best_estimator_

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Logits of each class, as of `TaskResClassifier`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        return self._fitted().decision_function(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Label of the class with the highest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._fitted().predict(X)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`.
        """
        return self._fitted().predict_proba(X)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`.
        """
        return self._fitted().predict_log_proba(X)

    def select_classes(self, labels: ArrayLike) -> TaskResClassifier:
        """Return a fitted TaskResClassifier that knows only some of the classes.

        Parameters
        ----------
        labels : array-like of shape (n_selected,)
            As in `TaskResClassifier.select_classes`.

        Returns
        -------
        TaskResClassifier
        """
        return self._fitted().select_classes(labels)

    def remove_classes(self, labels: ArrayLike) -> TaskResClassifier:
        """Return a fitted TaskResClassifier that knows all classes but some.

        Parameters
        ----------
        labels : array-like of shape (n_removed,)
            As in `TaskResClassifier.remove_classes`.

        Returns
        -------
        TaskResClassifier
        """
        return self._fitted().remove_classes(labels)

    def rename_classes(self, labels: Mapping[Any, Any]) -> TaskResClassifier:
        """Return a fitted TaskResClassifier that gives some of its classes other labels.

        Parameters
        ----------
        labels : dict of label to label
            As in `TaskResClassifier.rename_classes`.

        Returns
        -------
        TaskResClassifier
        """
        return self._fitted().rename_classes(labels)

    def add_classes(self, classes: NewClasses) -> TaskResClassifier:
        """Return a fitted TaskResClassifier that also knows classes without training images.

        Parameters
        ----------
        classes : dict of label to str or array-like of shape (n_features,), or list of str
            As in `TaskResClassifier.add_classes`.

        Returns
        -------
        TaskResClassifier
        """
        return self._fitted().add_classes(classes)

    # the search -------------------------------------------------------------------------------

    def _candidates(self):
        """List the candidates, dicts of parameters, in the order of GridSearchCV."""
        grid = {name: list(getattr(self, ours)) for name, ours in _SEARCHED.items()}
        empty = [_SEARCHED[name] for name, values in grid.items() if not values]
        if empty:
            raise ValueError(f"{empty[0]} is empty. Give at least one candidate.")
        if self.learn_alpha and 0 in grid["alpha"]:
            raise ValueError(
                f"learn_alpha=True can't start from alpha=0. Leave 0 out of alphas, such as "
                f"alphas=(0.5,). Got {self.alphas!r}."
            )
        return list(ParameterGrid(grid))

    def _shared_params(self):
        """Parameters of TaskResClassifier that all candidates share."""
        seed = self.random_state
        if seed is None:
            seed = int(check_random_state(None).randint(np.iinfo(np.int32).max))
        names = TaskResClassifier().get_params(deep=False).keys() - _SEARCHED.keys()
        alpha = {"alpha": 0.5}  # of no candidate: what is checked on all rows needs some alpha
        return {**alpha, **{name: getattr(self, name) for name in names}, "random_state": seed}

    def _folds(self, X, y, sample_weight, groups):
        """Rows to fit on and rows to score on, a pair for each fold."""
        if self.cv is not None:
            return list(check_cv(self.cv, y, classifier=True).split(X, y, groups))
        rows, y = np.arange(len(y)), np.asarray(y)
        if _is_array(sample_weight):
            rows = rows[sample_weight > 0]  # the others are as good as left out
        n_folds = min(MOST_FOLDS, np.unique(y[rows], return_counts=True)[1].min())
        if n_folds < 2:
            warn_user(
                "Some class has one image, so none can be held out and nothing is searched: the "
                "classifier takes alpha=0.5 where that is a candidate, else the first candidate."
            )
            return []
        folds = StratifiedKFold(n_folds).split(rows, y[rows])
        return [(rows[train], rows[test]) for train, test in folds]

    def _best_index(self, candidates):
        if self.n_splits_ == 0:
            of_the_paper = [i for i, params in enumerate(candidates) if params["alpha"] == 0.5]
            return of_the_paper[0] if of_the_paper else 0
        return int(self.cv_results_["rank_test_score"].argmin())

    def _search(self, shared, candidates, folds, data):
        """Score each candidate on each fold; return the table of GridSearchCV.

        With ``joblib.parallel_config(n_jobs=...)`` joblib's backend shares the work out;
        without, all is done here, in threads of their own.
        """
        shared.set_params(verbose=0)
        n_workers = effective_n_jobs(None)
        if n_workers == 1:
            table = self._score_on(shared, candidates, folds, data)
        else:
            table = SearchTable(self, candidates, len(folds))
            parts = list(shares(len(candidates), len(folds), n_workers))
            tables = Parallel()(
                delayed(self._score_on)(shared, [candidates[i] for i in places], [folds[k]], data)
                for places, k in parts
            )
            for (places, k), scored in zip(parts, tables, strict=True):
                table.put(places, k, scored)
        table.report_failures()
        return table.results()

    def _score_on(self, shared, candidates, folds, data):
        """Score each candidate on some folds; return the SearchTable."""
        from tqdm import tqdm

        table = SearchTable(self, candidates, len(folds))
        bar = tqdm(folds, desc="searching", unit="fold", disable=not self.verbose)
        data_of_folds = ([[_rows_at(a, rows) for a in data] for rows in fold] for fold in bar)
        is_watched = self.callbacks or self.residual != "text"
        (self._fit_each if is_watched else self._fit_together)(shared, table, data_of_folds)
        return table

    def _fit_each(self, shared, table, data_of_folds):
        """Fit the candidates one by one, as a grid search does."""
        for column, (seen, held_out) in enumerate(data_of_folds):
            for i, params in enumerate(table.candidates):
                with table.failures_of([i], column):
                    clf = clone(shared).set_params(**params)
                    with table.fit_time_of([i], column):
                        clf._learn(clf._prepare(*seen))
                    table.score(i, column, clf, *held_out)

    def _fit_together(self, shared, table, data_of_folds):
        """Fit the candidates of each fold in a few jobs, one on each thread of the CPU."""
        n_threads, limit = count_threads(self.device, shared.base_.dtype), MemoryLimit()

        def learn(job):
            with table.fit_time_of(job.places, job.column):
                return job.fold.learn(job.pairs, limit)

        jobs = self._jobs(shared, table, data_of_folds, n_threads)
        for job, learned in map_in_threads(learn, jobs, n_threads):
            with table.failures_of(job.places, job.column):
                params = [table.candidates[i] for i in job.places]
                fitted = job.fold.fitted(params, learned())
                for i, clf in zip(job.places, fitted, strict=True):
                    table.score(i, job.column, clf, *job.held_out)

    def _jobs(self, shared, table, data_of_folds, n_threads):
        """Yield what is trained together; folds that threads can't share evenly are split."""
        n_folds = table.values.shape[1]
        for column, (seen, held_out) in enumerate(data_of_folds):
            n_parts = n_threads if column >= n_folds - n_folds % n_threads else 1
            for is_enhanced, group in table.groups("enhanced_base").items():
                clf, jobs = clone(shared).set_params(enhanced_base=is_enhanced), []
                with table.failures_of(group, column), table.fit_time_of(group, column):
                    fold = Fold(clf, *seen)
                    members = [(i, table.candidates[i]) for i in group]
                    jobs = list(fold.jobs(members, n_parts, n_threads))
                for places, pairs in jobs:
                    yield TrainingJob(fold, column, places, pairs, held_out)


def _rows_at(array, rows):
    """Rows of anything that has rows; other weights stay what they are."""
    return _safe_indexing(array, rows) if _is_array(array) else array


def _is_array(weight):
    """Whether weights are neither missing nor one number for all."""
    return not (weight is None or isinstance(weight, Number))
