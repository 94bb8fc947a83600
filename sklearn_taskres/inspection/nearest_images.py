"""The images nearest to a class, before and after training."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL.Image import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._clip.images import list_images, read_image
from .._typing import Axes, Images
from ._drawing import BETTER, NEUTRAL, WORSE, axes_or_new, set_message, shortened
from ._estimators import classifier_and_rows, names_of_classes, zero_shot_classifier
from ._labels import names_to_show

_TIMES = ("before", "after")


class NearestImagesDisplay:
    """Images nearest to a class before and after training, those of other classes marked.

    Make it with `from_estimator`. The upper row shows what CLIP takes the name of the class for,
    the lower row what the trained classifier does.

    Parameters
    ----------
    images : tuple of two lists of PIL.Image.Image
        Images before and after training, the nearest first.
    indices : ndarray of shape (2, n_images), int
        Their places among all images.
    label : object
        The class.
    truths : tuple of two lists, optional
        Label of each image.
    name : str, optional
        Name of the class to show. None shows the label.
    names : dict of label to str, optional
        Names to show for the truths. None shows the labels.

    Attributes
    ----------
    images, indices, label, truths, name, names
        As given.
    n_right_ : tuple of int or None
        Images of the class in each row, before and after; None without truths.
    axes_ : ndarray of shape (2, n_images) of matplotlib.axes.Axes
        An axes per image.
    ax_ : matplotlib.axes.Axes
        The axes that holds them.
    figure_ : matplotlib.figure.Figure
        The figure of `ax_`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import ZeroShotClassifier
    >>> from sklearn_taskres.inspection import NearestImagesDisplay
    >>> clf = ZeroShotClassifier(np.eye(3)).fit(None, ["bird", "cat", "dog"])
    >>> X, images = np.eye(3), np.zeros((3, 8, 8))
    >>> display = NearestImagesDisplay.from_estimator(clf, X, images, "cat", n_images=1)
    >>> display.indices.tolist()
    [[1], [1]]
    """

    def __init__(
        self,
        images: tuple[list[Image], ...],
        *,
        indices: NDArray[np.intp],
        label: object,
        truths: tuple[list[Any], ...] | None = None,
        name: str | None = None,
        names: dict[Any, str] | None = None,
    ) -> None:
        self.images = images
        self.indices = indices
        self.label = label
        self.truths = truths
        self.name = name
        self.names = names
        self.n_right_ = None
        if truths is not None:
            self.n_right_ = tuple(sum(t == label for t in row) for row in truths)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Images,
        images: Images,
        label: object,
        n_images: int = 5,
        *,
        y: ArrayLike | None = None,
        display_labels: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the images nearest to a class, as a fitted classifier sees them.

        Nearest is what has the highest logit of the class. For two classes, of which the logits'
        difference is all that `decision_function` says, it is what is most of the one and not of
        the other.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier of the package, or a pipeline or search that ends in one. Before
            training means its class embeddings alone, as in `ClassGainDisplay`.
        X : array-like
            What the estimator takes: embeddings, or the images before a pipeline.
        images : sequence
            The images themselves, one for each of `X`: anything that `CLIPFeaturizer` takes.
        label : object
            The class, one of ``classes_``.
        n_images : int, default=5
            Images per row.
        y : array-like of shape (n_samples,), optional
            Labels. With them each image is named, and those of other classes are marked.
        display_labels : array-like of shape (n_classes,), optional
            Names to show for ``classes_``. None shows those of the classifier's `class_names`, or
            the labels if it has none.
        ax : matplotlib.axes.Axes, optional
            Where to draw; its frame is hidden. None makes a figure.

        Returns
        -------
        NearestImagesDisplay

        Raises
        ------
        ValueError
            If the label is unknown, lengths differ, or an image cannot be read.
        """
        images = list_images(images)
        classifier, rows = classifier_and_rows(estimator, X)
        check_is_fitted(classifier)
        column = _column_of(label, classifier.classes_)
        _check_lengths(rows, images, y)
        starts = zero_shot_classifier(classifier), classifier
        scores = np.array([_scores(clf, rows, column) for clf in starts])
        indices = np.argsort(-scores, axis=1, kind="stable")[:, :n_images]
        if display_labels is None:
            display_labels = names_of_classes(classifier)
        names = names_to_show(classifier.classes_, display_labels).tolist()
        display = cls(
            tuple([read_image(images[i]) for i in row] for row in indices),
            indices=indices,
            label=label,
            truths=None if y is None else tuple(_taken(y, row) for row in indices),
            name=names[column],
            names=dict(zip(classifier.classes_.tolist(), names, strict=True)),
        )
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw two rows of images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; its frame is hidden. None makes a figure.

        Returns
        -------
        NearestImagesDisplay
            This one.
        """
        n_columns = max(len(row) for row in self.images)
        ax = axes_or_new(ax, (1.0 + 1.45 * n_columns, 4.2))
        ax.set_axis_off()
        self.axes_ = np.array(
            [[_cell(ax, row, column, n_columns) for column in range(n_columns)] for row in range(2)]
        )
        for row, time in enumerate(_TIMES):
            self._draw_row(row)
            self.axes_[row, 0].set_ylabel(time, fontsize="medium")
        set_message(ax, self._message(), width=15 * n_columns + 6)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_row(self, row):
        for column, cell in enumerate(self.axes_[row]):
            cell.set(xticks=[], yticks=[])
            cell.imshow(self.images[row][column])
            if self.truths is None:
                continue
            truth = self.truths[row][column]
            is_right = truth == self.label
            color = BETTER if is_right else WORSE
            cell.spines[:].set(color=color, linewidth=2.5)
            name = shortened((self.names or {}).get(truth, truth), 13)
            mark = "" if is_right else "✗ "
            cell.set_title(f"{mark}{name}", fontsize="small", color=color, pad=4)

    def _message(self):
        name = shortened(self.label if self.name is None else self.name)
        first = f"Nearest to “{name}”"
        if self.n_right_ is None or self.truths is None:
            return f"{first} before and after training"
        before, after = (
            f"{n} of {len(row)}" for n, row in zip(self.n_right_, self.truths, strict=True)
        )
        return f"{first}: {before} right before training, {after} after"


def _column_of(label, classes):
    found = np.flatnonzero(classes == label)
    if len(found) == 0:
        raise ValueError(
            f"{label!r} is not among the {len(classes)} classes of the classifier, such as "
            f"{classes.tolist()[0]!r}. Its classes_ lists them."
        )
    return int(found[0])


def _check_lengths(rows, images, y):
    n_rows = len(rows)
    for what, values in (("images", images), ("y", y)):
        if values is not None and len(values) != n_rows:
            raise ValueError(
                f"X has {n_rows} rows and {what} {len(values)}. Pass one for each row."
            )


def _scores(classifier, rows, column):
    """Logit of a class for each row; of two classes the difference from the other's."""
    decision = classifier.decision_function(rows)
    if decision.ndim == 2:
        return decision[:, column]
    return decision if column == 1 else -decision


def _taken(y, indices):
    return np.asarray(y)[indices].tolist()


def _cell(ax, row, column, n_columns):
    """Axes inside `ax` for one image of a grid of two rows."""
    width, height = 1 / n_columns, 0.5
    left, bottom = column * width + 0.04 * width, (1 - row) * height
    cell = ax.inset_axes([left, bottom, 0.92 * width, 0.86 * height])
    cell.spines[:].set(color=NEUTRAL)
    cell.set_anchor("N" if row else "S")  # the rows side by side, however high the axes
    return cell
