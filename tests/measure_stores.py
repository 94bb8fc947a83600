"""Why embeddings are kept in SQLite: its rates next to LMDB, a .npy per image and joblib.Memory.

20 000 embeddings of 512 elements are written, and read in another order by a fresh process; each
rate is timed from the call, opening included and imports not. Then the largest file is cut in half
before a read, and under the nose of a reader that has it open; and a writer is killed half-way.

Run ``python tests/measure_stores.py`` for the table (needs ``pip install lmdb``; a minute or two),
and ``python tests/measure_stores.py --million`` for a folder as it grows to a million embeddings
(2.4 GB in the folder for temporary files; a few minutes): its rates, what a fresh process waits for
and what memory it takes, and how long four processes that write at once wait for each other.
"""

import functools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from sklearn_taskres._clip.cache import EmbeddingCache
from sklearn_taskres.benchmark.warm import STORES, D, N, example_keys, example_rows

BATCH = 1000


class LMDB:
    """One write transaction a batch, sorted reads; no checksum."""

    def __init__(self, folder):
        import lmdb

        self.env = lmdb.open(str(folder), map_size=1 << 30)

    def put(self, names, rows):
        with self.env.begin(write=True) as transaction:
            for name, row in zip(names, rows, strict=True):
                transaction.put(name, row.tobytes())

    def get(self, names):
        rows, found = np.zeros((len(names), D), np.float32), np.zeros(len(names), bool)
        with self.env.begin(buffers=True) as transaction:
            for index in sorted(range(len(names)), key=names.__getitem__):
                value = transaction.get(names[index])
                if value is not None:
                    rows[index], found[index] = np.frombuffer(value, np.float32), True
        return rows, found


ALL = {**STORES, "LMDB": LMDB}


def child(store, task, folder):
    """What a fresh process does: print one figure, or die of it."""
    warnings.simplefilter("ignore")
    names, rows = example_keys(), example_rows()
    order = np.random.default_rng(1).permutation(N)
    asked = [names[i] for i in order]
    begun = time.perf_counter()
    opened = ALL[store](folder)
    if task == "write":
        for start in range(0, N, BATCH):
            opened.put(names[start : start + BATCH], rows[start : start + BATCH])
            print("batch", flush=True)
    else:
        if task == "cut":
            opened.get(asked[:100])
            cut(folder)
        got, found = opened.get(asked)
    seconds = time.perf_counter() - begun
    if task != "write":
        wrong = int((got[found] != rows[order][found]).any(axis=1).sum())
        print(f"{found.sum()} kept, {wrong} wrong;", end=" ")
    print(seconds)


