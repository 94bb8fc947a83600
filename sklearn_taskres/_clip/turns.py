"""Turns at encoding: who needs images that others are encoding waits, and finds them kept."""

import collections
import contextlib
import os
import threading
from pathlib import Path

import filelock

#: Seconds of work after which a turn should end, and until the next one begins, for others to take.
TURN_SECONDS, TURN_PAUSE = 1.0, 0.01
#: Seconds between two looks of a waiting process.
_POLL = 0.002
#: Seconds after which a waiting process encodes by itself: the other may be suspended.
_PATIENCE = 300

_threads: dict = collections.defaultdict(threading.Lock)


@contextlib.contextmanager
def turn_at(location, device):
    """Wait until nobody else encodes for a cache on a device, and keep others waiting meanwhile.

    Parameters
    ----------
    location : "memory", str, path-like or None
        Of an EmbeddingCache: threads of this process, or also other processes, take turns, or
        nobody does. Where a folder can't be locked, as on a read-only disk, nobody does either, and
        images may be encoded twice.
    device : str
        Whoever computes elsewhere does not wait.
    """
    if location is None:
        yield
    elif location == "memory":
        with _threads[device]:
            yield
    else:
        lock = _acquired(Path(location).expanduser(), device)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()


def _acquired(folder, device):
    lock = filelock.FileLock(folder / f"encoding-{device}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE, poll_interval=_POLL)
    except (OSError, NotImplementedError):  # a read-only disk, one without locks, or a timeout
        return None
    return lock


if hasattr(os, "register_at_fork"):  # a child must not wait for threads that it does not have
    os.register_at_fork(after_in_child=_threads.clear)
