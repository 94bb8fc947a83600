"""Models on disk: written and read without code in them, unless one says that they are trusted."""

import argparse
import importlib
import zipfile
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

import sklearn_taskres

from .._arguments import check_writable
from .._persistence import written_whole

#: Endings of files that may run code when they are loaded.
_PICKLED = (".joblib", ".pkl", ".pickle")
#: What a repository of the hub begins with.
_HUB = "hf-hub:"


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs that loads a model."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="file that `sklearn-taskres fit` wrote, folder that `export` wrote, or "
        "hf-hub:OWNER/NAME of such a folder",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a .joblib file, which can run any code on this machine",
    )
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where embeddings are kept and computed."""
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        default="memory",
        help="keep embeddings in a folder, so that no later command encodes an image again",
    )
    parser.add_argument("--device", help="where to compute: cpu, cuda, mps; default: what there is")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def load_model(options: argparse.Namespace) -> Pipeline:
    """Load the pipeline that `MODEL` holds, to be run here and with the user's own cache.

    Parameters
    ----------
    options : argparse.Namespace
        Of `add_model_argument`.

    Returns
    -------
    Pipeline
        With the steps of `make_taskres_pipeline`.

    Raises
    ------
    ValueError
        If the file is not such a model, or would have to be trusted.
    OSError
        If it can't be read.
    """
    from ..export import from_hub

    path = Path(options.model)
    if options.model.startswith(_HUB):
        model = from_hub(options.model.removeprefix(_HUB))
    elif path.is_dir():
        model = from_hub(path)
    elif not path.is_file():
        raise ValueError(f"{path} is not a file. Make a model with: sklearn-taskres fit PHOTOS")
    elif path.suffix.lower() in _PICKLED:
        model = _unpickled(path, options.trust)
    else:
        model = _from_skops(path)
    if not (isinstance(model, Pipeline) and hasattr(model[-1], "classes_") and _clip(model)):
        raise ValueError(
            f"{path} holds a {type(model).__name__} that is not a fitted pipeline of "
            f"sklearn_taskres, from images to labels. Make one with: sklearn-taskres fit PHOTOS"
        )
    return model.set_params(
        clip__cache=options.cache, clip__device=options.device, clip__verbose=int(not options.quiet)
    )


def _clip(model: Pipeline) -> bool:
    return isinstance(model.named_steps.get("clip"), sklearn_taskres.CLIPFeaturizer)


def _unpickled(path: Path, is_trusted: bool) -> Any:
    import joblib

    if not is_trusted:
        raise ValueError(
            f"Loading {path} can run any code that its author wanted. Pass --trust if it is yours, "
            f"or use a .skops file, which holds none."
        )
    try:
        return joblib.load(path)
    except OSError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ValueError(f"{path} can't be read as a joblib file: {error}") from error


def _from_skops(path: Path) -> Any:
    import skops.io

    try:
        unknown = skops.io.get_untrusted_types(file=path)
    except OSError:
        raise
    except Exception as error:  # zipfile and json have theirs
        raise ValueError(
            f"{path} is not a model that `sklearn-taskres fit` wrote ({error}). The model comes "
            f"first, and what it is applied to after it."
        ) from error
    foreign = sorted(set(unknown) - own_types())
    if foreign:
        raise ValueError(
            f"{path} holds types that are neither of scikit-learn nor estimators of this package, "
            f"and was not loaded: {', '.join(foreign)}."
        )
    try:
        return skops.io.load(path, trusted=unknown)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def own_types() -> set[str]:
    """Names of the package's estimators and caches, and of what those hold: all of a model file."""
    found = [getattr(sklearn_taskres, name) for name in sklearn_taskres.__all__]
    classes = {c for c in found if isinstance(c, type) and not issubclass(c, Exception)}
    held = {held for c in classes for held in getattr(c, "_data_types", ())}
    return {f"{c.__module__}.{c.__qualname__}" for c in classes | held}


def check_model_path(path: Path) -> None:
    """Raise OSError or ValueError now, and not after the work, if a model can't be written."""
    if path.suffix.lower() not in (".skops", ".joblib"):
        raise ValueError(f"The model's file must end in .skops or .joblib. Got {path}.")
    check_writable(path)


def save_model(model: Pipeline, path: Path) -> None:
    """Write a pipeline, by the ending of the file with skops or joblib.

    The file does not say where this machine keeps embeddings, nor on which device it computed.
    """
    base = "taskres__base__" if "taskres__base__cache" in model.get_params() else None
    changes: dict[str, Any] = {"clip__cache": "memory", "clip__device": None, "clip__verbose": 0}
    if base:
        changes |= {f"{base}cache": "memory", f"{base}device": None}
    model.set_params(**changes)
    with written_whole(path) as part:
        if path.suffix.lower() == ".joblib":
            importlib.import_module("joblib").dump(model, part)
        else:
            import skops.io

            skops.io.dump(model, part, compression=zipfile.ZIP_DEFLATED)
