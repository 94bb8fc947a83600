"""A tuned classifier leaves this package: as plain scikit-learn, as ONNX, and to the hub."""

import importlib

_HOME = {
    "export_onnx": "._onnx",
    "from_hub": "._hub",
    "push_to_hub": "._hub",
    "to_sklearn": "._sklearn",
}

__all__ = list(_HOME)


def __getattr__(name):
    """Import a public name when it is first used (PEP 562), and with it what it needs."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__():
    return sorted([*globals(), *_HOME])
