"""Random damage to the databases of a cache folder: a miss or a warning, never a wrong embedding.

Run ``python tests/fuzz_cache.py 5000`` (some ten minutes on a RAM disk, ``TMPDIR=/dev/shm``); what
it finds is printed with the seed, and belongs into tests/test_cache.py.

Each round damages the embeddings, their hot journal or the claims, then reads, writes, claims,
evicts and counts, in the order of use or in any other, and in the end writes all and reads it back.
"""

import collections
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from sklearn_taskres import EmbeddingCache
from sklearn_taskres._clip.digests import embedding_keys, text_digest
from sklearn_taskres._clip.stores import DIGESTS, sqlite
from sklearn_taskres._messages import forget_warnings

N, N_KEPT, WIDTH, PAGE = 400, 300, 128, 16384
SECONDS = 2.0  # of a call; SQLite waits for no one here


def _overwrite(data, rng, size):
    at = rng.randrange(len(data))
    data[at : at + size] = rng.randbytes(len(data[at : at + size]))


def _flip(data, rng):
    for _ in range(rng.choice([1, 1, 2, 4, 16, 64, 500])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _change_head(data, rng):
    for _ in range(rng.choice([1, 2, 4])):
        data[rng.randrange(min(200, len(data)))] = rng.randrange(256)


def _change_head_of_page(data, rng):
    for _ in range(rng.choice([1, 2, 4])):
        at = rng.randrange(len(data) // PAGE + 1) * PAGE + rng.randrange(40)
        data[min(at, len(data) - 1)] = rng.choice([0, 255, rng.randrange(256)])


def _cut(data, rng):
    del data[rng.randrange(len(data)) :]


def _zero(data, rng):
    at, size = rng.randrange(len(data)), rng.choice([16, 512, 4096, PAGE, 4 * PAGE])
    data[at : at + size] = bytes(len(data[at : at + size]))


def _swap_pages(data, rng):
    one, other = (PAGE * rng.randrange(len(data) // PAGE + 1) for _ in range(2))
    if max(one, other) + PAGE <= len(data):
        page = data[one : one + PAGE]
        data[one : one + PAGE] = data[other : other + PAGE]
        data[other : other + PAGE] = page


MUTATIONS = {
    "bits flipped": _flip,
    "head": _change_head,
    "head of a page": _change_head_of_page,
    "cut": _cut,
    "zeroes": _zero,
    "noise": lambda data, rng: _overwrite(data, rng, rng.choice([16, 512, 4096, PAGE])),
    "pages swapped": _swap_pages,
    "longer": lambda data, rng: data.extend(rng.randbytes(rng.choice([1, 100, PAGE, 100_000]))),
    "empty": lambda data, _: data.clear(),
}


class Folders:
    """A sound cache, and one whose writer was killed in a transaction: its journal is hot."""

    def __init__(self, scratch):
        rng = np.random.default_rng(0)
        self.rows = rng.normal(size=(N, WIDTH)).astype("f4")
        self.keys = embedding_keys([text_digest(str(i)) for i in range(N)], "an encoder")
        file_keys = embedding_keys([text_digest(str(i)) for i in range(200)], "a file")
        self.digests = {key: rng.bytes(32) for key in file_keys}
        self.sound, self.hot, self.used = (Path(scratch, name) for name in ("sound", "hot", "used"))
        cache = EmbeddingCache(self.sound)
        cache.put(self.keys[:N_KEPT], self.rows[:N_KEPT])
        cache.store().write(DIGESTS, self.digests)
        cache.store().claim(self.keys[:9], b"someone", 60)
        (file,) = self.sound.rglob("embeddings.sqlite")
        db = sqlite3.connect(file, isolation_level=None)
        db.execute("PRAGMA cache_size = 2")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE embeddings SET checksum = checksum + 1, value = randomblob(512)")
        shutil.copytree(self.sound, self.hot)
        db.close()
        self.home = file.parent.name

    def damaged(self, rng, counts):
        """Return a fresh cache of which one or two files are damaged."""
        shutil.rmtree(self.used, ignore_errors=True)
        is_hot = rng.random() < 0.3
        shutil.copytree(self.hot if is_hot else self.sound, self.used)
        embeddings, claims = (
            self.used / self.home / f"{name}.sqlite" for name in ("embeddings", "claims")
        )
        journal = embeddings.with_name("embeddings.sqlite-journal")
        choices = [[embeddings]] * 4 + [[claims], [embeddings, claims]]
        if is_hot:
            choices = [[embeddings], [journal], [embeddings, journal]]
        elif rng.random() < 0.1:
            journal.write_bytes(rng.randbytes(rng.choice([8, 28, 512, 5000])))
        for path in rng.choice(choices):
            data, kind = bytearray(path.read_bytes()), rng.choice(list(MUTATIONS))
            MUTATIONS[kind](data, rng)
            path.write_bytes(data)
            counts[f"{kind}, {path.name}"] += 1
            counts["mutations"] += 1
        return EmbeddingCache(self.used)


def use(folders, cache, rng, counts):
    """Use a damaged cache in every way; fail for a wrong value, a foreign error or a slow call."""
    keys, rows = folders.keys, folders.rows

    def check():
        got, found = cache.get(keys, WIDTH)
        assert (got[found] == rows[found]).all(), "a wrong embedding"
        known = {}
        cache.store().read(DIGESTS, list(folders.digests), 32, known.__setitem__)
        wrong = [key for key, value in known.items() if folders.digests.get(key, value) != value]
        assert not wrong, "a wrong digest"
        counts["values read"] += int(found.sum()) + len(known)

    calls = [
        check,
        lambda: cache.entries,
        lambda: cache.size,
        lambda: cache.store().claim(keys[5:20], b"else", 60),
        lambda: cache.put(keys[250:], rows[250:]),
        check,
        lambda: cache.store().release(b"else"),
        lambda: cache.evict(100_000),
        check,
    ]
    if rng.random() < 0.5:
        rng.shuffle(calls)
    for call in (*calls, lambda: cache.put(keys, rows), check):
        begun = time.monotonic()
        call()
        seconds = time.monotonic() - begun
        counts["slowest, ms"] = max(counts["slowest, ms"], round(1000 * seconds))
    counts["healed" if cache.get(keys, WIDTH)[1].all() else "not healed"] += 1


def main(n_rounds=5000, first_seed=0):
    """Damage, use, and print what was counted."""
    counts, begun = collections.Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folders = Folders(scratch)
        for number in range(first_seed, first_seed + n_rounds):
            rng = random.Random(number)  # noqa: S311 (no secret)
            forget_warnings()  # each round is a process's first
            sqlite._FAILED.clear()
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                cache = folders.damaged(rng, counts)
                try:
                    use(folders, cache, rng, counts)
                except Exception:
                    print(f"round {number} of {folders.used}")
                    raise
            counts["warnings"] += len(given)
            counts.update("said: a disk that is full" for w in given if "is full" in str(w.message))
    for name, number in sorted(counts.items()):
        print(f"{number:10} {name}")
    print(f"{n_rounds} rounds in {time.monotonic() - begun:.0f} s: nothing wrong, nothing foreign")
    if counts["slowest, ms"] > 1000 * SECONDS:
        sys.exit("a call was slow")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
