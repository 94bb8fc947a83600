"""Image towers as ONNX: torch traces what it computes, from pixels on, for batches of any size."""

import contextlib
import logging
from typing import Any

import numpy as np
import torch

from .encoder import Encoder
from .pretrained import ModelSource

#: Of the ONNX operators that are written.
OPSET = 18


class PixelTower(torch.nn.Module):
    """An encoder's image tower in float32: uint8 (b, height, width, 3) to raw rows (b, d)."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.model = encoder.model
        mean, std = encoder._mean.cpu(), encoder._std.cpu()  # (3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels):
        """Return raw embeddings, float32 (b, d)."""
        normalised = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self.model.encode_image(normalised, normalize=False)


def float32_encoder(source: ModelSource) -> Encoder:
    """Return an encoder of a ModelSource, on the CPU, for this one use: nothing keeps it."""
    return Encoder(source, torch.device("cpu"), "float32", "float32")


def as_onnx(module: torch.nn.Module, image_size: tuple[int, int], output: str) -> Any:
    """Return an onnx.ModelProto of a module that takes uint8 pixels (b, height, width, 3).

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, without gradients.
    image_size : pair of int
        Height and width.
    output : str
        Name of what it returns; its input is called "pixels".
    """
    example = torch.zeros((2, *image_size, 3), dtype=torch.uint8)
    with torch.no_grad(), _silence():
        any_size = {0: torch.export.Dim("n_images")}
        program = torch.export.export(module, (example,), dynamic_shapes=(any_size,))
        exported: Any = torch.onnx.export(
            program,
            (example,),
            dynamo=True,
            input_names=["pixels"],
            output_names=[output],
            opset_version=OPSET,
            verbose=False,
        )
    return _with_named_batch(exported.model_proto)


def _with_named_batch(model):
    """Call the size of a batch n_images, which torch gives a name of its own."""
    old = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == old:
                dim.dim_param = "n_images"
    return model


@contextlib.contextmanager
def _silence():
    """Keep to itself what torch's exporter logs about its own progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_images(image_size: tuple[int, int]) -> np.ndarray:
    """Return images to compare on, uint8 (5, height, width, 3): of noise, of blocks and of grey."""
    rng = np.random.default_rng(0)
    height, width = image_size
    noise = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    blocks = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    grey = np.full((1, height, width, 3), 128, dtype=np.uint8)
    return np.concatenate([noise, blocks[:, rows][:, :, columns], grey])