def cut(folder):
    largest = max(
        (f for f in Path(folder).rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    os.truncate(largest, largest.stat().st_size // 2)


def run(store, task, folder):
    """Text that a child printed last, and its seconds; or how it ended."""
    command = [sys.executable, __file__, store, task, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}", None
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2][:70], None
    text, _, seconds = done.stdout.strip().rpartition("\n")[2].rpartition(" ")
    return text.rstrip(";"), float(seconds)


def killed_writer(store, folder):
    """What a reader finds after a writer was killed half-way."""
    command = [sys.executable, __file__, store, "write", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603
        for _ in range(N // BATCH // 2):
            writer.stdout.readline()
        writer.kill()
    return run(store, "read", folder)[0]


def paths_rate():
    """Files per second that `digests` knows, and knows with `get` (fresh folder, small files)."""
    with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as folder:
        paths = [f"{images}/{i}.png" for i in range(N)]
        for i, path in enumerate(paths):
            Path(path).write_bytes(b"%d" % i)
        time.sleep(2.5)  # younger files are not trusted
        cache = EmbeddingCache(folder)
        cache.digests(paths)
        begun = time.perf_counter()
        EmbeddingCache(folder).digests(paths)
        return N / (time.perf_counter() - begun)


def grown():
    """Print what a folder costs as it grows to a million embeddings."""
    rows, rng = example_rows(), np.random.default_rng(2)
    keys: list = []
    print(
        f"{'embeddings':>10}{'writes/s':>10}{'reads/s':>10}{'open':>9}{'4096 read':>12}"
        f"{'written':>10}{'memory':>10}{'bytes each':>12}\n"
        f"(rates of 20 000 random ones, reads the median of 5; the rest in a fresh process)"
    )
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(folder)
        for size in (10_000, 100_000, 300_000, 1_000_000):
            n_new, begun = size - len(keys), time.perf_counter()
            while len(keys) < size:
                new = [rng.bytes(20) for _ in range(min(N, size - len(keys)))]
                cache.put(new, rows[: len(new)])
                keys += new
            writes = n_new / (time.perf_counter() - begun)
            some = [[keys[i] for i in rng.choice(size, min(N, size))] for _ in range(5)]
            reads = np.median([_read_rate(cache, part) for part in some])
            bytes_each = sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*")) / size
            command = [sys.executable, __file__, "--fresh", folder]
            asked = b"".join(keys[i] for i in rng.choice(size, 4096))
            fresh = subprocess.run(command, input=asked, capture_output=True, check=True)  # noqa: S603
            print(f"{size:10}{writes:10.0f}{reads:10.0f}{fresh.stdout.decode()}{bytes_each:12.0f}")
        _write_at_once(folder)


def fresh_process(folder):
    """Print the seconds to open a folder, to read the keys of stdin and to write as many."""
    asked = sys.stdin.buffer.read()
    asked = [asked[i : i + 20] for i in range(0, len(asked), 20)]
    rows, before = np.zeros((len(asked), D), np.float32), _peak_megabytes()
    marks = [time.perf_counter()]
    cache = EmbeddingCache(folder)
    cache.get(asked[:1], D)
    marks.append(time.perf_counter())
    found = cache.get(asked, D)[1]
    marks.append(time.perf_counter())
    cache.put([os.urandom(20) for _ in asked], rows)
    marks.append(time.perf_counter())
    assert found.all()
    grown_by = _peak_megabytes() - before
    opened, read, written = 1000 * np.diff(marks)
    print(f"{opened:6.1f} ms{read:9.0f} ms{written:7.0f} ms{grown_by:7.0f} MB", end="")


def _peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _write_at_once(folder):
    """Print the rate of one writer and of four at once, and the longest that a batch took."""
    cache = EmbeddingCache(folder)
    for n_writers in (1, 4):
        expected = cache.entries + n_writers * 20 * 4096
        command = [sys.executable, __file__, "--writer", folder]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            for _ in range(n_writers)
        ]
        for writer in writers:
            writer.stdout.readline()  # it has imported everything
        for writer in writers:
            writer.stdin.write("begin\n")
            writer.stdin.flush()
        begun = time.perf_counter()
        longest = max(float(writer.stdout.readline()) for writer in writers)
        seconds = time.perf_counter() - begun
        for writer in writers:
            writer.communicate()
        print(
            f"{n_writers} at once: {n_writers * 20 * 4096 / seconds:.0f} written per second; the "
            f"longest of their batches of 4096 took {longest:.2f} s; "
            f"{expected - cache.entries} were lost"
        )


def writer(folder):
    """Write twenty batches once a line arrives; print the seconds of the longest."""
    rows, cache, seconds = example_rows()[:4096], EmbeddingCache(folder), []
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        begun = time.perf_counter()
        cache.put([os.urandom(20) for _ in range(4096)], rows)
        seconds.append(time.perf_counter() - begun)
    print(max(seconds), flush=True)


def _read_rate(cache, keys):
    begun = time.perf_counter()
    found = cache.get(keys, D)[1]
    seconds = time.perf_counter() - begun
    assert found.all()
    return len(keys) / seconds


def main():
    print(f"{'':15}{'writes/s':>10}{'reads/s':>10}  (best of 3)   bytes an entry")
    with tempfile.TemporaryDirectory() as scratch:
        make = functools.partial(tempfile.mkdtemp, dir=scratch)
        for store in ALL:
            folder = make()
            written = run(store, "write", folder)[1]
            reads = [run(store, "read", folder)[1] for _ in range(3)]
            size = sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*"))
            rates = f"{N / written:10.0f}{N / min(reads):10.0f}"
            print(f"{store:15}{rates}{size / N:28.0f}", flush=True)
            print(f"{'':15}writer killed half-way: {killed_writer(store, make())}", flush=True)
            print(f"{'':15}cut under a reader:     {run(store, 'cut', folder)[0]}", flush=True)
            print(f"{'':15}cut before a read:      {run(store, 'read', folder)[0]}", flush=True)
    print(f"SQLite, known paths to digests: {paths_rate():.0f} a second")


if __name__ == "__main__":
    if "--million" in sys.argv:
        grown()
    elif sys.argv[1:2] == ["--fresh"]:
        fresh_process(sys.argv[2])
    elif sys.argv[1:2] == ["--writer"]:
        writer(sys.argv[2])
    else:
        child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
