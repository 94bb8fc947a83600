"""Accuracy against alpha, from the results of a search."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from .._typing import Axes
from ._drawing import COLORS, NEUTRAL, WORSE, axes_or_new, set_message, signed


class AlphaDisplay:
    """Cross-validated score against alpha, the best marked, alpha = 0 being zero-shot.

    Make it with `from_cv_results` or `from_estimator`. Alphas stand at equal distances, so that 0
    has its place next to a logarithmic grid.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,)
        Candidates.
    mean, error : array-like of shape (n_alphas,)
        Mean score over the folds, and its standard error.
    score_name : str, default="accuracy"
        What the scores are.

    Attributes
    ----------
    alphas, mean, error : ndarray of shape (n_alphas,)
        As given, by rising alpha.
    score_name : str
        As given.
    best_alpha_ : float
        Alpha of the highest mean; of several the smallest.
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.

    Notes
    -----
    The band is one standard error of the mean over folds, s/√n. Folds share most of their training
    images, so it is a guide to what differs by luck, not a confidence interval.

    Examples
    --------
    >>> from sklearn_taskres.inspection import AlphaDisplay
    >>> cv_results = {
    ...     "param_alpha": [0, 0.5, 1],
    ...     "split0_test_score": [0.4, 0.6, 0.5],
    ...     "split1_test_score": [0.5, 0.6, 0.7],
    ... }
    >>> AlphaDisplay.from_cv_results(cv_results).best_alpha_
    0.5
    """

    def __init__(
        self, alphas: ArrayLike, *, mean: ArrayLike, error: ArrayLike, score_name: str = "accuracy"
    ) -> None:
        order = np.argsort(np.asarray(alphas, dtype=float), kind="stable")
        self.alphas = np.asarray(alphas, dtype=float)[order]
        self.mean = np.asarray(mean)[order]
        self.error = np.asarray(error)[order]
        self.score_name = score_name
        self.best_alpha_ = float(self.alphas[np.nanargmax(self.mean)])

    @classmethod
    def from_estimator(
        cls,
        search: BaseEstimator,
        *,
        metric: str = "score",
        score_name: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw a fitted search.

        Parameters
        ----------
        search : estimator
            A fitted `TaskResClassifierCV`, `GridSearchCV` or other search that has
            ``cv_results_``.
        metric, score_name, ax
            As in `from_cv_results`.

        Returns
        -------
        AlphaDisplay

        Raises
        ------
        ValueError
            If the search is not fitted, or as `from_cv_results`.
        """
        if not hasattr(search, "cv_results_"):
            raise ValueError(
                f"{type(search).__name__} has no cv_results_. Fit it, or pass the search itself, "
                f"not its best_estimator_."
            )
        if score_name is None and isinstance(getattr(search, "scoring", None), str):
            score_name = search.scoring.replace("_", " ")
        return cls.from_cv_results(search.cv_results_, metric=metric, score_name=score_name, ax=ax)

    @classmethod
    def from_cv_results(
        cls,
        cv_results: Mapping[str, Any],
        *,
        param: str | None = None,
        metric: str = "score",
        score_name: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the results of a search.

        Parameters
        ----------
        cv_results : dict
            ``cv_results_`` of a search, or what a data frame of it gives. If other parameters
            were searched too, each alpha stands with the best of its candidates.
        param : str, optional
            Name of the parameter. None is "alpha" or what ends in "__alpha", such as
            "taskres__alpha".
        metric : str, default="score"
            Scorer, if the search had several.
        score_name : str, optional
            What the scores are. None is "accuracy", or `metric` where that is another.
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        AlphaDisplay

        Raises
        ------
        ValueError
            If there is no alpha among the parameters, or no score.
        """
        alphas = _alphas(cv_results[_alpha_column(cv_results, param)])
        has_alpha = ~np.isnan(alphas)
        alphas = alphas[has_alpha]
        folds = _fold_scores(cv_results, metric)[has_alpha]  # (n_candidates, n_folds)
        mean = folds.mean(axis=1)
        if np.isnan(mean).all():
            raise ValueError(
                "Every candidate has a fold without a score, so none is the best. Search with "
                "error_score='raise' to see why."
            )
        spread = folds.std(axis=1, ddof=1) if folds.shape[1] > 1 else np.zeros(len(folds))
        best = _best_of_each(alphas, mean)
        default = "accuracy" if metric == "score" else metric.replace("_", " ")
        display = cls(
            alphas[best],
            mean=mean[best],
            error=spread[best] / folds.shape[1] ** 0.5,
            score_name=default if score_name is None else score_name,
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw mean and band.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        AlphaDisplay
            This one.
        """
        ax = axes_or_new(ax, (6.4, 4.4))
        places = np.arange(len(self.alphas))
        low, high = self.mean - self.error, self.mean + self.error
        ax.fill_between(places, low, high, color=COLORS[0], alpha=0.2, lw=0, label="± 1 std. error")
        ax.plot(places, self.mean, color=COLORS[0], marker="o", label="mean over the folds")
        best = int(np.nanargmax(self.mean))
        style: dict[str, Any] = {"color": WORSE, "marker": "*", "s": 170, "zorder": 3}
        ax.scatter(best, self.mean[best], label=f"best, α = {self.best_alpha_:g}", **style)
        if self.alphas[0] == 0:
            ax.axhline(self.mean[0], color=NEUTRAL, ls="--", lw=1, label="zero-shot, α = 0")
        self._name_axes(ax, places)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _name_axes(self, ax, places):
        step = -(-len(places) // 12)  # more numbers would run into each other
        ax.set_xticks(places[::step], [f"{a:g}" for a in self.alphas[::step]])
        ax.set(xlabel="α, scale of the residual", ylabel=f"cross-validated {self.score_name}")
        set_message(ax, self._message())
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small", loc="best")

    def _message(self):
        best = int(np.nanargmax(self.mean))
        message = f"Best α = {self.best_alpha_:g}: {self.score_name} {self.mean[best]:.3f}"
        if self.alphas[0] != 0:
            return message
        if best == 0:
            return f"{message}, zero-shot: training did not help"
        gain = self.mean[best] - self.mean[0]
        return f"{message}, {signed(gain, 3)} against zero-shot"


def _alpha_column(cv_results, param):
    """Key of the column that holds the alphas."""
    if param is not None:
        found = [key for key in cv_results if key == f"param_{param}"]
    else:
        found = [k for k in cv_results if k == "param_alpha" or _is_nested_alpha(k)]
    if len(found) == 1:
        return found[0]
    parameters = sorted(key.removeprefix("param_") for key in cv_results if _is_param(key))
    raise ValueError(
        f"cv_results holds {len(found)} columns of alphas, and needs one; its parameters are "
        f"{parameters}. Pass param, such as param='taskres__alpha'."
    )


def _alphas(column):
    """Alphas of the candidates, NaN for those that have none, as in a search over several grids."""
    column = np.ma.asarray(column)
    try:
        return np.ma.filled(column.astype(float), np.nan)
    except (TypeError, ValueError):
        raise ValueError(
            f"The alphas of a search must be numbers to be drawn. Got {column.tolist()[:5]}."
        ) from None


def _is_param(key):
    return str(key).startswith("param_")


def _is_nested_alpha(key):
    return _is_param(key) and str(key).endswith("__alpha")


def _fold_scores(cv_results, metric):
    """Scores (n_candidates, n_folds)."""
    ends = f"_test_{metric}"
    names = [k for k in cv_results if k.startswith("split") and k.endswith(ends)]
    names = [k for k in names if k.removeprefix("split").removesuffix(ends).isdigit()]
    folds = np.array([np.asarray(cv_results[k], dtype=float) for k in names]).T
    if folds.size == 0 or np.isnan(folds).all():
        raise ValueError(
            f"cv_results holds no score of a fold called 'split0_test_{metric}'. Pass metric if "
            f"the search had several, or search on classes with at least two images each."
        )
    return folds


def _best_of_each(alphas, mean):
    """Index of the best candidate of each distinct alpha."""
    ranked = np.nan_to_num(mean, nan=-np.inf)
    groups = [np.flatnonzero(alphas == alpha) for alpha in np.unique(alphas)]
    return np.array([group[ranked[group].argmax()] for group in groups])
