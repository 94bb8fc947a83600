"""Data sets on disk, in the folder layout and split files that CoOp's users have."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from .._data_sets import DATA_SETS

#: Wrong items that a message names.
_NAMED = 3


class MissingDataSetError(Exception):
    """A data set's folder is not there."""


class Rows(NamedTuple):
    """Images and their labels."""

    folder: Path
    #: Paths relative to the folder.
    names: list[str]
    #: Labels, int (n,).
    y: np.ndarray

    def paths(self, rows=None):
        """Paths of some rows, all by default."""
        chosen = self.names if rows is None else [self.names[row] for row in rows]
        return [os.path.join(self.folder, name) for name in chosen]

    def digest(self):
        """Bytes that differ if names or labels do; images are not read."""
        text = "\n".join(self.names).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text + b"\0" + self.y.astype("<i8").tobytes()).digest()


class DataSet(NamedTuple):
    """A data set: images to draw shots from, images to test on, names of the labels 0 to K - 1."""

    name: str
    class_names: list[str]
    train: Rows
    #: Name of a test set to its rows; the first one is the data set's own.
    tests: dict[str, Rows]
    #: ImageNet's class folders, by label.
    class_folders: list[str]


def read_data_set(name, root):
    """Read what a data set consists of, without opening an image.

    Parameters
    ----------
    name : str
        One of `_data_sets.TRAINED`.
    root : Path
        The folder that holds the data sets' folders.

    Returns
    -------
    DataSet

    Raises
    ------
    MissingDataSetError
        If the data set's folder is not there.
    ValueError
        If something in it is missing or wrong.
    """
    info = DATA_SETS[name]
    return _READERS[info.layout](name, info, _existing(name, root / info.folder))


def _existing(name, folder):
    if not folder.is_dir():
        raise MissingDataSetError(f"{name} is skipped: there is no folder {folder}.")
    return folder


# split files ------------------------------------------------------------------------------------


def _read_split(name, info, folder):
    path = folder / info.split
    content = _read_json(path)
    parts = [_listed(content, part, path) for part in ("train", "val", "test")]
    names = _names_of_labels(parts[0], path)
    train, _, test = (_rows(items, folder / info.images, len(names), path) for items in parts)
    return DataSet(name, names, train, {name: test}, [])


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path} can't be read: {error.strerror}. It says what to train and test on."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Get the file again.") from error


def _listed(content, part, path):
    """Items of one part of a split, each checked to be [path, label, class name]."""
    items = content.get(part) if isinstance(content, dict) else None
    if not (isinstance(items, list) and (items or part == "val")):
        raise ValueError(f"{path} has no list {part!r} with images in it. Get the file again.")
    for item in items:
        if not (isinstance(item, list) and list(map(type, item)) == [str, int, str]):
            raise ValueError(
                f"{path} holds {item!r:.100} in {part!r}. Its items [path, label, class name] must "
                f"be lists of a string, an integer and a string."
            )
    return items


def _names_of_labels(items, path):
    """Names of the labels 0 to K - 1, all of them in the training items."""
    names: dict = {}
    for _, label, name in items:
        if not name.strip():
            raise ValueError(f"{path} gives label {label} no class name. Write one: CLIP reads it.")
        if names.setdefault(label, name) != name:
            raise ValueError(f"{path} calls label {label} {names[label]!r}, and also {name!r}.")
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"The training labels in {path} must be 0 to {len(names) - 1}, as there are "
            f"{len(names)}. They are {min(names)} to {max(names)}."
        )
    return [names[label] for label in range(len(names))]


def _rows(items, folder, n_classes, path):
    """Rows of [name, label, ...] items, whose files are looked for."""
    wrong = [item[0] for item in items if _leaves(item[0])]
    if wrong:
        raise ValueError(f"{path} names files outside {folder}: {wrong[:_NAMED]}. It is refused.")
    unknown = sorted({item[1] for item in items} - set(range(n_classes)))
    if unknown:
        raise ValueError(f"{path} has test labels without training images: {unknown[:_NAMED]}.")
    missing = [item[0] for item in items if not os.path.isfile(os.path.join(folder, item[0]))]
    if missing:
        raise ValueError(
            f"{path} names {len(missing)} files that are not in {folder}, such as "
            f"{missing[:_NAMED]}. Unpack the images there."
        )
    labels = np.array([item[1] for item in items], dtype=np.int64)
    return Rows(folder, [item[0] for item in items], labels)


def _leaves(name):
    """Whether a relative path may lead out of its folder, on any system."""
    path = PureWindowsPath(name)
    return bool(path.anchor) or ".." in path.parts


# text files -------------------------------------------------------------------------------------


