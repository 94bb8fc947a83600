"""What all stores of a process share: a lock that forks respect, and who claims are made by."""

import functools
import hashlib
import os
import platform
import struct
import threading

#: Held while any store is used, and by a fork, so that a child never inherits a half-done change.
#: Nobody waits for another process while holding it.
IN_USE = threading.RLock()


@functools.cache
def hold_still_while_forking():
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        release = IN_USE.release
        os.register_at_fork(before=IN_USE.acquire, after_in_parent=release, after_in_child=release)


def new_owner():
    """Return a name to make claims under, which says whose it is: host, process and a number."""
    return _host() + struct.pack(">I", os.getpid()) + os.urandom(8)


def has_ended(owner):
    """Whether an owner was a process of this host that is gone; False if that can't be said."""
    if os.name == "nt" or len(owner) != len(new_owner()) or not owner.startswith(_host()):
        return False
    (pid,) = struct.unpack_from(">I", owner, len(_host()))
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _host():
    return hashlib.blake2b(platform.node().encode(), digest_size=8).digest()
