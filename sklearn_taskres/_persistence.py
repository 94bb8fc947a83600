"""The version stamp that every estimator of the package carries into its pickle."""

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
