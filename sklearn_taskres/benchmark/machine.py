"""What a figure must be read with: the processor, the versions, the date."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path

from .._version import __version__

_PACKAGES = (
    "scikit-learn",
    "numpy",
    "torch",
    "skorch",
    "open_clip_torch",
    "pillow",
)
_PACKAGE = Path(__file__).parents[1]
#: Folders and files whose code decides no accuracy, and files in them that do.
_NO_MATTER = {"benchmark", "inspection", "glyph", "_data_sets.py"}
_MATTER = {
    "benchmark/cells.py",
    "benchmark/features.py",
    "benchmark/images.py",
    "benchmark/layouts.py",
    "benchmark/methods.py",
    "inspection/_figures.py",
}


def describe_machine(device=None):
    """Return a dict of strings and numbers that says where and when something was measured.

    Parameters
    ----------
    device : torch.device, optional
        Named if it is a GPU.
    """
    import torch

    about = {
        "sklearn-taskres": __version__,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
    }
    if device is not None and device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
    return about | {name: importlib.metadata.version(name) for name in _PACKAGES}


@functools.cache
def code_digest(package=_PACKAGE):
    """Return a text that differs if the code that decides an accuracy does.

    That is the package's, except what times, reports or draws, what trained the bundled model,
    which an installed package lacks, and the table of data sets: a cell says by itself what it took
    of it.

    Parameters
    ----------
    package : Path, optional
        Folder of the package's code; by default that which runs.
    """
    files = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    digest = hashlib.sha256()
    for path in files:
        if _NO_MATTER & {*path.parts} and path.as_posix() not in _MATTER:
            continue
        digest.update(path.as_posix().encode() + b"\0" + (package / path).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
