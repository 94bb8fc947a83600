"""How many of torch's threads to compute with, and trainings in threads of their own.

torch keeps a number for each thread, and a new thread takes the one that was set last. So only the
main thread sets it here, for a time, and sets it back; other threads are left to whoever made them.
"""

import collections
import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from .._device import resolve_device

#: Multiplications of a matrix product that are worth a thread: some twenty microseconds.
_WORTH_A_THREAD = 2**21


@contextlib.contextmanager
def threads_for_products(n_multiplications, device):
    """Compute on a CPU with as many of torch's threads as such matrix products keep busy.

    Threads wait for each other after every operation, and the longer, the busier the machine is
    otherwise; for small products that costs more than sharing them out saves.

    Parameters
    ----------
    n_multiplications : int
        Of one product, such as B·K·D.
    device : torch.device
        Where it is computed.
    """
    before = torch.get_num_threads()
    wanted = min(before, max(1, n_multiplications // _WORTH_A_THREAD))
    if wanted == before or device.type != "cpu" or not _is_main_thread():
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_threads(device=None, dtype="float32"):
    """Return how many trainings to run at one time: torch's threads on a CPU, else one.

    Operations on a few thousand elements are too short to share out, so that two trainings on one
    thread each are done sooner than one after the other on two. A GPU is kept busy by one.
    """
    is_cpu = resolve_device(device, dtype).type == "cpu"
    return torch.get_num_threads() if is_cpu and _is_main_thread() else 1


def map_in_threads(function, items, n_threads):
    """Yield each item with a callable that returns, or raises, what the function made of it.

    Parameters
    ----------
    function : callable
        Runs in threads, each of which computes with one of torch's threads.
    items : iterable
        Asked for its next one in this thread, when there is a thread for it.
    n_threads : int
        Threads, and results that are held at the most; 1 runs all in this one, with all of torch's
        threads.
    """
    if n_threads == 1:
        for item in items:
            yield item, functools.partial(function, item)
        return
    before, waiting = torch.get_num_threads(), collections.deque[tuple[Any, Callable]]()
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item).result))
                if len(waiting) > n_threads:
                    yield waiting.popleft()
            yield from waiting
        finally:
            torch.set_num_threads(before)
            pool.shutdown(cancel_futures=True)


def _is_main_thread():
    return threading.current_thread() is threading.main_thread()
