"""The training engine: skorch learns the arrays of a formula, fed with tensors on the device.

A method hands over a formula (a function of NumPy arrays or tensors), the arrays to learn and the
arrays that stay; it gets back the learned arrays and a history. The network lives only in here.
"""

import contextlib
import dis
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, LRScheduler, PassthroughScoring, PrintLog
from torch.utils.data import IterableDataset

from ._device import product_precision, resolve_device
from ._formulas import learning_rate


class Trained(NamedTuple):
    """What :func:`train` returns."""

    parameters: dict[str, np.ndarray]
    history: list[dict[str, Any]]


def train(
    formula,
    parameters,
    X,
    y,
    *,
    constants,
    lr,
    max_epochs,
    rng,
    batch_size=256,
    sample_weight=None,
    penalty=None,
    optimizer="Adam",
    schedule=learning_rate,
    schedule_step="epoch",
    callbacks=None,
    device=None,
    precision="auto",
    verbose=0,
    **optimizer_params,
):
    """Learn the parameters of a formula that maps image rows to logits, by cross-entropy.

    Parameters
    ----------
    formula : callable
        ``formula(z, **parameters, **constants)`` returns the logits (b, n_classes) of the image
        rows z (b, d). It computes with operators alone, so that NumPy and torch both run it.
    parameters : dict of str to ndarray
        Start values of what is learned.
    X : ndarray of shape (n_samples, d), or (n_samples, n_views, d)
        Image rows as the formula wants them; of views, each epoch draws one a row. Its dtype is the
        dtype of all computation.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    constants : dict of str to ndarray or float
        What the formula needs and training leaves alone.
    lr : float
        Base learning rate of the schedule.
    max_epochs : int
        Number of epochs; the parameters after the last one are the result.
    rng : numpy.random.RandomState
        An epoch draws ``rng.randint(n_views, size=n_samples)`` where there are views, and then
        ``rng.permutation(n_samples)`` as the order of its rows where there is more than one batch.
    batch_size : int, default=256
        Rows a step. A last batch with fewer is dropped; fewer rows in all are one batch.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights of the rows, scaled here to a mean of 1.
    penalty : callable, optional
        ``penalty(**parameters, **constants)`` is added to the mean cross-entropy.
    optimizer : str, default="Adam"
        A class of :mod:`torch.optim`; `optimizer_params` are its other arguments.
    schedule : callable, optional
        ``schedule(i, n, lr)`` is the learning rate of step i of n, counted from 0.
    schedule_step : {"epoch", "batch"}, default="epoch"
        What the schedule counts.
    callbacks : list of skorch callbacks, optional
        Cloned, then notified as skorch does, batches included.
    device, precision, verbose
        As in every estimator of the package.
    **optimizer_params
        Passed to the optimizer.

    Returns
    -------
    Trained
        `parameters`: the learned arrays. `history`: a dict an epoch with ``epoch``,
        ``train_loss``, ``lr`` and what the callbacks recorded.

    Raises
    ------
    ValueError
        If a learned array is not finite.
    """
    device = resolve_device(device, X.dtype)
    module = _FormulaModule(formula, penalty, parameters, constants, X.dtype)
    n_steps = max_epochs * (1 if schedule_step == "epoch" else max(1, len(y) // batch_size))
    scheduler = LRScheduler(
        "LambdaLR",
        event_name="lr",
        step_every=schedule_step,
        lr_lambda=lambda i: schedule(i, n_steps, lr) / lr,
    )
    net = _Net(
        module,
        criterion=torch.nn.CrossEntropyLoss,  # tells skorch that the formula gives logits
        lr=lr,
        max_epochs=max_epochs,
        optimizer=getattr(torch.optim, optimizer),
        callbacks=_callbacks(scheduler, callbacks, verbose),
        device=device,
        train_split=None,
        classes=np.arange(y.max() + 1),
        verbose=verbose,
        **{f"optimizer__{name}": value for name, value in optimizer_params.items()},
    ).initialize()
    batches = _TensorBatches(X, y, sample_weight, batch_size, rng, device)
    with product_precision(device, precision):
        net.train(batches)
    return Trained(module.learned(), _plain_history(net.history))


class _FormulaModule(torch.nn.Module):
    """A formula with its arrays: parameters to learn, buffers and plain numbers to keep."""

    def __init__(self, formula, penalty, parameters, constants, dtype):
        super().__init__()
        self.formula, self.penalty = formula, penalty
        self.numbers = {n: v for n, v in constants.items() if not isinstance(v, np.ndarray)}
        for name, value in parameters.items():
            self.register_parameter(name, torch.nn.Parameter(_tensor(value, dtype)))
        for name in constants.keys() - self.numbers.keys():
            self.register_buffer(name, _tensor(constants[name], dtype))

    def arrays(self):
        return {**dict(self.named_parameters()), **dict(self.named_buffers()), **self.numbers}

    def forward(self, z, sample_weight=None):
        return self.formula(z, **self.arrays())

    def learned(self):
        arrays = {n: p.detach().cpu().numpy().copy() for n, p in self.named_parameters()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"Training diverged: '{name}' holds values that are not finite. Use a smaller "
                    f"lr, or look for extreme values in X."
                )
        return arrays


class _TensorBatches(IterableDataset):
    """One epoch of batches, sliced from tensors that sit on the device."""

    def __init__(self, X, y, sample_weight, batch_size, rng, device):
        self.z = _tensor(X, X.dtype, device)
        self.y = torch.as_tensor(y, dtype=torch.int64, device=device)
        if sample_weight is None:
            sample_weight = np.ones(len(y))
        self.weight = _tensor(sample_weight / np.mean(sample_weight), X.dtype, device)
        self.batch_size, self.rng = batch_size, rng

    def __iter__(self):
        n_rows = len(self.y)
        z = self._one_view()
        if n_rows <= self.batch_size:
            yield {"z": z, "sample_weight": self.weight}, self.y
            return
        order = torch.as_tensor(self.rng.permutation(n_rows), device=self.y.device)
        for start in range(0, n_rows - self.batch_size + 1, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield {"z": z[rows], "sample_weight": self.weight[rows]}, self.y[rows]

    def _one_view(self):
        """Image rows (n, d): all there is, or one view of each, (n, v, d), drawn anew."""
        if self.z.ndim == 2:
            return self.z
        n_rows, n_views, _ = self.z.shape
        drawn = torch.as_tensor(self.rng.randint(n_views, size=n_rows), device=self.y.device)
        return self.z[torch.arange(n_rows, device=self.y.device), drawn]


class _Net(NeuralNetClassifier):
    """skorch's net with the seams that cost time taken over: batches, loss and its transfer."""

    def train(self, batches):
        """Fit, without :meth:`fit`'s habit of taking Ctrl-C for the end of training."""
        self.notify("on_train_begin", X=batches, y=None)
        with contextlib.suppress(_StopTraining):
            self.fit_loop(batches)
        self.notify("on_train_end", X=batches, y=None)

    def notify(self, method_name, **kwargs):
        """Notify the callbacks; one of them may end training after an epoch, as EarlyStopping."""
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            if method_name == "on_epoch_end" and _is_raised_by_code(stop):
                raise _StopTraining from stop
            raise

    def get_iterator(self, dataset, training=False):
        return dataset

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch; where nobody listens to batches, the loss leaves the device once."""
        if iterator is None or any(name == "train_loss" for name, _ in self.callbacks_):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        losses = [step_fn(batch, **fit_params)["loss"].detach() for batch in iterator]
        self.history.record(f"{prefix}_loss", torch.stack(losses).mean().item())

    def get_loss(self, y_pred, y_true, X=None, training=False):
        losses = torch.nn.functional.cross_entropy(y_pred, y_true, reduction="none")
        loss = (X["sample_weight"] * losses).mean()
        if self.module_.penalty is None:
            return loss
        return loss + self.module_.penalty(**self.module_.arrays())

    @property
    def _default_callbacks(self):
        return []  # :func:`_callbacks` lists them all


class _StopTraining(Exception):  # noqa: N818 (not an error: a callback's way to say "enough")
    """A callback ended training."""


def _is_raised_by_code(error):
    """Whether a `raise` statement made the error, as a callback's does, and not a signal."""
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return dis.opname[code[traceback.tb_lasti]] == "RAISE_VARARGS"


def _callbacks(scheduler, user_callbacks, verbose):
    """List the schedule and the user's callbacks; who may read batches gets skorch's train_loss."""
    callbacks = [("lr_schedule", scheduler)]
    if user_callbacks or scheduler.step_every == "batch":
        train_loss = ("train_loss", PassthroughScoring(name="train_loss", on_train=True))
        callbacks = [train_loss, *callbacks, *clone(user_callbacks or [], safe=False)]
    if verbose:
        callbacks = [("epoch_timer", EpochTimer()), *callbacks, ("print_log", PrintLog())]
    return callbacks


def _plain_history(history):
    """Reduce skorch's history to plain numbers, without batches and without wall-clock times."""
    hidden = {"batches", "dur", "train_batch_count"}
    return [
        {k: _plain(v) for k, v in (_batch_lr(epoch) | epoch).items() if k not in hidden}
        for epoch in history
    ]


def _batch_lr(epoch):
    """Return the learning rate of the last batch, where the schedule counts batches."""
    return {k: v for batch in epoch["batches"][-1:] for k, v in batch.items() if k == "lr"}


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _tensor(array, dtype, device=None):
    """Copy an array into a tensor of the torch dtype that goes by the same name."""
    return torch.tensor(
        np.asarray(array), dtype=getattr(torch, np.dtype(dtype).name), device=device
    )
