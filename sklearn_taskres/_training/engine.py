"""Learn the arrays of a formula by cross-entropy: what a method asks of the engine.

A method hands over a :class:`~.._formulas.Formula` and rows of images; it gets back the learned
arrays and a history. The network lives only in here.
"""

import inspect
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from skorch.callbacks import EarlyStopping, LRScheduler, PrintLog

from .._device import fastest_precision, product_precision, resolve_device, threads_for_products
from .._formulas import learning_rate
from .._rows import working_dtype
from .batches import TensorBatches
from .net import FormulaModule, FormulaNet

#: Elements of a classifier from which on lower products pay, by type of device with units for it.
_WORTH_LOWERING = {"cpu": 2**15, "cuda": 2**17}
#: skorch's own callbacks that only a user's callback, or a reader of the log, would look at.
_OF_USE_TO_LISTENERS = ("callbacks__train_loss", "callbacks__epoch_timer")
#: Devices whose fused optimizers were tried; others take torch's default.
_FUSED_DEVICES = ("cpu", "cuda")


class Trained(NamedTuple):
    """What :func:`train` returns."""

    parameters: dict[str, np.ndarray]
    history: list[dict[str, Any]]


def train(
    formula,
    X,
    y,
    sample_weight=None,
    *,
    lr,
    max_epochs,
    rng,
    batch_size=256,
    optimizer="Adam",
    schedule=learning_rate,
    schedule_step="epoch",
    callbacks=None,
    device=None,
    precision="auto",
    verbose=0,
    **optimizer_params,
):
    """Learn the arrays of a formula by cross-entropy.

    Parameters
    ----------
    formula : Formula
        How image rows become logits, and what is learned.
    X : ndarray of shape (n_samples, d), or (n_samples, n_views, d)
        Image rows; of views, each epoch draws one per row. Its dtype is the dtype of all
        computation, or float32 where it is float16. A memory map, or float16, is read batch by
        batch.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights of the rows, scaled here to a mean of 1.
    lr : float
        Base learning rate of the schedule.
    max_epochs : int
        Number of epochs; the arrays after the last one are the result.
    rng : numpy.random.RandomState
        An epoch draws ``rng.randint(n_views, size=n_samples)`` if there are views, and then
        ``rng.permutation(n_samples)`` as the order of its rows where there is more than one batch.
    batch_size : int, default=256
        Rows per step. A last batch with fewer is dropped; fewer rows in all are one batch.
    optimizer : str, default="Adam"
        A class of :mod:`torch.optim`; `optimizer_params` are its other arguments.
    schedule : callable, optional
        ``schedule(i, n, lr)`` is the learning rate of step i of n, counted from 0.
    schedule_step : {"epoch", "batch"}, default="epoch"
        What the schedule counts.
    callbacks : list of skorch callbacks, optional
        Cloned, then notified as skorch does, batches included.
    device, precision, verbose
        As in every estimator of the package. Without a gradient written by hand, whose sums are in
        full precision whatever its products are in, "auto" is float32.

    Returns
    -------
    Trained
        `parameters`: the learned arrays. `history`: a dict per epoch with ``epoch``,
        ``train_loss``, ``lr`` and what the callbacks recorded.

    Raises
    ------
    ValueError
        If a learned array is not finite, or there are both a gradient and a penalty.
    """
    if not (formula.penalty is None or formula.gradient is None):
        raise ValueError("A hand-written gradient may not go with a penalty.")
    dtype = working_dtype(X)
    device = resolve_device(device, dtype)
    module = FormulaModule(formula, dtype)
    batches = TensorBatches(X, y, sample_weight, batch_size, rng, formula.prepare, dtype, device)
    n_steps = max_epochs * (batches.n_batches if schedule_step == "batch" else 1)
    scheduler = LRScheduler(
        "LambdaLR",
        event_name="lr",
        step_every=schedule_step,
        lr_lambda=lambda i: schedule(i, n_steps, lr) / lr,
    )
    net = FormulaNet(
        module,
        criterion=torch.nn.CrossEntropyLoss,  # tells skorch that the formula gives logits
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batches.size,
        **_optimizer_arguments(optimizer, device, optimizer_params),
        **_callback_arguments(scheduler, callbacks, verbose),
        device=device,
        train_split=None,
        classes=np.arange(y.max() + 1),
        verbose=verbose,
    ).initialize()
    n_multiplications, can_lower = sys.maxsize, False
    if formula.gradient is not None:  # then it is known what is multiplied
        n_multiplications = batches.size * sum(array.size for array in formula.learned.values())
        can_lower = (y.max() + 1) * X.shape[-1] >= _WORTH_LOWERING.get(device.type, sys.maxsize)
    if precision == "auto":
        precision = fastest_precision(device) if can_lower else "float32"
    with product_precision(device, precision), threads_for_products(n_multiplications, device):
        _run(net, batches)
    return Trained(module.learned(), _plain_history(net.history))


def _run(net, batches):
    """Fit as skorch does, except that Ctrl-C is not taken for the end of training."""
    net.notify("on_train_begin", X=batches, y=None)
    try:
        net.fit_loop(batches)
    except KeyboardInterrupt:  # how EarlyStopping ends training, too
        if not any(_has_stopped(callback) for _, callback in net.callbacks_):
            raise
    net.notify("on_train_end", X=batches, y=None)


def _has_stopped(callback):
    return isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience


def _optimizer_arguments(name, device, params):
    """Arguments of skorch for an optimizer, fused if torch has it for the device."""
    optimizer = getattr(torch.optim, name)
    can_fuse = "fused" in inspect.signature(optimizer).parameters
    if can_fuse and device.type in _FUSED_DEVICES:
        params = {"fused": True, **params}
    return {"optimizer": optimizer, **{f"optimizer__{key}": v for key, v in params.items()}}


def _callback_arguments(scheduler, callbacks, verbose):
    """Arguments of skorch for the callbacks: its own, clones of the user's, and the schedule.

    A learning rate scheduler of the user takes the place of the recipe's.
    """
    callbacks = clone(list(callbacks or []), safe=False)
    instances = [item[1] if isinstance(item, tuple) else item for item in callbacks]
    if not any(isinstance(callback, LRScheduler) for callback in instances):
        callbacks = [("lr_schedule", scheduler), *callbacks]
    return {
        "callbacks": callbacks,
        "callbacks__print_log": PrintLog(floatfmt=".4g") if verbose else None,
        "callbacks__valid_acc": None,  # there is no validation set
        "callbacks__valid_loss": None,
        # The net records the loss itself; what these add takes longer than a step of ten classes.
        **({} if instances or verbose else dict.fromkeys(_OF_USE_TO_LISTENERS)),
    }


def _plain_history(history):
    """Reduce skorch's history to plain numbers, without batches and without wall-clock times.

    A learning rate that the user schedules is called as skorch's LRScheduler calls it, "event_lr".
    """
    hidden = {"batches", "dur", "train_batch_count", "train_loss_best"}
    plain = []
    for epoch in history:
        last = epoch["batches"][-1] if epoch["batches"] else {}
        numbers = {k: v for k, v in last.items() if k.endswith("lr")}  # if batches are counted
        numbers |= {k: v for k, v in epoch.items() if k not in hidden}
        numbers = {"lr" if k == "event_lr" else k: v for k, v in numbers.items()}
        plain.append({k: v.item() if isinstance(v, np.generic) else v for k, v in numbers.items()})
    return plain
