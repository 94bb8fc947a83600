"""The embedding cache: never a wrong or stale embedding, whatever happens to its files."""

import contextlib
import copy
import hashlib
import io
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import BaseEstimator, clone
from stores import CacheOf, Clock

from sklearn_taskres._clip.cache import EmbeddingCache, as_cache
from sklearn_taskres._clip.digests import content_digest, embedding_keys, file_key, text_digest
from sklearn_taskres._clip.images import read_image
from sklearn_taskres._clip.stores import memory, sqlite
from sklearn_taskres._clip.stores.process import has_ended, new_owner
from sklearn_taskres._messages import forget_warnings

D = 16
HOME = "sklearn-taskres-cache-v1"
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs fork and POSIX signals")


@pytest.fixture
def no_racy_files(monkeypatch):
    """Files of this very moment seem to be a minute old, so that tests need not wait."""
    time_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 60 * 10**9)


@pytest.fixture(params=["memory", "folder"])
def cache(request, tmp_path):
    return EmbeddingCache("memory" if request.param == "memory" else tmp_path / "cache")


def key(i):
    return hashlib.sha256(b"%d" % i).digest()[:20]


def row(i, width=D):
    """The one right embedding of key(i)."""
    return np.random.default_rng(i).normal(size=width).astype(np.float32)


def put(cache, numbers):
    cache.put([key(i) for i in numbers], np.stack([row(i) for i in numbers]))


def kept(cache, numbers):
    """Numbers whose entries are kept; fails where one is wrong."""
    rows, found = cache.get([key(i) for i in numbers], D)
    for i, got, is_found in zip(numbers, rows, found, strict=True):
        np.testing.assert_array_equal(got, row(i) if is_found else np.zeros(D), strict=False)
    return {i for i, is_found in zip(numbers, found, strict=True) if is_found}


def database(cache):
    return Path(cache.location) / HOME / "embeddings.sqlite"


def execute(cache, *statements):
    with contextlib.closing(sqlite3.connect(database(cache))) as db, db:
        for statement in statements:
            db.execute(statement)


@contextlib.contextmanager
def one_warning(match):
    """Exactly one warning is given, however often the cache is asked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert len(caught) == 1, [str(w.message) for w in caught]
    assert match in str(caught[0].message)


# a mapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["memory", "folder"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("put"),
                st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=8),
            ),
            st.tuples(st.just("get"), st.lists(st.integers(0, 12), max_size=8)),
            st.tuples(st.just("clear"), st.none()),
        ),
        max_size=8,
    )
)
def test_agrees_with_a_dictionary(location, steps):
    """Any sequence of puts, gets and clears gives what a dictionary gives, repeated keys too."""
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(location if location == "memory" else folder)
        cache.clear()
        model: dict = {}
        for what, items in steps:
            if what == "put":
                cache.put([key(i) for i, _ in items], np.array([row(v) for _, v in items]))
                model.update((i, row(v)) for i, v in items)
            elif what == "clear":
                cache.clear()
                model.clear()
            else:
                rows, found = cache.get([key(i) for i in items], D)
                assert found.tolist() == [i in model for i in items]
                expected = [model.get(i, np.zeros(D)) for i in items]
                np.testing.assert_array_equal(rows, np.reshape(expected, (-1, D)))
            assert cache.entries == len(model)


def test_many_entries_in_any_order(cache):
    """More entries than one statement or transaction takes come back in the order asked."""
    rows = np.arange(9000 * 2, dtype=np.float32).reshape(9000, 2)
    keys = [key(i) for i in range(9000)]
    cache.put(keys, rows)
    order = np.random.default_rng(0).permutation(9000)
    got, found = cache.get([keys[i] for i in order], 2)
    assert found.all()
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, rows[order])


def test_none_is_neither_kept_nor_found(cache):
    """An image that can't be read has the key None, which stands for nothing."""
    cache.put([None, key(1)], np.stack([row(0), row(1)]))
    _, found = cache.get([None, key(1), None], D)
    assert found.tolist() == [False, True, False]


def test_another_width_is_a_miss(cache):
    """An entry never fills a row of another length."""
    put(cache, [1])
    rows, found = cache.get([key(1)], D + 1)
    assert not found.any()
    assert not rows.any()


def test_location_none_keeps_nothing():
    """With None every code path works and nothing is kept."""
    cache = as_cache(None)
    put(cache, [1])
    assert kept(cache, [1]) == set()
    assert (cache.entries, cache.size) == (0, 0)


def test_nothing_is_created_before_the_first_put(tmp_path):
    """Asking an empty cache leaves no folder behind."""
    cache = EmbeddingCache(tmp_path / "a" / "b")
    assert kept(cache, [1]) == set()
    assert (cache.entries, cache.size) == (0, 0)
    cache.evict(0)
    cache.clear()
    assert list(tmp_path.iterdir()) == []


def test_no_file_stays_beside_the_database(tmp_path):
    """Between calls there is one file: no lock, no journal."""
    cache = EmbeddingCache(tmp_path / "cache")
    put(cache, range(10))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [database(cache)]


def test_odd_folder_names(tmp_path, monkeypatch):
    """Spaces, #, ?, %, unicode and relative paths are names like any other."""
    monkeypatch.chdir(tmp_path)
    for name in ["a b", "c#d", "e?f=1&mode=ro", "g%20h", "ünï 図", "./memory"]:
        cache = EmbeddingCache(name)
        put(cache, [1])
        assert kept(cache, [1]) == {1}
        assert database(cache).is_file()


def test_copies_share_what_is_kept(cache):
    """A clone, a deep copy and a pickle are small and see the same entries."""

    class Estimator(BaseEstimator):
        def __init__(self, cache=None):
            self.cache = cache

    put(cache, range(100))
    copies = [
        clone(Estimator(cache)).cache,
        copy.deepcopy(cache),
        pickle.loads(pickle.dumps(cache)),  # noqa: S301 (our own)
        as_cache(cache.location),
        as_cache(cache),
    ]
    assert all(c == cache and len(pickle.dumps(c)) < 1000 for c in copies)
    assert all(kept(c, [1, 2]) == {1, 2} for c in copies)


