"""What a figure must be read with: the processor, the versions, the date."""

import importlib.metadata
import os
import platform
import time

from .._version import __version__

_PACKAGES = (
    "scikit-learn",
    "numpy",
    "torch",
    "skorch",
    "open_clip_torch",
    "pillow",
)


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


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
