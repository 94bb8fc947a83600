"""Fitted estimators as plain data: arrays on one side, on the other what JSON can hold."""

from pathlib import PurePath
from typing import Any

import numpy as np

import sklearn_taskres

from .._classifiers.text_gaussian import Covariance, TextGaussian

#: Names of all that is ever built of a file: our estimators, and the records below.
_CLASSES = frozenset(
    name for name in sklearn_taskres.__all__ if name.endswith(("Classifier", "Featurizer"))
)
_RECORDS = {kind.__name__: kind for kind in (Covariance, TextGaussian)}
#: Parameters that are of the machine, not of the model; they get their default.
_OF_THE_MACHINE = {"cache", "device", "num_workers", "verbose"}
#: What is kept besides parameters and what ends in "_": what prediction and later changes need.
_PRIVATE = {"_name_of", "_base_factor", "_gaussian"}
_DTYPES = "biuf"


class DataWriter:
    """Turns estimators into JSON, and collects their arrays in `arrays`, by name."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def estimator(self, estimator: Any) -> dict:
        """Return what `DataReader.estimator` takes."""
        name = type(estimator).__name__
        if not _is_ours(estimator):
            raise TypeError(f"Only estimators of sklearn_taskres can be written. Got {name}.")
        params = estimator.get_params(deep=False)
        kept = {key: value for key, value in params.items() if key not in _OF_THE_MACHINE}
        fitted = {
            key: value
            for key, value in vars(estimator).items()
            if key not in params and ((key.endswith("_") and key[0] != "_") or key in _PRIVATE)
        }
        return {
            "class": name,
            "params": {key: self._value(value, f"{name}.{key}") for key, value in kept.items()},
            "fitted": {key: self._value(value, f"{name}.{key}") for key, value in fitted.items()},
        }

    def _value(self, value, where):
        if value is None or isinstance(value, bool | int | float | str):
            return value if not isinstance(value, np.generic) else value.item()
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if isinstance(value, list | tuple):
            items = [self._value(v, f"{where}[{i}]") for i, v in enumerate(value)]
            return {type(value).__name__ if type(value) is tuple else "list": items}
        if isinstance(value, dict):
            pairs = [[self._value(k, where), self._value(v, where)] for k, v in value.items()]
            return {"dict": pairs}
        if _is_ours(value):
            return {"estimator": self.estimator(value)}
        name = type(value).__name__
        if name in _RECORDS:
            fields = {key: self._value(v, f"{name}.{key}") for key, v in vars(value).items()}
            return {"record": fields, "class": name}
        raise TypeError(
            f"{where} is a {type(value).__name__}, which is not plain data and can't be written. "
            f"Set it to None, or deploy the model with joblib."
        )

    def _array(self, array, where):
        if array.dtype.kind in _DTYPES:
            key = f"{len(self.arrays)}.{where}"
            self.arrays[key] = np.ascontiguousarray(array)
            return {"array": key}
        items = array.tolist()
        if array.ndim == 1 and all(isinstance(item, str) for item in items):
            return {"strings": items, "dtype": "O" if array.dtype.kind == "O" else "U"}
        raise TypeError(
            f"{where} has labels that are neither strings nor numbers, and can't be written."
        )


class DataReader:
    """Builds estimators from what a DataWriter made of them.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Of the writer.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def estimator(self, content: dict) -> Any:
        """Return the estimator; KeyError, TypeError and the like say that it is not one."""
        name = content["class"]
        if name not in _CLASSES:
            raise TypeError(f"{name!r} is not an estimator of sklearn_taskres")
        make = getattr(sklearn_taskres, name)
        params = {
            key: self._value(value)
            for key, value in content["params"].items()
            if key not in _OF_THE_MACHINE
        }
        estimator = make(**params)
        for key, value in content["fitted"].items():
            if not (key in _PRIVATE or (key.endswith("_") and key[0] != "_")) or key in params:
                raise TypeError(f"{key!r} is not what a fit sets")
            setattr(estimator, key, self._value(value))
        return estimator

    def _value(self, value):
        if not isinstance(value, dict):
            return value
        ((kind, content), *rest) = value.items()
        if kind == "array":
            return self.arrays[content]
        if kind == "strings":
            return np.array(content, dtype=dict(rest)["dtype"])
        if kind == "list":
            return [self._value(item) for item in content]
        if kind == "tuple":
            return tuple(self._value(item) for item in content)
        if kind == "dict":
            return {self._value(key): self._value(item) for key, item in content}
        if kind == "record":
            fields = {key: self._value(item) for key, item in content.items()}
            return _RECORDS[dict(rest)["class"]](**fields)
        if kind == "estimator":
            return self.estimator(content)
        raise TypeError(f"{kind!r} is not a kind of value")


def _is_ours(value):
    """Whether a value is one of our estimators itself, and not of a class derived from one."""
    name = type(value).__name__
    return name in _CLASSES and type(value) is getattr(sklearn_taskres, name)
