"""The training engine: skorch learns the arrays of a formula, fed with tensors on the device.

A method hands over a formula (a function of NumPy arrays or tensors), the arrays to learn and the
arrays that stay; it gets back the learned arrays and a history. The network lives only in here.
"""

import contextlib
import dis
import functools
import inspect
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, LRScheduler, PassthroughScoring, PrintLog

from ._batches import TensorBatches, new_tensor
from ._device import fastest_precision, product_precision, resolve_device
from ._formulas import learning_rate
from ._rows import working_dtype
from ._threads import threads_for_products

#: Elements of a classifier from which on lower products pay where the device has units for them.
_WORTH_LOWERING = 2**17
#: Devices whose fused optimizers were tried; others take torch's default.
_FUSED_DEVICES = ("cpu", "cuda")


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
    prepare=None,
    penalty=None,
    gradient=None,
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
        Image rows; of views, each epoch draws one a row. Its dtype is the dtype of all computation,
        or float32 where it is float16. A memory map, or float16, is read batch by batch.
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
    prepare : callable, optional
        ``prepare(X)`` makes rows of X, or of a part of it, what the formula wants. It must treat
        every row by itself.
    penalty : callable, optional
        ``penalty(**parameters, **constants)`` is added to the mean cross-entropy.
    gradient : callable, optional
        The formula's derivative, written by hand, where that is faster than autograd:
        ``gradient(z, y, share, **parameters, **constants)`` returns the sum of cross-entropies
        times the rows' shares in it, a 0-d tensor, and a dict of its derivatives by the parameters.
        It runs without a graph, and may not go with a `penalty`.
    optimizer : str, default="Adam"
        A class of :mod:`torch.optim`; `optimizer_params` are its other arguments.
    schedule : callable, optional
        ``schedule(i, n, lr)`` is the learning rate of step i of n, counted from 0.
    schedule_step : {"epoch", "batch"}, default="epoch"
        What the schedule counts.
    callbacks : list of skorch callbacks, optional
        Cloned, then notified as skorch does, batches included.
    device, precision, verbose
        As in every estimator of the package. Without a `gradient`, whose sums are in full precision
        whatever its products are in, "auto" is float32.
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
        If a learned array is not finite, or there are both a gradient and a penalty.
    """
    if not (penalty is None or gradient is None):
        raise ValueError("A hand-written gradient may not go with a penalty.")
    dtype = working_dtype(X)
    device = resolve_device(device, dtype)
    module = _FormulaModule(formula, penalty, gradient, parameters, constants, dtype)
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
        **_optimizer_arguments(optimizer, device, optimizer_params),
        callbacks=_callbacks(scheduler, callbacks, verbose),
        device=device,
        train_split=None,
        classes=np.arange(y.max() + 1),
        verbose=verbose,
    ).initialize()
    batches = TensorBatches(
        X,
        y,
        sample_weight,
        batch_size,
        rng,
        prepare=prepare or (lambda rows: rows),
        dtype=dtype,
        device=device,
        in_place=not callbacks,
    )
    n_elements, n_multiplications = 0, sys.maxsize
    if gradient is not None:  # then it is known what is multiplied
        n_elements = (y.max() + 1) * X.shape[-1]
        n_multiplications = batches.size * sum(array.size for array in parameters.values())
    if precision == "auto":
        precision = fastest_precision(device) if n_elements >= _WORTH_LOWERING else "float32"
    with product_precision(device, precision), threads_for_products(n_multiplications, device):
        net.train(batches)
    return Trained(module.learned(), _plain_history(net.history))


def _optimizer_arguments(name, device, params):
    """Arguments of skorch for an optimizer, fused where torch has it for the device."""
    optimizer = getattr(torch.optim, name)
    can_fuse = "fused" in inspect.signature(optimizer).parameters
    if can_fuse and device.type in _FUSED_DEVICES:
        params = {"fused": True, **params}
    return {"optimizer": optimizer, **{f"optimizer__{key}": v for key, v in params.items()}}


class _FormulaModule(torch.nn.Module):
    """A formula with its arrays: parameters to learn, buffers and plain numbers to keep."""

    def __init__(self, formula, penalty, gradient, parameters, constants, dtype):
        super().__init__()
        self.formula, self.penalty, self.gradient = formula, penalty, gradient
        self.numbers = {n: v for n, v in constants.items() if not isinstance(v, np.ndarray)}
        for name, value in parameters.items():
            self.register_parameter(name, torch.nn.Parameter(new_tensor(value, dtype)))
        for name in constants.keys() - self.numbers.keys():
            self.register_buffer(name, new_tensor(constants[name], dtype))

    @functools.cached_property  # first asked for in a step, when all is on the device
    def arrays(self):
        return {**dict(self.named_parameters()), **dict(self.named_buffers()), **self.numbers}

    def forward(self, z, share=None):
        return self.formula(z, **self.arrays)

    def learned(self):
        arrays = {n: p.detach().cpu().numpy().copy() for n, p in self.named_parameters()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"Training diverged: '{name}' holds values that are not finite. Use a smaller "
                    f"lr, or look for extreme values in X."
                )
        return arrays


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
        """Run an epoch, with a graph only where autograd is to derive."""
        with torch.set_grad_enabled(self.module_.gradient is None):
            run = super().run_single_epoch if self._is_watched else self._run_epoch
            run(iterator, training, prefix, step_fn, **fit_params)

    def _run_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch that no user listens to: the loss leaves the device once."""
        if iterator is None:
            return
        losses = []
        for batch in iterator:
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].detach())
            if self._counts_batches:
                self.notify("on_batch_begin", batch=batch, training=training)
                self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(f"{prefix}_loss", torch.stack(losses).mean().item())

    @functools.cached_property
    def _is_watched(self):
        """Whether a user's callback may look at a batch, its loss and its logits."""
        return any(name == "train_loss" for name, _ in self.callbacks_)

    @functools.cached_property
    def _counts_batches(self):
        """Whether the schedule, which nothing but the end of a batch concerns, counts batches."""
        return dict(self.callbacks_)["lr_schedule"].step_every == "batch"

    def train_step(self, batch, **fit_params):
        """Step down the hand-written gradient where there is one, and skorch's way otherwise."""
        if self.module_.gradient is None:
            return super().train_step(batch, **fit_params)
        step = self._differentiate(*batch)
        if self._is_watched:
            named = self.get_all_learnable_params()
            self.notify(
                "on_grad_computed", named_parameters=list(named), batch=batch, training=True
            )
        if self._is_watched or not _has_lean_step(self.optimizer_):
            self.optimizer_.step()
        else:
            _lean_step(self.optimizer_)
        return step

    def _differentiate(self, X, y):
        """Loss and logits of a batch, with the gradients put where the optimizer finds them."""
        module = self.module_
        logits = None
        if self._is_watched:
            logits = module(**X)
            self.optimizer_.zero_grad()  # a callback may keep a gradient: the next one is new
        loss, gradients = module.gradient(X["z"], y, X["share"], **module.arrays)
        for name, gradient in gradients.items():
            module.arrays[name].grad = gradient
        return {"loss": loss, "y_pred": logits}

    def get_loss(self, y_pred, y_true, X=None, training=False):
        losses = torch.nn.functional.cross_entropy(y_pred, y_true, reduction="none")
        loss = (X["share"] * losses).sum()
        if self.module_.penalty is None:
            return loss
        return loss + self.module_.penalty(**self.module_.arrays)

    @property
    def _default_callbacks(self):
        return []  # :func:`_callbacks` lists them all


