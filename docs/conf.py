"""Sphinx's settings. The build needs no network: what others fetch is resolved in `offline.py`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sklearn_taskres import __version__

os.environ.setdefault("MPLBACKEND", "Agg")  # examples draw without a screen

project = "sklearn_taskres"
author = "the sklearn_taskres developers"
copyright = "2026, the sklearn_taskres developers"  # noqa: A001 (Sphinx's name)
release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "myst_parser",  # reads the changelog
    "offline",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "name"
nitpicky = True
#: Labels of scikit-learn's own pages, in docstrings that our classes inherit.
nitpick_ignore = [
    ("std:ref", "accuracy_score"),
    ("std:ref", "df_output_transform"),
    ("std:ref", "sphx_glr_auto_examples_miscellaneous_plot_set_output.py"),
]

# API pages
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say it
numpydoc_show_class_members = False  # the template lists them
toc_object_entries_show_parents = "hide"

# Examples
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "gallery.order",
    "reset_modules": ("matplotlib", "gallery.make_warnings_errors"),
    "abort_on_example_error": True,
    "capture_repr": (),  # what an example prints, and no <Legend object at 0x...>
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_taskres",),
    "remove_config_comments": True,
    "download_all_examples": False,
}

# Looks
html_theme = "pydata_sphinx_theme"
html_title = "sklearn_taskres"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button-field"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "changelog": [], "how_it_works": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
