"""Prompt templates of the data sets that few-shot papers compare on."""

from .._data_sets import DATA_SETS

#: Data set to its templates, each with one {} for the class name.
TEMPLATES = {name: info.templates for name, info in DATA_SETS.items()}
