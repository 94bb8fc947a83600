"""Trainings in threads of their own, each on one of torch's threads."""

import collections
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def count_threads(device=None, dtype="float32"):
    """Return how many trainings to run at one time: torch's threads on a CPU, else one.

    Operations on a few thousand elements are too short to share out, so that two trainings on one
    thread each are done sooner than one after the other on two. A GPU is kept busy by one.
    """
    import torch

    from .._device import is_main_thread, resolve_device

    is_cpu = resolve_device(device, dtype).type == "cpu"
    return torch.get_num_threads() if is_cpu and is_main_thread() else 1


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
    import torch

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
            pool.shutdown(cancel_futures=True)  # a thread that starts late sets the number, too
            torch.set_num_threads(before)
