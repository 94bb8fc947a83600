"""Real CLIP embeddings: the estimator is as accurate as the naive loop on the same draws."""

import numpy as np
import pytest
from measure_dtd import DTD, N_DRAWS, SHOTS


@pytest.mark.parametrize("n_shots", SHOTS)
def test_accuracy_is_the_naive_loops(test_data, n_shots):
    """Mean test accuracies over the same draws lie within 0.1 points."""
    dtd = DTD(test_data)
    ours, naive = (
        np.mean([run(n_shots, seed) for seed in range(N_DRAWS)])
        for run in (dtd.estimator, dtd.naive)
    )
    assert abs(ours - naive) < 0.1
    assert ours > dtd.zero_shot() + 4


def test_unit_base_is_brought_back_by_base_norm(test_data):
    """base_norm=10 on the unit text embeddings equals the raw base."""
    dtd = DTD(test_data)
    raw = dtd.estimator(1, 0)
    dtd.base = dtd.base / 10
    assert dtd.estimator(1, 0, base_norm=10) == pytest.approx(raw, abs=0.1)
