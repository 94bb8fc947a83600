"""Finished cells in a file of JSON lines: readable after a kill, shared by processes."""

import contextlib
import errno
import hashlib
import json
import os
import socket
import sys
import time

import filelock  # 3.20.1 is the first that does not follow a symbolic link to the file it locks

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
    "code",
)


def line_key(line):
    """Return the text that two lines share if one measures what the other did.

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
    lines: list[dict] = []
    for text in whole.splitlines():
        line, problem = _cell_of(text)
        if problem:
            number = path.read_bytes()[:start].count(b"\n") + len(lines) + 1
            sys.exit(f"{path}, line {number} {problem}. Remove it; its cell is run again.")
        lines.append(line)
    return lines, start + len(whole) + (1 if whole else 0)


#: What no line lacks, and its types: a report can't be written without them.
_FIELDS: dict[str, set[type]] = {
    "data": {str},
    "method": {str},
    "shots": {int},
    "seed": {int},
    "accuracy": {float, int},
    "fit_seconds": {float, int},
    "n_parameters": {int},
    "machine": {dict},
}


def _cell_of(text):
    """Return a line's dict and None, or None and why it is not a finished cell."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict):
        return None, "is not a JSON object"
    wrong = [name for name, types in _FIELDS.items() if type(line.get(name)) not in types]
    if "machine" not in wrong and not isinstance(line["machine"].get("date"), str):
        wrong.append("machine")
    return line, wrong and f"lacks {', '.join(wrong)}, or holds another type there"


class Results:
    """The file of results, which other processes may write to at the same time.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    lock_seconds : float, default=60
        Seconds for which another process may hold the file: to write takes it milliseconds.
    """

    def __init__(self, path, lock_seconds=60):
        self.path = path
        self._lock_seconds = lock_seconds
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
        try:
            with self._alone(), open(self.path, "a+b") as file:
                _remove_cut_line(file)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or str(self.path)  # a full disk names no file
            raise

    @contextlib.contextmanager
    def _alone(self):
        """Hold the file of results, or raise OSError if another process does not let it go."""
        lock = self.path.with_name("results.lock")
        with _locked(lock, timeout=self._lock_seconds) as is_ours:
            if not is_ours:
                why = f"another process has held it for {self._lock_seconds} s, and may be stopped"
                raise OSError(errno.EAGAIN, why, str(lock))
            yield

    @contextlib.contextmanager
    def claimed(self, keys):
        """Keep other processes from a cell, and give whether it is this one's to run.

        It is not if another process holds it, or if its lines are there. A killed process holds
        nothing.

        Parameters
        ----------
        keys : list of str
            Of the lines to come.
        """
        claim = self._claim(keys)
        with _locked(claim, timeout=0) as is_ours:
            if not is_ours:
                yield False
                return
            _write_holder(claim)
            yield not self.has(keys)
            with contextlib.suppress(OSError):  # Windows keeps open files
                claim.unlink()  # whoever locks it after this finds the lines written
                _holder(claim).unlink()

    def holder(self, keys):
        """Return in words which process holds a cell.

        Parameters
        ----------
        keys : list of str
            Of the lines to come.
        """
        try:
            return _holder(self._claim(keys)).read_text(encoding="utf-8")[:200]
        except (OSError, UnicodeDecodeError):
            return "another process"

    def _claim(self, keys):
        name = hashlib.sha256("".join(keys).encode()).hexdigest()
        return self.path.with_name("claims") / name


def _holder(claim):
    """File next to a claim that says who holds it: the claim itself is emptied by who asks."""
    return claim.with_suffix(".holder")


def _write_holder(claim):
    path = _holder(claim)
    text = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}"
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8") as file:  # "x" follows no symbolic link
            file.write(text)


@contextlib.contextmanager
def _locked(path, *, timeout):
    """Hold the lock of a file that is made for it, and give whether it is held.

    On a disk without locks everybody holds them: a cell may then run twice.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(exist_ok=True)
        lock.acquire(timeout=timeout)
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
