"""Sphinx's settings."""

project = "sklearn_taskres"
author = "the sklearn_taskres developers"
html_theme = "pydata_sphinx_theme"
exclude_patterns = ["_build"]
