"""Where tensors live, and how they are multiplied: device, precision and number of threads."""

import contextlib
import functools
import os
import threading

import numpy as np
import torch

from ._cpu import has_bfloat16_units

#: Values of every ``precision`` parameter of the package.
PRECISIONS = ("auto", "float32", "bfloat16")
#: Multiplications of a matrix product that are worth a thread.
_WORTH_A_THREAD = 2 * 2**20


def resolve_device(device=None, dtype="float32"):
    """Return the torch device to compute on.

    Parameters
    ----------
    device : None, str or torch.device
        None takes CUDA if there is one, else Apple's MPS, else the CPU.
    dtype : str or numpy.dtype, default="float32"
        What will be computed with: None does not take MPS for float64, which it lacks.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.
    """
    _compute_on_one_thread_in_children()
    if device is None:
        wanted = ("cuda",) if str(dtype) == "float64" else ("cuda", "mps")
        return torch.device(next((name for name in wanted if _available(name)), "cpu"))
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"The 'device' parameter must be None or a torch device such as 'cpu', 'cuda:0' or "
            f"'mps'. Got {device!r} instead."
        ) from error
    if not _available(resolved.type):
        raise ValueError(
            f"device={device!r} is not available on this machine. Use device=None to take what "
            f"there is, or device='cpu'."
        )
    return resolved


@functools.cache
def _compute_on_one_thread_in_children():
    """OpenMP's threads do not survive a fork: a child that shares work with them waits forever."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def _available(kind):
    """Whether this machine can compute on a kind of device."""
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    if kind == "cpu":
        return True
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and accelerator.type == kind


def new_tensor(array, dtype, device=None):
    """Copy an array, or a number, into a tensor of a NumPy dtype."""
    return torch.tensor(np.asarray(array, dtype=dtype), device=device)


def fastest_precision(device):
    """Return the precision in which a device multiplies matrices fastest.

    It is "bfloat16" if there are units for it: CUDA from compute capability 8.0 on, and what
    `has_bfloat16_units` says of processors.
    """
    if device.type == "cuda":
        has_units = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_units = device.type == "cpu" and has_bfloat16_units()
    return "bfloat16" if has_units else "float32"


def product_precision(device, precision):
    """Context in which matrix products run in `precision`, leaving torch's global switches alone.

    "float32" keeps the precision of the operands; "bfloat16" lowers float32 products and never
    float64 ones.
    """
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def threads_for_products(n_multiplications, device):
    """Compute on a CPU with as many of torch's threads as such matrix products keep busy.

    Threads wait for each other after every operation, and the longer, the busier the machine is
    otherwise; for small products that costs more than sharing them out saves.

    torch keeps a number for each thread, and a new thread takes the one that was set last. So only
    the main thread sets it, for a time, and sets it back; other threads are left to whoever made
    them.

    Parameters
    ----------
    n_multiplications : int
        Of one product, such as B·K·D.
    device : torch.device
        Where it is computed.
    """
    before = torch.get_num_threads()
    wanted = min(before, max(1, n_multiplications // _WORTH_A_THREAD))
    if wanted == before or device.type != "cpu" or not is_main_thread():
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_main_thread():
    """Whether this is the thread that the process began with."""
    return threading.current_thread() is threading.main_thread()
