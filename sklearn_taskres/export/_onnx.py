"""Pixels to probabilities in one ONNX graph: image tower, unit rows, linear head and softmax."""

import json
import os
from typing import Any

import numpy as np

from .._persistence import written_whole
from .._version import __version__
from ._linear import LinearMap, linear_map, parts_of


def export_onnx(pipeline: Any, path: str | os.PathLike) -> None:
    """Write a fitted pipeline as one ONNX file, which needs neither torch nor this package.

    The graph has the input "pixels", uint8 (n_images, height, width, 3), resized and cropped, and
    the output "probabilities", float32 (n_images, n_classes); n_images is any number. Its metadata
    has "classes" and "preprocessing" (JSON), "sklearn_taskres" (the version) and "opset". The
    :doc:`user guide </guide/saving>` has the few lines that make pixels of a photo.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        A fitted pipeline of CLIPFeaturizer and a classifier of this package.
    path : str or path-like
        Where to. The file is as large as the image tower in float32, and at most 2 GB.

    Raises
    ------
    TypeError
        If the pipeline has other steps, or its classifier is not one linear map.
    ValueError
        If labels are neither strings nor numbers, or torch can't export the tower.
    ImportError
        If onnx or onnxscript is missing, which ``sklearn-taskres[onnx]`` installs.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Notes
    -----
    Takes some seconds, torch, and about four times the memory of the model. Probabilities are the
    pipeline's in float32 to 1e-4.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import make_taskres_pipeline
    >>> from sklearn_taskres.export import export_onnx
    >>> images, y = load_digits().images[:20] / 16, load_digits().target[:20]
    >>> model = make_taskres_pipeline("glyph-clip", class_names=list("0123456789"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model.fit(images, y), f"{folder}/digits.onnx")
    """
    from .._clip.backends.engines import find_engine, require

    featurizer, classifier = parts_of(pipeline)
    if featurizer is None:
        raise TypeError(
            f"export_onnx takes a pipeline of CLIPFeaturizer and a classifier, from images on. Got "
            f"{type(classifier).__name__}: use to_sklearn and skl2onnx for a classifier alone."
        )
    head = linear_map(classifier)
    if head.classes.dtype.kind not in "biufU" and not all(
        isinstance(label, str) for label in head.classes
    ):
        raise ValueError(
            f"Labels must be strings or numbers to be written into a file. Got {head.classes[0]!r}."
        )
    require(find_engine("onnx"), converting=True)
    content = _exported(featurizer, head)
    with written_whole(path) as part:
        part.write_bytes(content)


def _exported(featurizer, head):
    """Bytes of the ONNX file."""
    import torch

    from .._clip.backends.torch.conversion import OPSET, PixelTower, as_onnx, float32_encoder

    source = featurizer._source()
    size = source.preprocessing["size"]
    pair = (size, size) if isinstance(size, int) else tuple(size)
    tower = PixelTower(float32_encoder(source))
    try:
        model = as_onnx(_classify(torch, tower, head, featurizer.normalize), pair, "probabilities")
    except Exception as error:  # torch's exporter raises many kinds
        why = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise ValueError(f"torch can't export the image tower of {source.name!r}: {why}") from error
    about = {
        "classes": json.dumps(head.classes.tolist()),
        "preprocessing": json.dumps(source.preprocessing),
        "model": source.name if ":" not in source.name else source.name.partition(":")[0],
        "sklearn_taskres": __version__,
        "opset": str(OPSET),
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def _classify(torch: Any, tower: Any, head: LinearMap, is_normalized: bool) -> Any:
    """Return the module of pixels to probabilities."""

    class Classify(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = tower
            # What all classes have in common changes no probability, and would cost digits.
            coef, bias = (array - array.mean(axis=0) for array in (head.coef, head.intercept))
            shift = np.zeros_like(head.coef[0]) if head.shift is None else head.shift
            for name, array in {"coef": coef, "bias": bias, "shift": shift}.items():
                self.register_buffer(name, torch.tensor(np.asarray(array, dtype=np.float32)))

        def forward(self, pixels):
            rows = self.tower(pixels)
            if is_normalized:
                rows = torch.nn.functional.normalize(rows, dim=1)
            rows = rows + self.shift
            if head.is_unit:
                rows = torch.nn.functional.normalize(rows, dim=1)
            return torch.softmax(rows @ self.coef.T + self.bias, dim=1)

    return Classify().eval()