def _has_lean_step(optimizer):
    """Whether :func:`_lean_step` can stand in: for a fused Adam or AdamW, once it has its state."""
    is_adam = isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["fused"]
    return is_adam and len(optimizer.state) > 0


def _lean_step(optimizer):
    """Take the step of :meth:`torch.optim.Adam.step`, by the same kernel.

    torch's method adds checks, groups and hooks, which take longer than the step of some ten
    classes. Only a user's callback could have hooked in.
    """
    (group,) = optimizer.param_groups
    parameters = group["params"]
    states = [optimizer.state[parameter] for parameter in parameters]
    first, second, steps = ([s[k] for s in states] for k in ("exp_avg", "exp_avg_sq", "step"))
    step = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    torch._foreach_add_(steps, 1)
    step(
        parameters,
        [parameter.grad for parameter in parameters],
        first,
        second,
        [],
        steps,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        **{name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")},
    )


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
    """List the schedule and the user's callbacks, which may read skorch's train_loss."""
    callbacks = [("lr_schedule", scheduler)]
    if user_callbacks:
        train_loss = ("train_loss", PassthroughScoring(name="train_loss", on_train=True))
        callbacks = [train_loss, *callbacks, *clone(user_callbacks or [], safe=False)]
    if verbose:
        callbacks = [
            ("epoch_timer", EpochTimer()),
            *callbacks,
            ("print_log", PrintLog(floatfmt=".4g")),
        ]
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
