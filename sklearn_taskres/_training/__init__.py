"""Training: skorch learns the arrays of a formula, fed with tensors on the device."""

from .engine import train

__all__ = ["train"]
