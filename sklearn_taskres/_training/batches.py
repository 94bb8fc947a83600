"""Batches of image rows for the training engine, taken from tensors that sit on the device."""

import numpy as np
import torch
from torch.utils.data import IterableDataset

from .._device import new_tensor
from .._messages import warn_user
from .._rows import is_streamed


class TensorBatches(IterableDataset):
    """Batches of image rows, classes and weights in the loss; iterating gives one epoch of them.

    Rows of a memory map, or of float16, stay where and what they are, and only those of a batch are
    read and brought to the device. The length is the number of rows that an epoch sees. Rows are
    prepared in `dtype`; for products in bfloat16 alone, those of float32 are kept in that.
    """

    def __init__(self, X, y, sample_weight, batch_size, rng, prepare, dtype, device, in_bfloat16):
        self.prepare, self.dtype, self.device, self.rng = prepare, dtype, device, rng
        self.kept_dtype = torch.bfloat16 if in_bfloat16 and dtype == np.float32 else None
        self.size, self.n_views = min(batch_size, len(y)), X.shape[1] if X.ndim == 3 else None
        self.rows = X if is_streamed(X) else self._on_device(X)
        self.stays = isinstance(self.rows, np.ndarray)
        self.y = torch.as_tensor(y, dtype=torch.int64, device=device)
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        self.loss_weight = new_tensor(weight / np.mean(weight) / self.size, dtype, device)

    def __len__(self):
        return len(self.y) // self.size * self.size  # an incomplete last batch is dropped

    def __iter__(self):
        order = places = np.arange(len(self.y))
        if self.n_views is not None:
            places = places * self.n_views + self.rng.randint(self.n_views, size=len(places))
        if len(order) > self.size:
            order = self.rng.permutation(len(order))
            places = places[order]
        elif self.n_views is None and not self.stays:
            yield {"z": self.rows, "loss_weight": self.loss_weight}, self.y
            return
        rows = torch.as_tensor(places, device="cpu" if self.stays else self.device)
        index = torch.as_tensor(order, device=self.device)
        for start in range(0, len(self), self.size):
            batch = slice(start, start + self.size)
            of_batch = index[batch]
            weight, y = (part.index_select(0, of_batch) for part in (self.loss_weight, self.y))
            yield {"z": self._at(rows[batch]), "loss_weight": weight}, y

    def _on_device(self, X):
        """Return prepared rows as a tensor, or as they are if the device has no room for all."""
        try:
            rows = np.require(self.prepare(X), None, ["C", "W"])  # shared with torch, or a copy
            return torch.as_tensor(rows, dtype=self.kept_dtype, device=self.device).flatten(0, -2)
        except torch.OutOfMemoryError:
            warn_user(
                f"The {len(X)} rows do not fit into the memory of {self.device}, and are brought "
                f"there batch by batch. The result is the same."
            )
            return X

    def _at(self, places):
        """Image rows (b, d) at places that count rows, or views of rows, from the first on."""
        if not self.stays:
            return self.rows.index_select(0, places)
        places = places.numpy()
        index = places if self.n_views is None else divmod(places, self.n_views)
        rows = self.prepare(self.rows[index].astype(self.dtype))
        return torch.as_tensor(rows, dtype=self.kept_dtype, device=self.device)
