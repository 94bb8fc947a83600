"""How fast images are encoded for the first time, beside a bare loop on tensors that are ready."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .._clip.featurizer import CLIPFeaturizer
from .._clip.images import read_image

BATCH = 64
_WORDS = ("red", "old", "small", "wooden", "wet"), ("house", "dog", "spoon", "tree", "river")
_PROMPTS = [f"a {a} {b} {place}" for a, b in itertools.product(*_WORDS) for place in ("", "at sea")]


def measure(model_name, paths, device=None, repeats=3):
    """Measure one model in float32 and in the precision that "auto" takes.

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
        Images a second of decoding alone, and by precision of the bare loop, of `transform` and
        their ratio; how embeddings of "auto" compare with float32's.
    """
    from .._clip.encoder import load_encoder

    encoder = load_encoder(model_name, None, device=device, precision="float32")
    pixels, decode_seconds = _decode_all(encoder, paths)
    runs: dict = {"float32": [], "auto": []}
    rows = {}
    for _, precision in itertools.product(range(repeats), runs):
        encoder = load_encoder(model_name, None, device=device, precision=precision)
        featurizer = CLIPFeaturizer(
            model_name, device=device, precision=precision, cache=None, batch_size=BATCH
        )
        encoder.encode_images(pixels[:BATCH])  # the first call prepares the device
        bare = _seconds(_bare_loop, encoder, pixels)[1]
        rows[precision], ours = _seconds(featurizer.transform, paths)
        runs[precision].append((bare, ours))
    texts = load_encoder(model_name, None, device=device, precision="float32").encode_texts(
        _PROMPTS
    )
    return {
        "n": len(paths),
        "decode": len(paths) / decode_seconds,
        **{precision: _rates(len(paths), seconds) for precision, seconds in runs.items()},
        "auto_is": encoder.precision,
        "agreement": _agreement(rows["float32"], rows["auto"], texts),
    }


def _decode_all(encoder, paths):
    """Preprocessed images, and the seconds that as many threads as CLIPFeaturizer uses take."""

    def decode(path):
        return encoder.preprocess(read_image(path))

    with ThreadPoolExecutor() as pool:
        return _seconds(lambda: list(pool.map(decode, paths)))


def _bare_loop(encoder, pixels):
    """Encode ready batches, one after the other, in the encoder's own precision."""
    for start in range(0, len(pixels), BATCH):
        encoder.encode_images(pixels[start : start + BATCH])


def _seconds(function, *args):
    begun = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - begun


def _rates(n, seconds):
    bare, ours = np.median(seconds, axis=0)
    ratio = np.median([bare / ours for bare, ours in seconds])
    return {"bare_loop": n / bare, "transform": n / ours, "transform / bare_loop": ratio}


def _agreement(exact, auto, texts):
    """Cosines of the rows with float32's, and how often the same prompt is the nearest."""
    exact, auto, texts = (
        a / np.linalg.norm(a, axis=1, keepdims=True) for a in (exact, auto, texts)
    )
    same = (exact @ texts.T).argmax(1) == (auto @ texts.T).argmax(1)
    return {"lowest_cosine": (exact * auto).sum(1).min(), "same_nearest_prompt": same.mean()}
