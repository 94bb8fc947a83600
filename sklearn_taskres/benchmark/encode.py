"""Images to embeddings: cold compared with bare loops, warm with other stores, start and memory."""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from .._arguments import check_writable, checked_device, positive
from .._clip.images import open_image
from . import cold, memory, start, warm
from .machine import describe_machine
from .random_clip import write_random_clip

PARTS = ("warm", "cold", "start", "memory")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def add_arguments(parser):
    """Add this subcommand's options to an argparse parser."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=Path, help="folder of images; drawn ones by default")
    parser.add_argument("--n-images", type=positive, default=600, help="for the cold part, at most")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["ViT-B-32", "RN50"],
        help="architectures, given random weights",
    )
    parser.add_argument("--device", help="as in CLIPFeaturizer")
    parser.add_argument(
        "--repeats", type=positive, default=3, help="runs per figure; medians count"
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON there")


def run(options):
    """Measure the parts that `options` names, print them, and write them as JSON."""
    device = checked_device(options.device)
    check_writable(options.output)
    if {"cold", "start"} & set(options.parts):
        _check_models(options.models)
    results = {"machine": describe_machine(device)}
    _print("machine", results["machine"])
    for part in options.parts:
        results[part] = _MEASURE[part](options)
        _print(part, results[part])
    if options.output:
        options.output.write_text(
            json.dumps(results, indent=1, default=float) + "\n", encoding="utf-8"
        )


def _check_models(names):
    from .._clip.backends.torch.pretrained import architecture_config

    unknown = [name for name in names if architecture_config(name) is None]
    if unknown:
        sys.exit(f"--models: open_clip has no architecture {unknown[0]!r}. Try ViT-B-32 or RN50.")


def _measure_warm(options):
    return warm.measure(options.repeats)


def _measure_memory(options):
    return memory.measure()


def _measure_cold(options):
    results = {}
    with tempfile.TemporaryDirectory() as scratch, _images(options) as paths:
        for architecture in options.models:
            name = write_random_clip(Path(scratch, architecture), architecture)
            results[architecture] = cold.measure(name, paths, options.device, options.repeats)
    return results


def _measure_start(options):
    results = {}
    with tempfile.TemporaryDirectory() as scratch, _images(options) as paths:
        for architecture in options.models:
            folder = Path(scratch, architecture)
            name = write_random_clip(folder / "model", architecture)
            results[architecture] = start.measure(name, paths, folder, options.repeats)
    return results


_MEASURE = {
    "warm": _measure_warm,
    "cold": _measure_cold,
    "start": _measure_start,
    "memory": _measure_memory,
}


def _check_readable(paths):
    for path in paths:
        try:
            with open_image(path):
                pass
        except ValueError as error:
            sys.exit(f"--images: {path} can't be read: {error}. Take it out of the folder.")


@contextlib.contextmanager
def _images(options):
    """Paths of the images to encode: those of a folder, or drawn ones of a photo's size."""
    if options.images is not None:
        paths = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not paths:
            sys.exit(f"The folder {options.images} holds no image ({', '.join(_SUFFIXES)}).")
        paths = [str(path) for path in paths[: options.n_images]]
        _check_readable(paths)
        yield paths
        return
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        paths = [str(Path(folder, f"{i}.jpg")) for i in range(options.n_images)]
        for path in paths:
            noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((320, 320), Image.Resampling.BICUBIC).save(path)
        yield paths


#: Name of a figure, or of what holds it, to its unit.
_UNITS = {
    "n": "images",
    "d": "elements",
    "decode": "images/s",
    "rate": "images/s",
    "transform": "images/s",
    "stores": "embeddings/s",
    "memory": "MB",
    f"ratio to {cold.BASELINE}": "",
    f"ratio to {cold.FROM_FILES}": "",
    f"agreement with {cold.EXACT}": "",
    "start": "",
    "machine": "",
}


def _print(title, values, unit="", depth=0):
    """Print a figure with its unit, or a name and below it what it holds."""
    unit = _UNITS.get(title, unit)
    indent = "  " * depth
    if isinstance(values, dict):
        sys.stdout.write(f"{indent}{title}\n")
        for name, value in values.items():
            _print(name, value, unit, depth + 1)
    else:
        is_number = isinstance(values, float | np.floating)
        shown = f"{values:,.4g}" if is_number and values < 10_000 else values
        shown = f"{values:,.0f}" if is_number and values >= 10_000 else shown
        sys.stdout.write(f"{indent}{title:<30}{shown} {unit}".rstrip() + "\n")
    sys.stdout.flush()
