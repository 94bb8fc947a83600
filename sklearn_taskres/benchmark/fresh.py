"""Functions that are called in a process of their own, without what this one has loaded."""

import multiprocessing
import signal


def call(function, *args):
    """Return what a function returns in a fresh process.

    Parameters
    ----------
    function : callable
        Of a module, so that it can be sent.
    *args
        Its arguments.
    """
    with multiprocessing.get_context("spawn").Pool(1, _leave_interrupts_to_the_parent) as pool:
        result = pool.apply(function, args)
        pool.close()
        pool.join()  # a worker that is terminated leaves its semaphores behind
    return result


def _leave_interrupts_to_the_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
