"""Learn the arrays of a formula by cross-entropy: what a method asks of the engine.

A method hands over a formula and image rows, and gets back arrays; the net lives only in here.
"""

import inspect
import sys

import numpy as np
import torch
from sklearn.base import clone
from skorch.callbacks import EarlyStopping, LRScheduler, PrintLog

from .._device import fastest_precision, product_precision, resolve_device, threads_for_products
from .._formulas import Trained, learning_rate
from .._rows import working_dtype
from .batches import TensorBatches
from .net import FormulaModule, FormulaNet
from .optimizers import without_records

#: Elements of a classifier from which on lower products pay, by type of device with units for it.
_WORTH_LOWERING = {"cpu": 2**15, "cuda": 2**17}


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
        Image rows, of the dtype of all computation; of views, each epoch draws one per row. Rows
        of a memory map, or of float16 (computed in float32), are read batch by batch.
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights of the rows, scaled here to a mean of 1.
    lr : float
        Base learning rate of the schedule.
    max_epochs : int
        Number of epochs; the arrays after the last one are the result.
    rng : numpy.random.RandomState
        Draws ``randint(n_views, size=n_samples)`` in each epoch if there are views, and then
        ``permutation(n_samples)``, the order of the rows, if there is more than one batch.
    batch_size : int, default=256
        Rows per step. A last batch with fewer is dropped; fewer rows in all are one batch.
    optimizer : str, default="Adam"
        A class of :mod:`torch.optim`; `optimizer_params` are its other arguments.
    schedule : callable, optional
        ``schedule(i, n, lr)`` is the learning rate of step i of n, counted from 0; a step is
        what `schedule_step` says, "epoch" or "batch".
    callbacks : list of skorch callbacks, optional
        Cloned, then notified as skorch does.
    device, precision, verbose
        As in every estimator. Without a gradient written by hand, "auto" is float32.

    Returns
    -------
    Trained
        The learned arrays; per epoch a dict of epoch, train_loss, lr and what callbacks recorded.

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
    has_gradient = formula.gradient is not None  # then it is known what is multiplied
    if precision == "auto":
        n_elements = (y.max() + 1) * X.shape[-1]
        pays = has_gradient and n_elements >= _WORTH_LOWERING.get(device.type, sys.maxsize)
        precision = fastest_precision(device) if pays else "float32"
    of_products = has_gradient and precision == "bfloat16"
    batches = TensorBatches(
        X, y, sample_weight, batch_size, rng, formula.prepare, dtype, device, of_products
    )
    n_steps = max_epochs * (len(batches) // batches.size if schedule_step == "batch" else 1)
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
    n_learned = sum(array.size for array in formula.learned.values())
    n_multiplications = batches.size * n_learned if has_gradient else sys.maxsize
    with product_precision(device, precision), threads_for_products(n_multiplications, device):
        _run(net, batches)
    return Trained(module.learned(), _plain_history(net.history))


def _run(net, batches):
    """Fit as skorch does, except that Ctrl-C is not taken for the end of training."""
    net.notify("on_train_begin", X=batches, y=None)
    try:
        net.fit_loop(batches)
    except KeyboardInterrupt:  # how EarlyStopping ends training, too
        stops = (c for _, c in net.callbacks_ if isinstance(c, EarlyStopping))
        if not any(callback.misses_ >= callback.patience for callback in stops):
            raise
    net.notify("on_train_end", X=batches, y=None)


def _optimizer_arguments(name, device, params):
    """Arguments of skorch for an optimizer, fused if torch has it for the device."""
    optimizer = without_records(getattr(torch.optim, name))
    if "fused" in inspect.signature(optimizer).parameters and device.type in ("cpu", "cuda"):
        params = {"fused": True, **params}  # other devices were not tried
    return {"optimizer": optimizer, **{f"optimizer__{key}": v for key, v in params.items()}}


def _callback_arguments(scheduler, callbacks, verbose):
    """Arguments of skorch: its own callbacks, the user's cloned, a schedule if those have none."""
    callbacks = clone(list(callbacks or []), safe=False)
    instances = [item[1] if isinstance(item, tuple) else item for item in callbacks]
    if not any(isinstance(callback, LRScheduler) for callback in instances):
        callbacks = [("lr_schedule", scheduler), *callbacks]
    left_out = ["valid_acc", "valid_loss"]  # a fit has no validation set
    if not (instances or verbose):  # for them alone; they take longer than a step of ten classes
        left_out += ["train_loss", "epoch_timer"]
    return {
        "callbacks": callbacks,
        "callbacks__print_log": PrintLog(floatfmt=".4g") if verbose else None,
        **{f"callbacks__{name}": None for name in left_out},
    }


def _plain_history(history):
    """Reduce skorch's history to plain numbers, without batches and without wall-clock times."""
    hidden = {"batches", "dur", "train_batch_count", "train_loss_best"}
    plain = []
    for epoch in history:
        last = epoch["batches"][-1] if epoch["batches"] else {}
        numbers = {k: v for k, v in last.items() if k.endswith("lr")}  # if batches are counted
        numbers |= {k: v for k, v in epoch.items() if k not in hidden}
        # A rate that the user schedules goes by skorch's name for it.
        numbers = {"lr" if k == "event_lr" else k: v for k, v in numbers.items()}
        plain.append({k: v.item() if isinstance(v, np.generic) else v for k, v in numbers.items()})
    return plain
