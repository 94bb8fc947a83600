"""Hostile images through the image door: only our own error may come out, quickly and in bounds.

Run ``python tests/fuzz_images.py 100000 bytes`` (some minutes per core); what it finds is printed
with the input, and belongs into tests/test_images.py.

- ``bytes``: hypothesis mutates real files of every format that is decoded: bytes overwritten, cut,
  doubled, moved.
- ``lazy``: the same files as PIL images that were opened and not yet decoded.
- ``shapes``: files of one colour of any shape from 1 x 1 to 1000000 x 1, read and resized in all of
  open_clip's ways, in a process of at most 1.5 GB.
"""

import collections
import io
import os
import random
import resource
import sys
import time
import traceback
import warnings
import zlib

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image, features

from sklearn_taskres._clip.images import read_image
from sklearn_taskres._clip.resizing import make_resize

#: What one file may take of the processor, and of memory: Pillow's limit of pixels, converted.
SECONDS, MEGABYTES = 5, 1000
#: What a process may take that reads one image after the other.
PROCESS_MEGABYTES = 1500
_RNG = np.random.default_rng(0)


def real_files():
    """Return (name, bytes) of small files: every format, mode and option that has its own code."""
    rgb = Image.fromarray(_RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    grey_16 = Image.fromarray(_RNG.integers(0, 65536, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    ways = [
        ("JPEG", rgb, {"exif": exif}),
        ("JPEG", rgb, {"progressive": True}),
        ("JPEG", rgb.convert("L"), {}),
        ("JPEG", rgb.convert("CMYK"), {}),
        ("PNG", rgb, {"exif": exif}),
        ("PNG", rgb.convert("P"), {"transparency": 3}),
        ("PNG", rgb.convert("LA"), {}),
        ("PNG", rgb.convert("RGBA"), {}),
        ("PNG", grey_16, {}),
        ("PNG", rgb.convert("1"), {}),
        ("GIF", rgb.convert("P"), {"save_all": True, "append_images": [rgb.convert("P")]}),
        ("BMP", rgb, {}),
        ("BMP", rgb.convert("P"), {}),
        ("TIFF", rgb, {"compression": "raw", "exif": exif}),
        ("TIFF", rgb, {"compression": "tiff_lzw"}),
        ("TIFF", rgb, {"compression": "tiff_deflate"}),
        ("TIFF", rgb, {"compression": "jpeg"}),
        ("TIFF", rgb.convert("1"), {"compression": "group4"}),
        ("TIFF", grey_16, {}),
        ("WEBP", rgb, {"exif": exif}),
        ("WEBP", rgb.convert("RGBA"), {"lossless": True}),
        ("PPM", rgb, {}),
        ("MPO", rgb, {"save_all": True, "append_images": [rgb]}),
        ("JPEG2000", rgb, {}),
    ]
    if features.check("avif"):
        ways.append(("AVIF", rgb, {}))
    return [(name, _encoded(image, name, options)) for name, image, options in ways]


def _encoded(image, name, options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


FILES = real_files()


@st.composite
def broken_files(draw):
    """Return the name and the bytes of a real file after one to eight mutations."""
    name, content = draw(st.sampled_from(FILES))
    rng = random.Random(draw(st.integers(0, 2**64)))  # noqa: S311 (no secret)
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 8))):
        _mutate(data, rng)
    if name == "PNG" and rng.random() < 0.7:
        data = _with_checksums(data)  # or else nothing behind them is ever reached
    return name, bytes(data)


def _with_checksums(png):
    """Return a PNG with the checksum of each chunk corrected, as far as the lengths make sense."""
    repaired, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + size]
        repaired += png[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return repaired


def _mutate(data, rng):
    """Change some bytes, more often in the head, where the numbers are that sizes come from."""
    reach = rng.choice([32, 128, len(data)])
    at = rng.randrange(max(1, min(reach, len(data))))
    size = rng.choice([1, 1, 2, 4, 16])
    kind = rng.randrange(6)
    if kind == 0:
        data[at : at + size] = rng.randbytes(size)
    elif kind == 1:
        data[at : at + size] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * size
    elif kind == 2:
        del data[at : at + rng.choice([1, size, 64])]
    elif kind == 3:
        data[at:at] = data[at : at + rng.choice([size, 64])] * rng.choice([1, 2, 50])
    elif kind == 4:
        other = rng.randrange(max(1, len(data)))
        data[at : at + size] = data[other : other + size]
    elif data:
        at = min(at, len(data) - 1)
        data[at] ^= 1 << rng.randrange(8)


def check(name, image):
    """Read an image, and fail for anything but one or a ValueError, or for taking too much."""
    return _check(name, lambda: read_image(image))


def check_lazy(name, content):
    """Read a file as a PIL image that is not decoded yet, if Pillow opens it."""
    try:
        image = Image.open(io.BytesIO(content))
    except Exception:  # the user's own call
        return "not opened"
    return check(name, image)


def check_shape(name, content, resize):
    """Read a file, and make of it what the tower takes."""
    return _check(name, lambda: resize(read_image(content)))


def _check(name, read):
    begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        image = read()
    except ValueError as error:
        outcome = "refused"
        problem = None if str(error) and len(str(error)) < 500 else f"message {str(error)!r:.99}"
    else:
        outcome = "read"
        problem = None if image.mode == "RGB" else f"mode {image.mode}"
    seconds = time.process_time() - begun
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if seconds > SECONDS:
        problem = f"took {seconds:.1f} s"
    if (highest - peak) / 1e3 > MEGABYTES:
        problem = f"took {(highest - peak) / 1e3:.0f} MB"
    assert problem is None, f"{name}: {problem}"
    SLOWEST[0] = max(SLOWEST[0], seconds)
    return outcome


#: Seconds of the slowest image so far.
SLOWEST = [0.0]


@st.composite
def shapes(draw):
    """Return the format and the bytes of a file of one colour, and a way to resize it."""
    rng = random.Random(draw(st.integers(0, 2**64)))  # noqa: S311 (no secret)
    most = 10 ** (7.95 if rng.random() < 0.002 else 6)  # pixels
    longest = round(10 ** rng.uniform(0, 6))
    sides = [longest, round(min(longest, most / longest) ** rng.uniform(0, 1)) or 1]
    rng.shuffle(sides)
    names = ["PNG", "PNG", "GIF", "TIFF"] if max(sides) > 16_000 else ["PNG", "JPEG", "WEBP", "GIF"]
    name = rng.choice(names if max(sides) <= 65_535 else ["PNG", "TIFF"])
    mode = rng.choice(["1", "L", "RGB", "RGBA"]) if name in ("PNG", "TIFF") else "RGB"
    options = {"compress_level": 1} if name == "PNG" else {"method": 0} if name == "WEBP" else {}
    if name == "TIFF":
        options = {"compression": "tiff_adobe_deflate"}
    content = _encoded(Image.new(mode, sides), name, options)
    size = rng.choice([32, 224, 336, (224, 336)])
    resize = make_resize(size, rng.choice(["shortest", "squash", "longest"]))
    return f"{name} {mode} {sides[0]} x {sides[1]}", content, resize


#: Kind of fuzzing to its inputs and what is done with one.
KINDS = {
    "bytes": (broken_files(), check),
    "lazy": (broken_files(), check_lazy),
    "shapes": (shapes(), check_shape),
}


def main(n_inputs=100_000, kind="bytes"):
    """Fuzz and print how many images were read and refused, by format."""
    warnings.simplefilter("ignore")  # Pillow's, about broken metadata
    inputs, check_one = KINDS[kind]
    counts: dict = collections.defaultdict(collections.Counter)

    @seed(0)
    @settings(
        max_examples=n_inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def fuzz(item):
        counts[item[0].split()[0]][check_one(*item)] += 1

    begun = time.monotonic()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libtiff writes a line there for most files
    try:
        fuzz()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
    for name, outcomes in sorted(counts.items()):
        print(f"{name:10}" + "".join(f"{n:8} {what}" for what, n in sorted(outcomes.items())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"{sum(map(sum, (c.values() for c in counts.values())))} images ({kind}) in "
        f"{time.monotonic() - begun:.0f} s, and only our own errors; slowest {SLOWEST[0]:.1f} s, "
        f"peak of the process {peak:.0f} MB"
    )
    if peak > PROCESS_MEGABYTES:
        sys.exit(f"more than {PROCESS_MEGABYTES} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
