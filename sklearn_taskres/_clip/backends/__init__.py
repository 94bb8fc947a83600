"""Who computes the image tower: torch, OpenVINO or ONNX Runtime, behind two small protocols."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

__all__ = ["Engine", "ImageEncoder"]


class ImageEncoder(Protocol):
    """What a pass over images asks of an encoder; its methods may be called from any thread."""

    image_size: int | tuple[int, int]

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return the pixels, uint8 (height, width, 3), that the tower sees of an image of RGB."""

    def encode_images(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Return raw embeddings, float32 (b, d), of b preprocessed images."""


class Engine(Protocol):
    """What a module that knows an inference engine offers: `openvino` and `onnx` are the two.

    It imports its library inside functions. A tower, whatever an engine takes for one, makes
    float32 rows (b, d) of uint8 pixels (b, height, width, 3), b being any number.
    """

    NAME: str
    #: Precisions in which it computes on a processor that has units for them.
    PRECISIONS: tuple[str, ...]
    #: Packages that computing needs, and those that converting needs besides torch.
    PACKAGES: tuple[str, ...]
    CONVERTING: tuple[str, ...]

    def from_onnx(self, content: bytes) -> Any:
        """Return the tower of an ONNX file's bytes, in memory."""

    def write(self, tower: Any, folder: Path) -> None:
        """Write a tower into a folder, as data."""

    def read(self, folder: Path) -> Any:
        """Return the tower that `write` wrote."""

    def compiled(
        self, tower: Any, precision: str, n_threads: int | None
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function of pixels that a tower is; n_threads None is the engine's choice."""
