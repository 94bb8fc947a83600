"""skorch's net around a formula, with three of its seams filled: iterator, step and loss."""

import functools

import numpy as np
import torch
from skorch import NeuralNetClassifier

from .._device import new_tensor
from .batches import TensorBatches


class FormulaModule(torch.nn.Module):
    """A formula with its arrays: parameters to learn, buffers and plain numbers to keep.

    Called by skorch on rows that a user's callback gives it, it prepares them; rows of a batch come
    with their weight in the loss, and are prepared already.
    """

    def __init__(self, formula, dtype):
        super().__init__()
        self.formula = formula
        self.numbers = dict(formula.constants)
        for name, value in formula.learned.items():
            self.register_parameter(name, torch.nn.Parameter(new_tensor(value, dtype)))
        for name, value in formula.constants.items():
            if isinstance(value, np.ndarray):
                self.register_buffer(name, new_tensor(self.numbers.pop(name), dtype))

    @functools.cached_property  # first asked for in a step, when all is on the device
    def arrays(self):
        """All that the formula takes besides rows."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers()), **self.numbers}

    def forward(self, z, loss_weight=None):
        """Return the logits of rows."""
        z = self.formula.prepare(z) if loss_weight is None else z
        return self.formula.logits(z, **self.arrays)

    def learned(self):
        """Return the learned arrays as NumPy has them; raise ValueError if one is not finite."""
        arrays = {n: p.detach().cpu().numpy().copy() for n, p in self.named_parameters()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"Training diverged: '{name}' holds values that are not finite. Use a smaller "
                    f"lr, or look for extreme values in X."
                )
        return arrays


class FormulaNet(NeuralNetClassifier):
    """skorch's net, given batches that are tensors already and, at times, a written gradient."""

    def get_iterator(self, dataset, training=False):
        """Return our batches as they are; rows from a user's callback go skorch's way."""
        if isinstance(dataset, TensorBatches):
            return dataset
        return super().get_iterator(dataset, training=training)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch as skorch does, except that its losses leave the device together."""
        if iterator is None:
            return
        losses = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].detach())
            self.notify("on_batch_end", batch=batch, training=training, **step)
        numbers = torch.stack(losses).cpu().tolist()  # (steps,), or (steps, C) of C candidates
        epoch = self.history.to_list()[-1]
        for record, loss in zip(epoch["batches"], numbers, strict=True):
            record |= {f"{prefix}_loss": loss, f"{prefix}_batch_size": iterator.size}
        mean = np.array(numbers).mean(axis=0).tolist()
        epoch |= {f"{prefix}_loss": mean, f"{prefix}_batch_count": len(numbers)}

    def train_step_single(self, batch, **fit_params):
        """Compute loss and gradients, by the written gradient or by skorch's autograd."""
        gradient, arrays = self.module_.formula.gradient, self.module_.arrays
        if gradient is None:
            return super().train_step_single(batch, **fit_params)
        X, y = batch
        with torch.no_grad():
            loss, logits, gradients = gradient(X["z"], y, X["loss_weight"], **arrays)
        for name, derivative in gradients.items():
            if arrays[name].requires_grad:  # Freezer switches it off
                arrays[name].grad = derivative
        return {"loss": loss, "y_pred": logits}

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted cross-entropy, plus the penalty if there is one."""
        losses = torch.nn.functional.cross_entropy(y_pred, y_true, reduction="none")
        loss = (X["loss_weight"] * losses).sum()
        penalty = self.module_.formula.penalty
        return loss if penalty is None else loss + penalty(**self.module_.arrays)
