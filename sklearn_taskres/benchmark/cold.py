"""How fast images are encoded for the first time: by open_clip's own loops, and by `transform`."""

import copy
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from .._clip.backends.engines import ENGINES, find_engine, is_installed
from .._clip.featurizer import CLIPFeaturizer
from .._clip.images import read_image
from .._clip.stores import batched
from .._formulas import unit

BATCH = 64
#: What all rates are compared with, and all embeddings.
BASELINE, EXACT = "bare loop, float32", "transform, torch float32"
#: What a user would write, who has files and no tensors.
FROM_FILES = "loop from files, float32"
_WORDS = [
    "dog",
    "river",
    "spoon",
    "wooden",
    "laughing",
    "yesterday",
    "seven",
    "gravity",
    "purple",
    "Norwegian",
    "of",
    "under",
    "machine",
    "quickly",
    "salt",
    "elephants",
    "jazz",
    "fog",
    "invoice",
    "tiny",
]
_N_PROMPTS = 100


def measure(model_name, paths, device=None, repeats=3):
    """Measure one model in each precision, by torch and by every engine that is installed.

    Parameters
    ----------
    model_name : str
        A CLIP that needs no `pretrained`.
    paths : list of str
        Images.
    device : None, str or torch.device
        As in CLIPFeaturizer. Engines are measured on a CPU only.
    repeats : int, default=3
        Interleaved runs; medians count.

    Returns
    -------
    dict
        Images per second of decoding alone, of bare loops over ready tensors, of a loop from files
        and of `transform`; each rate as a ratio to the bare loop in float32 and to the loop from
        files, the medians of ratios within a run; which precision "auto" is here; and how the
        embeddings compare with torch's in float32.
    """
    from .._clip.backends.torch.encoder import load_encoder

    load = functools.partial(load_encoder, model_name, None, device=device)
    encoder = load(precision="float32")
    pixels, decode_seconds = _decode_all(encoder, paths)
    ways = {
        **_bare_loops(encoder, pixels),
        FROM_FILES: _loop_from_files(model_name, encoder.device, paths),
        **_transforms(model_name, encoder.device, paths),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rows = {}
    for _ in range(repeats):
        for name, run in ways.items():
            result, spent = _seconds(run)
            seconds[name].append(spent)
            rows[name] = result
    exact, texts = rows[EXACT], encoder.encode_texts(random_prompts())
    ratios = {
        f"ratio to {other}": {
            name: np.median(np.array(seconds[other]) / spent) for name, spent in seconds.items()
        }
        for other in (BASELINE, FROM_FILES)
    }
    return {
        "n": len(paths),
        "decode": len(paths) / decode_seconds,
        "rate": {name: len(paths) / np.median(spent) for name, spent in seconds.items()},
        **ratios,
        "auto_is": load().image_precision,
        f"agreement with {EXACT}": {
            name: agreement(exact, result, texts)
            for name, result in rows.items()
            if name.startswith("transform") and name != EXACT
        },
    }


def _bare_loops(encoder, pixels):
    """Loops that a user would write around open_clip, on tensors that are ready."""
    import torch

    whole = encoder.source.model()[0].to(encoder.device)  # the encoder's has other blocks

    def loop(layout, dtype):
        model = copy.deepcopy(whole).to(dtype=dtype)
        model.visual.to(memory_format=layout)
        batches = [
            encoder._normalised(torch.from_numpy(np.stack(some))).to(dtype, memory_format=layout)
            for some in batched(pixels, BATCH)
        ]

        def run():
            with torch.inference_mode():
                return [model.encode_image(batch).float().cpu() for batch in batches]

        return run

    return {
        BASELINE: loop(torch.contiguous_format, torch.float32),
        "bare loop, channels last": loop(torch.channels_last, torch.float32),
        "bare loop, bfloat16": loop(torch.contiguous_format, torch.bfloat16),
    }


def _loop_from_files(model_name, device, paths):
    """Return the loop of open_clip's manual: read, preprocess and encode a batch, then the next."""
    import open_clip
    import torch

    model, preprocess = open_clip.create_model_from_pretrained(model_name, device=device)
    model.eval()

    def run():
        rows = []
        with torch.inference_mode():
            for some in batched(paths, BATCH):
                batch = torch.stack([preprocess(Image.open(path)) for path in some])
                rows.append(model.encode_image(batch.to(device)).float().cpu())
        return rows

    return run


def _transforms(model_name, device, paths):
    """`transform` of paths, by backend and precision."""
    backends: dict[str, tuple[str, ...]] = {"torch": ("float32", "bfloat16")}
    if device.type == "cpu":
        for name in ENGINES:
            if is_installed(name):
                backends[name] = find_engine(name).PRECISIONS
    ways = {}
    for backend, precisions in backends.items():
        for precision in precisions:
            who: dict[str, Any] = {"backend": backend, "precision": precision}
            featurizer = CLIPFeaturizer(
                model_name, device=device, cache=None, batch_size=BATCH, **who
            )
            featurizer.transform(paths[:BATCH])  # converts, and prepares the device
            ways[f"transform, {backend} {precision}"] = functools.partial(
                featurizer.transform, paths
            )
    return ways


def random_prompts():
    """Prompts of one to seven random words, always the same."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(_WORDS, rng.integers(1, 8))) for _ in range(_N_PROMPTS)]


def _decode_all(encoder, paths):
    """Preprocessed images, and the seconds that as many threads as CLIPFeaturizer uses take."""

    def decode(path):
        return encoder.preprocess(read_image(path))

    with ThreadPoolExecutor() as pool:
        return _seconds(lambda: list(pool.map(decode, paths)))


def _seconds(function):
    begun = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begun


def agreement(exact, other, texts):
    """Lowest cosine of the rows with exact ones, and how often the same prompt is the nearest."""
    exact, other, texts = (unit(rows) for rows in (exact, other, texts))
    same = (exact @ texts.T).argmax(1) == (other @ texts.T).argmax(1)
    return {"lowest_cosine": (exact * other).sum(1).min(), "same_nearest_prompt": same.mean()}
