"""Classes that leave or join a fitted classifier, or get other labels."""

import copy
from collections.abc import Mapping
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._formulas import scaled_classifier
from .._messages import listed
from .._typing import NewClasses


class OpenClassesMixin:
    """Methods that select, remove, rename and add classes, on the arrays in `_class_arrays`."""

    _class_arrays: tuple[str, ...]
    _base_factor: float
    _name_of: dict
    _class_base: Any
    base_: np.ndarray
    classes_: np.ndarray
    logit_scale_: float

    def select_classes(self, labels: ArrayLike) -> Self:
        """Return a fitted classifier that knows only some of the classes.

        What was learned for them is kept as it is, so its logits are columns of this one's, to
        rounding.

        Parameters
        ----------
        labels : array-like of shape (n_selected,)
            At least two labels of `classes_`. Their order does not matter.

        Returns
        -------
        object
            A fitted classifier of the same type; this one stays unchanged.

        Raises
        ------
        ValueError
            If a label is unknown, or fewer than two are left.
        """
        check_is_fitted(self)
        wanted = np.unique(np.asarray(labels))
        self._check_known(wanted.tolist())
        if len(wanted) < 2:
            raise ValueError(f"select_classes needs at least two labels. Got {wanted.tolist()}.")
        return self._with_class_arrays(
            lambda name: getattr(self, name)[np.isin(self.classes_, wanted)]
        )

    def remove_classes(self, labels: ArrayLike) -> Self:
        """Return a fitted classifier that knows all classes but some.

        Parameters
        ----------
        labels : array-like of shape (n_removed,)
            Labels of `classes_`; at least two others must be left.

        Returns
        -------
        object
            A fitted classifier of the same type; this one stays unchanged.

        Raises
        ------
        ValueError
            If a label is unknown, or fewer than two are left.
        """
        check_is_fitted(self)
        removed = np.unique(np.asarray(labels))
        self._check_known(removed.tolist())
        left = self.classes_[~np.isin(self.classes_, removed)]
        if len(left) < 2:
            raise ValueError(
                f"remove_classes must leave at least two classes. Of {len(self.classes_)} it would "
                f"leave {left.tolist()}."
            )
        return self.select_classes(left)

    def rename_classes(self, labels: Mapping[Any, Any]) -> Self:
        """Return a fitted classifier that gives some of its classes other labels.

        What it learned stays as it is, the names that the text side read among it: a label is what
        `predict` returns.

        Parameters
        ----------
        labels : dict of label to label
            Old labels to new ones of the same kind. Classes that it does not name keep theirs; two
            may swap.

        Returns
        -------
        object
            A fitted classifier of the same type; this one stays unchanged.

        Raises
        ------
        ValueError
            If an old label is unknown, or two classes would have the same label.
        """
        check_is_fitted(self)
        old = self.classes_.tolist()
        if not (isinstance(labels, Mapping) and labels):
            raise ValueError(
                f"rename_classes takes a dict of old labels to new. Got {labels!r:.60}."
            )
        self._check_known(list(labels))
        self._check_kind(list(labels.values()))
        new = [labels.get(label, label) for label in old]
        if len(set(new)) < len(new):
            twice = sorted({label for label in new if new.count(label) > 1})
            raise ValueError(
                f"Two classes would have the label {listed(twice)}. Give each a label of its own."
            )
        renamed = copy.deepcopy(self)
        renamed.classes_ = self._as_labels(new)
        names = getattr(self, "_name_of", {})  # a linear probe reads none
        renamed._name_of = {labels.get(label, label): name for label, name in names.items()}
        order = np.argsort(renamed.classes_, kind="stable")
        return renamed._with_class_arrays(lambda name: getattr(renamed, name)[order])

    def add_classes(self, classes: NewClasses) -> Self:
        """Return a fitted classifier that also knows classes without training images.

        A new class gets its zero-shot weights, except in methods that learn something for all
        classes: they apply it to the new name, too. What was learned for the others is kept.

        Parameters
        ----------
        classes : dict of label to str or array-like of shape (n_features,), or list of str
            Names of the new classes, embedded as the text base embeds the others. If the base is
            an array: their raw text embeddings. If the labels are names, a list of names will do.

        Returns
        -------
        object
            A fitted classifier of the same type; this one stays unchanged.

        Raises
        ------
        ValueError
            If a label is known already or of another kind than the others, if there is neither a
            text base nor an embedding, if a name is too long for a learned context, or if the
            method needs images of each class.
        """
        check_is_fitted(self)
        if self._cannot_add_classes:
            raise ValueError(
                f"{type(self).__name__} can't add classes without images: "
                f"{self._cannot_add_classes} Fit again with images of the new classes."
            )
        by_label = self._by_label(classes)
        labels = self._new_labels(by_label)
        values = list(by_label.values())
        names = [value if isinstance(value, str) else None for value in values]
        new = self._new_rows(self._embed_new_classes(values), names)
        order = np.argsort(np.concatenate([self.classes_, labels]), kind="stable")
        grown = self._with_class_arrays(
            lambda name: np.concatenate(
                [getattr(self, name), labels if name == "classes_" else new[name]]
            )[order]
        )
        grown._name_of |= {k: name for k, name in by_label.items() if isinstance(name, str)}
        return grown

    @property
    def _cannot_add_classes(self) -> str | None:
        return None

    def _by_label(self, classes):
        """Turn a list of names into a dict, if the labels are names themselves."""
        is_list = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
        are_names = isinstance(self.classes_[0], str)
        return {name: name for name in classes} if is_list and are_names else classes

    def _new_labels(self, classes):
        if not (isinstance(classes, Mapping) and classes):
            raise ValueError(
                f"add_classes takes a dict of label to name or embedding, or a list of names if "
                f"the labels are names, with at least one. Got {classes!r:.60}."
            )
        known = self.classes_.tolist()
        known_already = [label for label in classes if label in known]
        if known_already:
            raise ValueError(
                f"The labels {listed(known_already)} are in classes_ already. Use new labels."
            )
        self._check_kind(list(classes))
        return self._as_labels(list(classes))

    def _check_known(self, labels):
        known = set(self.classes_.tolist())
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise ValueError(
                f"The labels {listed(unknown)} are not among the {len(known)} classes of this "
                f"{type(self).__name__}. Its classes_ lists them."
            )

    def _check_kind(self, labels):
        known = self.classes_.tolist()[0]
        other_kind = [label for label in labels if _kind_of_label(label) != _kind_of_label(known)]
        if other_kind:
            raise ValueError(
                f"The new labels {listed(other_kind)} are of another kind than classes_ (such as "
                f"{known!r}). Use labels of one kind."
            )

    def _as_labels(self, labels):
        return np.array(labels, dtype=object if self.classes_.dtype.kind == "O" else None)

    def _embed_new_classes(self, values):
        """Embed new classes as the base embeds its own: raw class embeddings (n_new, d)."""
        is_name = [isinstance(value, str) for value in values]
        width, dtype = self.base_.shape[1], self.base_.dtype
        vectors = [
            np.zeros(width) if named else v for v, named in zip(values, is_name, strict=True)
        ]
        if any(np.shape(vector) != (width,) for vector in vectors):
            raise ValueError(f"An embedding of a new class must have the shape ({width},).")
        rows = check_array(vectors, dtype=dtype, input_name="classes")
        if any(is_name):
            names = [value for value in values if isinstance(value, str)]
            rows[is_name] = self._embed_names(names)
        return rows * dtype.type(self._base_factor)

    def _embed_names(self, names):
        return self._class_base.embed_names(names)

    def _new_rows(self, base, names):
        """Rows of every array in `_class_arrays` but `classes_` for classes that were not seen.

        `base` are their raw embeddings, `names` their names, None if the embedding was given.
        """
        return {"base_": base, "coef_": scaled_classifier(base, self.logit_scale_)}

    def _with_class_arrays(self, rows_of):
        changed = copy.deepcopy(self)
        for name in self._class_arrays:
            setattr(changed, name, rows_of(name))
        return changed


def _kind_of_label(label):
    """Return what a label must share with the others to be sorted among them."""
    if isinstance(label, str):
        return str
    return Real if isinstance(label, Real | np.generic) else type(label)
