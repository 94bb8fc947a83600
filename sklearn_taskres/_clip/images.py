"""Any image that users have, paths, bytes, PIL images or arrays, as PIL images of mode RGB."""

import contextlib
import functools
import io
import os
import stat
import threading

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

#: What an image may be, for messages.
_KINDS = (
    "a path, bytes, a PIL image, or an array of shape (H, W), (H, W, 3) or (3, H, W), uint8 or "
    "float in [0, 1]"
)
#: Formats that are decoded. Others are rare; some of their decoders start other programs (EPS), or
#: are little tested. AVIF and HEIF need a Pillow, or a plugin, that has them.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM", "JPEG2000", "AVIF", "HEIF")
#: Bytes a pixel that no file needs more of: a file that is larger than so much and Pillow's limit
#: of pixels is refused unread.
_FILE_BYTES_PER_PIXEL = 4
#: Passes over the pixels that a JPEG may ask for; ten are usual, and a file of a megabyte could ask
#: for a hundred thousand.
_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"
#: Images of more pixels are decoded one at a time, so that threads do not multiply their memory.
_LARGE_PIXELS = 1 << 24
_ONE_LARGE_IMAGE = threading.Lock()
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

    def __init__(self, failures):
        super().__init__(failures)
        self.failures = failures

    @property
    def indices(self):
        return [index for index, _, _ in self.failures]

    def __str__(self):
        lines = [
            f"  {index}: {name}: {why}" for index, name, why in self.failures[:_NAMED_FAILURES]
        ]
        more = len(self.failures) - len(lines)
        listed = "\n".join(lines) + (f"\n  and {more} more" if more else "")
        return (
            f"Can't read {len(self.failures)} of the images in X. Repair them, or leave out the "
            f"rows in this error's 'indices':\n{listed}"
        )


def list_images(X):
    """Return the images that `X` holds, as a sequence of what `read_image` takes.

    Parameters
    ----------
    X : sequence or array
        List, tuple, Series or 1-d array of images, or images stacked to (n, H, W), (n, H, W, 3) or
        (n, 3, H, W).

    Returns
    -------
    sequence
        One item an image; the items of a stack are views of it.

    Raises
    ------
    ValueError
        If X is empty, is one image, or is shaped like something else.
    """
    if isinstance(X, str | bytes | os.PathLike | Image.Image) or not hasattr(X, "__len__"):
        raise ValueError(
            f"X must be a sequence of images. Got {_kind(X)} instead: put a single image into a "
            f"list, [image]."
        )
    X = _from_torch(X)
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


def _check_stack(X):
    """Refuse a numeric array that is not a stack of images."""
    if X.ndim == 3 and X.shape[-1] == 3:
        raise ValueError(
            f"X of shape {X.shape} is one colour image, and X must be a sequence of images. "
            f"Pass X[None]."
        )
    if X.ndim not in (3, 4):
        raise ValueError(
            f"X of shape {X.shape} is not a stack of images, which has the shape (n, H, W), "
            f"(n, H, W, 3) or (n, 3, H, W). Give flattened images their shape back with X.reshape."
        )


def read_image(image):
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
    if isinstance(image, str | os.PathLike):
        return _decode(read_file(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return _decode(bytes(image))
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    image = _from_torch(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise ValueError(f"not an image, which is {_KINDS}")


def describe_image(image):
    """Return a short name of an image for messages: its path, or what it is."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else _kind(image)


def _kind(image):
    shape = getattr(image, "shape", None)
    return type(image).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")


def read_file(path):
    """Return the bytes of an image file.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If it can't be read, is no regular file (a pipe would be waited for), or is larger than any
        image that would be decoded.
    """
    try:
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            raise ValueError("a folder; load_image_folder lists the images in one")
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("not a regular file")
        _refuse_size(state.st_size)
        with open(path, "rb") as file:
            return file.read(state.st_size + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _decode(content):
    """Decode a file's bytes, turning Pillow's many errors into one."""
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            _refuse_scans(image, content)
            with _room_for(image):
                return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError("not an image file of a supported format") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # broken files make decoders raise SyntaxError, struct.error, …
        raise ValueError(str(error) or type(error).__name__) from error


@functools.cache
def _formats():
    """Those of `_FORMATS` that this Pillow has, in order."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _room_for(image):
    """Return what to hold while an image is decoded; refuse one of too many pixels."""
    n_pixels = image.width * image.height
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and n_pixels > limit:
        raise ValueError(
            f"{image.width} x {image.height} pixels, more than Pillow's safety limit of {limit}; "
            f"raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        )
    return _ONE_LARGE_IMAGE if n_pixels > _LARGE_PIXELS else contextlib.nullcontext()


def _refuse_scans(image, content):
    if image.format in ("JPEG", "MPO") and content.count(_START_OF_SCAN) > _JPEG_SCANS:
        raise ValueError(f"a JPEG of more than {_JPEG_SCANS} scans, which would take very long")


def _refuse_size(n_bytes):
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and n_bytes > limit * _FILE_BYTES_PER_PIXEL:
        raise ValueError(
            f"a file of {n_bytes} bytes, larger than an image within Pillow's safety limit; raise "
            f"PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        )


def _to_rgb(image):
    """Upright RGB copy of a PIL image of any mode."""
    is_grey_16 = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in _GREY_16_FORMATS
    )
    if image.mode in ("I", "F") and not is_grey_16:
        raise ValueError(
            f"mode {image.mode!r} does not say which value is white; pass an array, uint8 or float "
            f"in [0, 1]"
        )
    image = ImageOps.exif_transpose(image)
    if is_grey_16:
        grey = np.asarray(image).astype(np.int32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_torch(X):
    """Array of a torch tensor, without importing torch; anything else as it is."""
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
    return np.rint(array * 255).astype(np.uint8)
