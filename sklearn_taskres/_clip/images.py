"""Any image that users have, paths, bytes, PIL images or arrays, as PIL images of mode RGB."""

import collections.abc
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from .._rows import is_missing
from .files import as_value_error, bytes_to_read, file_content, opened
from .memory import BUDGET, MemoryBudget

#: What an image may be, for messages.
_KINDS = (
    "a path, bytes, a PIL image, or an array of shape (H, W), (H, W, 3) or (3, H, W), uint8 or "
    "float in [0, 1]"
)
#: Pixels that are converted at once: next to an image there is one other, and not three.
_BAND_PIXELS = 1 << 20
#: Files that take more are decoded one at a time.
_LARGE_BYTES = 1 << 27
_ONE_LARGE_FILE = MemoryBudget(0)
#: Orientation in EXIF to what makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Formats whose mode "I" holds 16 bits of grey, however Pillow's version calls them.
_GREY_16_FORMATS = ("PNG", "PPM")

#: Unreadable images that a message names; the error's `failures` holds all of them.
_NAMED_FAILURES = 10


class UnreadableImagesError(ValueError):
    """Some images could not be read.

    Attributes
    ----------
    failures : list of (int, str, str)
        Index, path or kind, and reason of each.
    indices : list of int
        The indices alone: ``numpy.delete(X, error.indices)`` is what can be read.
    """

    def __init__(self, failures: list[tuple[int, str, str]]) -> None:
        super().__init__(failures)
        self.failures = failures

    @property
    def indices(self) -> list[int]:
        return [index for index, _, _ in self.failures]

    def __str__(self) -> str:
        lines = [
            f"  {index}: {name}: {why}" for index, name, why in self.failures[:_NAMED_FAILURES]
        ]
        more = len(self.failures) - len(lines)
        listed = "\n".join(lines) + (f"\n  … and {more} more (see error.failures)" if more else "")
        return (
            f"Can't read {len(self.failures)} of the images in X. Repair them, or leave out the "
            f"rows in this error's 'indices', as load_image_folder(on_error='warn') does; its "
            f"'failures' list (index, path, reason) of all:\n{listed}"
        )


def list_images(X: Any) -> NDArray[Any] | list[Any]:
    """Return the images that `X` holds, as a sequence of what `read_image` takes.

    Parameters
    ----------
    X : sequence or array
        List, tuple, Series or 1-d array of images, or images stacked to (n, H, W), (n, H, W, 3) or
        (n, 3, H, W).

    Returns
    -------
    sequence
        One item per image; the items of a stack are views of it.

    Raises
    ------
    ValueError
        If X is empty, is one image, or is shaped like something else.
    """
    if isinstance(X, collections.abc.Set | collections.abc.Mapping):
        raise ValueError(
            f"X must be a sequence of images, in the order of their labels. Got {_kind(X)} "
            f"instead: pass a list."
        )
    if isinstance(X, str | bytes | os.PathLike | Image.Image) or not hasattr(X, "__len__"):
        raise ValueError(
            f"X must be a sequence of images. Got {_kind(X)} instead: put a single image into a "
            f"list, [image]."
        )
    with as_value_error("X can't be read: "):
        X = _only_column(from_torch(X))
    if isinstance(X, np.ndarray) and X.dtype.kind in "buifc":
        _check_stack(X)
    elif len(getattr(X, "shape", (1,))) != 1:
        raise ValueError(
            f"X must be one column of images. Got {type(X).__name__} of shape {X.shape} instead: "
            f"select the column that holds them."
        )
    if len(X) == 0:
        raise ValueError("X holds no image: pass at least one.")
    return X if isinstance(X, np.ndarray) else list(X)


def _only_column(X):
    """Take the column of a data frame, or of an array of objects, that has only one."""
    is_column = tuple(getattr(X, "shape", ()))[1:] == (1,)
    is_stack = isinstance(X, np.ndarray) and X.dtype.kind in "buifc"
    return np.asarray(X, dtype=object)[:, 0] if is_column and not is_stack else X


def _check_stack(X):
    """Refuse a numeric array that is not a stack of images."""
    if X.ndim == 3 and X.shape[-1] == 3:
        raise ValueError(
            f"X of shape {X.shape} is one colour image, and X must be a sequence of images. "
            f"Pass X[None]."
        )
    if X.ndim == 1 or X.shape[1:] == (1,):
        raise ValueError(
            f"X holds numbers ({X.dtype}), not images. Pass the column of paths or images."
        )
    if X.ndim not in (3, 4):
        raise ValueError(
            f"X of shape {X.shape} is not a stack of images, which has the shape (n, H, W), "
            f"(n, H, W, 3) or (n, 3, H, W). Give flattened images their shape back with X.reshape."
        )


