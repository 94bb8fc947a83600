"""How far engines agree with torch, and exported graphs with the pipeline, on real photos.

Run ``python tests/measure_backends.py FOLDER`` with a folder of JPEGs, one subfolder per class: the
towers of --models with random weights, and glyph-clip. Each tower is measured in a process of its
own, which holds one at a time: up to 4 GB. Minutes per tower; --n-images shortens it.

For each engine and precision: the lowest cosine with torch's float32, and the share of images whose
nearest of 100 random prompts is the same, as the mean over 1000 draws of 100 out of 2000 prompts
(260 for glyph-clip), and the share of the draws in which it is at least 99.5 % (float32) or 99 %.
Single draws differ by half a point, and by all if images are so alike that they change their prompt
together. "spread" is the mean cosine of two different images, with which these are to be read:
random towers tell images apart less than trained ones. If it is near 1, the cosine of what is left
when the mean row is subtracted tells more. "gap" is the median difference in cosine of the nearest
prompt and the second. A tower that can't be converted is named with the reason, and what "auto"
does instead.

With --export, for each tower: the largest difference in probability between a pipeline and its ONNX
graph, which a process without torch and this package asks with the lines of the user guide.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import re
import string
import subprocess
import sys
import tempfile
import textwrap
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline

from sklearn_taskres import (
    CLIPFeaturizer,
    EmbeddingCache,
    TaskResClassifier,
    load_image_folder,
    sample_few_shot,
)
from sklearn_taskres._clip.backends.engines import NotConvertedError, find_engine
from sklearn_taskres._formulas import unit
from sklearn_taskres.benchmark.cold import agreement
from sklearn_taskres.benchmark.machine import describe_machine
from sklearn_taskres.benchmark.random_clip import write_random_clip
from sklearn_taskres.export import export_onnx

BUNDLED = "glyph-clip"
TOWERS = [
    "ViT-B-32",
    "ViT-B-16",
    "RN50",
    "ViT-B-16-SigLIP",
    "convnext_base",
    "coca_ViT-B-32",
]
#: Preprocessing that differs from the default.
PREPROCESSING = {"ViT-B-16-SigLIP": {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3}}
N_PROMPTS, N_POOL, N_DRAWS, N_EXPORTED, N_SHOTS = 100, 2000, 1000, 100, 4
#: Shares of images with the same nearest prompt that are asked for.
ASKED = {"float32": 0.995, "bfloat16": 0.99}
GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "saving.rst"
WITHOUT_TORCH = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "open_clip", "sklearn_taskres"}:
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbid())
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of images, one subfolder per class")
    parser.add_argument("--models", nargs="+", default=[BUNDLED, *TOWERS])
    parser.add_argument("--n-images", type=int, default=600)
    parser.add_argument("--export", action="store_true", help="measure exported graphs instead")
    options = parser.parse_args()
    engines = {name: importlib.metadata.version(name) for name in ("openvino", "onnxruntime")}
    print(json.dumps(describe_machine() | engines), flush=True)
    measure = measure_export if options.export else measure_agreement
    spawn = multiprocessing.get_context("spawn")
    for name in options.models:
        with ProcessPoolExecutor(1, mp_context=spawn) as alone:
            alone.submit(measure, name, options.folder, options.n_images).result()


def written(name, scratch):
    """`model_name` of a tower, which is written first unless it is the bundled one."""
    if name == BUNDLED:
        return name
    return write_random_clip(scratch / "model", name, **PREPROCESSING.get(name, {}))


# engines --------------------------------------------------------------------------------------


def measure_agreement(name, folder, n_images):
    """Print a line per engine and precision."""
    paths = some_of(load_image_folder(folder)[0], n_images)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = written(name, scratch)

        def rows(backend, precision):
            # a cache for each: engines of one precision would share their embeddings
            cache = EmbeddingCache(scratch / f"{backend}-{precision}")
            clip = CLIPFeaturizer(
                model, backend=backend, precision=precision, cache=cache, batch_size=32
            )
            return clip.transform(paths)

        exact, pool = rows("torch", "float32"), random_prompts(model)
        rng = np.random.default_rng(0)
        draws = np.stack([rng.choice(len(pool), N_PROMPTS, replace=False) for _ in range(N_DRAWS)])
        units = unit(exact.astype(np.float64))
        n = len(units)
        spread = (np.square(units.sum(axis=0)).sum() - n) / (n * (n - 1))
        cosines = np.sort(units @ unit(pool[draws[0]].astype(np.float64)).T, axis=1)
        gap = np.median(cosines[:, -1] - cosines[:, -2])
        print(
            f"{name}: {n} images, d={exact.shape[1]}, spread {spread:.4f}, gap {gap:.1e}",
            flush=True,
        )
        cells = [(e, p) for e in ("openvino", "onnx") for p in find_engine(e).PRECISIONS]
        for backend, precision in [("torch", "bfloat16"), *cells]:
            try:
                others = rows(backend, precision)
            except NotConvertedError as error:
                print(f"  {backend} {precision}: not converted: {error}", flush=True)
                print(f"  auto: {said_of_auto(model, paths, scratch, exact)}", flush=True)
                continue
            found = [agreement(exact, others, pool[some]) for some in draws]
            same = np.array([figures["same_nearest_prompt"] for figures in found])
            enough = (same >= ASKED[precision]).mean()
            print(
                f"  {backend} {precision}: lowest cosine {found[0]['lowest_cosine']:.7f}, of "
                f"differences from the mean {lowest_centred(exact, others):.5f}, same nearest "
                f"prompt {100 * same.mean():.2f} %, enough in {100 * enough:.0f} % of draws",
                flush=True,
            )


def lowest_centred(exact, others):
    """Lowest cosine of how rows differ from the mean row, which wrong towers can't share."""
    mean = exact.mean(axis=0, dtype=np.float64)
    return (unit(exact - mean) * unit(others - mean)).sum(axis=1).min()


