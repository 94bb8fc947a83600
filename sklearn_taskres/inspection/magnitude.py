"""How large the learned residual is, compared with how long it was trained."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch

from .._formulas import row_norms
from .._typing import Axes, Images
from ._drawing import COLORS, axes_or_new, difficulty_axis, label_points, set_message, signed
from ._estimators import classifier_and_rows

#: Fewer points than this always have a rank correlation of 1, -1 or nothing.
_LEAST_POINTS = 3
#: Sums of the learning rate that differ by less, relatively, are of one training length: with equal
#: steps they still differ by the steps of the warm-up epoch.
_ALIKE = 0.1
#: Text of the vertical axis by `kind`.
_AXES = {
    "norm": "residual magnitude, mean ‖x‖",
    "relative": "relative residual magnitude, mean α‖x‖ / ‖t‖",
}


def residual_magnitude(estimator: BaseEstimator, *, n_samples: int | None = None) -> Bunch:
    """Magnitude of the residual that a TaskRes classifier learned, and the length of its training.

    The paper [1]_ compares the "mean magnitude" of residuals over tasks and does not define it
    further. Ours is the mean norm of the rows x of the residual. Next to it stands what a residual
    does to each class, α‖x‖ / ‖t‖, and the way it had to get there: under Adam an element moves by
    about the learning rate a step, so that magnitude grows with the sum of the learning rates over
    the steps, whatever the task. Compare magnitudes only if these sums are alike.

    Parameters
    ----------
    estimator : estimator
        A fitted `TaskResClassifier` or `TaskResClassifierCV`, or a pipeline or search that ends in
        one.
    n_samples : int, optional
        Images it was fitted on, from which the steps of an epoch follow. None counts one step an
        epoch, which is right below twice the `batch_size`.

    Returns
    -------
    sklearn.utils.Bunch
        ``mean_norm`` : float, the mean of ``norms``;
        ``norms`` : ndarray of shape (n_classes,), ‖x‖ of each class;
        ``relative`` : ndarray of shape (n_classes,), α‖x‖ / ‖t‖ of each class;
        ``n_steps`` : int, steps of the optimizer;
        ``steps_x_lr`` : float, sum of the learning rate over the steps.

    Raises
    ------
    ValueError
        If the classifier learned no residual on the text.

    Notes
    -----
    Rows of classes that were added by `add_classes` are zero, and count in the mean.

    References
    ----------
    .. [1] Yu, Lu, Jin, Chen and Wang, "Task Residual for Tuning Vision-Language Models", CVPR 2023.
       arXiv:2211.10277 (Section 5.5)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifier
    >>> from sklearn_taskres.inspection import residual_magnitude
    >>> base = 10 * np.eye(3)
    >>> clf = TaskResClassifier(base, max_epochs=10).fit(np.eye(3), ["bird", "cat", "dog"])
    >>> residual_magnitude(clf).n_steps
    10
    """
    classifier, _ = classifier_and_rows(estimator, None)
    if getattr(classifier, "residual", "image") == "image" or not hasattr(classifier, "residual_"):
        raise ValueError(
            f"{type(classifier).__name__} holds no residual on the text. Pass a fitted "
            f"TaskResClassifier with residual='text' or 'both'."
        )
    norms = row_norms(classifier.residual_)[:, 0]
    steps = _steps_an_epoch(classifier, n_samples)
    return Bunch(
        mean_norm=float(norms.mean()),
        norms=norms,
        relative=classifier.alpha_ * norms / row_norms(classifier.base_)[:, 0],
        n_steps=steps * len(classifier.history_),
        steps_x_lr=float(steps * sum(epoch["lr"] for epoch in classifier.history_)),
    )


def _steps_an_epoch(classifier, n_samples):
    return 1 if n_samples is None else max(1, n_samples // classifier.batch_size)


class ResidualMagnitudeDisplay:
    """Residual magnitude against relative transfer difficulty over tasks: the paper's Figure 4.

    Make it with `from_estimators`. The paper reads from this figure that harder transfers need
    larger residuals. Training length is a second reading: data sets with more steps have larger
    residuals, too. So the colour of a point is its steps times learning rate, the title gives the
    rank correlation with both, and with `n_steps` all tasks are trained equally long.

    Parameters
    ----------
    names : sequence of str
        Names of the tasks.
    difficulty : array-like of shape (n_tasks,)
        Relative transfer difficulties.
    magnitude : array-like of shape (n_tasks,)
        Mean ‖x‖ of each task, or mean α‖x‖ / ‖t‖.
    steps_x_lr : array-like of shape (n_tasks,)
        Sum of the learning rate over the steps.
    n_steps : array-like of shape (n_tasks,)
        Steps of the optimizer.
    kind : {"norm", "relative"}, default="norm"
        What `magnitude` is.

    Attributes
    ----------
    names, difficulty, magnitude, steps_x_lr, n_steps, kind
        As given.
    correlation_ : float
        Spearman's rank correlation of magnitude and difficulty; nan for fewer than three tasks.
    length_correlation_ : float
        The same of magnitude and steps times learning rate; nan if all are within a tenth of the
        longest.
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.

    See Also
    --------
    residual_magnitude : The numbers of one classifier.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifier
    >>> from sklearn_taskres.inspection import ResidualMagnitudeDisplay
    >>> X, y = np.eye(3), ["bird", "cat", "dog"]
    >>> fitted = {f"task {i}": TaskResClassifier(i * X, max_epochs=5).fit(X, y) for i in (8, 9, 10)}
    >>> difficulty = {"task 8": 0.5, "task 9": 0.4, "task 10": 0.6}
    >>> display = ResidualMagnitudeDisplay.from_estimators(fitted, difficulty)
    >>> display.n_steps.tolist()
    [5, 5, 5]
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        difficulty: ArrayLike,
        magnitude: ArrayLike,
        steps_x_lr: ArrayLike,
        n_steps: ArrayLike,
        kind: Literal["norm", "relative"] = "norm",
    ) -> None:
        self.names = list(names)
        self.difficulty = np.asarray(difficulty)
        self.magnitude = np.asarray(magnitude)
        self.steps_x_lr = np.asarray(steps_x_lr)
        self.n_steps = np.asarray(n_steps)
        self.kind = kind
        self.correlation_ = _rank_correlation(self.difficulty, self.magnitude)
        self.length_correlation_ = float("nan")
        if not self._is_equally_long():
            self.length_correlation_ = _rank_correlation(self.steps_x_lr, self.magnitude)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, BaseEstimator],
        difficulties: Mapping[str, float],
        *,
        data: Mapping[str, tuple[Images, ArrayLike]] | None = None,
        n_steps: int | None = None,
        kind: Literal["norm", "relative"] = "norm",
        ax: Axes | None = None,
    ) -> Self:
        """Draw fitted classifiers, a point each.

        Parameters
        ----------
        estimators : dict of str to estimator
            Task to fitted classifier, as in `residual_magnitude`.
        difficulties : dict of str to float
            Task to relative transfer difficulty, from `relative_transfer_difficulty`.
        data : dict of str to (X, y), optional
            Task to what its classifier was fitted on, embeddings (or images before a pipeline) and
            labels. They tell how many steps per epoch had; without them one is counted.
        n_steps : int, optional
            Fixed-steps mode: clones of the classifiers are fitted on `data` with `max_epochs` such
            that each takes this many steps, to the nearest whole epoch; the given ones stay as they
            are. Learning rates are the classifiers' own: fix `lr` if some task has 1000 classes.
            Costs one fit per task.
        kind : {"norm", "relative"}, default="norm"
            The paper's mean ‖x‖, or mean α‖x‖ / ‖t‖.
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ResidualMagnitudeDisplay

        Raises
        ------
        ValueError
            If a task has no difficulty or no data, or a difficulty is not finite.
        """
        _check_tasks(estimators, difficulties, data, n_steps, kind)
        names = list(estimators)
        rows = [
            _magnitude_of(estimators[name], None if data is None else data[name], n_steps)
            for name in names
        ]
        display = cls(
            names,
            difficulty=[difficulties[name] for name in names],
            magnitude=[r.mean_norm if kind == "norm" else r.relative.mean() for r in rows],
            steps_x_lr=[r.steps_x_lr for r in rows],
            n_steps=[r.n_steps for r in rows],
            kind=kind,
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw one point per task.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ResidualMagnitudeDisplay
            This one.
        """
        ax = axes_or_new(ax, (7.2, 4.8))
        if self._is_equally_long():
            ax.scatter(self.difficulty, self.magnitude, color=COLORS[0], s=40, zorder=3)
        else:
            points = ax.scatter(
                self.difficulty, self.magnitude, c=self.steps_x_lr, cmap="viridis", s=40, zorder=3
            )
            ax.figure.colorbar(points, ax=ax, label="steps × learning rate")
        difficulty_axis(ax, self.difficulty.min(), self.difficulty.max())
        ax.margins(0.15)
        ax.set(xlabel="relative transfer difficulty", ylabel=_AXES[self.kind])
        set_message(ax, self._message())
        ax.grid(alpha=0.3)
        label_points(ax, self.difficulty, self.magnitude, self.names)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _is_equally_long(self):
        return np.ptp(self.steps_x_lr) <= _ALIKE * np.max(self.steps_x_lr)

    def _message(self):
        """Say in two lines what the residuals go with."""
        n_tasks = len(self.names)
        if n_tasks < _LEAST_POINTS:
            return f"{n_tasks} tasks are too few for a rank correlation"
        first = f"Rank correlation of residual magnitude over {n_tasks} tasks:"
        with_difficulty = f"with difficulty {signed(self.correlation_, 2)}"
        if self._is_equally_long():
            return f"{first}\n{with_difficulty}, after {self._steps()} steps each"
        with_length = f"with training length {signed(self.length_correlation_, 2)}"
        return f"{first}\n{with_difficulty}, {with_length}"

    def _steps(self):
        least, most = self.n_steps.min(), self.n_steps.max()
        return f"{least}" if least == most else f"{least} to {most}"


def _rank_correlation(a, b):
    if len(a) < _LEAST_POINTS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def _check_tasks(estimators, difficulties, data, n_steps, kind):
    if kind not in _AXES:
        raise ValueError(f"kind must be 'norm' or 'relative'. Got {kind!r} instead.")
    if not (isinstance(estimators, Mapping) and estimators):
        raise ValueError(
            f"estimators must be a dict of task to fitted classifier. Got {estimators!r:.60}."
        )
    if n_steps is not None and data is None:
        raise ValueError("n_steps fits each task again and needs data, a dict of task to (X, y).")
    for what, table in (("difficulty", difficulties), ("data", data)):
        missing = [] if table is None else [name for name in estimators if name not in table]
        if missing:
            raise ValueError(f"The task {missing[0]!r} has no {what}. Add it to the dict.")
    infinite = [name for name in estimators if not np.isfinite(difficulties[name])]
    if infinite:
        raise ValueError(
            f"The difficulty of {infinite[0]!r} is {difficulties[infinite[0]]}: zero-shot got no "
            f"image right there. Leave the task out."
        )


def _magnitude_of(estimator, data, n_steps):
    """Magnitudes of a classifier, or of a clone that is fitted for a number of steps."""
    if data is None:
        return residual_magnitude(estimator)
    n_samples = len(data[1])
    if n_steps is None:
        return residual_magnitude(estimator, n_samples=n_samples)
    classifier, rows = classifier_and_rows(estimator, data[0])
    epochs = max(1, round(n_steps / _steps_an_epoch(classifier, n_samples)))
    fitted = clone(classifier).set_params(max_epochs=epochs).fit(rows, data[1])
    return residual_magnitude(fitted, n_samples=n_samples)