@pytest.mark.parametrize("location", [3, b"x", "", ["a"]])
def test_refuses_a_location_that_is_no_path(location):
    """A location is named in one sentence that says what would do."""
    with pytest.raises(ValueError, match="must be 'memory', a folder or None"):
        EmbeddingCache(location)


def test_refuses_a_file_as_location(tmp_path):
    """A file where the folder should be is an error, not a cold cache for ever."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Got the file .*: name a folder"):
        put(EmbeddingCache(tmp_path / "file"), [1])


@pytest.mark.parametrize("max_bytes", [-1, "5", float("nan"), True, [3]])
def test_refuses_what_is_no_number_of_bytes(cache, max_bytes):
    """max_bytes is None or 0 and more, for a cache and for evict."""
    with pytest.raises(ValueError, match=r"0 or more\. Got"):
        EmbeddingCache(max_bytes=max_bytes)
    with pytest.raises(ValueError, match=r"0 or more\. Got"):
        cache.evict(max_bytes)


@pytest.mark.parametrize("location", ["a\0b", "~nosuchuser/x"])
def test_refuses_a_folder_that_cannot_be_named(location):
    """A null byte and an unknown home are mistakes, which a sentence names."""
    with pytest.raises(ValueError, match="The 'location' parameter of EmbeddingCache"):
        put(EmbeddingCache(location), [1])


def test_collected_puts_survive_an_interrupt(cache):
    """Small puts are written together, and an interrupt keeps those before it."""

    def interrupted():
        with cache.collect_puts(seconds=60) as collect:
            collect([key(1)], [row(1)])
            collect([key(2)], [row(2)])
            assert kept(cache, [1, 2]) == set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert kept(cache, [1, 2, 3]) == {1, 2}
    with cache.collect_puts(seconds=0) as collect:
        collect([key(3)], [row(3)])
        assert kept(cache, [3]) == {3}


# claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_claim_has_one_owner_until_it_is_released_or_runs_out(tmp_path, kind):
    """Others get what is left; renewing keeps a claim, and its end gives it to the next."""
    clock, keys = Clock(), [key(i) for i in range(6)]
    a, b = b"a" * 16, b"b" * 16
    store = memory.MemoryStore(clock=clock) if kind == "memory" else folder_store(tmp_path, clock)
    assert store.claim(keys[:4], a, 10) == set(keys[:4])
    assert store.claim(keys, b, 10) == set(keys[4:])
    assert store.claim(keys[:2], a, 10) == set(keys[:2])  # its own again
    store.release(b)
    assert store.claim(keys[4:], a, 10) == set(keys[4:])
    clock.now += 9
    assert store.claim((), a, 10) == set()
    clock.now += 9
    assert store.claim(keys, b, 10) == set()
    clock.now += 2
    assert store.claim(keys, b, 10) == set(keys)
    store.release(a)  # which woke up, and has nothing any more
    assert store.claim(keys, a, 10) == set()


def test_a_clock_that_jumps_keeps_nobody_waiting(tmp_path):
    """A claim from the future, as after a clock was set back, or of many years, is not believed."""
    clock = Clock()
    store = folder_store(tmp_path, clock)
    assert store.claim([key(1)], b"a", 10) == {key(1)}
    clock.now -= 3600
    assert store.claim([key(1)], b"b", 10) == {key(1)}
    clock.now += 1e6
    assert store.claim([key(1)], b"a", 1e9) == {key(1)}
    assert store.claim([key(1)], b"b", 10) == {key(1)}


@pytest.mark.parametrize("damage", [b"noise" * 1000, b"", b"SQLite format 3\0" + bytes(500)])
def test_damaged_claims_cost_nothing(tmp_path, damage):
    """Claims that can't be read are begun anew, and the embeddings stay where they are."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    assert cache.store().claim([key(1)], b"a", 10) == {key(1)}
    database(cache).with_name("claims.sqlite").write_bytes(damage)
    assert cache.store().claim([key(1)], b"b", 10) == {key(1)}
    assert cache.store().claim([key(1)], b"a", 10) == set()
    assert kept(cache, [1]) == {1}


@posix_only
def test_a_child_does_not_wait_for_threads_that_it_does_not_have():
    """Claims in memory end with a fork."""
    cache = EmbeddingCache()
    assert cache.store().claim([key(1)], b"a", 60) == {key(1)}
    assert in_child(lambda: cache.store().claim([key(1)], b"b", 60)) == {key(1)}
    cache.store().release(b"a")


# bounds ---------------------------------------------------------------------------------------


def test_memory_drops_the_least_recently_used():
    """Reading an entry keeps it; the bound holds after every put."""
    weight = D * 4 + memory._OVERHEAD
    cache = EmbeddingCache(max_bytes=3 * weight)
    put(cache, [0, 1, 2])
    kept(cache, [0])
    put(cache, [3])
    assert cache.size == 3 * weight
    assert kept(cache, range(4)) == {0, 2, 3}
    put(cache, [3])  # replacing is not growth
    assert cache.entries == 3
    cache.evict(weight)
    assert kept(cache, range(4)) == {3}


