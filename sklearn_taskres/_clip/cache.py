"""Embeddings kept from one call to the next, in memory or in a folder: data, never code."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import math
import multiprocessing
import os
import shutil
import sqlite3
import stat
import threading
import time
import uuid
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .images import _from_torch

#: Raised whenever a folder's layout changes. Each format has its own database, beside the others.
_FORMAT = 1
_APPLICATION_ID = 0x54526573  # "TRes", for the command `file`
_DIGESTS, _EMBEDDINGS = _TABLES = ("digests", "embeddings")
#: Rows are appended, so the order of rowid is that of age, and writing touches few pages.
_CREATE = {
    table: f"CREATE TABLE {table} (key BLOB PRIMARY KEY, checksum INTEGER, value BLOB)"
    for table in _TABLES
}
_SCHEMA = {table.encode(): sql.encode() for table, sql in _CREATE.items()} | {
    f"sqlite_autoindex_{table}_1".encode(): None for table in _TABLES
}
_PRAGMAS = (
    "page_size = 16384",  # holds seven embeddings; SQLite's own 4096 reads 20 % slower
    "journal_mode = DELETE",  # no memory map, no file left beside, readable on read-only disks
    "synchronous = NORMAL",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",  # a truncated map would kill the process
)
#: Bytes that no key or embedding reaches; a database that says otherwise is damaged.
_LARGEST_VALUE = 1 << 24
#: SQLite's answers that mean damage. ERROR is one: our statements have no mistakes of their own.
_DAMAGE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
#: Seconds that a process waits for others that write.
_PATIENCE = 30
#: Times that a call is tried where others move the database away.
_ATTEMPTS = 5
_ROWS_AT_ONCE = {"read": 500, "write": 4096, "delete": 10_000, "digest": 4096}
#: Bytes of Python objects around a value in memory.
_OVERHEAD = 300
_MEMORY_BYTES = 2 << 30
#: A file younger than this may be rewritten without a trace in its times: FAT counts in 2 s.
_RACY_NS = 2_000_000_000
_READERS = 8
_KEY_BYTES, _DIGEST_BYTES = 20, 32

#: Held while any store is used, and by a fork, so that a child never inherits a half-done change.
_IN_USE = threading.RLock()
#: Locations that have been warned about in this process.
_WARNED: set = set()


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
        and no limit for a folder. Raise it where the images of one search do not fit: a store that
        is a little too small is of no use to passes in one order.

    Raises
    ------
    ValueError
        If `location` is a file or no path, or `max_bytes` is negative.

    Notes
    -----
    An image is known by its content: path, size, times and inode of a file lead to the digest of
    its bytes, and the digest with the encoder's fingerprint and the view to the embedding. So a
    second pass over paths opens no file, a folder of images may be moved, and an image that was
    replaced or touched never gives a stale embedding. A file changed less than 2 seconds ago is
    digested again in the next pass, since a change in the same tick of the clock would not show.

    A folder holds one SQLite database. It may be used by many processes of one host at a time, and
    they may be killed at any moment. On a network file system it needs working POSIX locks, and
    each write waits for the server. A folder that is full, read-only or damaged costs one warning
    and the time to encode again, never a wrong embedding: every entry has a checksum. A damaged
    database is renamed and a new one begun, so that all of it is encoded again.

    The checksum finds accidents. It is no signature: whoever may write to the folder decides what
    you read from it. Nothing in the folder is ever executed or unpickled.

    At 512 elements, an entry takes 2.4 kB, and one CPU core reads some 200 000 and writes some
    20 000 entries a second; 20 000 known paths are looked up in a fifth of a second.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres._clip.cache import EmbeddingCache, embedding_keys
    >>> folder = tempfile.TemporaryDirectory()
    >>> cache = EmbeddingCache(folder.name)
    >>> keys = embedding_keys(cache.digests(load_digits().images[:3]), "name of an encoder")
    >>> cache.put(keys[:2], [[1.0, 2.0], [3.0, 4.0]])
    >>> rows, found = cache.get(keys, width=2)
    >>> rows.tolist(), found.tolist(), cache.entries
    ([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], [True, True, False], 2)
    >>> folder.cleanup()
    """

    location: str | os.PathLike | None = "memory"
    _: dataclasses.KW_ONLY
    max_bytes: int | None = None

    def __post_init__(self):
        if not (self.location is None or (self.location and _is_path(self.location))):
            raise ValueError(
                f"The 'location' parameter of EmbeddingCache must be 'memory', a folder or None. "
                f"Got {self.location!r} instead."
            )
        if self.max_bytes is not None and not self.max_bytes >= 0:
            raise ValueError(
                f"The 'max_bytes' parameter of EmbeddingCache must be None or a number of bytes, "
                f"0 or more. Got {self.max_bytes!r} instead."
            )

    # what users ask and do ------------------------------------------------------------------------

    @property
    def entries(self):
        """Number of embeddings kept."""
        return self._store().entries()

    @property
    def size(self):
        """Bytes taken: of memory, or of the folder's disk."""
        return self._store().size()

    def clear(self):
        """Drop everything, also what other caches of this location or other processes put.

        Needs no free space. A process that is writing goes on unharmed.

        Raises
        ------
        OSError
            If the files of a folder can't be removed.
        """
        self._store().clear()

    def evict(self, max_bytes):
        """Drop entries until at most `max_bytes` are taken.

        Memory drops what was used least recently, a folder what was written first. In a folder a
        few kB remain.

        Parameters
        ----------
        max_bytes : int
            Bytes to keep, of what `size` counts.
        """
        self._store().evict(max_bytes)

    # what featurizers ask and do ------------------------------------------------------------------

    def digests(self, images):
        """Return the digest of each image's content; files that are known are not opened.

        Parameters
        ----------
        images : sequence
            What `content_digest` takes.

        Returns
        -------
        list of (bytes or None)
            None where an image can't be read; whoever decodes it will know why.
        """
        store, folder = self._store(), os.getcwd()
        stamps = [_file_stamp(image, folder) for image in images]
        known: dict = {}
        store.read(_DIGESTS, {s.key for s in stamps if s is not None}, known.__setitem__)
        digests = [None if s is None else known.get(s.key) for s in stamps]
        unknown = [index for index, digest in enumerate(digests) if digest is None]
        for some in _chunks(unknown, "digest"):
            new = {}
            read = _digest_all([(images[i], stamps[i]) for i in some], folder)
            for index, (digest, is_lasting) in zip(some, read, strict=True):
                digests[index] = digest
                if is_lasting:
                    new[stamps[index].key] = digest
            store.write(_DIGESTS, new)
        return digests

    def get(self, keys, width):
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
            Zero where nothing was found.
        found : ndarray of shape (n_keys,), bool
        """
        position: dict = {}  # of each distinct key
        where = np.array([position.setdefault(key, len(position)) for key in keys], dtype=np.intp)
        rows = np.zeros((len(position), width), dtype="<f4")
        found = np.zeros(len(position), dtype=bool)
        target, size = rows.reshape(-1).view(np.uint8).data, rows.itemsize * width

        def take(key, value):
            index = position.get(key)
            if index is not None and len(value) == size:
                target[index * size : (index + 1) * size] = value
                found[index] = True

        self._store().read(_EMBEDDINGS, [key for key in position if key is not None], take)
        rows = rows.astype(np.float32, copy=False)  # big-endian machines
        return (rows, found) if len(position) == len(where) else (rows[where], found[where])

    def put(self, keys, rows):
        """Keep embeddings, replacing what has the same keys.

        A folder is written in transactions of 4096 rows, a few milliseconds each; interrupting
        keeps those that are done.

        Parameters
        ----------
        keys : sequence of (bytes or None), of length n_keys
            From `embedding_keys`. Rows whose key is None are not kept.
        rows : array-like of shape (n_keys, width)
            Embeddings, kept as float32.
        """
        if self.location == "memory":
            _warn_in_workers()
        rows = np.ascontiguousarray(rows, dtype="<f4")
        pairs = zip(keys, rows, strict=True)
        items = {key: row.view(np.uint8).data for key, row in pairs if key is not None}
        self._store().write(_EMBEDDINGS, items)

    @contextlib.contextmanager
    def collect_puts(self, seconds=1.0):
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

        def put(new_keys, new_rows):
            keys.extend(new_keys)
            rows.extend(np.asarray(new_rows, dtype=np.float32))
            if time.monotonic() - begun > seconds or len(keys) >= _ROWS_AT_ONCE["write"]:
                flush()

        def flush():
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

    def _store(self):
        _hold_still_while_forking()
        if self.location is None:
            return _MemoryStore(max_bytes=0)
        if self.location == "memory":
            _MEMORY.max_bytes = _MEMORY_BYTES if self.max_bytes is None else self.max_bytes
            return _MEMORY
        folder = Path(self.location).expanduser()
        if folder.is_file():
            raise ValueError(
                f"The 'location' parameter of EmbeddingCache must be 'memory', a folder or None. "
                f"Got the file {os.fspath(self.location)!r} instead: name a folder, new or old."
            )
        return _FolderStore(folder, self.max_bytes)


def as_cache(cache):
    """Return the EmbeddingCache that a `cache` parameter stands for: itself, or a location."""
    return cache if isinstance(cache, EmbeddingCache) else EmbeddingCache(cache)


# keys -----------------------------------------------------------------------------------------


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
    if _is_path(image):
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


def _file_stamp(image, folder):
    """Stamp of an image that is a path, relative to `folder`; None for any other."""
    if not _is_path(image):
        return None
    try:
        state = os.stat(image)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None
    times = f"{state.st_size}/{state.st_mtime_ns}/{state.st_ctime_ns}/{state.st_ino}/"
    path = os.fsencode(os.path.join(folder, os.fsdecode(image)))
    key = hashlib.blake2b(times.encode() + path, digest_size=_KEY_BYTES, person=b"file").digest()
    return _FileStamp(key, max(state.st_mtime_ns, state.st_ctime_ns))


def _digest_all(items, folder):
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
    return digest, is_old and _file_stamp(image, folder) == stamp


def _is_path(image):
    return isinstance(image, str | os.PathLike)


# stores ---------------------------------------------------------------------------------------


class _MemoryStore:
    """Values by table and key in a dictionary, the least recently used ones first."""

    def __init__(self, max_bytes=_MEMORY_BYTES):
        self.max_bytes = max_bytes
        self._bytes = 0
        self._values: collections.OrderedDict = collections.OrderedDict()

    def read(self, table, keys, take):
        with _IN_USE:
            for key in keys:
                value = self._values.get((table, key))
                if value is not None:
                    self._values.move_to_end((table, key))
                    take(key, value)

    def write(self, table, items):
        with _IN_USE:
            for key, value in items.items():
                replaced = self._values.pop((table, key), None)
                self._values[table, key] = bytes(value)
                self._bytes += _weight(value) - (0 if replaced is None else _weight(replaced))
            self.evict(self.max_bytes)

    def entries(self):
        with _IN_USE:
            return sum(table == _EMBEDDINGS for table, _ in self._values)

    def size(self):
        return self._bytes

    def clear(self):
        self.evict(0)

    def evict(self, max_bytes):
        with _IN_USE:
            while self._bytes > max_bytes:
                self._bytes -= _weight(self._values.popitem(last=False)[1])


_MEMORY = _MemoryStore()


def _weight(value):
    return len(value) + _OVERHEAD


class _DamagedError(sqlite3.DatabaseError):
    """The database is not as we write it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclasses.dataclass(frozen=True)
