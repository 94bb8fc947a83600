"""A fit that fails leaves its estimator as it was."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Fit = TypeVar("_Fit", bound=Callable[..., Any])


def all_or_nothing(fit: _Fit) -> _Fit:
    """Decorate a `fit` so that, if it fails or is interrupted, the former fit stays as it was.

    Without a former fit, the estimator is not fitted afterwards.
    """

    @functools.wraps(fit)
    def fit_or_restore(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:  # Ctrl-C too
            self.__dict__ = before
            raise

    return cast("_Fit", fit_or_restore)
