"""What featurizers share: names of the columns, and one CLIP that is found, checked and loaded."""

import os
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin

from .._persistence import VersionStamp
from .._typing import Device
from .identity import names_its_weights

if TYPE_CHECKING:
    from .backends.torch.pretrained import ModelSource


class EmbeddingTransformer(TransformerMixin, VersionStamp):
    """Base of all featurizers: transformers whose rows are embeddings."""

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Return the names of the columns, the class's name in lower case and a number.

        Parameters
        ----------
        input_features : None or array-like
            Ignored.

        Returns
        -------
        ndarray of shape (d,), object
        """
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(self._width())], dtype=object)

    def _width(self) -> int:
        """Return the number of elements of an embedding, d."""
        raise NotImplementedError


class CLIPTransformer(EmbeddingTransformer):
    """Base of the two featurizers of a CLIP: parameters that name it, and ways to get at it."""

    def describe_model(self) -> str:
        """Return the arguments that name the CLIP, without `pretrained` if the name says all."""
        name = repr(self.model_name)
        return name if names_its_weights(self.model_name) else f"{name}, {self.pretrained!r}"

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        places = _absolute_places(self.model_name, self.pretrained)
        return {**state, "_places": {**state.get("_places", {}), **places}} if places else state

    def _model(self) -> tuple[str, str | None]:
        """Return `model_name` and `pretrained`, relative paths as they can be found.

        The working folder comes first, then the one in which the estimator was pickled.
        """
        places = getattr(self, "_places", {})
        if self.pretrained is None:
            return _found(self.model_name, places), None
        return _found(self.model_name, places), _found(os.fspath(self.pretrained), places)

    def _width(self) -> int:
        return self._source().embedding_size

    def _source(self) -> "ModelSource":
        """Find what the model's name stands for; nothing is loaded."""
        from .backends.torch.pretrained import find_model

        return find_model(*self._model())

    def _encoder(self, device: Device = None) -> Any:
        from .backends.torch.encoder import load_encoder

        device = self.device if device is None else device
        return load_encoder(*self._model(), device=device, precision=self.precision)


def _absolute_places(*names: str | PathLike[str] | None) -> dict[str, str]:
    """Map relative paths of files, and "local-dir:" of folders, that exist here to absolute ones.

    A name without a folder and an ending may be a tag, and is left alone.
    """
    places = {}
    for name in [os.fspath(name) for name in names if name]:
        scheme, path = _split(name)
        may_be_tag = not scheme and os.path.basename(path) == path == os.path.splitext(path)[0]
        if not (may_be_tag or os.path.isabs(path)) and os.path.exists(path):
            places[name] = scheme + os.path.abspath(path)
    return places


def _found(name: str, places: dict[str, str]) -> str:
    """Return a name, or the absolute path that stands for it if its own leads nowhere."""
    is_here = os.path.exists(_split(name)[1])
    return name if is_here else places.get(name, name)


def _split(name: str) -> tuple[str, str]:
    """Return "local-dir:" or "", and the path behind it."""
    scheme = "local-dir:" if name.startswith("local-dir:") else ""
    return scheme, name.removeprefix(scheme)
