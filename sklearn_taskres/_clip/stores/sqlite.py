"""Values in a folder: one SQLite database for what is kept, and one for claims."""

import contextlib
import dataclasses
import errno
import functools
import math
import os
import random
import re
import sqlite3
import stat
import time
import uuid
import zlib
from pathlib import Path

from ..._messages import warn_once
from . import EMBEDDINGS, TABLES, Clock, batched
from .process import IN_USE, has_ended

#: Raised whenever a folder's layout changes. Each format has its own folder, next to the others.
_FORMAT = 1
#: Folder of the databases in a location. Nobody else has such a name, and what has it is ours.
_HOME = f"sklearn-taskres-cache-v{_FORMAT}"
_MOVED = re.compile(rf"{_HOME}-(cleared|damaged)-[0-9a-f]{{8}}")
_APPLICATION_ID = 0x54526573  # "TRes", for the command `file`
_PRAGMAS = (
    "page_size = 16384",  # holds seven embeddings; SQLite's own 4096 reads more slowly
    "journal_mode = DELETE",  # no memory map, no file that stays, readable on read-only disks
    "synchronous = NORMAL",
    "secure_delete = OFF",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",  # a truncated map would kill the process
)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A database of the home: its file, its statements CREATE TABLE, its further pragmas."""

    name: str
    create: tuple
    schema: dict
    pragmas: tuple = ()

    @property
    def files(self):
        """Names of all files that it may have."""
        return self.name, f"{self.name}-journal"


#: Rows are appended, so the order of rowid is that of age, and writing touches few pages.
_CREATE = {
    table: f"CREATE TABLE {table} (key BLOB PRIMARY KEY, checksum INTEGER, value BLOB)"
    for table in TABLES
}
_KEPT = _Kind(
    "embeddings.sqlite",
    tuple(_CREATE.values()),
    {table.encode(): sql.encode() for table, sql in _CREATE.items()}
    | {f"sqlite_autoindex_{table}_1".encode(): None for table in TABLES},
)
_CREATE_CLAIMS = "CREATE TABLE claims (key INTEGER PRIMARY KEY, owner BLOB, begun REAL, ends REAL)"
#: Claims are worth nothing after a power failure, so that they need not wait for the disk.
_CLAIMED = _Kind(
    "claims.sqlite",
    (_CREATE_CLAIMS,),
    {b"claims": _CREATE_CLAIMS.encode()},
    ("synchronous = OFF",),
)
_OUR_FILES = (*_KEPT.files, *_CLAIMED.files)

#: Bytes of the largest value and key that are kept, and of the largest row that SQLite may read.
LARGEST_VALUE, _LARGEST_KEY, _LARGEST_ROW = 1 << 22, 64, 1 << 24
#: SQLite's answers that mean damage. ERROR is one: our statements have no mistakes of their own.
_DAMAGE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
#: UnicodeDecodeError: a message of SQLite that quotes a damaged name.
_ERRORS = (sqlite3.Error, OSError, UnicodeDecodeError)
#: Seconds that SQLite waits for a lock, holding IN_USE; and for how long a location whose lock was
#: waited for in vain is left alone by this process.
_LOCK_SECONDS, _LEFT_ALONE = 0.03, 180.0
#: Times that a call is tried if others move the database away.
_ATTEMPTS = 5
#: Keys looked up with one connection, rows of one statement that reads, and of one transaction that
#: writes.
_KEYS_READ, _ROWS_READ, _ROWS_WRITTEN = 20_000, 500, 4096
#: Memory of a transaction: one that overflows it locks readers out early. Reading needs no more
#: than SQLite's own 2 MB, and is slower with more.
_KB_WRITTEN = 32768
#: Seconds between two transactions of an eviction, for others to take the lock.
_BREATH = 0.005
#: Seconds of the longest claim that is believed, and of a clock's error.
_LONGEST_CLAIM, _CLOCK_ERROR = 600, 2
#: Bytes that end a journal which names another file for SQLite to delete. Ours never do.
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

#: When locations that were locked for too long are tried again, by the clock's `monotonic`.
_FAILED: dict = {}


class _DamagedError(sqlite3.DatabaseError):
    """The database is not as we write it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class _RefusedError(OSError):
    """What lies in the place of our files is not ours to open or to move."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a call waits for others, and how much it does before they get their turn."""

    #: Seconds that a call waits for a lock while nothing is written, not holding IN_USE.
    patience: float = 5.0
    #: Times its patience that a call waits in all if others go on writing.
    patiences: int = 12
    #: Rows of one transaction that deletes; pages given back by one that makes the file smaller.
    rows_deleted: int = 2048
    pages_freed: int = 256
    #: What waits for others that hold the lock or want it, and tells for how long.
    clock: Clock = time


