"""How many of torch's threads to compute with.

torch keeps a number for each thread, and a new thread takes the one that was set last. So only the
main thread sets it, for a time, and sets it back; other threads are left to whoever made them.
"""

import contextlib
import threading

import torch

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


def _is_main_thread():
    return threading.current_thread() is threading.main_thread()