def test_folder_drops_the_oldest(tmp_path):
    """A folder gets smaller on disk, and what was written last stays."""
    cache = EmbeddingCache(tmp_path)
    for start in range(0, 4000, 1000):
        put(cache, range(start, start + 1000))
    before = cache.size
    assert before == database(cache).stat().st_size
    cache.evict(before // 2)
    assert database(cache).stat().st_size <= before // 2
    left = kept(cache, range(4000))
    assert left == set(range(4000 - len(left), 4000))
    assert len(left) > 1000
    cache.evict(0)
    assert cache.entries == 0
    put(cache, [1])
    assert kept(cache, [1]) == {1}


def test_size_counts_what_was_moved_out_of_the_way(tmp_path):
    """Damaged databases, and what a killed `clear` leaves, take space until they are evicted."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(1000))
    left = tmp_path / f"{HOME}-cleared-0123abcd"
    left.mkdir()
    (left / "embeddings.sqlite").write_bytes(bytes(1_000_000))
    assert cache.size == database(cache).stat().st_size + 1_000_000
    bounded = EmbeddingCache(tmp_path, max_bytes=500_000)
    put(bounded, range(100))
    assert not left.exists()
    assert kept(cache, range(1000)) == set(range(1000))


def test_bounded_folder_stays_bounded(tmp_path):
    """With max_bytes, no put leaves more than that."""
    cache = EmbeddingCache(tmp_path, max_bytes=300_000)
    for start in range(0, 8000, 800):
        put(cache, range(start, start + 800))
        assert database(cache).stat().st_size <= 300_000
    assert 7999 in kept(cache, range(8000))


# digests --------------------------------------------------------------------------------------


def write_files(folder, n=5):
    folder.mkdir()
    paths = [folder / f"{i}.bin" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(b"content %d" % i)
    return paths


@pytest.mark.usefixtures("no_racy_files")
def test_known_files_are_not_opened(cache, tmp_path, opened):
    """A second pass reads no file, whether paths are str or Path, relative or absolute."""
    paths = write_files(tmp_path / "images")
    digests = cache.digests(paths)
    assert digests == [content_digest(b"content %d" % i) for i in range(5)]
    opened.clear()
    assert cache.digests([str(p) for p in paths]) == digests
    assert opened == []


@pytest.mark.usefixtures("no_racy_files")
def test_a_moved_folder_stays_warm(cache, tmp_path, opened):
    """Moved files are digested once more, and lead to the same embeddings."""
    paths = write_files(tmp_path / "images")
    keys = embedding_keys(cache.digests(paths), "encoder")
    cache.put(keys, np.stack([row(i) for i in range(5)]))
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / p.name for p in paths]
    opened.clear()
    assert embedding_keys(cache.digests(moved), "encoder") == keys
    assert len(opened) == 5


def until_it_shows(change, path):
    """Change a file until the kernel's clock has ticked, so that its times are others."""
    before, ends = path.stat().st_ctime_ns, time.monotonic() + 60
    while path.stat().st_ctime_ns == before:
        change()
        assert time.monotonic() < ends, "the clock stands still"


@pytest.mark.usefixtures("no_racy_files")
def test_a_replaced_image_is_never_stale(cache, tmp_path):
    """Another content of the same size and mtime, written in place or moved in, is seen."""
    (path,) = write_files(tmp_path / "images", 1)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    seen = {cache.digests([path])[0]}

    def write(content):
        path.write_bytes(content)
        os.utime(path, ns=times)

    for content in [b"CONTENT 0", b"CoNtEnT 0"]:
        until_it_shows(lambda content=content: write(content), path)
        seen.add(cache.digests([path])[0])
    other = tmp_path / "other"
    other.write_bytes(b"cOnTeNt 0")
    os.utime(other, ns=times)
    other.replace(path)
    seen.add(cache.digests([path])[0])
    assert len(seen) == 4


@pytest.mark.usefixtures("no_racy_files")
def test_a_touched_image_keeps_its_digest(cache, tmp_path, opened):
    """Touching costs a second look and changes nothing."""
    (path,) = write_files(tmp_path / "images", 1)
    digests = cache.digests([path])
    until_it_shows(path.touch, path)
    opened.clear()
    assert cache.digests([path]) == digests
    assert opened == [path]


def test_a_young_file_is_not_trusted(cache, tmp_path, opened):
    """Two writes in one tick of the clock leave equal times, so young files are read again."""
    (path,) = write_files(tmp_path / "images", 1)
    stamps = {file_key(path, b"")}
    first = cache.digests([path])
    path.write_bytes(b"CONTENT 0")
    stamps.add(file_key(path, b""))  # often the same: this is why
    assert cache.digests([path]) != first
    opened.clear()
    cache.digests([path])
    assert opened == [path]


@pytest.mark.usefixtures("no_racy_files")
def test_a_file_that_changes_while_it_is_read_is_not_recorded(cache, tmp_path, on_event):
    """A folder that is swapped between looking and reading, and back, leaves nothing stale."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        write_files(folder, 1)[0].write_bytes(folder.name.encode())
    link = tmp_path / "link"
    path, swaps = link / "0.bin", iter([True])

    def swap(opened, *_):
        if opened == str(path) and next(swaps, False):
            link.unlink()
            link.symlink_to(folders[1])

    link.symlink_to(folders[0])
    on_event("open", swap)
    assert cache.digests([path]) == [content_digest(b"b")]
    link.unlink()
    link.symlink_to(folders[0])
    assert cache.digests([path]) == [content_digest(b"a")]


def test_what_cannot_be_read_has_no_digest(cache, tmp_path):
    """Missing files, folders, pipes, null bytes and objects give None, and never block."""
    images = [tmp_path / "missing", tmp_path, "a\0b", object(), None, "/dev/zero"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        images.append(tmp_path / "pipe")
    assert cache.digests(images) == [None] * len(images)


def test_a_file_and_its_bytes_are_one_image(tmp_path):
    """The digest is of the content, wherever it lies."""
    (path,) = write_files(tmp_path / "images", 1)
    data = path.read_bytes()
    assert len({content_digest(x) for x in [path, str(path), data, memoryview(data)]}) == 1


def test_digests_tell_apart_what_reads_differently():
    """Equal bytes of another shape, palette, transparency or orientation differ."""
    array = np.arange(48, dtype=np.uint8)
    grey = Image.fromarray(array.reshape(6, 8))
    palette_a, palette_b = grey.copy(), grey.copy()
    palette_a.putpalette(list(range(256)) * 3)
    palette_b.putpalette(list(range(255, -1, -1)) * 3)
    transparent, turned = grey.copy(), grey.copy()
    transparent.info["transparency"] = 3
    turned.getexif()[0x0112] = 6
    images = [
        *(array.reshape(shape) for shape in [(6, 8), (8, 6), (4, 4, 3), (3, 4, 4)]),
        array.tobytes(),
        *(palette_a, palette_b, transparent, turned),
    ]
    digests = [content_digest(image) for image in images] + [text_digest("x"), text_digest("y")]
    assert len(set(digests)) == len(digests)


def test_one_picture_in_memory_has_one_digest():
    """Pixels that read the same are one image, as an array of any type and as a PIL image."""
    array = np.arange(48, dtype=np.uint8).reshape(6, 8)
    grey = Image.fromarray(array)
    floats = [(array / 255).astype(dtype) for dtype in [np.float32, np.float64]]
    images = [array, *floats, grey, grey.convert("RGB"), np.stack([array] * 3, axis=-1)]
    assert len({content_digest(image) for image in images}) == 1


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]),
    format_=st.sampled_from([None, "PNG", "GIF", "TIFF"]),
    seed=st.integers(0, 3),
)
def test_equal_digests_read_equal(mode, format_, seed):
    """Two PIL images of one digest give the same pixels, lazily loaded or not."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L").convert(mode) if mode != "RGB" else None
    image = Image.fromarray(pixels) if image is None else image
    images = [image, image.copy()]
    if format_ is not None:
        buffer = io.BytesIO()
        try:
            image.save(buffer, format_)
        except (OSError, ValueError):  # this format does not know this mode
            return
        images = [Image.open(buffer), Image.open(io.BytesIO(buffer.getvalue()))]
        images[1].load()
    assert content_digest(images[0]) == content_digest(images[1])
    assert read_image(images[0]).tobytes() == read_image(images[1]).tobytes()


