"""What all stores of a process share: a lock that forks respect, and warnings given once."""

import functools
import os
import threading
import warnings

#: Held while any store is used, and by a fork, so that a child never inherits a half-done change.
#: Nobody waits for another process while holding it.
IN_USE = threading.RLock()
#: Locations that have been warned about in this process.
WARNED: set = set()


@functools.cache
def hold_still_while_forking():
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        release = IN_USE.release
        os.register_at_fork(before=IN_USE.acquire, after_in_parent=release, after_in_child=release)


def warn_once(location, message):
    if location not in WARNED:
        WARNED.add(location)
        warnings.warn(message, UserWarning, stacklevel=3)