def _read_aircraft(name, info, folder):
    names = _lines(folder / "variants.txt")
    label_of = {variant: label for label, variant in enumerate(names)}
    parts = {}
    for part in ("train", "val", "test"):
        path = folder / f"images_variant_{part}.txt"
        pairs = [line.partition(" ")[::2] for line in _lines(path)]
        unknown = [variant for _, variant in pairs if variant.strip() not in label_of]
        if unknown:
            raise ValueError(f"{path} has classes that variants.txt lacks: {unknown[:_NAMED]}.")
        items = [(f"{image}.jpg", label_of[variant.strip()]) for image, variant in pairs]
        parts[part] = _rows(items, folder / info.images, len(names), path)
    _check_every_class(parts["train"].y, names, folder)
    return DataSet(name, names, parts["train"], {name: parts["test"]}, [])


def _lines(path):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}.") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(f"{path} is empty. Get the file again.")
    return found


def _check_every_class(y, names, folder):
    without = [
        name for name, n in zip(names, np.bincount(y, minlength=len(names)), strict=True) if not n
    ]
    if without:
        raise ValueError(f"{folder} has classes without training images: {without[:_NAMED]}.")


# ImageNet ---------------------------------------------------------------------------------------


def _read_imagenet(name, info, folder):
    names, images = _imagenet_names(folder), folder / info.images
    folders = sorted(entry.name for entry in _visible(images / "train", folders=True))
    unnamed = [wnid for wnid in folders if wnid not in names]
    if unnamed:
        raise ValueError(f"{folder / 'classnames.txt'} has no names for {unnamed[:_NAMED]}.")
    label_of = {wnid: label for label, wnid in enumerate(folders)}
    train, test = (_rows_of_folders(images / part, label_of) for part in ("train", "val"))
    class_names = [names[wnid] for wnid in folders]
    _check_every_class(train.y, class_names, folder)
    return DataSet(name, class_names, train, {name: test}, folders)


def _imagenet_names(folder):
    """Class folder to class name, in the order of the file."""
    pairs = [line.partition(" ")[::2] for line in _lines(folder / "classnames.txt")]
    nameless = [wnid for wnid, name in pairs if not name.strip()]
    if nameless:
        raise ValueError(f"{folder / 'classnames.txt'} has no names for {nameless[:_NAMED]}.")
    return {wnid: name.strip() for wnid, name in pairs}


def read_variant(name, root, imagenet):
    """Read a test set of ImageNet's classes.

    Parameters
    ----------
    name : str
        One of `_data_sets.VARIANTS`.
    root : Path
        The folder that holds the data sets' folders.
    imagenet : DataSet
        Whose labels the rows get; the test set may lack some.

    Returns
    -------
    Rows

    Raises
    ------
    MissingDataSetError, ValueError
        As in `read_data_set`.
    """
    info = DATA_SETS[name]
    label_of = _LABELS[info.layout](root / DATA_SETS["imagenet"].folder, imagenet)
    return _rows_of_folders(_existing(name, root / info.folder) / info.images, label_of)


def _class_folders(folder, imagenet):
    """Class folder to label, in a variant whose folders are ImageNet's."""
    return {wnid: label for label, wnid in enumerate(imagenet.class_folders)}


def _numbered_folders(folder, imagenet):
    """Class folder to label, in a variant whose folders are numbers of lines of classnames.txt."""
    label_of = _class_folders(folder, imagenet)
    wnids = enumerate(_imagenet_names(folder))
    return {str(line): label_of[wnid] for line, wnid in wnids if wnid in label_of}


def _rows_of_folders(folder, label_of):
    """Rows of a folder with one folder per class, which `label_of` gives a label."""
    classes = sorted(entry.name for entry in _visible(folder, folders=True))
    unknown = [name for name in classes if name not in label_of]
    if unknown:
        raise ValueError(
            f"{folder} has the folders {unknown[:_NAMED]}, which are not classes of ImageNet's "
            f"training images."
        )
    names, labels = [], []
    for name in classes:
        images = sorted(entry.name for entry in _visible(folder / name, folders=False))
        names += [f"{name}/{image}" for image in images]
        labels += [label_of[name]] * len(images)
    if not names:
        raise ValueError(f"{folder} holds no images in class folders. Sort them into such folders.")
    return Rows(folder, names, np.array(labels, dtype=np.int64))


def _visible(folder, *, folders):
    """List the entries of a folder that are folders, or files, and not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.is_dir() == folders]
    except OSError as error:
        raise ValueError(f"{folder} can't be read: {error.strerror}.") from error


#: Layout, as the rows of `_data_sets` name it, to what reads it.
_READERS: dict[str, Callable] = {
    "split": _read_split,
    "aircraft": _read_aircraft,
    "imagenet": _read_imagenet,
}
#: Layout of a variant of ImageNet to what says which labels its folders have.
_LABELS: dict[str, Callable] = {"folders": _class_folders, "numbered_folders": _numbered_folders}