def test_a_tensor_has_the_digest_of_its_array():
    """torch tensors, bfloat16 too, are read like arrays."""
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    assert content_digest(torch.tensor(array)) == content_digest(array)
    assert len(content_digest(torch.zeros(3, 4, 4, dtype=torch.bfloat16))) == 32


def test_keys_depend_on_all_that_decides():
    """Content, encoder and view each change the key; an unreadable image has none."""
    digests = [content_digest(b"a"), content_digest(b"b"), None]
    keys = {
        k
        for fingerprint in ["one", "two"]
        for view in [0, 1, ("tip", 1, 0)]
        for k in embedding_keys(digests, fingerprint, view)
    }
    assert len(keys) == 2 * 2 * 3 + 1
    assert embedding_keys(digests, "one") == embedding_keys(digests, "one", 0)


# threads and processes ------------------------------------------------------------------------


def test_threads_share_a_cache(cache):
    """Eight threads that put and get at once see no wrong entry and lose none."""
    errors = []

    def work(seed):
        try:
            for start in range(0, 100, 20):
                put(cache, range(seed * 100 + start, seed * 100 + start + 20))
                kept(cache, random.Random(seed).sample(range(800), 50))  # noqa: S311
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert kept(cache, range(800)) == set(range(800))


def put_and_count(cache, numbers):
    """What a worker does: keep entries, and count what it finds."""
    put(cache, numbers)
    return len(kept(cache, numbers))


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_workers_share_a_folder(tmp_path, backend):
    """Spawned and forked workers write at once; the parent finds everything."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [0])
    numbers = [range(i, i + 50) for i in range(0, 400, 50)]
    with joblib.parallel_backend(backend, n_jobs=2):
        counts = joblib.Parallel()(joblib.delayed(put_and_count)(cache, n) for n in numbers)
    assert counts == [50] * 8
    assert kept(cache, range(400)) == set(range(400))


WORKERS = """
import socket, sys, threading, warnings

import joblib
import numpy as np
from sklearn_taskres import EmbeddingCache

def introduce(server):
    workers = [server.accept()[0] for _ in range(2)]
    for worker in workers:
        worker.send(b"!")

def messages(location, address):
    if address is not None:
        socket.create_connection(address, timeout=250).recv(1)  # until both workers are at it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for key in (b"1" * 20, b"2" * 20):
            EmbeddingCache(location).put([key], np.zeros((1, 3)))
    return [str(w.message) for w in caught]

if __name__ == "__main__":
    location, server = sys.argv[1], socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=introduce, args=[server], daemon=True).start()
    jobs = [joblib.delayed(messages)(location, server.getsockname())] * 2
    print(*joblib.Parallel(2)(jobs), messages(location, None))
"""


@pytest.mark.parametrize("location", ["memory", "folder"])
def test_memory_in_workers_is_warned_of_once(location, tmp_path):
    """The first worker says that a folder would be shared; with a folder nobody says anything."""
    (tmp_path / "workers.py").write_text(WORKERS)
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "workers.py", location],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Name a folder") == (location == "memory")


@pytest.mark.parametrize(
    ("name", "speaks"),
    [
        ("LokyProcess-1", True),
        ("LokyProcess-2", False),
        ("SpawnPoolWorker-11", False),
        ("Dask Worker process (from Nanny)", True),
    ],
)
def test_numbered_workers_leave_the_warning_to_the_first(name, speaks):
    """A worker that is not numbered speaks for itself."""
    said = in_child(messages_of_a_put, name=name)
    assert ["Name a folder" in message for message in said] == [True] * speaks


def messages_of_a_put():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        put(EmbeddingCache("memory"), [1])
    return [str(w.message) for w in caught]


def in_child(function, *args, name=None):
    """Return function(*args) as a child called `name` computes it; it is forked if that is there.

    Where it is not, `function` must be one of this module.
    """
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(there, function, *args), name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: on purpose
        process.start()
    there.close()
    try:
        assert here.poll(60), "the child hangs"
        return here.recv()
    finally:
        process.join(60)
        process.close()
        here.close()


def send_result(there, function, *args):
    there.send(function(*args))


@posix_only
def test_a_fork_in_the_middle_of_writing_is_safe(tmp_path):
    """Children forked while a thread writes neither hang nor harm the database."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(50))
    stop = threading.Event()

    def write():
        while not stop.is_set():
            put(cache, range(50))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            assert in_child(put_and_count, cache, range(100)) == 100
    finally:
        stop.set()
        thread.join()
    assert kept(cache, range(100)) == set(range(100))


