"""Data for few-shot tasks: folders of images, digits, and k images per class of any labels."""

import csv
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state, column_or_1d

from ._clip.files import FORMATS, PREFIX_BYTES, looks_like_image
from ._clip.images import open_image
from ._messages import warn_user
from ._typing import RandomState

#: Endings of the image files that are taken from a folder, in any case.
IMAGE_SUFFIXES = tuple(sorted(itertools.chain(*FORMATS.values())))
#: Files that a warning about those passed over names.
_NAMED_FILES = 3
#: Threads that try whether images can be read, at the most.
_MOST_THREADS = 8
#: Validation images per class at the most, as in the published protocol.
_MOST_VALIDATION_SHOTS = 4
#: Names of scikit-learn's digits, in the order of their labels.
_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load_digit_images() -> tuple[NDArray[np.float64], NDArray[np.int_], list[str]]:
    """Load scikit-learn's handwritten digits as images, with the words for their classes.

    It is what the examples use: nothing is downloaded, and "glyph-clip" knows digits.

    Returns
    -------
    images : ndarray of shape (1797, 8, 8), float64
        Grey images with values in [0, 1].
    y : ndarray of shape (1797,), int
        Their labels, 0 to 9.
    class_names : list of str
        "zero" to "nine", in the order of the labels.

    See Also
    --------
    sklearn.datasets.load_digits : The same images, with values from 0 to 16.

    Examples
    --------
    >>> from sklearn_taskres import load_digit_images
    >>> images, y, names = load_digit_images()
    >>> images.shape, names[y[0]]
    ((1797, 8, 8), 'zero')
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target, list(_DIGIT_NAMES)


def load_image_folder(
    folder: str | PathLike[str],
    *,
    on_error: Literal["raise", "warn"] = "raise",
    corrections: str | PathLike[str] | None = None,
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """List the images in a folder that has one folder per class.

    Parameters
    ----------
    folder : str or path-like
        ``folder/<class name>/…/<image>``. Images are the files that end like one of the formats
        that CLIPFeaturizer decodes (.jpg, .png, .webp, .avif, .heic, …), and those without an
        ending that begin like one. Other files are passed over, with a warning that counts them;
        hidden files and folders without. Folders below a class folder belong to the class. Links
        to folders elsewhere are followed; those to folders of this tree are passed over.
    on_error : {"raise", "warn"}, default="raise"
        What happens to images that can't be read. "raise" opens no file: CLIPFeaturizer then raises
        UnreadableImagesError, which lists them. "warn" decodes every image once, leaves out those
        that can't be read, and warns which. Take it for folders that nobody has looked through; it
        takes a few milliseconds per photo, much less than encoding.
    corrections : str or path-like, optional
        A CSV file with the columns ``image`` and ``label``, as the page of
        :func:`~sklearn_taskres.inspection.review` saves it. An image that it names gets that label,
        and none with an empty label is listed. Images elsewhere are added. Paths are taken from the
        working folder, or else from `folder`. No file is moved.

    Returns
    -------
    paths : ndarray of shape (n_samples,), str
        Paths, sorted by class and name.
    y : ndarray of shape (n_samples,), str
        Label of each: the name of its class folder.

    Raises
    ------
    ValueError
        If `folder` is not a folder, has no class folders, or one of them holds no image that can be
        read; or if the corrections lack a column, or name an image that is not there.

    Warns
    -----
    UserWarning
        If files are passed over, and if images are left out that can't be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_taskres import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["cat", "dog"]:
    ...         (Path(folder) / name).mkdir()
    ...         Image.new("RGB", (8, 8)).save(Path(folder) / name / "1.png")
    ...     paths, y = load_image_folder(folder)
    >>> y.tolist()
    ['cat', 'dog']
    """
    if on_error not in ("raise", "warn"):
        raise ValueError(f"on_error must be 'raise' or 'warn'. Got {on_error!r} instead.")
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Pass one that holds a folder for each class.")
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder} holds no folders. Put the images of each class into one.")
    files = {path.name: _files_below(path, folder) for path in classes}
    paths = {name: list(filter(_is_image, found)) for name, found in files.items()}
    _refuse_empty(paths, folder, f"hold no images ({', '.join(IMAGE_SUFFIXES)})")
    loose = [p for p in folder.iterdir() if not (p.is_dir() or p.name.startswith("."))]
    taken = set(itertools.chain(*paths.values()))
    others = [p for p in itertools.chain(*files.values(), loose) if p not in taken]
    _warn_about_others(others, folder)
    if on_error == "warn":
        paths = _readable(paths, folder)
        _refuse_empty(paths, folder, "hold no image that can be read")
    labels = {path: name for name, found in paths.items() for path in found}
    if corrections is not None:
        labels = _corrected(labels, Path(corrections), folder)
    order = sorted(labels, key=lambda path: (labels[path], path))
    return np.array([str(path) for path in order]), np.array([labels[path] for path in order])


def _corrected(labels: dict[Path, str], file: Path, folder: Path) -> dict[Path, str]:
    """Apply the corrections in a file to the label of each path."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as content:
            rows = list(csv.DictReader(content))
    except UnicodeDecodeError:
        raise ValueError(
            f"{file} is not text in UTF-8. Save it again with this encoding."
        ) from None
    if rows and not {"image", "label"} <= rows[0].keys():
        raise ValueError(
            f"{file} must have the columns image and label. It has {list(rows[0])[:5]}."
        )
    labels = dict(labels)
    listed = {path.resolve(): path for path in labels}
    for row in rows:
        named = [Path(row["image"]), folder / row["image"]]
        path = next((path for path in named if path.is_file()), None)
        if path is None:
            raise ValueError(f"{file} names the image {row['image']!r}, which is not a file.")
        labels[listed.get(path.resolve(), path)] = (row["label"] or "").strip()
    return {path: label for path, label in labels.items() if label}


