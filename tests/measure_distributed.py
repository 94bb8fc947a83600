"""Ray Data on this machine: the same rows as `transform`, its cost, and what it survives.

Run ``SKLEARN_TASKRES_TEST_DATA=<folder> python tests/measure_distributed.py [PART ...]``; without
parts all run. Needs ``pip install 'sklearn-taskres[ray,dask]'``.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_taskres import (
    CLIPFeaturizer,
    EmbeddingCache,
    TaskResClassifier,
    TaskResClassifierCV,
)
from sklearn_taskres.benchmark.random_clip import write_random_clip
from sklearn_taskres.benchmark.tasks import make_task
from sklearn_taskres.distributed import BatchEncoder

N_IMAGES, BATCH = 2000, 256


def write_jpegs(folder):
    """Cut 2000 different JPEGs out of the 600 textures; return their paths."""
    sources = sorted(Path(os.environ["SKLEARN_TASKRES_TEST_DATA"], "dtd10_images").rglob("*.jpg"))
    folder.mkdir()
    paths = []
    for i in range(N_IMAGES):
        shift = i // len(sources)
        with Image.open(sources[i % len(sources)]) as image:
            paths.append(str(folder / f"{i}.jpg"))
            image.crop((shift, shift, *image.size)).save(paths[-1])
    return paths


def write_digits(folder):
    """Write the digits as PNG; return their paths."""
    folder.mkdir()
    paths = [str(folder / f"{i}.png") for i in range(1797)]
    for path, pixels in zip(paths, load_digits().images, strict=True):
        Image.fromarray((15 * pixels).astype(np.uint8)).save(path)
    return paths


class Fragile(BatchEncoder):
    """Kills its process once, in the middle of the job."""

    def __call__(self, batch):
        marker = Path(os.environ["MARKER"])
        if 700 in list(batch["id"]) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def start_ray(environment):
    """Start a cluster of two cores in this process."""
    import ray

    code = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": code, **environment}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def on_ray(ray, encoder, clip, paths, **params):
    """Rows in the order of the paths, errors, and the seconds it took.

    Ray gets a block for each batch, so that its batches are those of `transform`: batches of other
    sizes may take other instructions, and round otherwise in the last bits.
    """
    table = pyarrow.table({"id": range(len(paths)), "image": paths})
    blocks = [table.slice(start, BATCH) for start in range(0, len(paths), BATCH)]
    data = ray.data.from_arrow(blocks)
    begun = time.perf_counter()
    rows = data.map_batches(
        encoder,
        fn_constructor_args=(clip,),
        fn_constructor_kwargs={"dtype": "float32", **params},
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).take_all()
    seconds = time.perf_counter() - begun
    rows.sort(key=lambda row: row["id"])
    return [row["embedding"] for row in rows], [row.get("error") for row in rows], seconds


def transformed(clip, paths):
    """Rows of the paths, in batches as Ray hands them over."""
    parts = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    return np.concatenate([clip.transform(part) for part in parts])


def part_rows(scratch):
    """The same rows and the time, on two cores each."""
    name = write_random_clip(scratch / "model", "ViT-B-32")
    ray = start_ray({})
    for what, paths, model in (
        ("2000 JPEGs, ViT-B-32", write_jpegs(scratch / "jpegs"), name),
        ("1797 digits, glyph-clip", write_digits(scratch / "digits"), "glyph-clip"),
    ):
        clip = CLIPFeaturizer(model, precision="float32", cache=None, num_workers=1)
        clip.transform(paths[:64])
        begun = time.perf_counter()
        transformed(clip, paths)
        alone = time.perf_counter() - begun
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as an actor of one core: how work is shared out decides rounding
        expected = transformed(clip, paths)
        torch.set_num_threads(n_threads)
        on_ray(ray, BatchEncoder, clip, paths[: 2 * BATCH])  # warm, as far as Ray keeps workers
        start = on_ray(ray, BatchEncoder, clip, paths[:2])[-1]
        rows, _, seconds = on_ray(ray, BatchEncoder, clip, paths)
        difference = np.abs(np.stack(rows) - expected).max()
        print(
            f"{what}: transform {alone:.1f} s; Ray {seconds:.1f} s, of which {start:.1f} s to "
            f"start the actors; without that {(seconds - start) / alone:.2f} times transform; "
            f"largest difference {difference:.1e}, equal to the bit in "
            f"{np.mean(np.all(np.stack(rows) == expected, axis=1)):.1%} of the rows",
            flush=True,
        )
    ray.shutdown()


def part_failures(scratch):
    """A corrupt file and a killed actor: every other row is right."""
    ray = start_ray({"MARKER": str(scratch / "marker")})
    paths = write_digits(scratch / "digits")
    Path(paths[300]).write_bytes(b"corrupt")
    clip = CLIPFeaturizer("glyph-clip", precision="float32", cache=None, num_workers=1)
    rows, errors, _ = on_ray(ray, Fragile, clip, paths, on_error="null")
    good = [i for i in range(len(paths)) if i != 300]
    expected = clip.transform([paths[i] for i in good])
    print(
        f"killed an actor: {(scratch / 'marker').exists()}; row 300: {rows[300]}, {errors[300]!r}; "
        f"the other {len(good)} rows are within "
        f"{np.abs(np.stack([rows[i] for i in good]) - expected).max():.1e}"
    )
    ray.shutdown()


def part_driver(scratch):
    """A driver that is killed goes on from the cache folder."""
    name = write_random_clip(scratch / "model", "ViT-B-32")
    paths = write_jpegs(scratch / "jpegs")[:600]
    (scratch / "paths").write_text("\n".join(paths))
    command = [sys.executable, __file__, "--drive", name, str(scratch)]
    process = subprocess.Popen(command)  # noqa: S603 (this file)
    cache = EmbeddingCache(scratch / "cache")
    while cache.entries < 100:
        if process.poll() is not None:
            sys.exit("The driver ended before it was killed.")
        time.sleep(0.5)
    cluster = psutil.Process(process.pid).children(recursive=True)  # no other cluster is touched
    process.kill()
    process.wait()
    for child in cluster:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(cluster)
    kept = EmbeddingCache(scratch / "cache").entries
    begun = time.perf_counter()
    subprocess.run(command, check=True)  # noqa: S603
    seconds = time.perf_counter() - begun
    rows = np.load(scratch / "rows.npy")
    clip = CLIPFeaturizer(name, precision="float32", cache=None)
    error = np.abs(rows - clip.transform(paths)).max()
    print(
        f"killed with {kept} of 600 rows kept; the second run took {seconds:.1f} s, kept "
        f"{EmbeddingCache(scratch / 'cache').entries}, and its rows are within {error:.1e}"
    )


def drive(name, scratch):
    """Encode on Ray with a cache folder; what part_driver kills."""
    ray = start_ray({})
    clip = CLIPFeaturizer(name, precision="float32", cache=scratch / "cache", num_workers=1)
    paths = (scratch / "paths").read_text().split("\n")
    rows, _, _ = on_ray(ray, BatchEncoder, clip, paths)
    np.save(scratch / "rows.npy", np.stack(rows))


def part_searches(scratch):
    """Scores of GridSearchCV over a pipeline and of TaskResClassifierCV on other backends."""
    import joblib
    from distributed import Client, LocalCluster

    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == k)[:8] for k in range(10)])
    images, y = digits.images[rows] / 16, digits.target[rows]
    clip = CLIPFeaturizer("glyph-clip", precision="float32", cache=scratch / "cache")
    taskres = TaskResClassifier("class_means", max_epochs=20, device="cpu", random_state=0)
    grid = GridSearchCV(
        make_pipeline(clip, taskres), {"taskresclassifier__alpha": [0, 0.5, 1.0]}, cv=4
    )
    X = clip.transform(images)
    params = {"alphas": (0, 0.5, 1.0), "cv": 4, "max_epochs": 20, "random_state": 0}
    own = TaskResClassifierCV("class_means", device="cpu", scoring="neg_log_loss", **params)
    expected = [s.fit(a, y).cv_results_ for s, a in ((grid, images), (own, X))]
    for backend in ("loky", "ray", "dask"):
        with contextlib.ExitStack() as stack:
            if backend == "ray":
                ray = start_ray({})
                stack.callback(ray.shutdown)
                importlib.import_module("ray.util.joblib").register_ray()
            elif backend == "dask":
                cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
                stack.enter_context(cluster)
                stack.enter_context(Client(cluster))
            stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=2))
            found = [s.fit(a, y).cv_results_ for s, a in ((grid, images), (own, X))]
        names = [name for name in expected[0] if name.endswith("test_score")]
        largest = [
            max(np.abs(a[name] - b[name]).max() for name in names)
            for a, b in zip(expected, found, strict=True)
        ]
        print(
            f"{backend}: scores of GridSearchCV differ by {largest[0]:.1e}, of TaskResClassifierCV "
            f"by {largest[1]:.1e}",
            flush=True,
        )


def part_cost(scratch):
    """Seconds of a search in two workers of joblib, compared with two threads of this process."""
    import joblib

    task = make_task(47, 512, 16)
    for n_folds in (4, 5):
        search = TaskResClassifierCV(
            task.t, alphas=np.linspace(0.1, 1, 10), max_epochs=200, cv=n_folds, random_state=0
        )
        seconds = np.empty((6, 2))
        for round_ in seconds:
            for column, n_jobs in enumerate((None, 2)):
                with joblib.parallel_config("loky", n_jobs=n_jobs):
                    begun = time.perf_counter()
                    search.fit(task.X, task.y)
                    round_[column] = time.perf_counter() - begun
        seconds = seconds[1:]  # the first starts the workers
        print(
            f"{n_folds} folds: threads {np.median(seconds[:, 0]):.2f} s, loky "
            f"{np.median(seconds[:, 1]):.2f} s, median ratio "
            f"{np.median(seconds[:, 1] / seconds[:, 0]):.2f}",
            flush=True,
        )


PARTS = {
    "rows": part_rows,
    "failures": part_failures,
    "driver": part_driver,
    "searches": part_searches,
    "cost": part_cost,
}


def main():
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], Path(sys.argv[3]))
        return
    for name in sys.argv[1:] or PARTS:
        print(f"== {name}: {PARTS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            PARTS[name](Path(scratch))


if __name__ == "__main__":
    main()