def write_for_ever(cache, start, parent):
    for first in itertools.cycle(range(start, start + 400, 25)):
        put(cache, range(first, first + 25))
        parent.send(first)
        parent.recv()  # lets others write: SQLite's queue is not a fair one


@pytest.mark.slow
@posix_only
def test_killed_writers_leave_nothing_wrong(tmp_path):
    """After SIGKILL of 20 out of 4 writers at a time, entries are right and writing goes on."""
    cache = EmbeddingCache(tmp_path)
    context = multiprocessing.get_context("fork")
    rng = random.Random(0)  # noqa: S311
    writers, pipes = [], []
    for _ in range(20):
        while len(writers) < 4:
            here, there = context.Pipe()
            args = cache, 100 * len(writers), there
            writers.append(context.Process(target=write_for_ever, args=args, daemon=True))
            writers[-1].start()
            there.close()
            pipes.append(here)
        for _ in range(rng.randrange(1, 20)):
            written = multiprocessing.connection.wait(pipes, timeout=60)
            assert written, "nobody writes"
            for pipe in written:
                pipe.recv()
                pipe.send("go on")
        victim = rng.randrange(4)  # in the middle of writing, or waiting for others to end it
        writers[victim].kill()
        kept(cache, range(800))
        writers.pop(victim).join()
        pipes.pop(victim).close()
    for writer, pipe in zip(writers, pipes, strict=True):
        writer.kill()
        writer.join()
        pipe.close()
    with contextlib.closing(sqlite3.connect(database(cache), timeout=0)) as db:
        db.execute("BEGIN IMMEDIATE")  # nobody's lock is left
    assert len(kept(cache, range(800))) > 25
    put(cache, range(800))
    assert kept(cache, range(800)) == set(range(800))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [database(cache)]


# what is not ours -----------------------------------------------------------------------------


def test_nothing_of_others_is_touched(tmp_path):
    """Folders that are named like versions, and files put next to ours, survive everything."""
    others = ["v1/thesis.tex", "v1-final/photo.jpg", f"{HOME}-cleared-mine/a", f"{HOME}-damaged/b"]
    others += [f"{HOME}-cleared-0123abcd/notes.txt", "v1-notes.txt"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    cache = EmbeddingCache(tmp_path)
    cache.clear()
    put(cache, range(10))
    database(cache).write_bytes(b"noise" * 1000)
    with one_warning("was damaged"):
        put(cache, range(10))
    cache.evict(0)
    cache.clear()
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in left} == {n: n for n in others}


def test_a_home_with_files_of_others_is_used_and_not_moved(tmp_path):
    """Whoever put a file among ours keeps it: `clear` and the healing of damage say its name."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    database(cache).with_name("thesis.tex").write_text("x")
    put(cache, [2])
    assert kept(cache, [1, 2]) == {1, 2}
    with pytest.raises(OSError, match=r"holds 'thesis.tex', which is not the cache's"):
        cache.clear()
    assert kept(cache, [1, 2]) == {1, 2}
    database(cache).write_bytes(b"noise" * 1000)
    with one_warning("can't be used"):
        put(cache, [1])
        assert kept(cache, [1]) == set()
    assert database(cache).with_name("thesis.tex").read_text() == "x"
    assert database(cache).read_bytes() == b"noise" * 1000


def test_links(tmp_path):
    """The location may be a symbolic link; its home may not, and what it leads to stays."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    put(EmbeddingCache(link), [1])
    assert kept(EmbeddingCache(tmp_path / "disk"), [1]) == {1}
    other = EmbeddingCache(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / HOME).symlink_to(tmp_path / "disk" / HOME, target_is_directory=True)
    with one_warning("is a symbolic link: name the folder"):
        put(other, [2])
        assert kept(other, [1, 2]) == set()
    with pytest.raises(OSError, match="is a symbolic link"):
        other.clear()
    assert kept(EmbeddingCache(link), [1, 2]) == {1}


