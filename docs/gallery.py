"""How examples are run and ordered in the gallery."""

import warnings
from pathlib import Path

#: From the first thing to read to the last; what is not named here comes after, by name.
_ORDER = [
    "plot_quickstart.py",
    "plot_own_photos.py",
    "plot_alpha_path.py",
    "plot_cached_search.py",
    "plot_enhanced_base.py",
    "plot_add_classes.py",
    "plot_transfer_difficulty.py",
    "plot_compare_methods.py",
    "plot_save_and_serve.py",
]


def order(filename):
    """Sort key of an example."""
    name = Path(filename).name
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def make_warnings_errors(gallery_conf, fname):
    """Let no example pass that draws a warning, as ``python -W error`` would."""
    warnings.resetwarnings()
    warnings.simplefilter("error")
