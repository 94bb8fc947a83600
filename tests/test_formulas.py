"""The formulas that NumPy and torch share: the same numbers from both."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_taskres._formulas import row_norms, unit


@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=3), seed=st.integers(0, 100))
def test_norms_of_numpy_and_torch(shape, seed):
    """Both agree with NumPy's norm for rows and views; zero rows stay zero."""
    rows = np.random.default_rng(seed).normal(size=shape)
    rows[..., : seed % 2, :] = 0
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    expected = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    for array in (rows, torch.tensor(rows)):
        assert_allclose(row_norms(array), norms, atol=1e-14)
        assert_allclose(unit(array), expected, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_unit_row_does_not_depend_on_its_neighbours(dtype):
    """Rows picked from a table, or one alone, get the bits that they get in the whole table."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 515)).astype(dtype)
    whole = unit(rows)
    for size in (1, 2, 7, 33):
        picked = rng.choice(len(rows), size, replace=False)
        assert_array_equal(unit(rows[picked]), whole[picked])
        assert_array_equal(unit(rows[picked[0] :][:size]), whole[picked[0] :][:size])