def some_of(paths, n):
    """Return n paths, spread evenly."""
    return paths[np.linspace(0, len(paths) - 1, min(n, len(paths))).astype(int)]


def random_prompts(model):
    """Text embeddings (n, d): of random tokens, as tokenizers of some are downloads."""
    import torch

    from sklearn_taskres._clip.backends.torch.encoder import load_encoder

    encoder = load_encoder(model, None, device="cpu", precision="float32")
    if model == BUNDLED:  # which knows characters only
        return encoder.encode_texts([a + b for a in string.digits for b in string.ascii_lowercase])
    text = getattr(encoder.model, "text", encoder.model)
    length, n_tokens = int(text.context_length), int(text.vocab_size)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, n_tokens - 1, (N_POOL, length))
    tokens[:, -1] = n_tokens - 1  # the highest is the end, at which CLIP reads the sentence
    with torch.inference_mode():
        parts = torch.from_numpy(tokens).split(N_PROMPTS)
        return torch.cat([encoder.model.encode_text(some).float() for some in parts]).numpy()


def said_of_auto(model, paths, scratch, exact):
    """What "auto" says of a tower that can't be converted, and whether it encodes as torch."""
    clip = CLIPFeaturizer(model, backend="auto", precision="float32", cache=scratch / "auto")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rows = clip.transform(paths)
    is_same = np.allclose(rows, exact, rtol=1e-4, atol=1e-4)
    return f"{len(said)} warning, rows {'equal' if is_same else 'DIFFER FROM'} torch's"


# export ---------------------------------------------------------------------------------------


def measure_export(name, folder, n_images):
    """Print how far an ONNX graph of a pipeline is from it."""
    paths, y = load_image_folder(folder)
    train = sample_few_shot(y, N_SHOTS, random_state=0)
    test = some_of(np.setdiff1d(np.arange(len(y)), train), min(n_images, N_EXPORTED))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        clip = CLIPFeaturizer(written(name, scratch), precision="float32", cache=None)
        pipeline = make_pipeline(clip, TaskResClassifier("class_means", random_state=0))
        pipeline.fit(paths[train], y[train])
        expected = pipeline.predict_proba(paths[test])
        export_onnx(pipeline, scratch / "model.onnx")
        (scratch / "paths.json").write_text(json.dumps([str(path) for path in paths[test]]))
        probabilities = asked(scratch)
        size = (scratch / "model.onnx").stat().st_size / 1e6
        same = (probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean()
        print(
            f"{name}: {len(test)} images, {size:.0f} MB, largest |dp| "
            f"{np.abs(probabilities - expected).max():.2e}, same label {100 * same:.1f} %, "
            f"probabilities from {expected.min():.1e} to {expected.max():.4f}",
            flush=True,
        )


def asked(folder):
    """Probabilities of the graph in a folder, by a process that has neither torch nor us."""
    text = GUIDE.read_text(encoding="utf-8")
    block = re.search(r"\.\. code-block:: python\n   :name: onnx-client\n\n(.*?)\n\S", text, re.S)
    ask = """
paths = json.load(open(sys.argv[2]))
rows = [predict_proba(paths[i : i + 10]) for i in range(0, len(paths), 10)]
print(json.dumps(np.concatenate(rows).tolist()))
"""
    code = WITHOUT_TORCH + textwrap.dedent(block[1]) + ask
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", code, str(folder / "model.onnx"), str(folder / "paths.json")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return np.array(json.loads(done.stdout))


if __name__ == "__main__":
    main()
