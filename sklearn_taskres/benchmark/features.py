"""Embeddings of a data set, read from an ``.npz`` file: what ``benchmark accuracy`` runs on."""

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import sample_few_shot
from .._formulas import row_norms

_KEYS = {"X_train", "y_train", "X_val", "y_val", "X_test", "y_test", "text", "classnames"}


class Features(NamedTuple):
    """A data set: rows to draw shots from, rows to test on, raw class embeddings."""

    name: str
    digest: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    base: np.ndarray
    class_names: list[str]
    base_norm: float

    @property
    def backbone(self):
        """Name of the CLIP: a file does not say."""
        return None

    @property
    def views(self):
        """Number of augmented views per image."""
        return self.X.shape[1] - 1 if self.X.ndim == 3 else 0

    @property
    def digests(self):
        """What each test set's lines were made from, by its name."""
        return {self.name: self.digest}

    def published_parameters(self, class_name, shots):
        """Return no parameters: recipes are published for images of known data sets."""
        return {}

    def training(self, shots, seed):
        """Draw images of each class: their rows and labels."""
        rows = sample_few_shot(self.y, shots, random_state=seed)
        return self.X[rows], self.y[rows]

    def tests(self):
        """Rows and labels of each test set, by its name."""
        return {self.name: (self.X_test, self.y_test)}


def read_features(path, base_norm):
    """Read a data set, or end the program with what is wrong with the file.

    Parameters
    ----------
    path : path-like
        An ``.npz`` file with ``X_train`` (n, d), or (n, 1 + n_views, d), and ``y_train`` (n,), or
        the same as ``X_val`` and ``y_val`` if there is no ``X_train``; ``X_test``, ``y_test``;
        ``text`` (K, d); and, optionally, ``classnames`` (K,). Labels are row numbers of ``text``.
    base_norm : float
        Norm of the class embeddings if the rows of ``text`` have unit norm; others are raw
        already and stay as they are.
    """
    arrays = _read_arrays(Path(path))
    pool = "train" if "X_train" in arrays else "val"
    needed = [f"X_{pool}", f"y_{pool}", "X_test", "y_test", "text"]
    missing = [key for key in needed if key not in arrays]
    if missing:
        sys.exit(f"{path} has no arrays {missing}. Of those that count it holds {sorted(arrays)}.")
    X, y, X_test, y_test, text = (arrays[key] for key in needed)
    _check_arrays(path, {name: arrays[name] for name in needed})
    _check_names(path, arrays.get("classnames"), len(text))
    _check_labels(path, y, y_test, len(text))
    text = text.astype(np.float32)
    is_unit = np.allclose(row_norms(text), 1, atol=1e-2)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return Features(
        name=Path(path).stem,
        digest=digest,
        X=X.astype(np.float32),
        y=y,
        X_test=X_test.astype(np.float32),
        y_test=y_test,
        base=text * np.float32(base_norm) if is_unit else text,
        class_names=[str(name) for name in arrays.get("classnames", range(len(text)))],
        base_norm=base_norm,
    )


def _read_arrays(path):
    try:
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files if key in _KEYS}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} can't be read as an .npz file of plain arrays: {error}")


def _check_arrays(path, arrays):
    """End the program unless the arrays are finite real numbers of shapes that go together."""
    pooled, y_pooled, test, y_test, text = arrays
    shapes = {name: array.shape for name, array in arrays.items()}
    wrong = next((name for name in arrays if arrays[name].dtype.kind not in "iuf"), None)
    if wrong:
        sys.exit(f"{wrong} in {path} must be real numbers. It is {arrays[wrong].dtype}.")
    n_axes = {y_pooled: (1,), y_test: (1,), pooled: (2, 3), test: (2,), text: (2,)}
    for name, allowed in n_axes.items():
        if len(shapes[name]) not in allowed or 0 in shapes[name]:
            wanted = " or ".join(map(str, allowed))
            sys.exit(
                f"{name} in {path} must have {wanted} axes and not be empty. Its shape is "
                f"{shapes[name]}."
            )
    for rows, labels in ((pooled, y_pooled), (test, y_test)):
        if shapes[rows][0] != shapes[labels][0]:
            sys.exit(
                f"{path} has {shapes[rows][0]} rows in {rows} and {shapes[labels][0]} labels in "
                f"{labels}. Each row needs one label."
            )
    widths = {name: shapes[name][-1] for name in (pooled, test, text)}
    if len(set(widths.values())) > 1:
        sys.exit(f"The rows in {path} must have one width, of one CLIP. They have {widths}.")
    broken = next((n for n in arrays if not np.isfinite(arrays[n].astype(np.float32)).all()), None)
    if broken:
        sys.exit(f"{broken} in {path} holds NaN, infinity or numbers too large for float32.")
    if not arrays[text].any(axis=1).all():
        sys.exit(f"text in {path} has a row of zeros. Each class needs an embedding.")


def _check_names(path, names, n_classes):
    if names is not None and names.shape != (n_classes,):
        sys.exit(
            f"classnames in {path} must have shape ({n_classes},), one per row of its text. Its "
            f"shape is {names.shape}."
        )


def _check_labels(path, y, y_test, n_classes):
    if not np.array_equal(np.unique(y), np.arange(n_classes)) or np.setdiff1d(y_test, y).size:
        sys.exit(
            f"The labels in {path} must be row numbers of its text, 0 to {n_classes - 1}, and each "
            f"of them among the training rows."
        )
