"""Embeddings kept from one call to the next, in memory or in a folder: data, never code."""

import collections
import contextlib
import dataclasses
import multiprocessing
import numbers
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._messages import warn_once
from .._typing import Images
from .backends.towers import FOLDER as TOWERS_FOLDER
from .backends.towers import Towers
from .claims import Claims
from .digests import (
    content_digest,
    digest_all,
    embedding_keys,
    file_key,
    is_path,
    text_digest,
    working_folder,
)
from .stores import DIGESTS, EMBEDDINGS, Store, batched
from .stores.memory import MEMORY, MEMORY_BYTES, MemoryStore
from .stores.process import IN_USE, hold_still_while_forking
from .stores.sqlite import FolderStore

__all__ = ["EmbeddingCache", "as_cache", "content_digest", "embedding_keys", "text_digest"]

#: Files digested, and rows collected, before they are written.
_AT_ONCE = 4096
#: Bytes of a digest.
DIGEST_BYTES = 32
#: Place of a cache to the embeddings that this process found there, and those it did not.
_LOOKUPS: collections.defaultdict = collections.defaultdict(lambda: (0, 0))

#: Keys of embeddings; None is never found and not kept.
Keys: TypeAlias = Sequence[bytes | None]


@dataclasses.dataclass(frozen=True)
class EmbeddingCache:
    """Keep embeddings from one call to the next, in memory or in a folder.

    Pass it, or just its location, as the `cache` of CLIPFeaturizer and CLIPTextFeaturizer; it is
    filled by `transform`. It holds no connection and no data of its own, so it is copied, cloned,
    pickled and sent to workers like a string. Nothing is created before there is something to keep.

    Parameters
    ----------
    location : "memory", str, path-like or None, default="memory"
        Where embeddings are kept. "memory": one store per process, shared by all caches in it, and
        gone when it ends. A folder: shared by threads, processes and runs. Name one when workers
        run in parallel (``n_jobs``), or when another run will see the same images. None keeps
        nothing. A folder called "memory" is spelled "./memory".
    max_bytes : int or None, default=None
        Bytes to stay below: after each `put`, memory drops what was used least recently, a folder
        what was written first. None is 2 GiB for memory, about 900 000 embeddings of 512 elements,
        and no limit for a folder. Memory is shared, so the cache that puts last sets its bound.
        Raise it if the images of one search do not fit: a store that is a little too small is of
        no use to passes in one order.

    Raises
    ------
    ValueError
        If `location` is a file or can't be the path of a folder, or `max_bytes` is negative.

    Notes
    -----
    An image is known by its content: path, size, times and inode of a file lead to the digest of
    its bytes, and the digest with the encoder's fingerprint and the view to the embedding. So a
    second pass over paths opens no file, a folder of images may be moved, and an image that was
    replaced or touched never gives a stale embedding. A file changed less than 2 seconds ago is
    digested again in the next pass, since a change in the same tick of the clock would not show.

    Threads and processes that need the same images at the same time share the work: each claims
    about a second's worth of what is missing, leaves to the others what they have claimed, and
    finds it in the cache. A claim that its owner does not renew, because it was stopped, ends
    after 10 seconds, and that of a killed process of the same host at once.

    A folder holds one folder of ours, ``sklearn-taskres-cache-v1``, with two SQLite databases: the
    embeddings, and the claims. Nothing else in the folder is read, moved or removed. It may be used
    by many processes of one host at a time, and they may be killed at any moment. On a network file
    system it needs working POSIX locks, and each write waits for the server. A folder that is full,
    read-only, locked or damaged costs one warning and the time to encode again, never a wrong
    embedding: every entry has a checksum. A damaged database is renamed and a new one begun, so
    that all of it is encoded again. If another process holds a lock for 5 seconds, the folder is
    left alone for 3 minutes.

    The checksum finds accidents. It is not a signature: whoever may write to the folder decides
    what you read from it, so use a folder that only people you trust can write to. Nothing in the
    folder is ever executed or unpickled. Files are made with the rights that your umask gives.

    At 512 elements an entry takes 2.4 kB. A folder that holds a million of them gives back 126 000
    per second in random order and takes 24 000 (a 2-core AMD EPYC, 2026-11-26, by
    ``tests/measure_stores.py --million``); smaller ones are faster.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import CLIPFeaturizer, EmbeddingCache
    >>> folder = tempfile.TemporaryDirectory()
    >>> cache = EmbeddingCache(folder.name)
    >>> images = load_digits().images[:20] / 16
    >>> CLIPFeaturizer("glyph-clip", cache=cache).fit_transform(images).shape
    (20, 128)
    >>> cache.entries
    20
    >>> cache.clear()
    >>> cache.entries
    0
    >>> folder.cleanup()
    """

    location: str | os.PathLike[str] | None = "memory"
    _: dataclasses.KW_ONLY
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if not (self.location is None or (self.location and is_path(self.location))):
            raise ValueError(
                f"The 'location' parameter of EmbeddingCache must be 'memory', a folder or None. "
                f"Got {self.location!r} instead."
            )
        if self.location is not None and "\0" in os.fsdecode(self.location):
            raise ValueError(
                f"The 'location' parameter of EmbeddingCache must be 'memory', a folder or None. "
                f"Got {self.location!r}, which has a null byte in it."
            )
        if self.max_bytes is not None:
            _check_bytes(
                "The 'max_bytes' parameter of EmbeddingCache must be None or", self.max_bytes
            )

    # what users ask and do ------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        """Number of embeddings kept."""
        return self.store().entries()

    @property
    def size(self) -> int:
        """Bytes taken: of memory, or of the folder's disk, damaged databases included."""
        return self.store().size()

    @property
    def hits(self) -> int:
        """Number of embeddings that this process asked for at this location, and found."""
        return _LOOKUPS[self._place()][0]

    @property
    def misses(self) -> int:
        """Number of embeddings that this process asked for at this location, and had to compute."""
        return _LOOKUPS[self._place()][1]

    def clear(self) -> None:
        """Drop everything, also what other caches of this location or other processes put.

        Needs no free space. A process that is writing goes on unharmed. In a folder only the
        databases of the cache are removed, damaged ones included.

        Raises
        ------
        OSError
            If the files of a folder can't be removed, or others lie among them.
        """
        self.store().clear()

    def evict(self, max_bytes: int) -> None:
        """Drop entries until at most `max_bytes` are taken.

        Memory drops what was used least recently, a folder damaged databases and then what was
        written first. In a folder a few kB remain. A large folder takes a while; others use it
        meanwhile.

        Parameters
        ----------
        max_bytes : int
            Bytes to keep, of what `size` counts.
        """
        _check_bytes("The 'max_bytes' parameter of evict must be", max_bytes)
        self.store().evict(max_bytes)

    def clear_towers(self) -> None:
        """Remove the image towers that were converted for an inference engine.

        They are in this folder, or in the user's cache directory for a cache that is not a folder.
        Each is as large as the model's image tower, and is converted again when it is needed. Not
        while another process is converting.

        Raises
        ------
        OSError
            If the files can't be removed.
        """
        self.towers().clear()

    # what featurizers ask and do ------------------------------------------------------------------

    def note_lookups(self, found: np.ndarray) -> None:
        """Count embeddings that were asked for.

        Parameters
        ----------
        found : ndarray, bool
            Whether each was found.
        """
        n_found = int(np.count_nonzero(found))
        with IN_USE:
            hits, misses = _LOOKUPS[self._place()]
            _LOOKUPS[self._place()] = hits + n_found, misses + found.size - n_found

    def _place(self) -> str:
        """Return what caches of one location have in common."""
        if self.location is None or self.location == "memory":
            return str(self.location)
        return os.path.abspath(_expanded(self.location))

    def digests(self, images: Images) -> list[bytes | None]:
        """Return the digest of each image's content; files that are known are not opened.

        Parameters
        ----------
        images : sequence
            What `content_digest` takes.

        Returns
        -------
        list of (bytes or None)
            None if an image can't be read; whoever decodes it will know why.
        """
        store, folder = self.store(), working_folder()
        keys = [file_key(image, folder) for image in images]
        known: dict = {}
        store.read(DIGESTS, set(keys) - {None}, DIGEST_BYTES, known.__setitem__)
        digests = [known.get(key) for key in keys]
        unknown = [index for index, digest in enumerate(digests) if digest is None]
        for some in batched(unknown, _AT_ONCE):
            new = {}
            read = digest_all([(images[i], keys[i]) for i in some], folder)
            for index, (digest, is_lasting) in zip(some, read, strict=True):
                digests[index] = digest
                if is_lasting:
                    new[keys[index]] = digest
            store.write(DIGESTS, new)
        return digests

    def get(self, keys: Keys, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the embeddings that are kept.

        Parameters
        ----------
        keys : sequence of (bytes or None)
            From `embedding_keys`; may repeat. None is never found.
        width : int
            Elements of an embedding, d. An entry of another width is not found.

        Returns
        -------
        rows : ndarray of shape (n_keys, width), float32
            Zero if nothing was found.
        found : ndarray of shape (n_keys,), bool
        """
        position: dict = {}  # of each distinct key
        where = np.array([position.setdefault(key, len(position)) for key in keys], dtype=np.intp)
        rows = np.zeros((len(position), width), dtype="<f4")
        found = np.zeros(len(position), dtype=bool)
        target, size = rows.reshape(-1).view(np.uint8).data, rows.itemsize * width

        def take(key: bytes, value: bytes) -> None:
            index = position.get(key)
            if index is not None:
                target[index * size : (index + 1) * size] = value
                found[index] = True

        asked = [key for key in position if key is not None]
        self.store().read(EMBEDDINGS, asked, size, take)
        rows = rows.astype(np.float32, copy=False)  # big-endian machines
        return (rows, found) if len(position) == len(where) else (rows[where], found[where])

    def put(self, keys: Keys, rows: ArrayLike) -> None:
        """Keep embeddings, replacing what has the same keys.

        A folder is written in transactions of 4096 rows, a few milliseconds each; interrupting
        keeps those that are done.

        Parameters
        ----------
        keys : sequence of (bytes or None), of length n_keys
            From `embedding_keys`. Rows whose key is None are not kept. Nor are, in a folder, rows
            of more than a million elements.
        rows : array-like of shape (n_keys, width)
            Embeddings, kept as float32.
        """
        if self.location == "memory":
            _warn_in_workers()
        rows = np.ascontiguousarray(rows, dtype="<f4")
        pairs = zip(keys, rows, strict=True)
        items = {key: row.view(np.uint8).data for key, row in pairs if key is not None}
        self.store().write(EMBEDDINGS, items)

    @contextlib.contextmanager
    def collect_puts(self, seconds: float = 1.0) -> Iterator[Callable[[Keys, ArrayLike], None]]:
        """Give a `put` for small batches, kept together every few seconds and at the end.

        A folder takes milliseconds for each put, however small. Whatever ends the block, also an
        interrupt, what was put until then is kept.

        Parameters
        ----------
        seconds : float, default=1.0
            What a process that is killed may lose.

        Yields
        ------
        callable
            Takes what `put` takes.
        """
        keys: list = []
        rows: list = []
        begun = time.monotonic()

        def put(new_keys: Keys, new_rows: ArrayLike) -> None:
            keys.extend(new_keys)
            rows.extend(np.asarray(new_rows, dtype=np.float32))
            if time.monotonic() - begun > seconds or len(keys) >= _AT_ONCE:
                flush()

        def flush() -> None:
            nonlocal begun
            if keys:
                self.put(keys, rows)
            keys.clear()
            rows.clear()
            begun = time.monotonic()

        try:
            yield put
        finally:
            flush()

    def towers(self) -> Towers:
        """Return the Towers of this folder, or of the user's cache directory."""
        if self.location in (None, "memory"):
            import platformdirs

            return Towers(platformdirs.user_cache_path() / TOWERS_FOLDER)
        return Towers(_expanded(self.location) / TOWERS_FOLDER)

    def claims(self) -> Claims:
        """Return Claims, with which a pass leaves to others what they are encoding for this cache.

        Returns
        -------
        Claims
            A context.
        """
        return Claims(None if self.location is None else self.store())

    def store(self) -> Store:
        """Return the Store of this location.

        Returns
        -------
        Store
            Keeps values and claims; whoever has the same location has the same.
        """
        hold_still_while_forking()
        if self.location is None:
            return MemoryStore(max_bytes=0)
        if self.location == "memory":
            MEMORY.max_bytes = MEMORY_BYTES if self.max_bytes is None else self.max_bytes
            return MEMORY
        folder = _expanded(self.location)
        if os.path.isfile(folder):
            raise ValueError(
                f"The 'location' parameter of EmbeddingCache must be 'memory', a folder or None. "
                f"Got the file {os.fspath(self.location)!r} instead: name a folder, new or old."
            )
        return FolderStore(folder, self.max_bytes)


#: What a `cache` parameter takes.
CacheLike: TypeAlias = EmbeddingCache | str | os.PathLike[str] | None


def as_cache(cache: CacheLike) -> EmbeddingCache:
    """Return the EmbeddingCache that a `cache` parameter stands for: itself, or a location."""
    return cache if isinstance(cache, EmbeddingCache) else EmbeddingCache(cache)


def _expanded(location: str | os.PathLike[str]) -> Path:
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"The 'location' parameter of EmbeddingCache begins with the home of a user "
            f"that this machine does not know. Got {os.fspath(location)!r}: write it out in full."
        ) from error


def _check_bytes(must_be: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) >= 0:
        raise ValueError(f"{must_be} a number of bytes, 0 or more. Got {value!r} instead.")


def _warn_in_workers() -> None:
    """Say in the first worker of a pool, which numbers them, what all of them would say."""
    number = multiprocessing.current_process().name.rpartition("-")[2]
    is_another = number.isdecimal() and number != "1"
    if multiprocessing.parent_process() is not None and not is_another:
        warn_once(
            "memory",
            "A cache in memory is not shared with other processes, so each worker encodes for "
            "itself. Name a folder, as in cache='embeddings', to share it.",
        )