class _FolderStore:
    """Values by table and key in a SQLite database, opened for each call.

    Opening takes a millisecond, and saves all care for connections that outlive a fork, a thread,
    or the file they have open.
    """

    folder: Path
    max_bytes: int | None

    @property
    def _home(self):
        """Folder of the database and its journal, which are moved as one."""
        return self.folder / f"v{_FORMAT}"

    @property
    def _file(self):
        return self._home / "embeddings.sqlite"

    def read(self, table, keys, take):
        if keys:
            self._run(lambda db: _read(db, table, keys, take))

    def write(self, table, items):
        if items:
            self._run(lambda db: self._write(db, table, items), create=True)

    def _write(self, db, table, items):
        for some in _chunks(list(items.items()), "write"):
            with _transaction(db):
                _replace(db, table, some)
        if self.max_bytes is not None and _used(db) > self.max_bytes:
            _evict(db, self.max_bytes * 9 // 10)  # so that the next puts need not

    def entries(self):
        count = f"SELECT count(*) FROM {_EMBEDDINGS}"  # noqa: S608 (our own name)
        return self._run(lambda db: _number(db, count), 0)

    def size(self):
        return self._run(_used, 0)

    def clear(self):
        moved = self._move("cleared")
        for home in {moved, *self.folder.glob(f"{self._home.name}-*")} - {None}:
            shutil.rmtree(home)

    def evict(self, max_bytes):
        self._run(lambda db: _evict(db, max_bytes))

    def _run(self, work, absent=None, *, create=False):
        """Return work(database), or `absent` where there is none or it can't be used."""
        for attempt in range(1, _ATTEMPTS + 1):
            identity = _identity(self._file)
            if identity is None and not create:
                return absent
            try:
                with _IN_USE, contextlib.closing(self._open(create)) as db:
                    return work(db)
            except (sqlite3.Error, OSError) as error:
                if attempt == _ATTEMPTS or not self._recover(error, identity):
                    self._warn(
                        f"can't be used ({error}), so embeddings are computed again and not kept. "
                        f"Make it writable, leave space on its disk, or name another folder."
                    )
                    break
        return absent

    def _open(self, create):
        if create:
            self._home.mkdir(parents=True, exist_ok=True)
        uri = f"{self._file.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        db = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
        try:
            _prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _recover(self, error, identity):
        """Whether it is worth trying again: after damage, or where the files are others by now."""
        code = getattr(error, "sqlite_errorcode", None)
        now = _identity(self._file)
        if now is None or now != identity:
            return True
        if code is None or code & 0xFF not in _DAMAGE:
            return False
        try:
            kept = self._move("damaged")
        except OSError:
            return False
        self._warn(
            f"was damaged ({error}), so what it held is computed again. It was moved to {kept}, "
            f"which can be deleted."
        )
        return True

    def _move(self, why):
        """Put the database out of the way in one step, and return where it is; None if gone."""
        target = self.folder / f"{self._home.name}-{why}-{uuid.uuid4().hex[:8]}"
        try:
            return self._home.rename(target)
        except FileNotFoundError:
            return None

    def _warn(self, what):
        _warn_once(self.folder, f"The embedding cache in the folder {self.folder} {what}")


def _prepare(db):
    """Set up a connection, create the tables in an empty database, and refuse any that differ."""
    db.text_factory = bytes  # a hostile text can't fail to decode
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    if _is_empty(db):
        _create(db)
    stamp = _pragma(db, "application_id"), _pragma(db, "user_version")
    schema = dict(db.execute("SELECT name, sql FROM sqlite_schema").fetchall())
    if stamp != (_APPLICATION_ID, _FORMAT) or schema != _SCHEMA:
        raise _DamagedError("not a database as this version writes it")


def _create(db):
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # evicting gives space back; writes page one
    with _transaction(db):
        if _is_empty(db):  # nobody was faster
            for sql in _CREATE.values():
                db.execute(sql)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")


def _is_empty(db):
    schema = db.execute("SELECT 1 FROM sqlite_schema").fetchone()
    return schema is None and _pragma(db, "page_count") <= 1


def _replace(db, table, pairs):
    """Write (key, value) pairs and read them back, so that no damage outlives the next put."""
    rows = [(key, _checksum(key, value), value) for key, value in pairs]
    insert = f"INSERT INTO {table} VALUES (?, ?, ?)"  # noqa: S608 (our own names)
    # A row keeps its rowid, so that those who are reading find it.
    change = "SET key = excluded.key, checksum = excluded.checksum, value = excluded.value"
    db.executemany(f"{insert} ON CONFLICT (key) DO UPDATE {change}", rows)
    missing = {key for key, _ in pairs}
    _read(db, table, missing.copy(), lambda key, _: missing.discard(key))
    if missing:
        raise _DamagedError("entries are lost as soon as they are written")


def _read(db, table, keys, take):
    """Call take(key, value) for each entry that passes its checksum, in the order of the file."""
    find = f"SELECT rowid FROM {table} WHERE key IN "  # noqa: S608 (our own names)
    rowids = [r for some in _chunks(sorted(keys), "read") for (r,) in _select(db, find, some)]
    fetch = f"SELECT key, checksum, value FROM {table} WHERE rowid IN "  # noqa: S608
    for some in _chunks(sorted(rowids), "read"):
        for key, checksum, value in _select(db, fetch, some):
            if isinstance(value, bytes) and checksum == _checksum(key, value):
                take(key, value)  # and others are misses, which the next put replaces


def _select(db, query, values):
    return db.execute(f"{query} ({','.join('?' * len(values))})", values).fetchall()


def _evict(db, max_bytes):
    """Delete the oldest rows of each table, in short transactions, and give the space back."""
    while (used := _used(db)) > max_bytes:
        with _transaction(db):
            n_deleted = sum(_delete_oldest(db, table, 1 - max_bytes / used) for table in _TABLES)
        if n_deleted == 0:
            break
    db.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page


def _delete_oldest(db, table, share):
    """Delete about this share of a table's rows, at least one, and return how many."""
    ends = f"SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})"  # noqa: S608
    first, last = db.execute(ends).fetchone()
    if first is None:
        return 0
    n_rows = min(math.ceil((last - first + 1) * share), _ROWS_AT_ONCE["delete"])
    delete = f"DELETE FROM {table} WHERE rowid < ?"  # noqa: S608 (our own names)
    return db.execute(delete, (first + n_rows,)).rowcount


@contextlib.contextmanager
def _transaction(db):
    """Take the lock for writing at once; what fails leaves nothing, as closing rolls back."""
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("COMMIT")


def _used(db):
    pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
    return pages * _pragma(db, "page_size")


def _pragma(db, name):
    return _number(db, f"PRAGMA {name}")


def _number(db, query):
    return db.execute(query).fetchone()[0]


def _checksum(key, value):
    return zlib.crc32(value, zlib.crc32(key))


def _identity(file):
    """Which file is there, None for none."""
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _chunks(items, what):
    size = _ROWS_AT_ONCE[what]
    return (items[start : start + size] for start in range(0, len(items), size))


# the process ----------------------------------------------------------------------------------


@functools.cache
def _hold_still_while_forking():
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        release = _IN_USE.release
        os.register_at_fork(before=_IN_USE.acquire, after_in_parent=release, after_in_child=release)


def _warn_in_workers():
    if multiprocessing.parent_process() is not None:
        _warn_once(
            "memory",
            "A cache in memory is not shared with other processes, so each worker encodes for "
            "itself. Name a folder, as in cache='embeddings', to share it.",
        )


def _warn_once(location, message):
    if location not in _WARNED:
        _WARNED.add(location)
        warnings.warn(message, UserWarning, stacklevel=3)