class _Patience:
    """Waiting for the lock of a file: it ends some seconds after others wrote to the file last.

    One process writes at a time, and SQLite has no queue: a busy writer may be overtaken often. A
    stopped process writes nothing.
    """

    def __init__(self, file, limits):
        self._file, self._limits, self._last_write = file, limits, None
        longest = limits.patience * limits.patiences
        self._ends = self._latest = limits.clock.monotonic() + longest

    def lasts(self):
        """Whether to try again."""
        now, last_write = self._limits.clock.monotonic(), _write_time(self._file)
        if last_write != self._last_write:
            self._last_write = last_write
            self._ends = min(now + self._limits.patience, self._latest)
        return now < self._ends


@dataclasses.dataclass(frozen=True)
class FolderStore:
    """Values by table and key in a SQLite database, opened for each call.

    Opening takes a millisecond, and saves all care for connections that outlive a fork, a thread,
    or the file they have open.
    """

    folder: Path
    max_bytes: int | None
    limits: Limits = Limits()

    @property
    def _home(self):
        """Folder of the databases and their journals, which are moved as one."""
        return self.folder / _HOME

    def read(self, table, keys, size, take):
        rowids: list = []
        for some in batched(sorted(keys), _KEYS_READ):
            rowids += self._run(functools.partial(_find, table, some), [])
        for some in batched(sorted(rowids), _KEYS_READ):
            self._run(functools.partial(_fetch, table, some, size, take))

    def write(self, table, items):
        pairs = [
            (key, value)
            for key, value in items.items()
            if len(key) <= _LARGEST_KEY and len(value) <= LARGEST_VALUE
        ]
        for some in batched(pairs, _ROWS_WRITTEN):
            self._run(functools.partial(_write, table, some), create=True)
        if pairs and self.max_bytes is not None and self.size() > self.max_bytes:
            self.evict(self.max_bytes * 9 // 10)  # so that the next puts need not

    def claim(self, keys, owner, seconds):
        ids = {int.from_bytes(key[:8], "big", signed=True): key for key in keys}
        work = functools.partial(_claim, list(ids), owner, seconds, self.limits.clock)
        claimed = self._run(work, None, create=bool(ids), kind=_CLAIMED)
        return set(keys) if claimed is None else {ids[i] for i in claimed if i in ids}

    def release(self, owner):
        self._run(functools.partial(_release, owner), kind=_CLAIMED)

    def entries(self):
        count = f"SELECT count(*) FROM {EMBEDDINGS}"  # noqa: S608 (our own name)
        return self._run(lambda db: _number(db, count), 0)

    def size(self):
        moved = (home / name for home in self._moved() for name in _OUR_FILES)
        return self._run(_used, 0) + sum(map(_file_size, moved))

    def clear(self):
        self._move("cleared")
        for home in self._moved():
            _remove(home)
        _FAILED.pop(self.folder, None)

    def evict(self, max_bytes):
        with contextlib.suppress(OSError):
            for home in self._moved():
                _remove(home)
        while self._run(functools.partial(_evict_some, max_bytes, self.limits), False):
            self.limits.clock.sleep(_BREATH)

    def _run(self, work, absent=None, *, create=False, kind=_KEPT):
        """Return work(database), or `absent` if there is none or it can't be used."""
        if self.limits.clock.monotonic() < _FAILED.get(self.folder, 0):
            return absent
        file, failures = self._home / kind.name, 0
        patience = _Patience(file, self.limits)
        while True:
            identity = _identity_of_file(file)
            if identity is None and not create:
                return absent
            try:
                with IN_USE, contextlib.closing(self._open(kind, create)) as db:
                    return work(db)
            except _ERRORS as error:
                is_busy = _code(error) in _BUSY
                if is_busy and patience.lasts():
                    self.limits.clock.sleep(random.SystemRandom().uniform(0.005, 0.03))
                    continue
                failures += 1
                if is_busy or failures == _ATTEMPTS or not self._recover(error, identity, kind):
                    self._give_up(error, is_busy)
                    return absent

    def _open(self, kind, create):
        _check_home(self._home)
        if create:
            self._home.mkdir(parents=True, exist_ok=True)
        file = self._home / kind.name
        _check_files(file)
        uri = f"{file.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        db = sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)
        try:
            _prepare(db, kind)
        except BaseException:
            db.close()
            raise
        return db

    def _recover(self, error, identity, kind):
        """Whether it is worth trying again: after damage, or if the files are others by now."""
        if isinstance(error, _RefusedError):
            return False
        now = _identity_of_file(self._home / kind.name)
        if now is None or now != identity:
            return True
        if not (isinstance(error, UnicodeDecodeError) or _code(error) in _DAMAGE):
            return False
        try:
            if kind is _CLAIMED:  # nothing is lost with them
                for name in kind.files:
                    _unlink(self._home / name)
                return True
            kept = self._move("damaged")
        except OSError:
            return False
        self._warn(
            f"was damaged ({_text(error)}), so what it held is computed again. It was moved to "
            f"{kept}, which can be deleted."
        )
        return True

    def _give_up(self, error, is_busy):
        if is_busy:
            _FAILED[self.folder] = self.limits.clock.monotonic() + _LEFT_ALONE
            self._warn(
                f"has been locked by another process for {self.limits.patience:.0f} seconds "
                f"({error}), so for {_LEFT_ALONE / 60:.0f} minutes embeddings are computed again "
                f"and not kept. Look for a process that is stopped, and name a folder on a disk "
                f"that has file locks."
            )
        else:
            self._warn(
                f"can't be used ({error}), so embeddings are computed again and not kept. "
                f"Make it writable, leave space on its disk, or name another folder."
            )

    def _move(self, why):
        """Put the databases out of the way in one step, and return where they are; None if gone."""
        try:
            _check_home(self._home)
            for name in os.listdir(self._home):
                mode = _mode(self._home / name) or stat.S_IFREG  # a journal that has just gone
                if name not in _OUR_FILES or not stat.S_ISREG(mode):
                    raise _RefusedError(
                        f"{self._home} holds {name!r}, which is not the cache's: take it away"
                    )
            target = self.folder / f"{_HOME}-{why}-{uuid.uuid4().hex[:8]}"
            return self._home.rename(target)
        except FileNotFoundError:
            return None

    def _moved(self):
        """Folders of databases that were moved out of the way."""
        try:
            homes = [self.folder / n for n in os.listdir(self.folder) if _MOVED.fullmatch(n)]
            return [home for home in homes if stat.S_ISDIR(_mode(home))]
        except OSError:
            return []

    def _warn(self, what):
        warn_once(self.folder, f"The embedding cache in the folder {self.folder} {what}")


# files --------------------------------------------------------------------------------------------


def _check_home(home):
    mode = _mode(home)
    if stat.S_ISLNK(mode):
        raise _RefusedError(
            f"{home} is a symbolic link: name the folder it should lead to as the cache instead"
        )
    if mode and not stat.S_ISDIR(mode):
        raise _RefusedError(f"{home} is not a folder, and not the cache's: take it away")


def _check_files(file):
    """Refuse what SQLite should not open or follow; IN_USE is held.

    It would wait for a pipe, fill the memory from a device, map the files of another journal mode,
    and delete the file that a journal names.
    """
    journal = file.with_name(f"{file.name}-journal")
    for path in (file, journal):
        mode = _mode(path)
        if mode and not stat.S_ISREG(mode):
            raise _RefusedError(f"{path} is not a regular file, and not the cache's: take it away")
    for end in ("-wal", "-shm"):
        if _mode(file.with_name(file.name + end)):
            raise _RefusedError(f"{file}{end} is not the cache's: take it away")
    head = _bytes_of(file, 0, 20)
    if len(head) == 20 and not (head.startswith(b"SQLite format 3\0") and head[18:] == b"\1\1"):
        raise _DamagedError("not a database as this version writes it")
    end = _bytes_of(journal, -16, 16)
    if len(end) == 16 and end.endswith(_JOURNAL_MAGIC):
        raise _DamagedError("its journal names another file")


def _bytes_of(path, start, length):
    """Return bytes from a position, or from one before the end; none if the file is too short."""
    try:
        with path.open("rb") as file:
            file.seek(start, os.SEEK_SET if start >= 0 else os.SEEK_END)
            return file.read(length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno == errno.EINVAL:  # before the start
            return b""
        raise


def _mode(path):
    """Return the type of what is there, not following a link; 0 for nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _identity_of_file(file):
    """Which file is there, None for none."""
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _write_time(file):
    """When a file was last written, in nanoseconds; 0 if it cannot be seen."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def _file_size(path):
    return os.lstat(path).st_size if stat.S_ISREG(_mode(path)) else 0


def _remove(home):
    """Remove our files of a folder, and the folder if it held nothing else."""
    for name in _OUR_FILES:
        _unlink(home / name)
    with contextlib.suppress(OSError):
        home.rmdir()


def _unlink(path):
    if stat.S_ISREG(_mode(path)):
        path.unlink(missing_ok=True)


def _code(error):
    """SQLite's primary result code, 0 for another error."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _text(error):
    return "its schema can't be read" if isinstance(error, UnicodeDecodeError) else error


# a database ---------------------------------------------------------------------------------------


def _prepare(db, kind):
    """Set up a connection, create the tables in an empty database, and refuse any that differ."""
    db.text_factory = bytes  # a hostile text can't fail to decode
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_ROW)
    for pragma in (*_PRAGMAS, *kind.pragmas):
        db.execute(f"PRAGMA {pragma}")
    if _is_empty(db):
        _create(db, kind)
    stamp = _pragma(db, "application_id"), _pragma(db, "user_version")
    schema = dict(db.execute("SELECT name, sql FROM sqlite_schema LIMIT 9").fetchall())
    if stamp != (_APPLICATION_ID, _FORMAT) or schema != kind.schema:
        raise _DamagedError("not a database as this version writes it")


def _create(db, kind):
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # evicting gives space back; writes page one
    with _transaction(db):
        if _is_empty(db):  # nobody was faster
            for sql in kind.create:
                db.execute(sql)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")


def _is_empty(db):
    schema = db.execute("SELECT 1 FROM sqlite_schema").fetchone()
    return schema is None and _pragma(db, "page_count") <= 1


def _write(table, pairs, db):
    """Write (key, value) pairs and read them back, so that no damage outlives the next put."""
    rows = [(key, checksum(key, value), value) for key, value in pairs]
    insert = f"INSERT INTO {table} VALUES (?, ?, ?)"  # noqa: S608 (our own names)
    # A row keeps its rowid, so that those who are reading find it.
    change = "SET key = excluded.key, checksum = excluded.checksum, value = excluded.value"
    with _transaction(db):
        db.executemany(f"{insert} ON CONFLICT (key) DO UPDATE {change}", rows)
        sizes: dict = {}
        for key, value in pairs:
            sizes.setdefault(len(value), set()).add(key)
        for size, missing in sizes.items():
            rowids = _find(table, sorted(missing), db)
            _fetch(table, sorted(rowids), size, lambda key, _, rest=missing: rest.discard(key), db)
            if missing:
                raise _DamagedError("entries are lost as soon as they are written")


def _find(table, keys, db):
    """Return the rowids of keys."""
    find = f"SELECT rowid FROM {table} WHERE key IN "  # noqa: S608 (our own names)
    return [r for some in batched(keys, _ROWS_READ) for (r,) in _select(db, find, some)]


def _fetch(table, rowids, size, take, db):
    """Call take(key, value) for each row that passes its checksum and has `size` bytes."""
    fetch = (
        f"SELECT key, checksum, value FROM {table} WHERE typeof(value) = 'blob' "  # noqa: S608
        f"AND length(value) = {size} AND typeof(key) = 'blob' AND length(key) <= {_LARGEST_KEY} "
        f"AND typeof(checksum) = 'integer' AND rowid IN "
    )
    for some in batched(rowids, _ROWS_READ):
        for key, expected, value in _select(db, fetch, some):
            if expected == checksum(key, value):
                take(key, value)  # and others are misses, which the next put replaces


def _select(db, query, values):
    return db.execute(f"{query} ({','.join('?' * len(values))})", values).fetchall()


def _claim(ids, owner, seconds, clock, db):
    now = clock.time()
    is_valid = "begun <= ? AND ends > ? AND ends <= begun + ?"
    with _transaction(db):
        drop = f"DELETE FROM claims WHERE ({is_valid}) IS NOT 1"  # noqa: S608
        db.execute(drop, (now + _CLOCK_ERROR, now, _LONGEST_CLAIM))
        owners = (
            "SELECT DISTINCT owner FROM claims WHERE typeof(owner) = 'blob' AND length(owner) < 99"
        )
        for owned in db.execute(owners).fetchall():
            if has_ended(*owned):  # killed: nobody waits for its lease to run out
                db.execute("DELETE FROM claims WHERE owner = ?", owned)
        times = (now, now + seconds)
        db.execute("UPDATE claims SET begun = ?, ends = ? WHERE owner = ?", (*times, owner))
        rows = [(i, owner, *times) for i in ids]
        db.executemany("INSERT INTO claims VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
        return [i for (i,) in db.execute("SELECT key FROM claims WHERE owner = ?", (owner,))]


def _release(owner, db):
    db.execute("DELETE FROM claims WHERE owner = ?", (owner,))


def _evict_some(max_bytes, limits, db):
    """Delete some of the oldest rows, or give some space back; return whether more is to do."""
    used = _used(db)
    if used > max_bytes:
        with _transaction(db):
            share = 1 - max_bytes / used
            most = limits.rows_deleted
            n_deleted = sum([_delete_oldest(db, table, share, most) for table in TABLES])
        if n_deleted:
            return True
    n_free = _pragma(db, "freelist_count")
    db.execute(f"PRAGMA incremental_vacuum({limits.pages_freed})").fetchall()  # one page per row
    return 0 < _pragma(db, "freelist_count") < n_free


def _delete_oldest(db, table, share, most):
    """Delete this share of a table's rows, at least one, at most `most`; return how many."""
    ends = f"SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})"  # noqa: S608
    first, last = db.execute(ends).fetchone()
    if first is None:
        return 0
    n_rows = min(math.ceil((last - first + 1) * share), most)
    oldest = f"SELECT rowid FROM {table} ORDER BY rowid LIMIT {n_rows}"  # noqa: S608
    return db.execute(f"DELETE FROM {table} WHERE rowid IN ({oldest})").rowcount  # noqa: S608


@contextlib.contextmanager
def _transaction(db):
    """Take the lock for writing at once; what fails leaves nothing, as closing rolls back."""
    db.execute(f"PRAGMA cache_size = -{_KB_WRITTEN}")
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


def checksum(key, value):
    return zlib.crc32(value, zlib.crc32(key))
