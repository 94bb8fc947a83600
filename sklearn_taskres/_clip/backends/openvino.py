"""OpenVINO computes the image tower: float32, or bfloat16 if the processor has units for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAME = "openvino"
PRECISIONS = ("float32", "bfloat16")
PACKAGES = ("openvino", "platformdirs")
CONVERTING = ("onnx", "onnxscript")

_FILE = "tower.xml"  # and tower.bin, its weights
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def from_onnx(content: bytes) -> Any:
    """Return the tower of an ONNX file's bytes."""
    import openvino

    return openvino.Core().read_model(content)


def write(tower: Any, folder: Path) -> None:
    """Write a tower into a folder, in OpenVINO's own format and in float32."""
    import openvino

    openvino.save_model(tower, folder / _FILE, compress_to_fp16=False)


def read(folder: Path) -> Any:
    """Return the tower in a folder; its weights stay on the disk until they are used."""
    import openvino

    return openvino.Core().read_model(folder / _FILE)


def compiled(
    tower: Any, precision: str, n_threads: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of pixels, uint8 (b, height, width, 3), to rows, float32 (b, d)."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if n_threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(n_threads)
    model = openvino.Core().compile_model(tower, "CPU", options)

    def run(pixels: np.ndarray) -> np.ndarray:
        request = model.create_infer_request()  # one a call, so that threads don't meet
        return np.array(request.infer([pixels])[0], dtype=np.float32)

    return run
