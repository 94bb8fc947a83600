"""A fold of a search: TaskRes fitted up to the residual, from where on its candidates part."""

import copy
import functools
import sys
import warnings

import numpy as np

from .._formulas import unit
from .gaussian import gaussian_classifier
from .residual import taskres_gradient, taskres_logits
from .taskres import TaskResClassifier

#: Most bytes that the candidates take that are trained at one time.
_MOST_BYTES = 2**29


class TaskResFold(TaskResClassifier):
    """TaskRes on the training rows of a fold; `fit` stops where the residual would be learned.

    Candidates with one weight decay are trained as one tensor program: their residuals are stacked,
    (C, K, D), and see the same batches, so that their logits are one matrix product of (C·K, D) and
    (D, B).
    """

    def _learn_residual(self, rows, y, training):
        self._task = rows, y, training

    def _fit_gaussian(self, data, training):
        self._data = data

    def programs(self, candidates, n_parts, n_threads):
        """Split candidates into programs, each of which trains some of them together.

        Parameters
        ----------
        candidates : list of (int, dict)
            Place and parameters of each.
        n_parts : int
            Programs to make of each weight decay at least, if it has as many candidates.
        n_threads : int
            Programs that run at one time, and share the memory.

        Yields
        ------
        places : list of int
            Candidates whose residual the program learns.
        pairs : list of (float, float)
            Their alphas and weight decays, each once: a Gaussian weight needs no training.
        """
        places: dict = {}
        for place, params in candidates:
            places.setdefault((params["alpha"], params["weight_decay"]), []).append(place)
        by_decay: dict = {}
        for pair in places:  # alpha = 0 stops each gradient, so there is nothing to learn
            by_decay.setdefault(pair[1] if pair[0] > 0 else None, []).append(pair)
        most = max(1, self._most_together() // n_threads)
        for alike in by_decay.values():
            size = min(most, -(-len(alike) // n_parts))
            for start in range(0, len(alike), size):
                pairs = alike[start : start + size]
                yield [place for pair in pairs for place in places[pair]], pairs

    def _most_together(self):
        """Candidates whose arrays of (K, D) and of (K, B) stay below the bound."""
        n_classes, d = self.base_.shape
        n_rows = min(self.batch_size, len(self._task[1]))
        # (K, D): x, two moments, gradient, the one before, t'; (K, B): logits, errors, their copy
        elements = n_classes * (6 * d + 3 * n_rows)
        return _MOST_BYTES // (elements * self.base_.itemsize)

    def learn(self, pairs, room):
        """Train the residual of each pair of alpha and weight decay.

        Parameters
        ----------
        pairs : list of (float, float)
            One of what `programs` yields.
        room : Room
            What the device was found to have memory for.

        Returns
        -------
        dict of (float, float) to (ndarray of shape (n_classes, d), float)
            Residual and alpha, given or learned, of each.
        """
        from torch import OutOfMemoryError

        learned: dict = {}
        while pairs:
            chunk = pairs[: room.most]
            try:
                found = self._train(chunk)
            except OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                room.shrink(len(chunk))
                continue
            learned |= dict(zip(chunk, found, strict=True))
            pairs = pairs[len(chunk) :]
        return learned

    def _train(self, pairs):
        """Residual (K, D) and alpha of each pair, trained together: one weight decay for all."""
        from .._training import train

        alphas, decays = np.array(pairs, dtype=np.float64).T
        if not alphas.any():
            return [(np.zeros_like(self.base_), 0.0) for _ in pairs]
        rows, y, training = self._task
        alpha = alphas[:, None, None]  # (C, 1, 1)
        learned = {"x": np.zeros((len(pairs), *self.base_.shape), dtype=self.base_.dtype)}
        constants = {"t": self.base_, "scale": self.logit_scale_}
        (learned if self.learn_alpha else constants)["alpha"] = alpha
        trained = train(
            taskres_logits,
            learned,
            rows,
            y,
            prepare=unit,
            gradient=taskres_gradient,
            constants=constants,
            lr=self.lr,
            max_epochs=self.max_epochs,
            weight_decay=float(decays[0]),
            **{**training, "rng": copy.deepcopy(training["rng"])},  # the same draws for each
        )
        alphas = trained.parameters.get("alpha", alpha)
        return list(zip(trained.parameters["x"], alphas.ravel().tolist(), strict=True))

    def fitted(self, candidates, learned):
        """Yield a fitted classifier for the parameters of each candidate of a program."""
        for params in candidates:
            x, alpha = learned[params["alpha"], params["weight_decay"]]
            yield self._with_residual(x, alpha, params)

    @functools.cached_property
    def _gaussian_term(self):
        return gaussian_classifier(**self._data)

    def _with_residual(self, x, alpha, params):
        clf = copy.copy(self).set_params(**params)
        clf.residual_, clf.alpha_ = x, alpha
        clf.image_residual_, clf.intercept_ = np.zeros_like(x[0]), np.zeros_like(x[:, 0])
        clf.coef_, clf.gaussian_weight_ = clf._coef(), float(params["gaussian_weight"])
        if clf.gaussian_weight_ > 0:
            weights, intercept = self._gaussian_term
            clf.coef_ = clf.coef_ + clf.gaussian_weight_ * weights
            clf.intercept_ = clf.gaussian_weight_ * intercept
        return clf


class Room:
    """How many candidates the device has had memory for; endless until it was found too small."""

    most = sys.maxsize

    def shrink(self, n_tried):
        """Take half of what was too much, and say so once."""
        if self.most == sys.maxsize:
            warnings.warn(
                f"The device has no memory for {n_tried} candidates at a time. Fewer are trained "
                f"together; the result is the same.",
                UserWarning,
                stacklevel=2,
            )
        self.most = n_tried // 2
