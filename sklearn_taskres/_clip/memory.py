"""How much memory the images that are decoded at one time may take, all threads together."""

import contextlib
import os
import threading

#: Seconds after which who waits goes on all the same: an image is decoded in less.
_MOST_SECONDS = 60


class MemoryBudget:
    """Bytes that threads share: who wants more than is left waits for others to give some back.

    Parameters
    ----------
    n_bytes : int
        What may be reserved at one time. Who wants more than that gets it when nobody else has any.
    """

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes
        self._start()
        if hasattr(os, "register_at_fork"):  # a child has none of the threads that would give back
            os.register_at_fork(after_in_child=self._start)

    def _start(self):
        self._reserved = {}  # thread to bytes
        self._changed = threading.Condition()
        self._next = threading.Lock()  # who waits first is served first, however much it wants

    @contextlib.contextmanager
    def reserve(self, n_bytes):
        """Wait for `n_bytes`, and have them inside the block, the only one of this thread."""
        with self._next, self._changed:
            self._reserved.pop(threading.get_ident(), None)  # left there by an interrupt
            self._changed.wait_for(lambda: self._has_room(n_bytes), _MOST_SECONDS)
            self._reserved[threading.get_ident()] = n_bytes
        try:
            yield
        finally:
            self._give_back()

    @contextlib.contextmanager
    def lend(self):
        """Give back what this thread has, for as long as it runs code that may itself reserve."""
        n_bytes = self._give_back()
        try:
            yield
        finally:  # waiting here could be waiting for each other
            with self._changed:
                self._reserved[threading.get_ident()] = n_bytes

    def _has_room(self, n_bytes):
        reserved = sum(self._reserved.values())
        return reserved == 0 or reserved + n_bytes <= self.n_bytes

    def _give_back(self):
        with self._changed:
            n_bytes = self._reserved.pop(threading.get_ident(), 0)
            self._changed.notify_all()
        return n_bytes


#: Of all images that are decoded in this process.
BUDGET = MemoryBudget(1 << 30)
