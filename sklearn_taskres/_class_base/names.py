"""Which name, and which row of an array, belongs to which label."""

from collections.abc import Mapping, Set
from typing import Any

from numpy.typing import NDArray

from .._messages import listed, warn_once
from .._typing import ClassNames


def class_names_of(labels: NDArray[Any], class_names: ClassNames) -> list[str]:
    """Find the name of each label.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        Sorted, distinct labels.
    class_names : None, mapping of label to name, or sequence of names
        None takes the labels themselves. A sequence names the sorted labels; if there are fewer
        labels than names, as in a fold that lacks a class, integer labels index it, with a warning.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a label has no name, or one that is not text.
    """
    if class_names is None:
        return _labels_as_names(labels)
    names, rows = _named_rows(labels, class_names)
    nameless = [names[row] for row in rows if not isinstance(names[row], str)]
    if nameless:
        raise ValueError(f"class_names must be words, for CLIP to read. Got {listed(nameless)}.")
    return [str(names[row]) for row in rows]


def _labels_as_names(labels):
    not_text = [label for label in labels.tolist() if not isinstance(label, str)]
    if not_text:
        raise ValueError(
            f"A text base needs the names of the classes, and the labels (such as "
            f"{not_text[0]!r}) are not names. Pass class_names, a sequence in the order of the "
            f"sorted labels or a dict {{label: name}}; the sequence if a meta-estimator has "
            f"replaced the labels by numbers."
        )
    return labels.tolist()


def _named_rows(labels, class_names):
    """Return the names as a list and the position in it of each label."""
    if hasattr(class_names, "to_dict"):
        raise ValueError(
            "class_names is a Series, whose order and index may say different things. Pass "
            "series.to_list() or series.to_dict()."
        )
    if isinstance(class_names, Set):
        raise ValueError(
            f"class_names is a {type(class_names).__name__}, and names need an order. Pass a list "
            f"in the order of the sorted labels, or a dict {{label: name}}."
        )
    if not isinstance(class_names, Mapping):
        names = list(class_names)
        _check_order(labels, names)
        return names, _rows_of_names(labels, names)
    row_of = {label: row for row, label in enumerate(class_names)}
    missing = [label for label in labels.tolist() if label not in row_of]
    if missing:
        _refuse_inverted(labels, class_names)
        raise ValueError(
            f"class_names has no name for {listed(missing)}, labels that y holds. Add their names, "
            f"or leave out the rows that carry them."
        )
    _warn_of_unused(labels.tolist(), class_names)
    return list(class_names.values()), [row_of[label] for label in labels.tolist()]


def _refuse_inverted(labels, class_names):
    """Say it if the dict maps names to labels, as class_to_idx of torchvision does."""
    values = list(class_names.values())
    if all(label in values for label in labels.tolist()):
        raise ValueError(
            "class_names maps names to labels, and must map labels to names. Pass "
            "{label: name for name, label in class_names.items()}."
        )


def _warn_of_unused(labels, class_names):
    """Say once that names of a dict have no images: they would be missed in the predictions."""
    unused = [label for label in class_names if label not in set(labels)]
    if unused:
        warn_once(
            ("dict", *class_names),
            f"class_names names {listed(unused)}, labels that y does not hold: they are never "
            f"predicted. Leave them out, or add them after fit with add_classes().",
        )


def _rows_of_names(labels, names):
    """Match sorted labels with names in order, or integer labels with the names they index.

    A fold that lacks a class shows neither what the labels count from, nor whether someone has
    numbered the labels of the fold again: so the reading is said.
    """
    first, last, n_names = labels[0], labels[-1], len(names)
    indexes = labels.dtype.kind in "iu" and first >= 0 and last < n_names
    if len(labels) == n_names or not indexes:
        return _rows_in_order(labels, n_names, "class_names has {} names")
    warn_once(
        ("sequence", *map(str, names)),
        f"class_names has {n_names} names and y {len(labels)} labels, {first} to {last}. They are "
        f"taken as positions in class_names ({first} is {names[first]!r}); names without images "
        f"are never predicted. Pass a dict {{label: name}} if the labels mean something else.",
    )
    return labels.tolist()


def names_by_label(labels: NDArray[Any], class_names: ClassNames) -> dict[Any, str]:
    """Return a dict of label to the name that `class_names` gives it, empty if that is None."""
    if class_names is None:
        return {}
    names, rows = _named_rows(labels, class_names)
    return dict(zip(labels.tolist(), [names[row] for row in rows], strict=True))


def _check_order(labels, names):
    """Refuse names that are the labels in another order: each would go to another class."""
    labels = labels.tolist()
    if names != labels and all(isinstance(n, str) for n in names) and sorted(names) == labels:
        raise ValueError(
            f"class_names are the labels themselves in another order than sorted, so that "
            f"{names[0]!r} would name the class {labels[0]!r}. Leave class_names out, or sort them "
            f"(and the rows of a base array with them)."
        )


def _rows_in_order(labels, n_rows, what):
    """Match sorted labels with rows in order, or labels that count from 0 with their rows.

    If 0 itself is missing, labels may as well count from 1: better an error than a wrong name.
    """
    if len(labels) == n_rows:
        return list(range(n_rows))
    if labels.dtype.kind in "iu" and labels[0] == 0 and labels[-1] < n_rows:
        return labels.tolist()
    first, last = labels.tolist()[0], labels.tolist()[-1]
    raise ValueError(
        f"{what.format(n_rows)} for {len(labels)} labels ({first!r} to {last!r}), so which belongs "
        f"to which is unknown. Pass class_names as a dict {{label: name}}, or one for each label."
    )


def array_rows(base: NDArray[Any], labels: NDArray[Any], class_names: ClassNames) -> NDArray[Any]:
    """Pick the row of each label from an array base.

    Parameters
    ----------
    base : ndarray of shape (n_rows, d)
        Its rows are named by `class_names`, in its order, or else by the sorted labels.
    labels, class_names
        As in :func:`class_names_of`.

    Returns
    -------
    ndarray of shape (n_classes, d)

    Raises
    ------
    ValueError
        If rows and labels, or rows and names, do not match.
    """
    if class_names is not None:
        names, rows = _named_rows(labels, class_names)
        if len(names) != len(base):
            raise ValueError(
                f"base has {len(base)} rows and class_names {len(names)} names. The names say "
                f"which row is which class: give one for each row."
            )
    else:
        rows = _rows_in_order(labels, len(base), "base has {} rows")
    return base[rows]
