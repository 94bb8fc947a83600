"""Calls of public functions of other libraries, noted while nothing is replaced."""

import contextlib
import sys


@contextlib.contextmanager
def calls_of(*functions):
    """Note each call of some functions in this thread, as Python's profiler is told of it.

    Parameters
    ----------
    *functions : callable
        Written in Python, or methods written in C.

    Yields
    ------
    list of (callable, dict)
        Functions in the order of their calls, with their arguments by name; of a method written in
        C that is "self" alone.
    """
    codes = {f.__code__: f for f in functions if hasattr(f, "__code__")}
    methods = {f.__name__: f for f in functions if not hasattr(f, "__code__")}
    calls = []

    def note(frame, event, arg):
        if event == "call" and frame.f_code in codes:
            calls.append((codes[frame.f_code], dict(frame.f_locals)))
        if event == "c_call" and arg.__name__ in methods:
            method, owner = methods[arg.__name__], arg.__self__
            if isinstance(owner, method.__objclass__):
                calls.append((method, {"self": owner}))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