def _refuse_empty(paths: dict[str, list[Path]], folder: Path, what: str) -> None:
    empty = [name for name, found in paths.items() if not found]
    if empty:
        raise ValueError(
            f"The class folders {empty[:5]} in {folder} {what}. Add some, or remove the folders."
        )


def images_below(folder: Path) -> list[Path]:
    """List the images in a folder and the folders below it, sorted, without the hidden ones.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Path
    """
    return list(filter(_is_image, _files_below(folder, folder)))


def why_unreadable(paths: Iterable[Path | str]) -> list[str | None]:
    """Try to decode images, some at a time.

    Parameters
    ----------
    paths : iterable of path-like

    Returns
    -------
    list of (str or None)
        The reason for each that can't be read, None for the others.
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(_why_unreadable, paths))


def _why_unreadable(path: Path | str) -> str | None:
    try:
        with open_image(path):
            return None
    except ValueError as error:
        return str(error)


def _readable(paths: dict[str, list[Path]], folder: Path) -> dict[str, list[Path]]:
    """Leave out what can't be read, and warn about it."""
    reasons = why_unreadable(itertools.chain(*paths.values()))
    why = dict(zip(itertools.chain(*paths.values()), reasons, strict=True))
    bad = [f"{path.relative_to(folder)} ({reason})" for path, reason in why.items() if reason]
    if bad:
        more = ", …" if len(bad) > _NAMED_FILES else ""
        warn_user(
            f"load_image_folder left out {len(bad)} of the images in {folder}, which can't be "
            f"read: {', '.join(bad[:_NAMED_FILES])}{more}"
        )
    return {name: [path for path in found if not why[path]] for name, found in paths.items()}


def _files_below(folder: Path, root: Path) -> list[Path]:
    """List what lies below a folder, sorted, without what is hidden; links to folders are followed.

    Links into the tree of `root`, or to a folder above, are listed instead: what they lead to has a
    place, and a label, of its own.
    """
    found: list[Path] = []
    entered: set[Path] = set()
    top = root.resolve()
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = Path(parent).resolve()
        if here in entered:  # outside of the tree, in a circle
            folders.clear()
            continue
        entered.add(here)
        below = [Path(parent, name) for name in folders if not name.startswith(".")]
        inner = [path for path in below if path.is_symlink() and _meets(path.resolve(), top, here)]
        folders[:] = [path.name for path in below if path not in inner]
        files = (Path(parent, name) for name in names if not name.startswith("."))
        found += inner
        found += (path for path in files if path.is_file() or not path.exists())  # a dead link
    return sorted(found)


def _meets(target: Path, top: Path, here: Path) -> bool:
    """Whether a folder lies in a tree, or holds it or the folder that links to it."""
    return target.is_relative_to(top) or any(p.is_relative_to(target) for p in (top, here))


def _is_image(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    try:
        with path.open("rb") as file:
            return looks_like_image(file.read(PREFIX_BYTES))
    except OSError:
        return False


def _warn_about_others(others: list[Path], folder: Path) -> None:
    if others:
        named = ", ".join(str(path.relative_to(folder)) for path in others[:_NAMED_FILES])
        more = ", …" if len(others) > _NAMED_FILES else ""
        warn_user(
            f"load_image_folder passed over {len(others)} of the files in {folder}, which are not "
            f"images in a class folder: {named}{more}"
        )


@overload
def sample_few_shot(
    y: ArrayLike,
    n_shots: int,
    *,
    validation: Literal[False] = False,
    random_state: RandomState = None,
) -> NDArray[np.intp]: ...
@overload
def sample_few_shot(
    y: ArrayLike, n_shots: int, *, validation: Literal[True], random_state: RandomState = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]: ...
def sample_few_shot(
    y: ArrayLike, n_shots: int, *, validation: bool = False, random_state: RandomState = None
) -> NDArray[np.intp] | tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw a few images of each class: the protocol of few-shot papers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    n_shots : int
        Images per class, k, drawn without replacement. A class with fewer keeps all it has.
    validation : bool, default=False
        Whether to draw min(k, 4) further images per class, after the training images and from what
        they left, for methods that need a validation set.
    random_state : int, RandomState instance or None, default=None
        Which images are drawn.

    Returns
    -------
    train : ndarray of shape (n_train,), int
        Indices into `y`, class by class in the order of the sorted labels.
    validation : ndarray of shape (n_validation,), int
        The same for the validation images. Only with ``validation=True``.

    Raises
    ------
    ValueError
        If `n_shots` is not a positive integer, or `y` is empty.

    Examples
    --------
    >>> from sklearn_taskres import sample_few_shot
    >>> y = ["cat", "dog", "cat", "dog", "cat"]
    >>> sample_few_shot(y, 2, random_state=0).shape
    (4,)
    """
    if not (isinstance(n_shots, int | np.integer) and n_shots >= 1):
        raise ValueError(f"n_shots must be an integer of at least 1. Got {n_shots!r} instead.")
    labels = column_or_1d(y)
    if len(labels) == 0:
        raise ValueError("y holds no labels to draw from: pass at least one.")
    rng = check_random_state(random_state)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    train = np.concatenate([rows[:n_shots] for rows in shuffled])
    if not validation:
        return train
    end = n_shots + min(n_shots, _MOST_VALIDATION_SHOTS)
    return train, np.concatenate([rows[n_shots:end] for rows in shuffled])
