"""Where the embedding cache keeps values: a dictionary, or a SQLite database in a folder."""

import collections
import contextlib
import dataclasses
import functools
import math
import os
import shutil
import sqlite3
import threading
import uuid
import warnings
import zlib
from pathlib import Path

#: Raised whenever a folder's layout changes. Each format has its own database, beside the others.
_FORMAT = 1
_APPLICATION_ID = 0x54526573  # "TRes", for the command `file`
DIGESTS, EMBEDDINGS = _TABLES = ("digests", "embeddings")
#: Rows are appended, so the order of rowid is that of age, and writing touches few pages.
_CREATE = {
    table: f"CREATE TABLE {table} (key BLOB PRIMARY KEY, checksum INTEGER, value BLOB)"
    for table in _TABLES
}
_SCHEMA = {table.encode(): sql.encode() for table, sql in _CREATE.items()} | {
    f"sqlite_autoindex_{table}_1".encode(): None for table in _TABLES
}
_PRAGMAS = (
    "page_size = 16384",  # holds seven embeddings; SQLite's own 4096 reads more slowly
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
#: Rows of one statement that reads, and of one transaction that writes or deletes.
_ROWS_READ, _ROWS_WRITTEN, _ROWS_DELETED = 500, 4096, 10_000
#: Bytes of Python objects around a value in memory.
_OVERHEAD = 300
MEMORY_BYTES = 2 << 30

#: Held while any store is used, and by a fork, so that a child never inherits a half-done change.
_IN_USE = threading.RLock()
#: Locations that have been warned about in this process.
_WARNED: set = set()


class MemoryStore:
    """Values by table and key in a dictionary, the least recently used ones first."""

    def __init__(self, max_bytes=MEMORY_BYTES):
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
            return sum(table == EMBEDDINGS for table, _ in self._values)

    def size(self):
        return self._bytes

    def clear(self):
        self.evict(0)

    def evict(self, max_bytes):
        with _IN_USE:
            while self._bytes > max_bytes:
                self._bytes -= _weight(self._values.popitem(last=False)[1])


MEMORY = MemoryStore()


def _weight(value):
    return len(value) + _OVERHEAD


class _DamagedError(sqlite3.DatabaseError):
    """The database is not as we write it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclasses.dataclass(frozen=True)
class FolderStore:
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
        for some in chunks(list(items.items()), _ROWS_WRITTEN):
            with _transaction(db):
                _replace(db, table, some)
        if self.max_bytes is not None and _used(db) > self.max_bytes:
            _evict(db, self.max_bytes * 9 // 10)  # so that the next puts need not

    def entries(self):
        count = f"SELECT count(*) FROM {EMBEDDINGS}"  # noqa: S608 (our own name)
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
        warn_once(self.folder, f"The embedding cache in the folder {self.folder} {what}")


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
    rowids = [r for some in chunks(sorted(keys), _ROWS_READ) for (r,) in _select(db, find, some)]
    fetch = f"SELECT key, checksum, value FROM {table} WHERE rowid IN "  # noqa: S608
    for some in chunks(sorted(rowids), _ROWS_READ):
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
    n_rows = min(math.ceil((last - first + 1) * share), _ROWS_DELETED)
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


def chunks(items, size):
    """Return slices of a list, at most `size` long."""
    return (items[start : start + size] for start in range(0, len(items), size))


# the process --------------------------------------------------------------------------------------


@functools.cache
def hold_still_while_forking():
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        release = _IN_USE.release
        os.register_at_fork(before=_IN_USE.acquire, after_in_parent=release, after_in_child=release)


def warn_once(location, message):
    if location not in _WARNED:
        _WARNED.add(location)
        warnings.warn(message, UserWarning, stacklevel=3)
