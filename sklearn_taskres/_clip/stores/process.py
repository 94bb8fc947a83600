"""What all stores of a process share: a lock that forks respect."""

import functools
import os
import threading

#: Held while any store is used, and by a fork, so that a child never inherits a half-done change.
#: Nobody waits for another process while holding it.
IN_USE = threading.RLock()


@functools.cache
def hold_still_while_forking():
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        release = IN_USE.release
        os.register_at_fork(before=IN_USE.acquire, after_in_parent=release, after_in_child=release)
