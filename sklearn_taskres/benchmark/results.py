"""Finished cells in a file of JSON lines, which a killed run leaves readable."""

import json
import os
import sys


def read_lines(path):
    """Return the finished cells as dicts; a last line without its end was cut and is left out.

    Parameters
    ----------
    path : Path
        The file; one that is not there holds nothing.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        sys.exit(f"{path} holds a line that is no JSON. Remove it, its cell is redone: {error}")


def append_line(path, line):
    """Append one finished cell, and return when it is on the disk.

    Parameters
    ----------
    path : Path
        The file. A last line that was cut is removed.
    line : dict
        What JSON can hold.
    """
    with open(path, "a+b") as file:
        _remove_cut_line(file)
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _remove_cut_line(file):
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in {b"", b"\n"}:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
