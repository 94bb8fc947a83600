"""What images, files and prompts are known by: digests of content, and keys of embeddings."""

import collections
import functools
import hashlib
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .images import _from_torch

#: A file younger than this may be rewritten without a trace in its times: FAT counts in 2 s.
_RACY_NS = 2_000_000_000
_READERS = 8
_KEY_BYTES, _DIGEST_BYTES = 20, 32


def content_digest(image):
    """Return the digest of what an image holds, equal only where `read_image` gives the same.

    Parameters
    ----------
    image : str, path-like, bytes, PIL.Image.Image, ndarray or torch.Tensor
        A file has the digest of its bytes, wherever it lies. Its bytes are streamed.

    Returns
    -------
    bytes
        Of length 32.

    Raises
    ------
    OSError
        If a file can't be read, or is none: a pipe or a device is not waited for.
    Exception
        Whatever Pillow raises for a broken image.
    """
    if is_path(image):
        if not stat.S_ISREG(os.stat(image).st_mode):
            raise OSError(f"{os.fspath(image)!r} is not a regular file")
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, functools.partial(_hash, "bytes")).digest()
    if isinstance(image, bytes | bytearray | memoryview):
        return _hash("bytes", image).digest()
    if isinstance(image, Image.Image):
        return _pil_digest(image)
    array = np.asarray(_from_torch(image))
    if array.dtype.hasobject:
        raise TypeError(f"{type(image).__name__} is not an image")
    about = repr((array.dtype.str, array.shape)).encode()
    pixels = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _hash("array", _hash("about", about).digest(), pixels).digest()


def text_digest(text):
    """Return the digest of a prompt, bytes of length 32; it is never that of an image."""
    return _hash("text", text.encode("utf-8", "surrogatepass")).digest()


def embedding_keys(digests, fingerprint, view=0):
    """Return what embeddings are kept under.

    Parameters
    ----------
    digests : iterable of (bytes or None)
        From `EmbeddingCache.digests`, `content_digest` or `text_digest`.
    fingerprint : str
        Of the encoder, with all that decides about its embeddings.
    view : object, default=0
        Whatever else decides, as something whose repr says all: the view's number, augmentation and
        seed; or which output of the text tower is meant.

    Returns
    -------
    list of (bytes or None)
        None for a digest that is None.
    """
    begun = hashlib.blake2b(
        repr((fingerprint, view)).encode(), digest_size=_KEY_BYTES, person=b"embedding"
    )

    def key(digest):
        ended = begun.copy()
        ended.update(digest)
        return ended.digest()

    return [None if digest is None else key(digest) for digest in digests]


def _hash(kind, *parts):
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=kind.encode())
    for part in parts:
        digest.update(part)
    return digest


def _pil_digest(image):
    """Digest of a PIL image: pixels, and all that `read_image` looks at beside them."""
    pixels = image.tobytes()  # loads the image, which fills in the rest
    palette = image.palette and (image.palette.mode, image.getpalette(None))
    transparency = image.info.get("transparency")
    orientation = image.getexif().get(0x0112)
    about = (image.mode, image.size, image.format, palette, transparency, orientation)
    return _hash("pil", _hash("about", repr(about).encode()).digest(), pixels).digest()


class _FileStamp(collections.namedtuple("_FileStamp", ["key", "changed_ns"])):
    """State of a file: it has another key as soon as it changes."""


def file_stamp(image, folder):
    """Stamp of an image that is a path, relative to `folder`; None for any other."""
    if not is_path(image):
        return None
    try:
        state = os.stat(image)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None
    times = f"{state.st_size}/{state.st_mtime_ns}/{state.st_ctime_ns}/{state.st_ino}/"
    path = os.fsencode(os.path.join(folder, os.fsdecode(image)))
    key = hashlib.blake2b(times.encode() + path, digest_size=_KEY_BYTES, person=b"file").digest()
    return _FileStamp(key, max(state.st_mtime_ns, state.st_ctime_ns))


def digest_all(items, folder):
    """Digests of (image, stamp) pairs, each with whether the stamp will stand for it."""
    digest_one = functools.partial(_digest_one, folder)
    if len(items) < 2 or any(stamp is None for _, stamp in items):  # PIL images know no threads
        return list(map(digest_one, items))
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(digest_one, items))


def _digest_one(folder, item):
    image, stamp = item
    begun = time.time_ns()
    try:
        digest = content_digest(image)
    except Exception:  # Pillow raises many kinds, and the reader of images reports them
        return None, False
    is_old = stamp is not None and stamp.changed_ns < begun - _RACY_NS
    return digest, is_old and file_stamp(image, folder) == stamp


def is_path(image):
    return isinstance(image, str | os.PathLike)
