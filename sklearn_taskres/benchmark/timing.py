"""Seconds and memory of functions that are run in turn, so that a busy moment hits all of them."""

import ctypes
import gc
import os
import statistics
import time
from pathlib import Path

#: Seconds in which the threads of what ran before stop waiting for more, which keeps cores busy.
_REST = 0.3
#: Matrix products of a round, a second's worth on two cores.
_N_PRODUCTS = 10


def interleaved(functions, repeats, device):
    """Run each function in each round; the first round counts for memory and results alone.

    Parameters
    ----------
    functions : dict of str to callable
        Take no arguments.
    repeats : int
        Rounds that are timed.
    device : torch.device
        Waited for after each run.

    Returns
    -------
    dict of str to dict
        ``seconds`` (the median), ``fastest``, ``megabytes`` (the most that a run took on top of
        what was there before; None if the system does not say) and the function's ``result``.
    """
    figures = {name: _first_run(function, device) for name, function in functions.items()}
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            time.sleep(_REST)
            spent[name].append(_seconds(function, device))
    for name, seconds in spent.items():
        figures[name] |= {"seconds": statistics.median(seconds), "fastest": min(seconds)}
    return figures


def interleaved_with_products(functions, repeats, device):
    """Do as :func:`interleaved`, and multiply matrices of 2048² in float32 in every round.

    What share of the machine's peak a function reaches is a ratio like any other: both sides of it
    must have met the same moments of a busy machine.

    Returns
    -------
    figures : dict of str to dict
        As from `interleaved`.
    rate : float
        Operations per second of the products (the median).
    """
    import torch

    a, b = (torch.rand(2048, 2048, device=device) for _ in range(2))

    def products():
        for _ in range(_N_PRODUCTS):
            torch.matmul(a, b)

    figures = interleaved({**functions, "products": products}, repeats, device)
    return figures, _N_PRODUCTS * 2 * 2048**3 / figures.pop("products")["seconds"]


def _seconds(function, device):
    _wait_for(device)
    start = time.perf_counter()
    function()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device):
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _first_run(function, device):
    gc.collect()
    before = _reset_peak(device)
    result = function()
    after = _peak(device)
    megabytes = None if before is None or after is None else (after - before) / 1e6
    return {"result": result, "megabytes": megabytes}


def _reset_peak(device):
    """Forget the peak so far; return the bytes in use, or None if the system does not say."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    _give_back_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return memory_of_process("VmRSS")


def _give_back_free_memory():
    """Have glibc return what was freed, so that memory in use again counts as taken."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _peak(device):
    import torch

    is_cuda = device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) if is_cuda else memory_of_process("VmHWM")


def memory_of_process(field):
    """Return bytes of a field of Linux's ``/proc/self/status``, or None on another system.

    Parameters
    ----------
    field : str
        Such as ``"VmHWM"``, the peak of resident memory, or ``"RssAnon"``.
    """
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None
