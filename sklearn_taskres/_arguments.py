"""Types of command-line arguments, which refuse in one sentence what can't be run."""

import argparse
import errno
import math
import sys


def positive(text):
    """Return an integer of at least 1."""
    return _integer(text, 1)


def not_negative(text):
    """Return an integer of at least 0."""
    return _integer(text, 0)


def seed(text):
    """Return an integer that numpy's and torch's generators take."""
    return _integer(text, 0, 2**32 - 1)


def _integer(text, least, most=math.inf):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        bound = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer {bound}")
    return value


def positive_number(text):
    """Return a finite float above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return value


def checked_device(name):
    """Return the torch device of a ``--device``, or end the program with what is wrong with it.

    Parameters
    ----------
    name : str or None
        As in TaskResClassifier.
    """
    from ._device import resolve_device

    try:
        return resolve_device(name)
    except ValueError as error:
        sys.exit(f"--device: {error}")


def check_writable(path):
    """Raise OSError now, and not after the work, if a file can't be written; leave none behind.

    Parameters
    ----------
    path : Path or None
        The file, or None for none.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "found no folder of this name to write to", str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    path = path.resolve()  # a link stays
    is_new = not path.exists()
    with path.open("ab"):
        pass
    if is_new:
        path.unlink()
