"""The candidates of a fold: TaskRes prepared once, trained for many settings at a time."""

import copy
import sys
from typing import NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from .._classifiers.taskres import train_candidates
from .._formulas import Trained
from .._messages import warn_user


class Fold:
    """TaskRes prepared on the training rows of a fold, up to where its candidates part.

    Candidates with one weight decay are trained as one tensor program: their residuals are stacked,
    (C, K, D), and see the same batches, so that their logits are one matrix product of (C·K, D) and
    (D, B).

    Parameters
    ----------
    clf : TaskResClassifier
        With the parameters that the candidates share; it is prepared, not fitted.
    X, y, sample_weight
        Training rows of the fold.
    """

    def __init__(self, clf, X, y, sample_weight):
        names = ("X", "y", "sample_weight", "views")
        self.data = dict(zip(names, clf._prepare(X, y, sample_weight), strict=True))
        rng = check_random_state(clf.random_state)
        self.clf, self.problem = clf, clf._problem(**self.data, rng=rng)

    def jobs(self, candidates, n_parts, n_threads, most_bytes=2**29):
        """Split candidates into jobs, each of which trains some of them together.

        Parameters
        ----------
        candidates : list of (int, dict)
            Place and parameters of each.
        n_parts : int
            Jobs to make of each weight decay at least, if it has as many candidates.
        n_threads : int
            Jobs that run at one time, and share the memory.
        most_bytes : int, default=2**29
            Bytes that the candidates take at the most that are trained at one time.

        Yields
        ------
        places : list of int
            Candidates whose residual the job learns.
        pairs : list of (float, float)
            Their alphas and weight decays, each once.
        """
        places: dict = {}
        for place, params in candidates:
            places.setdefault((params["alpha"], params["weight_decay"]), []).append(place)
        by_decay: dict = {}
        for pair in places:  # alpha = 0 stops each gradient, so there is nothing to learn
            by_decay.setdefault(pair[1] if pair[0] > 0 else None, []).append(pair)
        most = max(1, most_bytes // self._bytes_of_one() // n_threads)
        for same_decay in by_decay.values():
            size = min(most, -(-len(same_decay) // n_parts))
            for start in range(0, len(same_decay), size):
                pairs = same_decay[start : start + size]
                yield [place for pair in pairs for place in places[pair]], pairs

    def _bytes_of_one(self):
        """Bytes of a candidate's arrays of (K, D) and of (K, B)."""
        n_classes, d = self.problem.t.shape
        n_rows = min(self.clf.batch_size, len(self.problem.y))
        # (K, D): x, two moments, gradient, t', slope; (K, B): logits, errors, their product
        return n_classes * (6 * d + 3 * n_rows) * self.problem.t.itemsize

    def learn(self, pairs, limit):
        """Train the residual of each pair of alpha and weight decay.

        Parameters
        ----------
        pairs : list of (float, float)
            One of what `jobs` yields.
        limit : MemoryLimit
            What the device was found to have memory for.

        Returns
        -------
        dict of (float, float) to Trained
        """
        from torch import OutOfMemoryError

        learned: dict = {}
        while pairs:
            chunk = pairs[: limit.most]
            try:
                found = self._train(chunk)
            except OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                limit.shrink(len(chunk))
                continue
            learned |= dict(zip(chunk, found, strict=True))
            pairs = pairs[len(chunk) :]
        return learned

    def _train(self, pairs):
        """Train pairs together: one weight decay for all."""
        alphas = [alpha for alpha, _ in pairs]
        if not any(alphas):
            return [Trained({"x": np.zeros_like(self.problem.t)}, []) for _ in pairs]
        problem = self.problem._replace(rng=copy.deepcopy(self.problem.rng))  # same draws for each
        return train_candidates(problem, alphas, float(pairs[0][1]), self.clf._run_engine)

    def fitted(self, candidates, learned):
        """Yield a fitted classifier for the parameters of each candidate of a job."""
        for params in candidates:
            clf = copy.copy(self.clf).set_params(**params)
            clf._install(learned[params["alpha"], params["weight_decay"]])
            yield clf


class TrainingJob(NamedTuple):
    """Candidates of a fold that are trained together, and the rows they are scored on."""

    fold: Fold
    #: The fold's place in the table, and those of the candidates.
    column: int
    places: list[int]
    #: Their alphas and weight decays.
    pairs: list[tuple[float, float]]
    held_out: list


class MemoryLimit:
    """How many candidates the device has had memory for; no limit until it was found too small."""

    most = sys.maxsize

    def shrink(self, n_tried):
        """Take half of what was too much, and say so once."""
        if self.most == sys.maxsize:
            warn_user(
                f"The device has no memory for {n_tried} candidates at a time. Fewer are trained "
                f"together; the result is the same."
            )
        self.most = n_tried // 2
