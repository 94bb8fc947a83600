"""Faults that the system itself can be made to have."""

import contextlib
import sys


@contextlib.contextmanager
def no_file_larger_than(n_bytes):
    """Have the system refuse to write more than so many bytes to any file, as on a full disk.

    What a test prints may land in a file, too: take ``capsys``, which keeps it in memory. Modules
    that are imported meanwhile leave no compiled file, which Python would cut and not notice.
    """
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = before
