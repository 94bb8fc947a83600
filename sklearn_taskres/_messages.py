"""How messages list items, and warnings that point at the line of the user's code."""

import inspect
import warnings

#: Packages whose frames may stand between the user's line and a warning of ours.
_BETWEEN = {"sklearn_taskres", "sklearn", "joblib", "skorch", "torch", "contextlib"}
#: Warnings that this process has given once.
_GIVEN: set = set()


def listed(items, most=5):
    """Return the first items as text, which says how many more there are.

    Parameters
    ----------
    items : sequence
        With at least one item.
    most : int, default=5
        Items that are listed.
    """
    first = str(list(items[:most]))
    return first if len(items) <= most else f"{first} and {len(items) - most} more"


def warn_user(message, category=UserWarning):
    """Warn at the line of the user's code that led here, through whatever stands between.

    Parameters
    ----------
    message : str
    category : type, default=UserWarning
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and _package(frame) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def warn_once(key, message):
    """Warn the user, unless this process has warned under the same key, as for another fold.

    Parameters
    ----------
    key : hashable
        What the warning is about.
    message : str
    """
    if key not in _GIVEN:
        _GIVEN.add(key)
        warn_user(message)


def forget_warnings():
    """Start anew: what was warned about once is warned about again."""
    _GIVEN.clear()


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
