"""The version stamp in pickles, and files that are written whole."""

import contextlib
import secrets
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from ._messages import warn_user
from ._version import __version__

_STAMP = "_sklearn_taskres_version"


class VersionStamp(BaseEstimator):
    """Estimator whose pickle names the version that wrote it, and warns when another one reads it.

    scikit-learn stamps only its own classes.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), _STAMP: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        written_by = state.pop(_STAMP, "an unknown version")
        if written_by != __version__:
            warn_user(
                f"This {type(self).__name__} was saved by sklearn_taskres {written_by} and is read "
                f"by {__version__}: its predictions may differ. Fit it again, or install the "
                f"version that saved it."
            )
        super().__setstate__(state)


@contextlib.contextmanager
def written_whole(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a file to write to in the block; at its end that file takes the place of `path`.

    If the block fails, what was there before is still there, and nothing else. What is not a file,
    as a pipe, is given itself.

    Parameters
    ----------
    path : path-like
        What is to be written; of a link, the file that it names.

    Yields
    ------
    pathlib.Path
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
