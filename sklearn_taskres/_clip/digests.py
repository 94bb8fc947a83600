"""What images, files and prompts are known by: digests of content, and keys of embeddings."""

import functools
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .files import as_value_error, check_file
from .images import open_image

#: A file younger than this may be rewritten without a trace in its times: FAT counts in 2 s.
_RACY_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000
_READERS = 8
_KEY_BYTES, _DIGEST_BYTES = 20, 32


def content_digest(image):
    """Return the digest of what an image holds, equal only if `read_image` gives the same.

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
    ValueError
        If it can't be read; of a file only its bytes are.
    """
    with as_value_error():
        if is_path(image):
            check_file(image)  # or else a pipe would be waited for, and a hole of a terabyte read
            with Path(image).open("rb") as file:
                return hashlib.file_digest(file, functools.partial(_hash, "bytes")).digest()
        if isinstance(image, bytes | bytearray | memoryview):
            return digest_of_read(bytes(image), None)
    with open_image(image) as (upright, content):
        return digest_of_read(content, upright)


def digest_of_read(content, upright):
    """Return what `content_digest` gives for an image of which `open_image` gave these two."""
    if content is not None:
        return _hash("bytes", content).digest()
    return _hash("pixels", repr(upright.size).encode(), upright.tobytes()).digest()


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


def file_key(image, folder):
    """Return what a file's digest is kept under: another key as soon as the file changes, bytes.

    `folder` is what a relative path starts from. None for an image that is not a path.
    """
    state = _state(image)
    return None if state is None else _key(state, image, folder)


def digest_all(items, folder):
    """Digests of (image, file key) pairs, each with whether the key will stand for it."""
    digest_one = functools.partial(_digest_one, folder)
    if len(items) < 2 or any(key is None for _, key in items):  # PIL images know no threads
        return list(map(digest_one, items))
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(digest_one, items))


def _digest_one(folder, item):
    image, key = item
    begun = time.time_ns()
    try:
        digest = content_digest(image)
    except ValueError:  # the reader of images reports it
        return None, False
    state = _state(image)
    is_same = state is not None and _key(state, image, folder) == key
    return digest, is_same and _shows_changes(state, since=begun)


def _state(image):
    if not is_path(image):
        return None
    try:
        return os.stat(image)
    except Exception:  # a null byte in the path, or a path-like object that raises
        return None


def _key(state, image, folder):
    times = b"%d/%d/%d/%d/%d/" % (
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
        state.st_ino,
        state.st_dev,
    )
    path = os.path.join(folder, os.fsencode(image))
    return hashlib.blake2b(times + path, digest_size=_KEY_BYTES, person=b"file").digest()


def _shows_changes(state, since):
    """Whether a file that changes from the time `since` on gets other times than it has."""
    is_made_up = state.st_ctime_ns % _SECOND_NS == 0  # set by a tool, or from a clock of seconds
    return not is_made_up and max(state.st_mtime_ns, state.st_ctime_ns) < since - _RACY_NS


def working_folder():
    """Return the folder that relative paths start from, as bytes; b"" if it was removed."""
    try:
        return os.getcwdb()
    except OSError:
        return b""


def is_path(image):
    return isinstance(image, str | os.PathLike)
