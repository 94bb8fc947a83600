"""How fast images are encoded for the first time, next to a bare loop on ready tensors."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .._clip.featurizer import CLIPFeaturizer
from .._clip.images import read_image
from .._clip.stores import chunks
from .._formulas import unit

BATCH = 64
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
_N_PROMPTS = 50


def measure(model_name, paths, device=None, repeats=3):
    """Measure one model in each precision.

    Parameters
    ----------
    model_name : str
        A CLIP that needs no `pretrained`.
    paths : list of str
        Images.
    device : None, str or torch.device
        As in CLIPFeaturizer.
    repeats : int, default=3
        Interleaved runs; medians count.

    Returns
    -------
    dict
        Images per second of decoding alone, and by precision of the bare loop, of `transform` and
        their ratio; which precision "auto" is here; how bfloat16 embeddings compare with float32's.
    """
    from .._clip.backends.torch.encoder import load_encoder

    encoder = load_encoder(model_name, None, device=device, precision="float32")
    pixels, decode_seconds = _decode_all(encoder, paths)
    runs: dict = {"float32": [], "bfloat16": []}
    rows = {}
    for _, precision in itertools.product(range(repeats), runs):
        encoder = load_encoder(model_name, None, device=device, precision=precision)
        featurizer = CLIPFeaturizer(
            model_name, device=device, precision=precision, cache=None, batch_size=BATCH
        )
        featurizer.transform(paths[:BATCH])  # the first call prepares the device
        bare = _seconds(_bare_loop, encoder.model, _batches(encoder, pixels))[1]
        rows[precision], ours = _seconds(featurizer.transform, paths)
        runs[precision].append((bare, ours))
    texts = load_encoder(model_name, None, device=device, precision="float32").encode_texts(
        _random_prompts()
    )
    return {
        "n": len(paths),
        "decode": len(paths) / decode_seconds,
        **{precision: _rates(len(paths), seconds) for precision, seconds in runs.items()},
        "auto_is": load_encoder(model_name, None, device=device).image_precision,
        "agreement": _agreement(rows["float32"], rows["bfloat16"], texts),
    }


def _random_prompts():
    """Prompts of one to seven random words, always the same."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(_WORDS, rng.integers(1, 8))) for _ in range(_N_PROMPTS)]


def _decode_all(encoder, paths):
    """Preprocessed images, and the seconds that as many threads as CLIPFeaturizer uses take."""

    def decode(path):
        return encoder.preprocess(read_image(path))

    with ThreadPoolExecutor() as pool:
        return _seconds(lambda: list(pool.map(decode, paths)))


def _batches(encoder, pixels):
    """List what the model takes, on the encoder's device."""
    import torch

    batches = (torch.from_numpy(np.stack(some)) for some in chunks(pixels, BATCH))
    return [encoder._normalised(some) for some in batches]


def _bare_loop(model, batches):
    """Encode ready batches, one after the other."""
    import torch

    with torch.inference_mode():
        return [model.encode_image(batch).float().cpu() for batch in batches]


def _seconds(function, *args):
    begun = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - begun


def _rates(n, seconds):
    bare, ours = np.median(seconds, axis=0)
    ratio = np.median([bare / ours for bare, ours in seconds])
    return {"bare_loop": n / bare, "transform": n / ours, "transform / bare_loop": ratio}


def _agreement(exact, lower, texts):
    """Cosines of the rows with float32's, and how often the same prompt is the nearest."""
    exact, lower, texts = (unit(rows) for rows in (exact, lower, texts))
    same = (exact @ texts.T).argmax(1) == (lower @ texts.T).argmax(1)
    return {"lowest_cosine": (exact * lower).sum(1).min(), "same_nearest_prompt": same.mean()}
