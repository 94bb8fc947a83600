"""Finished cells in a file of JSON lines: readable after a kill, shared by processes."""

import contextlib
import hashlib
import json
import os
import sys

import filelock

#: What tells one cell from another, and one test set from another; the rest of a line came out.
IDENTITY = (
    "data",
    "test",
    "backbone",
    "digest",
    "base_norm",
    "method",
    "parameters",
    "shots",
    "seed",
    "views",
    "version",
)


def line_key(line):
    """Return the text that two lines share where one measures what the other did.

    Parameters
    ----------
    line : dict
        With the fields of IDENTITY; lines of older versions lack the test set and the views.
    """
    values = {"test": line.get("data"), "views": 0} | line
    return json.dumps([values.get(name) for name in IDENTITY], sort_keys=True)


def read_lines(path):
    """Return the finished lines as dicts; a last line without its end was cut and is left out.

    Parameters
    ----------
    path : Path
        The file; one that is not there holds nothing.
    """
    return _parsed(path, 0)[0]


def _parsed(path, start):
    """Lines from a byte on, and the byte behind the last one that is whole."""
    if not path.exists():
        return [], 0
    with open(path, "rb") as file:
        file.seek(start)
        whole = file.read().rpartition(b"\n")[0]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        sys.exit(f"{path} holds a line that is no JSON. Remove it, its cell is redone: {error}")
    return lines, start + len(whole) + (1 if whole else 0)


class Results:
    """The file of results, which other processes may write to at the same time.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    """

    def __init__(self, path):
        self.path = path
        self._seen: set[str] = set()
        self._end = 0

    def has(self, keys):
        """Whether the file holds lines of all keys; what others appended is read first."""
        lines, self._end = _parsed(self.path, self._end)
        self._seen.update(map(line_key, lines))
        return self._seen >= set(keys)

    def append(self, lines):
        """Append the lines of a finished cell at once, and return when they are on the disk.

        Parameters
        ----------
        lines : list of dict
            What JSON can hold. A last line of the file that was cut is removed.
        """
        text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        lock = self.path.with_name("results.lock")
        with _locked(lock, wait=True), open(self.path, "a+b") as file:
            _remove_cut_line(file)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def claimed(self, keys, *, wait):
        """Keep other processes from a cell, and give whether it is this one's to run.

        It is not where another process holds it, or its lines are there. A killed process holds
        nothing.

        Parameters
        ----------
        keys : list of str
            Of the lines to come.
        wait : bool
            Whether to wait for a process that holds the cell.
        """
        claim = self.path.with_name("claims") / hashlib.sha256("".join(keys).encode()).hexdigest()
        with _locked(claim, wait=wait) as is_ours:
            yield is_ours and not self.has(keys)
            if is_ours:  # whoever waited for the file finds the lines written
                with contextlib.suppress(OSError):  # Windows keeps open files
                    claim.unlink()


@contextlib.contextmanager
def _locked(path, *, wait):
    """Hold the lock of a file that is made for it, and give whether it is held.

    Where a disk has no locks, everybody holds them: a cell may then run twice.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        pass
    try:
        yield True
    finally:
        lock.release()


def _remove_cut_line(file):
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in {b"", b"\n"}:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
