"""A forked child that does one thing, and is killed if it hangs."""

import os
import signal
import warnings

#: Seconds after which the system kills a child.
_LIMIT = 60


def run_in_child(function):
    """Fork, call `function` in the child and return its exit status, 0 if all went well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(_LIMIT)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
