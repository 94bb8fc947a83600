"""Labels as the rows of a figure: checked, coded, and under the names to show."""

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d


def coded_labels(labels, **given):
    """Code arrays of labels by their places among all labels.

    Parameters
    ----------
    labels : array-like of shape (n_classes,) or None
        All labels. None: those that occur, sorted.
    **given : array-like of shape (n_samples,)
        The arrays by name; the first holds the truth.

    Returns
    -------
    labels : ndarray of shape (n_classes,)
    codes : list of ndarray of shape (n_samples,), int

    Raises
    ------
    ValueError
        If they are empty, differ in length or in kind, or hold what is not among `labels`.
    """
    arrays = {name: column_or_1d(values) for name, values in given.items()}
    check_consistent_length(*arrays.values())
    (first, truth), *others = arrays.items()
    if len(truth) == 0:
        raise ValueError(f"{first} is empty. Pass at least one label and its prediction.")
    for name, values in others:
        if (values.dtype.kind in "UO") != (truth.dtype.kind in "UO"):
            raise ValueError(
                f"{first} and {name} must hold labels of one kind. Got {truth[0]!r} in {first} and "
                f"{values[0]!r} in {name}."
            )
    if labels is None:
        labels = np.unique(np.concatenate(list(arrays.values())))
    labels = column_or_1d(labels)
    place = {label: i for i, label in enumerate(labels.tolist())}
    return labels, [_places(values, place, name) for name, values in arrays.items()]


def _places(values, place, name):
    unknown = [label for label in values.tolist() if label not in place]
    if unknown:
        raise ValueError(
            f"{name} holds {unknown[0]!r}, which is not among the {len(place)} labels. Pass all "
            f"labels of the task, or leave out the images of other classes."
        )
    return np.array([place[label] for label in values.tolist()])


def names_to_show(labels, display_labels):
    """Return the names to show for labels.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
    display_labels : array-like of shape (n_classes,) or None
        None shows the labels.

    Raises
    ------
    ValueError
        If the names are not one for each label.
    """
    if display_labels is None:
        return labels
    if len(display_labels) != len(labels):
        raise ValueError(
            f"display_labels has {len(display_labels)} names for {len(labels)} labels. Give one "
            f"for each label, in the order of the sorted labels."
        )
    return np.asarray(display_labels)