def read_image(image: Any) -> Image.Image:
    """Return an image as a PIL image of mode RGB, upright by its EXIF orientation.

    Transparent images are laid on white, the page they were drawn for; 16-bit grey is scaled to 8
    bits; of an animation the first frame is taken. `image` itself is left as it is, and no file is
    left open.

    Parameters
    ----------
    image : str, path-like, bytes, PIL.Image.Image, ndarray or torch.Tensor
        See `list_images`.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ValueError
        If it cannot be read, with the reason.
    """
    with contextlib.ExitStack() as block, as_value_error():
        return _read(image, block)[0]


@contextlib.contextmanager
def open_image(image: Any) -> collections.abc.Iterator[tuple[Image.Image, bytes | None]]:
    """Read an image for the block alone, and keep its memory reserved there; see `read_image`.

    Yields
    ------
    upright : PIL.Image.Image
        Mode RGB.
    content : bytes or None
        What a file holds, or bytes; None for an image that is pixels.
    """
    with contextlib.ExitStack() as block:
        with as_value_error():
            upright, content = _read(image, block)
        block.callback(upright.close)  # before others get its memory, whoever still refers to it
        yield upright, content


def _read(image, block):
    """Upright RGB and content of an image, its memory reserved until the block ends."""
    if isinstance(image, str | os.PathLike):
        content = file_content(image)
    elif isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
    else:
        return _from_pixels(image, block), None
    with contextlib.closing(opened(content)) as found:
        n_bytes = bytes_to_read(found)
        block.enter_context(BUDGET.reserve(n_bytes))
        if n_bytes < _LARGE_BYTES:
            return _upright_file(found), content
        # The C library keeps freed memory for the thread that had it, so all have one for this.
        with _ONE_LARGE_FILE.reserve(n_bytes), ThreadPoolExecutor(1) as pool:
            return pool.submit(_upright_file, found).result(), content


def _upright_file(image):
    with contextlib.closing(image):  # before it is turned: two at one time, and not three
        rgb, turn = _to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _from_pixels(image, block):
    image = from_torch(image)
    if isinstance(image, Image.Image):
        block.enter_context(BUDGET.reserve(bytes_to_read(image)))
        rgb, turn = _to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    if isinstance(image, np.ndarray):
        block.enter_context(BUDGET.reserve(3 * image.nbytes))
        return _from_array(np.asarray(image))
    if is_missing(image):
        raise ValueError(f"a missing value, not an image, which is {_KINDS}")
    raise ValueError(f"not an image, which is {_KINDS}")


def describe_image(image: Any) -> str:
    """Return a short name of an image for messages: its path, or what it is."""
    if isinstance(image, str | os.PathLike):
        with contextlib.suppress(Exception):  # a path-like object may raise anything
            return os.fsdecode(image)
    return _kind(image)


def _kind(image):
    shape = getattr(image, "shape", None)
    return type(image).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")


def _to_rgb(image):
    """RGB copy of a PIL image of any mode, and the transposition that makes it upright, or None."""
    is_grey_16 = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in _GREY_16_FORMATS
    )
    if image.mode in ("I", "F") and not is_grey_16:
        raise ValueError(
            f"mode {image.mode!r} does not say which value is white; pass an array, uint8 or float "
            f"in [0, 1]"
        )
    if 0 in image.size:
        raise ValueError(f"an image of {image.width} x {image.height}, which has no pixel")
    image.load()  # the orientation may stand behind the pixels
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    if is_grey_16:
        return _in_bands(_eight_bit_grey, image), turn
    if image.has_transparency_data:
        return _in_bands(_on_white, image), turn
    return image.convert("RGB"), turn


def _in_bands(convert, image):
    """RGB image that `convert` makes of one, some rows at a time."""
    rgb, rows = Image.new("RGB", image.size), max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(convert(band), (0, top))
    return rgb


def _eight_bit_grey(image):
    grey = np.asarray(image).astype(np.int32)
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257


def _on_white(image):
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def from_torch(X):
    """Return the array of a torch tensor, without importing torch; anything else as it is."""
    if not type(X).__module__.startswith("torch"):
        return X
    X = X.detach().cpu()
    return (X.float() if X.is_floating_point() else X).numpy()


def _from_array(array):
    if array.ndim == 3 and array.shape[2] != 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)  # (3, H, W) → (H, W, 3)
    if array.ndim != 2 and array.shape[2:] != (3,):
        raise ValueError(
            f"an array of shape {array.shape}, which is none of (H, W), (H, W, 3), (3, H, W)"
        )
    if array.size == 0:
        raise ValueError(f"an array of shape {array.shape}, which has no pixel")
    if array.dtype != np.uint8:
        array = _eight_bit(array)
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _eight_bit(array):
    """Round floats in [0, 1] to bytes; refuse anything whose white is a guess."""
    if array.dtype.kind != "f":
        raise ValueError(f"an array of {array.dtype}; make it uint8, or float in [0, 1]")
    if not np.isfinite(array).all():
        raise ValueError("an array with NaN or infinite values")
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"a float array with values from {low:.4g} to {high:.4g}; scale it to [0, 1], dividing "
            f"by the value that stands for white, or make it uint8"
        )
    return np.rint(
        array.astype(np.promote_types(array.dtype, np.float32), copy=False) * 255
    ).astype(np.uint8)
