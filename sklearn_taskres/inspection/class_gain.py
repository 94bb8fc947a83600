"""What training changed, class by class: where it helped and where it hurt."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._typing import Axes, Images
from ._drawing import (
    BETTER,
    NEUTRAL,
    WORSE,
    axes_or_new,
    legend_below,
    rows_of_classes,
    set_message,
    shortened,
    signed,
)
from ._estimators import classifier_and_rows, names_of_classes, zero_shot_classifier
from ._labels import coded_labels, names_to_show
from .magnitude import residual_magnitude


class ClassGainDisplay:
    """Accuracy of each class before and after training, the classes that got worse named.

    Make it with `from_estimator` or `from_predictions`. A class that got worse than zero-shot has
    seen negative transfer, even if the mean over all images has risen.

    Parameters
    ----------
    before, after : array-like of shape (n_classes,)
        Accuracy on the images of each class (its recall), in [0, 1]; nan for a class without any.
    labels : array-like of shape (n_classes,)
        Labels of the classes.
    counts : array-like of shape (n_classes,)
        Images of each class.
    display_labels : array-like of shape (n_classes,), optional
        Names to show. None shows the labels.
    magnitudes : array-like of shape (n_classes,), optional
        Relative residual norms α‖x‖ / ‖t‖, to show at the right.

    Attributes
    ----------
    before, after, labels, counts, display_labels, magnitudes
        As given.
    gain_ : ndarray of shape (n_classes,)
        After minus before.
    worse_ : ndarray of shape (n_worse,)
        Labels of the classes that got worse, the worst first.
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.

    See Also
    --------
    TransferDifficultyDisplay : What could be known before training.

    Notes
    -----
    One image decides whether a class counts as worse. With few images per class, read the length of
    a line and not its colour alone.

    Examples
    --------
    >>> from sklearn_taskres.inspection import ClassGainDisplay
    >>> y_true = ["cat", "cat", "dog", "dog"]
    >>> before = ["cat", "cat", "cat", "dog"]
    >>> after = ["cat", "dog", "dog", "dog"]
    >>> ClassGainDisplay.from_predictions(y_true, before, after).worse_.tolist()
    ['cat']
    """

    def __init__(
        self,
        before: ArrayLike,
        after: ArrayLike,
        *,
        labels: ArrayLike,
        counts: ArrayLike,
        display_labels: ArrayLike | None = None,
        magnitudes: ArrayLike | None = None,
    ) -> None:
        self.before = np.asarray(before)
        self.after = np.asarray(after)
        self.labels = np.asarray(labels)
        self.counts = np.asarray(counts)
        self.display_labels = names_to_show(self.labels, display_labels)
        self.magnitudes = None if magnitudes is None else np.asarray(magnitudes)
        self.gain_ = self.after - self.before
        self.worse_ = self.labels[self._worse()]

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Images,
        y: ArrayLike,
        *,
        display_labels: ArrayLike | None = None,
        n_classes: int = 20,
        ax: Axes | None = None,
    ) -> Self:
        """Draw what a fitted classifier changed against zero-shot.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier of the package, or a pipeline or search that ends in one. Zero-shot
            are its class embeddings before any training; of an enhanced base those of the CLIP as
            it came, since tuning the text projection is training.
        X : array-like
            What the estimator takes: embeddings, or images before a pipeline. Not the images it was
            fitted on: there nearly every class gains.
        y : array-like of shape (n_samples,)
            Labels.
        display_labels : array-like of shape (n_classes,), optional
            Names to show for ``classes_``. None shows those of the classifier's `class_names`, or
            the labels if it has none.
        n_classes : int, default=20
            How many classes are drawn: those that lost most, up to half, and those that
            gained most.
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ClassGainDisplay
            With residual norms, if the classifier learned a residual on the text.

        Raises
        ------
        ValueError
            If the estimator has no class embeddings, or as `from_predictions`.
        """
        classifier, rows = classifier_and_rows(estimator, X)
        check_is_fitted(classifier)
        start = zero_shot_classifier(classifier)
        if display_labels is None:
            display_labels = names_of_classes(classifier)
        learned = getattr(classifier, "residual", None) in ("text", "both")
        return cls.from_predictions(
            y,
            start.predict(rows),
            classifier.predict(rows),
            labels=classifier.classes_,
            display_labels=display_labels,
            magnitudes=residual_magnitude(classifier).relative if learned else None,
            n_classes=n_classes,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_before: ArrayLike,
        y_after: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        display_labels: ArrayLike | None = None,
        magnitudes: ArrayLike | None = None,
        n_classes: int = 20,
        ax: Axes | None = None,
    ) -> Self:
        """Draw what changed between two sets of predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_before, y_after : array-like of shape (n_samples,)
            Predictions to compare, such as zero-shot and TaskRes.
        labels : array-like of shape (n_classes,), optional
            All labels. None: those that occur, sorted.
        display_labels : array-like of shape (n_classes,), optional
            Names to show for the labels. None shows the labels.
        magnitudes : array-like of shape (n_classes,), optional
            Relative residual norms of the classes, to show at the right.
        n_classes : int, default=20
            How many classes are drawn: those that lost most, up to half, and those that
            gained most.
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ClassGainDisplay

        Raises
        ------
        ValueError
            If a label is not among `labels`, or lengths differ.
        """
        classes, (truth, before, after) = coded_labels(
            labels, y_true=y_true, y_before=y_before, y_after=y_after
        )
        counts = np.bincount(truth, minlength=len(classes))
        display = cls(
            _recall(truth, before, counts),
            _recall(truth, after, counts),
            labels=classes,
            counts=counts,
            display_labels=display_labels,
            magnitudes=magnitudes,
        )
        return display.plot(ax, n_classes=n_classes)

    def plot(self, ax: Axes | None = None, *, n_classes: int = 20) -> Self:
        """Draw the classes that gained most and those that lost most.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. None makes a figure.
        n_classes : int, default=20
            How many classes are drawn: those that lost most, up to half, and those that gained
            most.

        Returns
        -------
        ClassGainDisplay
            This one.
        """
        rows = self._rows(n_classes)
        ax = axes_or_new(ax, (7.2, 2.6 + 0.22 * len(rows)))
        self._draw_classes(ax, 100 * self.before[rows], 100 * self.after[rows])
        rows_of_classes(ax, self.display_labels[rows])
        n_all = np.count_nonzero(self.counts)
        is_cut = len(rows) < n_all
        which = f"{len(rows)} of {n_all} classes, most gained and lost" if is_cut else "All classes"
        ax.set(ylabel=which, xlabel="accuracy on the images of the class in %")
        set_message(ax, self._message(), width=70)
        legend_below(ax)
        if self.magnitudes is not None:
            self._draw_magnitudes(ax, self.magnitudes[rows])
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _worse(self):
        """Return the indices of the classes that got worse, the worst first."""
        order = np.argsort(self.gain_, kind="stable")
        return order[self.gain_[order] < 0]

    def _rows(self, n_classes):
        """Return the indices of the classes to draw, from the largest gain to the largest loss.

        Up to half of them are those that lost most, however little that is compared with the gains.
        """
        seen = np.flatnonzero(self.counts)
        ranked = seen[np.argsort(-self.gain_[seen], kind="stable")]
        n_rows = min(n_classes, len(ranked))
        n_losses = min(len(self.worse_), n_rows // 2)
        return np.concatenate([ranked[: n_rows - n_losses], ranked[len(ranked) - n_losses :]])

    @staticmethod
    def _draw_classes(ax, before, after):
        rows, is_worse = np.arange(len(before)), after < before
        ax.hlines(rows, before, after, color=np.where(is_worse, WORSE, BETTER), lw=1.5)
        ax.scatter(
            before, rows, s=26, facecolor="white", edgecolor=NEUTRAL, zorder=3, label="before"
        )
        for chosen, color, marker, label in (
            (~is_worse, BETTER, "o", "after, not worse"),
            (is_worse, WORSE, "X", "after, worse"),
        ):
            style = {"color": color, "marker": marker, "label": label}
            if chosen.any():
                ax.scatter(after[chosen], rows[chosen], s=34, zorder=4, **style)
        ax.margins(x=0.06)
        ax.set_xlim(max(ax.get_xlim()[0], -3), min(ax.get_xlim()[1], 103))
        ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= 100], minor=False)

    @staticmethod
    def _draw_magnitudes(ax, magnitudes):
        right = ax.secondary_yaxis("right")
        right.set_yticks(range(len(magnitudes)), [f"{m:.2f}" for m in magnitudes], fontsize="small")
        right.set_ylabel("residual norm α‖x‖ / ‖t‖")
        right.tick_params(length=0)

    def _message(self):
        """Say in two lines how many classes gained, and which lost."""
        n_seen = np.count_nonzero(self.counts)
        before, after = (
            100 * np.nansum(values * self.counts) / self.counts.sum()
            for values in (self.before, self.after)
        )
        first = f"Accuracy {before:.1f} % → {after:.1f} %: {np.sum(self.gain_ > 0)} of {n_seen} "
        first += f"classes better, {len(self.worse_)} worse"
        named = [
            f"{shortened(self.display_labels[i], 16)} ({signed(100 * self.gain_[i])})"
            for i in self._worse()[:3]
        ]
        more = len(self.worse_) - len(named)
        second = f"Worse, in points: {', '.join(named)}" + (f" and {more} more" if more else "")
        return f"{first}\n{second if named else 'No class got worse'}"


def _recall(truth, predicted, counts):
    """Share of the images of each class that are right; nan if there are none."""
    n_right = np.bincount(truth[truth == predicted], minlength=len(counts))
    return np.where(counts > 0, n_right / np.maximum(counts, 1), np.nan)
