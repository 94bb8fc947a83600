"""A tuned classifier to the hub and back: arrays as safetensors, the rest as JSON, never code."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._clip.featurizer import CLIPFeaturizer
from .._persistence import written_whole
from .._version import __version__
from ._data import DataReader, DataWriter
from ._linear import parts_of

_CONFIG, _ARRAYS, _CARD = "sklearn_taskres.json", "head.safetensors", "README.md"
_FORMAT = 1


def push_to_hub(
    model: Any,
    repo_id: str | os.PathLike,
    *,
    accuracy: float | None = None,
    images_per_class: int | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Write a fitted classifier, or a pipeline with one, to a repository of the Hugging Face hub.

    The repository gets the head, a few arrays as safetensors, all else as JSON, and a model card.
    The CLIP stays where it is: its name is written. Nothing is pickled. Cache folder and device are
    those of the machine, and are left out.

    Parameters
    ----------
    model : object
        Fitted classifier of this package or pipeline of CLIPFeaturizer and one; of a search the
        best one is written.
    repo_id : str or path-like
        "<owner>/<name>" on the hub, made if it is not there; or a folder, if it exists, is a
        `pathlib.Path`, or begins with ``/``, ``.`` or ``~``.
    accuracy : float, optional
        Share of test images that are labelled correctly, for the card.
    images_per_class : int, optional
        That it was trained on, for the card.
    private : bool, optional
        Whether a new repository is private; None is the owner's default.
    token : str or bool, optional
        Of huggingface_hub; None takes the one of its login.

    Returns
    -------
    str
        Where it was written: an address, or a folder.

    Raises
    ------
    TypeError
        If the pipeline has other steps, or a parameter is not plain data, as callbacks are.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_taskres import TaskResClassifier
    >>> from sklearn_taskres.export import from_hub, push_to_hub
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 8)), np.arange(20) % 2
    >>> clf = TaskResClassifier("class_means").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = push_to_hub(clf, folder, accuracy=0.9, images_per_class=10)
    ...     same = from_hub(folder)
    >>> bool((same.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    files = _files(model, accuracy, images_per_class)
    if _is_folder(repo_id):
        folder = Path(repo_id).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        _write(files, folder)
        return str(folder)
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    address = api.create_repo(str(repo_id), private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _write(files, Path(scratch))
        api.upload_folder(
            repo_id=str(repo_id),
            folder_path=scratch,
            commit_message=f"Classifier of sklearn_taskres {__version__}",
        )
    return str(address)


def from_hub(
    repo_id: str | os.PathLike, *, revision: str | None = None, token: str | bool | None = None
) -> Any:
    """Read what `push_to_hub` wrote; nothing of it is executed or unpickled, and torch not needed.

    Parameters
    ----------
    repo_id : str or path-like
        As for `push_to_hub`.
    revision : str, optional
        Commit, tag or branch of a repository. Name a commit if what you load must not change.
    token : str or bool, optional
        Of huggingface_hub.

    Returns
    -------
    object
        The fitted classifier or pipeline. Its cache is in memory and its device None.

    Raises
    ------
    ValueError
        If the folder is not an export, or its files are not those that were written: each has a
        digest. That finds accidents and single files that were replaced; it is not a signature.
    OSError
        If a repository is neither in the cache nor can be downloaded (`ModelUnavailableError`).
    """
    if _is_folder(repo_id):
        folder = Path(repo_id).expanduser()
    else:
        import huggingface_hub

        from .._clip.downloads import fetched

        folder = fetched(
            f"The model {str(repo_id)!r}",
            "Look at its name, or pass a folder that push_to_hub wrote.",
            huggingface_hub.snapshot_download,
            str(repo_id),
            revision=revision,
            token=token,
            allow_patterns=[_CONFIG, _ARRAYS],
        )
    return _read(folder)


def _is_folder(repo_id):
    text = os.fspath(repo_id)
    is_path = isinstance(repo_id, os.PathLike) or text.startswith(("/", ".", "~", "\\"))
    return is_path or os.path.isabs(text) or os.path.isdir(text)


# files ----------------------------------------------------------------------------------------


def _files(model, accuracy, images_per_class):
    """Name to bytes of each file."""
    import safetensors.numpy

    featurizer, classifier = parts_of(model)
    writer = DataWriter()
    content = {
        "format": _FORMAT,
        "sklearn_taskres": __version__,
        "clip": None if featurizer is None else writer.estimator(featurizer),
        "classifier": writer.estimator(classifier),
    }
    arrays = safetensors.numpy.save(writer.arrays)
    content["arrays"] = hashlib.sha256(arrays).hexdigest()
    content["digest"] = _digest(content)
    config = json.dumps(content, indent=1).encode()
    card = _card(featurizer, classifier, accuracy, images_per_class).encode()
    return {_ARRAYS: arrays, _CONFIG: config, _CARD: card}


def _write(files, folder):
    for name, content in files.items():
        with written_whole(folder / name) as part:
            part.write_bytes(content)


def _digest(content):
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read(folder):
    import safetensors.numpy

    try:
        content = json.loads((folder / _CONFIG).read_bytes())
        arrays = (folder / _ARRAYS).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder} is not an export of sklearn_taskres, which has the files {_CONFIG} and "
            f"{_ARRAYS}: {error}"
        ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / _CONFIG} is not an export that sklearn_taskres {__version__} reads. "
            f"Install the version that wrote it, or export it again."
        )
    if content.get("digest") != _digest(content):
        raise ValueError(f"{folder / _CONFIG} is not what was written: its digest is another one.")
    if content.get("arrays") != hashlib.sha256(arrays).hexdigest():
        raise ValueError(f"{folder / _ARRAYS} is not what was written: its digest is another one.")
    try:
        reader = DataReader(safetensors.numpy.load(arrays))
        classifier = reader.estimator(content["classifier"])
        featurizer = None if content["clip"] is None else reader.estimator(content["clip"])
        if not isinstance(featurizer, CLIPFeaturizer | None):
            raise TypeError(f"its 'clip' is a {type(featurizer).__name__}")
    except Exception as error:  # whatever such content makes libraries raise
        raise ValueError(f"{folder} does not hold a model of sklearn_taskres: {error}") from error
    if featurizer is None:
        return classifier
    return Pipeline([("clip", featurizer), (_step_name(classifier), classifier)])


def _step_name(classifier):
    return type(classifier).__name__.lower().removesuffix("classifier")


# model card -----------------------------------------------------------------------------------


def _card(
    featurizer: CLIPFeaturizer | None, classifier: Any, accuracy: Any, images_per_class: Any
) -> str:
    """Text of the model card: what is known, and no more."""
    labels = [str(label) for label in np.asarray(classifier.classes_).tolist()]
    shown = ", ".join(labels[:50]) + (f" and {len(labels) - 50} more" if len(labels) > 50 else "")
    rows = {
        "method": type(classifier).__name__,
        "CLIP": "not known" if featurizer is None else featurizer.describe_model(),
        "classes": f"{len(labels)}: {shown}",
        "images per class": images_per_class,
        "accuracy": None if accuracy is None else f"{accuracy:.1%} of test images",
        "written by": f"sklearn_taskres {__version__}",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value is not None)
    return f"""---
library_name: sklearn-taskres
pipeline_tag: image-classification
tags: [clip, few-shot, scikit-learn]
---

# {len(labels)} classes by {type(classifier).__name__}

| | |
|---|---|
{table}

```python
from sklearn_taskres.export import from_hub

model = from_hub("<owner>/<name>")  # or the folder that holds these files
{"embeddings" if featurizer is None else "images"} = ...
model.predict({"embeddings" if featurizer is None else "images"})
```

The files are data: arrays in safetensors, and JSON. Nothing in them is executed.
"""
