"""A fit that fails leaves its estimator as it was."""

import functools


def all_or_nothing(fit):
    """Decorate a `fit` so that, if it fails or is interrupted, the former fit stays as it was.

    Without a former fit, the estimator is not fitted afterwards.
    """

    @functools.wraps(fit)
    def fit_or_restore(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:  # Ctrl-C too
            self.__dict__ = before
            raise

    return fit_or_restore
