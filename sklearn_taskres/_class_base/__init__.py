"""The rows of the base classifier: what `base` stands for, names of labels, changes of classes."""

from .bases import (
    BASE_CONSTRAINT,
    ArrayBase,
    ClassMeansBase,
    TextBase,
    as_class_base,
    check_nested_params,
)
from .classes import OpenClassesMixin
from .means import class_means, class_sums, norm_factor

__all__ = [
    "BASE_CONSTRAINT",
    "ArrayBase",
    "ClassMeansBase",
    "OpenClassesMixin",
    "TextBase",
    "as_class_base",
    "check_nested_params",
    "class_means",
    "class_sums",
    "norm_factor",
]
