"""Class embeddings t, the rows of the base classifier: from text, from an array, or from images."""

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_array

from .._formulas import CLIP_TEXT_RMS, row_norms, unit


def class_names_of(labels, class_names):
    """Find the name of each label.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        Sorted, distinct labels.
    class_names : None, mapping of label to name, or sequence of names
        None takes the labels themselves. A sequence names the sorted labels; where there are fewer
        labels than names, as in a fold that lacks a class, integer labels index it.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a label has no name.
    """
    if class_names is None:
        return _labels_as_names(labels)
    names, rows = _named_rows(labels, class_names)
    return [str(names[row]) for row in rows]


def _labels_as_names(labels):
    strangers = [label for label in labels.tolist() if not isinstance(label, str)]
    if strangers:
        raise ValueError(
            f"A text base needs the names of the classes, and the labels (such as "
            f"{strangers[0]!r}) are not names. Pass class_names, a sequence in the order of the "
            f"sorted labels or a dict {{label: name}}."
        )
    return labels.tolist()


def _named_rows(labels, class_names):
    """Return the names as a list and the position in it of each label."""
    if not isinstance(class_names, Mapping):
        names = list(class_names)
        return names, _rows_in_order(labels, len(names), "class_names has {} names")
    row_of = {label: row for row, label in enumerate(class_names)}
    missing = [label for label in labels.tolist() if label not in row_of]
    if missing:
        raise ValueError(
            f"class_names has no name for {missing[:5]}, labels that y holds. Add their names, or "
            f"leave out the rows that carry them."
        )
    return list(class_names.values()), [row_of[label] for label in labels.tolist()]


def _rows_in_order(labels, n_rows, what):
    """Match sorted labels with rows in order, or integer labels with the rows they index."""
    if len(labels) == n_rows:
        return list(range(n_rows))
    if labels.dtype.kind in "iu" and len(labels) < n_rows and 0 <= labels[0] <= labels[-1] < n_rows:
        return labels.tolist()
    first, last = labels.tolist()[0], labels.tolist()[-1]
    raise ValueError(
        f"{what.format(n_rows)} for {len(labels)} labels ({first!r} to {last!r}), so which belongs "
        f"to which is unknown. Pass class_names as a dict {{label: name}}, or one for each label."
    )


def array_rows(base, labels, class_names, base_norm):
    """Pick the row of each label from an array base.

    Parameters
    ----------
    base : array-like of shape (n_rows, d)
        Its rows are named by `class_names`, in its order, or else by the sorted labels.
    labels, class_names
        As in :func:`class_names_of`.
    base_norm : float or None
        Only to decide whether unit rows deserve a warning.

    Returns
    -------
    ndarray of shape (n_classes, d)

    Raises
    ------
    ValueError
        If rows and labels, or rows and names, do not match.
    """
    base = np.asarray(base)
    if class_names is not None:
        names, rows = _named_rows(labels, class_names)
        if len(names) != len(base):
            raise ValueError(
                f"base has {len(base)} rows and class_names {len(names)} names. The names say "
                f"which row is which class: give one for each row."
            )
    else:
        rows = _rows_in_order(labels, len(base), "base has {} rows")
    if base_norm is None and np.allclose(row_norms(base.astype(float)), 1, atol=1e-2):
        warnings.warn(
            "The rows of base have unit norm. TaskRes learns its residual on raw text embeddings "
            "(norm about 10 for OpenAI's CLIP); on unit rows the same learning rate acts about "
            "ten times as strongly. Pass the raw embeddings, or base_norm=10.",
            UserWarning,
            stacklevel=6,
        )
    return base[rows]


def class_means(X, y, sample_weight=None):
    """Mean of the unit rows of each class, (n_classes, d), scaled to the size of CLIP's text rows.

    Parameters
    ----------
    X : ndarray of shape (n_samples, d)
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,), optional
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    totals = np.bincount(y, weight)
    shares = (weight / totals[y], (y, np.arange(len(y))))
    means = (csr_array(shares) @ unit(X)).astype(X.dtype, copy=False)
    return means * norm_factor(means, CLIP_TEXT_RMS * means.shape[1] ** 0.5)


def norm_factor(rows, mean_norm):
    """Return the number that gives the rows, (n, d), the mean norm `mean_norm`."""
    return float(mean_norm / row_norms(rows).mean())
