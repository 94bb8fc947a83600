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
#: OpenVINO's mark of an operation that keeps its precision, whatever the hint. New versions heed it
#: in towers that are read from the disk only; others are a little less exact in bfloat16.
_PRECISE = "precise_0"


def from_onnx(content: bytes) -> Any:
    """Return the tower of an ONNX file's bytes."""
    import openvino

    tower = openvino.Core().read_model(content)
    _keep_norms_precise(tower)
    return tower


def _keep_norms_precise(tower):
    """Mark norms, with their scales and shifts, and the sums that they read.

    Such sums are the residual stream of a transformer, whose rounding is most of the error of an
    embedding in bfloat16.
    """
    norms = [operation for operation in tower.get_ops() if operation.get_type_name() == "MVN"]
    for norm in norms:
        marked = [norm, *_readers(norm, "Multiply")]
        marked += _readers(marked[-1], "Add")
        read = norm.input_value(0).get_node()
        marked += [read] if read.get_type_name() == "Add" else []
        for operation in marked:
            operation.get_rt_info()[_PRECISE] = ""


def _readers(operation, kind):
    """Return the operations of a kind that read what another one computes."""
    readers = [reader.get_node() for reader in operation.output(0).get_target_inputs()]
    return [reader for reader in readers if reader.get_type_name() == kind]


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
