"""How soon a fresh process answers with a saved pipeline, and how much memory it holds."""

import json
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import make_pipeline

from .. import CLIPFeaturizer, EmbeddingCache, TaskResClassifier
from .._clip.backends.engines import ENGINES, is_installed
from .._clip.backends.towers import RACY_SECONDS

_CODE = """
import json, sys
import joblib
model = joblib.load(sys.argv[1])
print(model.predict([sys.argv[2]])[0], flush=True)
from sklearn_taskres.benchmark.timing import memory_of_process
memory = [memory_of_process(field) for field in ("VmRSS", "VmHWM")]
heavy = sorted({"torch", "open_clip", "torchvision"} & set(sys.modules))
print(json.dumps([memory, heavy]))
"""


def measure(model_name, paths, folder, repeats=3):
    """Measure a pipeline of each backend, fitted here and saved, in processes of their own.

    Parameters
    ----------
    model_name : str
        A CLIP that needs no `pretrained`.
    paths : list of str
        Images, at least 3.
    folder : path-like
        To which pipelines and converted towers are written.
    repeats : int, default=3
        Processes per backend; the medians count.

    Returns
    -------
    dict
        By backend: seconds from the start of the process to the first label, resident and peak
        memory after it in MB (None if the system does not say), and which of torch, open_clip and
        torchvision were imported.
    """
    time.sleep(RACY_SECONDS + 0.5)  # the models' files are trusted then, and not looked into
    backends = ["torch", *(name for name in ENGINES if is_installed(name))]
    return {name: _measure(name, model_name, paths, Path(folder), repeats) for name in backends}


def _measure(backend, model_name, paths, folder, repeats):
    cache = EmbeddingCache(folder / "cache")
    clip = CLIPFeaturizer(
        model_name, backend=backend, precision="float32", device="cpu", cache=cache
    )
    model = make_pipeline(clip, TaskResClassifier("class_means", max_epochs=1))
    saved = folder / f"{backend}.joblib"
    joblib.dump(model.fit(paths[:2], ["one", "two"]), saved)
    runs = []
    for _ in range(repeats):
        cache.clear()  # what is left are the towers
        runs.append(_answer(saved, paths[-1]))
    resident, peak = (_megabytes([memory[i] for _, memory, _ in runs]) for i in range(2))
    return {
        "seconds": float(np.median([seconds for seconds, _, _ in runs])),
        "resident MB": resident,
        "peak MB": peak,
        "imported": runs[-1][-1],
    }


def _answer(saved, path):
    """Seconds until a process of its own has a label, the bytes it holds, and what it imported.

    The end of the process, which takes down an engine and its weights, is not timed.
    """
    begun = time.perf_counter()
    command = [sys.executable, "-c", _CODE, str(saved), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 (ours)
        said = iter(child.stdout or ())
        label = next(said, None)
        seconds = time.perf_counter() - begun
        rest = next(said, None)
    if label is None or rest is None or child.returncode:
        raise RuntimeError(f"A process that was to answer with {saved} ended without an answer.")
    memory, imported = json.loads(rest)
    return seconds, memory, imported


def _megabytes(values):
    return None if None in values else float(np.median(values)) / 1e6