def super_journal(victim, size):
    """A journal that has SQLite roll back nothing of a database, and delete `victim` with it."""
    name, magic = os.fsencode(victim), bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 1234, size // 16384, 512, 16384)
    sums = sum(byte if byte < 128 else byte - 256 for byte in name) & 0xFFFFFFFF
    end = struct.pack(">I", (1 << 30) // 16384 + 1) + name + struct.pack(">II", len(name), sums)
    return header.ljust(512, b"\0") + end + magic


def test_a_journal_never_deletes_another_file(tmp_path):
    """A planted journal is moved out of the way, unread, with the database that it lies next to."""
    victim = tmp_path / "diary"
    victim.write_text("dear diary")
    cache = EmbeddingCache(tmp_path / "cache")
    put(cache, [1])
    journal = database(cache).with_name("embeddings.sqlite-journal")
    journal.write_bytes(super_journal(victim, database(cache).stat().st_size))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept(cache, [1])
    assert victim.read_text() == "dear diary"
    assert ["its journal names another file" in str(w.message) for w in caught] == [True]
    put(cache, [1])
    assert kept(cache, [1]) == {1}


@posix_only
@pytest.mark.parametrize("end", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link"])
def test_only_regular_files_are_opened(tmp_path, kind, end):
    """A pipe would block for ever, a device fill the memory: one warning, and both stay."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    path = Path(f"{database(cache)}{end}")
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with one_warning("not the cache's: take it away"):
        put(cache, [2])
        assert kept(cache, [1, 2]) == set()
    assert os.path.lexists(path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("position", [18, 19])
def test_a_damaged_header_heals(tmp_path, position):
    """Bytes that make SQLite take a database for read-only, or for one with a log, are damage."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    content = bytearray(database(cache).read_bytes())
    content[position] = 2 + position
    database(cache).write_bytes(content)
    with one_warning("was damaged"):
        put(cache, [1])
    assert kept(cache, [1]) == {1}


def test_a_schema_that_is_no_text_heals(tmp_path):
    """SQLite quotes damaged names in its messages, which Python can't decode."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    content = database(cache).read_bytes()
    content = content.replace(b"tabledigests", b"table\xe4\x88gests")
    database(cache).write_bytes(content.replace(b"CREATE TABLE digests", b"CREATE TABLX digests"))
    with one_warning("was damaged"):
        put(cache, [1])
    assert kept(cache, [1]) == {1}


def test_hostile_values_are_not_read(tmp_path, on_event):
    """Values, keys and checksums of another size stay on disk; only the right ones are read."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(6))
    execute(cache, "UPDATE embeddings SET value = zeroblob(9000000) WHERE rowid = 1")
    execute(cache, "UPDATE embeddings SET checksum = zeroblob(9000000) WHERE rowid = 2")
    execute(cache, "UPDATE embeddings SET key = zeroblob(100000) WHERE rowid = 3")
    sizes = []

    def note_sizes(_, cells):
        if not any(isinstance(cell, bytes) and b"CREATE" in cell for cell in cells):  # the schema
            sizes.extend(len(cell) for cell in cells if isinstance(cell, bytes))
        return cells

    on_event("sqlite3.connect/handle", lambda db: setattr(db, "row_factory", note_sizes))
    assert kept(cache, range(6)) == {3, 4, 5}
    assert max(sizes) == D * 4


@pytest.mark.parametrize("rowid", [2**63 - 1, -(2**63)])
def test_rowids_at_their_ends_can_be_evicted(tmp_path, rowid):
    """A row with the largest number there is ends no call in an error."""
    cache = EmbeddingCache(tmp_path, max_bytes=300_000)
    put(cache, range(10))
    execute(cache, f"UPDATE embeddings SET rowid = {rowid} WHERE rowid = 10")  # noqa: S608
    put(cache, range(10, 8000))
    assert database(cache).stat().st_size <= 300_000
    cache.evict(0)
    assert cache.entries == 0


def test_a_row_that_is_too_long_is_not_kept(tmp_path):
    """It does not harm the rows next to it, nor the database."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    cache.put([key(2)], np.ones((1, 2**20 + 1), dtype=np.float32))
    assert kept(cache, [1, 2]) == {1}
    assert cache.entries == 1
    cache.put([key(2)], np.ones((1, 2**20), dtype=np.float32))  # the longest that is kept
    rows, found = cache.get([key(2)], 2**20)
    assert found.all()
    assert (rows == 1).all()


def test_a_key_that_is_too_long_is_not_kept(tmp_path):
    """Nor does it count as damage, for which all the rest would be moved away."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    cache.put([b"k" * 65], [row(2)])
    assert kept(cache, [1]) == {1}
    assert cache.entries == 1


@posix_only
def test_a_folder_that_cannot_be_searched_costs_one_warning(tmp_path):
    """So do a name that is too long, and folders below them."""

    def as_nobody():
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for location in [tmp_path / "closed" / "cache", tmp_path / ("x" * 300) / "cache"]:
            cache = EmbeddingCache(location)
            with one_warning("can't be used"):
                put(cache, [1])
                put(cache, [1])
                assert kept(cache, [1]) == set()
                assert (cache.entries, cache.size) == (0, 0)
                cache.evict(0)
        return True

    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed").chmod(0o000)
    try:
        assert in_child(as_nobody)
    finally:
        (tmp_path / "closed").chmod(0o700)


@posix_only
def test_a_working_folder_that_is_gone(tmp_path):
    """Arrays are digested, and kept in a folder that is named in full."""

    def without_folder():
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        cache = EmbeddingCache(tmp_path / "cache")
        put(cache, [1])
        digests = cache.digests([np.zeros((4, 4)), "no/such/file", tmp_path / "x"])
        return kept(cache, [1]), [digest is None for digest in digests]

    (tmp_path / "x").write_bytes(b"x")
    assert in_child(without_folder) == ({1}, [False, True, False])


# others that hold a lock ----------------------------------------------------------------------


PATIENCE = sqlite.Limits().patience


def folder_store(folder, clock, **limits):
    """A store that goes by a clock of the test's, within other limits than are usual."""
    return sqlite.FolderStore(Path(folder), None, sqlite.Limits(clock=clock, **limits))


@pytest.fixture
def clock():
    """What the process goes by that finds a database locked."""
    return Clock()


@pytest.fixture
def other(tmp_path):
    """A connection of somebody else, who has locked the database and does not unlock it."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(10))
    with contextlib.closing(sqlite3.connect(database(cache), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield db


@pytest.fixture
def locked(other, tmp_path, clock):
    """The cache of that database."""
    return CacheOf(tmp_path, folder_store(tmp_path, clock, patiences=2))


def touch(cache):
    """Do to a database what others do that write."""
    times = os.stat(database(cache)).st_mtime_ns + 10**9
    os.utime(database(cache), ns=(times, times))


def test_a_lock_costs_one_patience(locked, clock):
    """After the first call no other waits, and there is one warning; later it is tried again."""
    begun, drawn = clock.now, random.getstate()
    with one_warning(f"has been locked by another process for {PATIENCE:.0f} seconds"):
        assert kept(locked, range(10)) == set()
        waited = clock.now
        assert waited == begun + PATIENCE
        for _ in range(50):
            put(locked, range(10))
            assert kept(locked, range(10)) == set()
            assert locked.store().claim([key(1)], b"a", 10) == {key(1)}
        assert clock.now == waited
    clock.now += 180
    assert kept(locked, range(10)) == set()
    assert clock.now == waited + 180 + PATIENCE
    assert random.getstate() == drawn  # the user's draws are left alone


def test_others_that_go_on_writing_are_waited_for(locked, clock, other):
    """SQLite has no queue: a call that is overtaken for longer than its patience gets its turn."""
    begun = clock.now

    def overtake():
        touch(locked)
        if clock.now > begun + 1.5 * PATIENCE and other.in_transaction:
            other.execute("ROLLBACK")

    clock.meanwhile = overtake
    assert kept(locked, range(10)) == set(range(10))
    assert clock.now > begun + PATIENCE


def test_waiting_for_writers_ends(locked, clock):
    """A lock that is never given back is given up, even if somebody touches the file for ever."""
    begun, clock.meanwhile = clock.now, lambda: touch(locked)
    with one_warning("has been locked by another process"):
        assert kept(locked, range(10)) == set()
    assert clock.now == begun + 2 * PATIENCE


@posix_only
def test_waiting_for_a_lock_holds_up_nothing_else(locked, clock, tmp_path):
    """While a thread waits, other caches of the process work, and a fork does."""
    waits, go_on = threading.Event(), threading.Event()

    def nap():
        waits.set()
        go_on.wait(60)
        raise InterruptedError

    clock.meanwhile = nap
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept, locked, range(10))
        try:
            assert waits.wait(60)
            for other in [EmbeddingCache(), EmbeddingCache(tmp_path / "other")]:
                put(other, [1])
                assert kept(other, [1]) == {1}
            assert in_child(os.getpid) > 0
            assert not waiting.done()
        finally:
            go_on.set()


def test_eviction_lets_others_in(tmp_path):
    """Between two of its transactions another connection can take the lock."""
    cache = EmbeddingCache(tmp_path)
    for start in range(0, 6000, 1000):
        put(cache, range(start, start + 1000))
    n_taken = []

    def others_turn():
        with contextlib.closing(sqlite3.connect(database(cache), timeout=0)) as db:
            db.execute("BEGIN EXCLUSIVE")
            n_taken.append(1)

    store = folder_store(tmp_path, Clock(others_turn), rows_deleted=500, pages_freed=4)
    store.evict(cache.size // 4)
    assert len(n_taken) >= 15


# what happens to files ------------------------------------------------------------------------


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_damage_gives_a_wrong_embedding(data):
    """Noise or a cut anywhere: what is found is right, and the next put makes all readable."""
    forget_warnings()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = EmbeddingCache(folder)
        put(cache, range(600))
        content = bytearray(database(cache).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1)))
            if data.draw(st.booleans()):
                noise = random.Random(data.draw(st.integers(0, 9)))  # noqa: S311
                size = data.draw(st.sampled_from([1, 8, 500, 20_000]))
                content[start : start + size] = noise.randbytes(size)
            else:
                del content[start:]
                break
        database(cache).write_bytes(content)
        kept(cache, range(700))
        put(cache, range(600))
        assert kept(cache, range(600)) == set(range(600))


def test_damage_that_sqlite_does_not_see_ends_with_the_next_put(tmp_path):
    """A key in the index that leads lookups astray is found out by reading back what is written."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(600))
    content = bytearray(database(cache).read_bytes())
    content[content.rfind(sorted(map(key, range(600)))[300])] = 255  # in the index, not the table
    database(cache).write_bytes(content)
    with one_warning("lost as soon as they are written"):
        put(cache, range(600))
    assert kept(cache, range(600)) == set(range(600))


@pytest.mark.parametrize("damage", ["noise", "cut", "older", "newer", "foreign", "trigger"])
def test_a_damaged_database_is_moved_and_begun_again(tmp_path, damage):
    """One warning says where the old one is; everything can be written and read again."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(1000))
    if damage == "noise":
        database(cache).write_bytes(random.Random(0).randbytes(50_000))  # noqa: S311
    elif damage == "cut":
        os.truncate(database(cache), database(cache).stat().st_size // 2)
    elif damage == "older":
        execute(cache, "PRAGMA user_version = 0")
    elif damage == "newer":
        execute(cache, "PRAGMA user_version = 2")
    elif damage == "foreign":
        execute(cache, "CREATE TABLE mine (a)")
    else:
        execute(
            cache,
            "CREATE TRIGGER t AFTER INSERT ON embeddings BEGIN DELETE FROM embeddings; END",
        )
    with one_warning("It was moved to"):
        assert kept(cache, range(1000)) == set()
        put(cache, range(1000))
        assert kept(cache, range(1000)) == set(range(1000))
    assert len(list(tmp_path.glob(f"{HOME}-damaged-*"))) == 1
    cache.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_a_miss_and_is_replaced(tmp_path):
    """A flipped bit costs one embedding, silently."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(100))
    execute(cache, "UPDATE embeddings SET value = zeroblob(64) WHERE rowid = 8")
    assert kept(cache, range(100)) == set(range(100)) - {7}
    put(cache, [7])
    assert kept(cache, range(100)) == set(range(100))


@pytest.mark.parametrize("value", ["NULL", "1.5", "'text'", "CAST(x'ff' AS TEXT)", "zeroblob(40)"])
@pytest.mark.parametrize("column", ["value", "checksum"])
def test_a_hostile_value_is_a_miss(tmp_path, column, value):
    """Values of another type or length are refused without an error."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(3))
    execute(cache, f"UPDATE embeddings SET {column} = {value} WHERE rowid = 1")  # noqa: S608
    assert kept(cache, range(3)) == {1, 2}


def test_a_huge_value_is_not_read(tmp_path):
    """A blob larger than any embedding never fills the memory."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(3))
    execute(cache, "UPDATE embeddings SET value = zeroblob(50000000) WHERE rowid = 1")
    assert kept(cache, range(3)) == {1, 2}
    put(cache, range(3))
    assert kept(cache, range(3)) == {0, 1, 2}


def test_a_folder_deleted_under_way_is_made_again(tmp_path):
    """Whoever deletes the folder clears the cache, and work goes on without a word."""
    cache = EmbeddingCache(tmp_path / "a" / "cache")
    put(cache, range(10))
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert kept(cache, range(10)) == set()
    put(cache, [3])
    assert kept(cache, range(10)) == {3}


def test_a_folder_deleted_in_the_middle_of_a_put_is_made_again(tmp_path, on_event):
    """The put is tried once more if its database has gone."""
    cache = EmbeddingCache(tmp_path / "cache")
    put(cache, [1])
    connections = []

    def interfere(_, cells):
        """Clear while the first connection looks at the schema, which it does before it writes."""
        if any(isinstance(cell, bytes) for cell in cells) and len(connections) == 1:
            cache.clear()
        return cells

    def listen(db):
        connections.append(db)
        db.row_factory = interfere

    on_event("sqlite3.connect/handle", listen)
    put(cache, [2])
    assert len(connections) == 2
    assert kept(cache, [1, 2]) == {2}


@pytest.mark.parametrize("message", ["attempt to write a readonly database", "disk I/O error"])
def test_a_database_that_fails_costs_one_warning(tmp_path, on_event, message):
    """Whatever SQLite complains about, results are those without a cache."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])

    def fail(_):
        raise sqlite3.OperationalError(message)

    on_event("sqlite3.connect", fail)
    with one_warning(f"can't be used ({message})"):
        put(cache, [2])
        assert kept(cache, [1, 2]) == set()
        assert (cache.entries, cache.size) == (0, 0)


@posix_only
def test_a_full_disk_costs_one_warning(tmp_path):
    """If nothing more fits, what was kept is served, the rest is not kept, nothing is wrong."""
    cache = EmbeddingCache(tmp_path)
    put(cache, range(100))

    def on_a_full_disk():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = database(cache).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with one_warning("can't be used"):
            put(cache, range(100, 4000))
            put(cache, range(100, 4000))
            return kept(cache, range(4000))

    assert in_child(on_a_full_disk) >= set(range(100))
    put(cache, range(4000))
    assert kept(cache, range(4000)) == set(range(4000))


@posix_only
def test_a_read_only_folder_serves_what_it_has(tmp_path):
    """Someone without the right to write finds all entries, and is warned once when putting."""
    cache = EmbeddingCache(tmp_path / "cache")
    put(cache, range(10))

    def as_nobody():
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        found = kept(cache, range(20))
        with one_warning("can't be used"):
            put(cache, [11])
            put(cache, [12])
        return found, kept(cache, range(20))

    places = [database(cache), database(cache).parent, tmp_path / "cache"]
    for place in places:
        place.chmod(0o555)
    for parent in tmp_path.parents[:-2]:  # pytest keeps its folders private
        if parent.stat().st_uid == os.getuid() and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    try:
        assert in_child(as_nobody) == (set(range(10)), set(range(10)))
    finally:
        for place in places:
            place.chmod(0o755)


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path):
    """A parent that is a file, for one, is not the end of the fit."""
    (tmp_path / "file").touch()
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    with one_warning("name another folder"):
        put(cache, [1])
        put(cache, [1])
        assert kept(cache, [1]) == set()


def test_another_format_is_left_alone(tmp_path):
    """A newer version keeps its own database; neither reads, moves nor clears the other."""
    newer = tmp_path / "sklearn-taskres-cache-v2" / "embeddings.sqlite"
    newer.parent.mkdir()
    newer.write_bytes(b"of the future")
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    cache.clear()
    assert newer.read_bytes() == b"of the future"


def test_a_journal_that_ends_is_no_reason_not_to_clear(tmp_path):
    """A writer may finish, and its journal go, between listing the folder and looking at it."""
    cache = EmbeddingCache(tmp_path)
    put(cache, [1])
    journal = database(cache).with_name("embeddings.sqlite-journal")
    journal.touch()
    others, seen = sys.getprofile(), []

    def end_the_journal(_, event, function):
        if event == "c_return" and function is os.listdir:
            seen.append(journal.exists())
            journal.unlink(missing_ok=True)

    sys.setprofile(end_the_journal)
    try:
        cache.clear()
    finally:
        sys.setprofile(others)
    assert seen[0]
    assert cache.entries == 0


@pytest.mark.slow
def test_clear_does_not_harm_a_writer(tmp_path):
    """Clearing while another process puts is neither an error nor a warning there."""
    cache = EmbeddingCache(tmp_path)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=put_and_tell, args=(cache, there))
    process.start()
    there.close()
    n_cleared = 0
    with contextlib.suppress(EOFError):  # the end of the other process
        while True:
            here.recv()
            cache.clear()
            n_cleared += 1
    process.join()
    assert process.exitcode == 0
    process.close()
    here.close()
    assert n_cleared == 200
    put(cache, range(50))
    assert kept(cache, range(50)) == set(range(50))


def put_and_tell(cache, there):
    warnings.simplefilter("error")
    for _ in range(100):
        put(cache, range(50))
        there.send("put")
        kept(cache, range(50))
        there.send("read")


@posix_only
def test_nobody_waits_for_a_process_that_was_killed(tmp_path):
    """Its claims are free at once; those of a living process and of another host are not."""
    mine = new_owner()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    where, pid, number = mine[:8], ended.pid.to_bytes(4, "big"), mine[12:]
    owners = {"killed": where + pid + number, "far": bytes(8) + pid + number, "alive": new_owner()}
    assert [has_ended(owner) for owner in owners.values()] == [True, False, False]
    assert not any(map(has_ended, (b"", where, where + bytes(4) + number, bytes(40))))
    store = sqlite.FolderStore(tmp_path, None)
    for name, owner in owners.items():
        key = name.encode().ljust(20)
        assert store.claim({key}, owner, 100) == {key}
        assert store.claim({key}, mine, 100) == ({key} if name == "killed" else set())
