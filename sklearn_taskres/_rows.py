"""Image rows read a few at a time, as those must be that are too many to copy.

Such rows are float16, or lie in a memory map.
"""

import mmap

import numpy as np
from sklearn.utils import assert_all_finite, gen_batches

#: Rows that are read at a time.
_CHUNK = 8192


def is_missing(value):
    """Whether a value stands for none: None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA answers no question
        return True
    except ValueError:  # more than one value
        return False


def is_streamed(X):
    """Whether rows stay where and what they are, and only some at a time are brought to float32."""
    return isinstance(X, np.ndarray) and (X.dtype == np.float16 or _is_mapped(X))


def _is_mapped(array):
    """Whether an array lies in a memory map, whatever views were taken of it."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap | mmap.mmap)


def working_dtype(X):
    """Dtype that rows are computed in: their own, or float32 for float16."""
    return np.dtype(np.float32) if X.dtype == np.float16 else X.dtype


def chunks(X):
    """Yield a slice and its rows in the dtype of computation, a few thousand at a time.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
        With at least one row.
    """
    for part in gen_batches(len(X), _CHUNK):
        yield part, X[part].astype(working_dtype(X), copy=False)


def check_finite(X):
    """Raise scikit-learn's ValueError if a row holds NaN or infinity.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
        Rows.
    """
    for _, rows in chunks(X):
        assert_all_finite(rows, input_name="X")
