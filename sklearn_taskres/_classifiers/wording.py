"""How messages list items, and warnings that are given once."""

import warnings

#: Warnings that this process has given.
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


def warn_once(key, message):
    """Warn who called fit, unless this process was warned under the same key, as by another fold.

    Parameters
    ----------
    key : hashable
        What the warning is about.
    message : str
    """
    if key not in _GIVEN:
        _GIVEN.add(key)
        warnings.warn(message, UserWarning, stacklevel=9)  # from `names_by_label`, in fit
