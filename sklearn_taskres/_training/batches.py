"""Batches of image rows for the training engine, taken from tensors that sit on the device."""

import itertools
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from .._messages import warn_user
from .._rows import is_streamed


class TensorBatches(IterableDataset):
    """Batches of image rows, classes and shares in the loss; iterating gives one epoch of them.

    Rows of a memory map, or of float16, stay where and what they are, and only those of a batch are
    read and brought to the device. The length is the number of rows that an epoch sees.
    """

    def __init__(self, X, y, sample_weight, batch_size, rng, prepare, dtype, device):
        self.prepare, self.dtype, self.device, self.rng = prepare, dtype, device, rng
        self.size, self.n_views = min(batch_size, len(y)), X.shape[1] if X.ndim == 3 else None
        self.rows = X if is_streamed(X) else self._on_device(X)
        self.stays = isinstance(self.rows, np.ndarray)
        self.y = torch.as_tensor(y, dtype=torch.int64, device=device)
        if sample_weight is None:
            sample_weight = np.ones(len(y))
        share = sample_weight / np.mean(sample_weight) / self.size
        self.share = new_tensor(share, dtype, device)

    @property
    def n_batches(self):
        """Number of batches per epoch; an incomplete last one is dropped."""
        return len(self.y) // self.size

    def __len__(self):
        return self.n_batches * self.size

    def __iter__(self):
        n_rows = len(self.y)
        y, share = self.y, self.share
        places: Any = np.arange(n_rows)
        if self.n_views is not None:
            places = places * self.n_views + self.rng.randint(self.n_views, size=n_rows)
        if n_rows > self.size:
            order = self.rng.permutation(n_rows)
            places, order = places[order], torch.as_tensor(order, device=self.device)
            y, share = y.index_select(0, order), share.index_select(0, order)
        elif self.n_views is None and not self.stays:
            yield {"z": self.rows, "share": share}, y
            return
        places = torch.as_tensor(places, device="cpu" if self.stays else self.device)
        parts = zip(*(part.split(self.size) for part in (places, share, y)), strict=True)
        for batch_places, batch_share, batch_y in itertools.islice(parts, self.n_batches):
            yield {"z": self._at(batch_places), "share": batch_share}, batch_y

    def _on_device(self, X):
        """Return prepared rows as a tensor, or as they are if the device has no room for all."""
        try:
            rows = np.require(self.prepare(X), None, ["C", "W"])  # shared with torch, or a copy
            return torch.as_tensor(rows, device=self.device).flatten(0, -2)
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
        return new_tensor(
            self.prepare(self.rows[index].astype(self.dtype)), self.dtype, self.device
        )


def new_tensor(array, dtype, device=None):
    """Copy an array into a tensor of the torch dtype that goes by the same name."""
    return torch.tensor(
        np.asarray(array), dtype=getattr(torch, np.dtype(dtype).name), device=device
    )
