"""Broken files through the image door: only our own error may come out, quickly and in bounds.

Hypothesis mutates real files of every format that is decoded: bytes overwritten, cut, doubled,
moved. Run ``python tests/fuzz_images.py 100000`` (some minutes a core); what it finds is printed
with the file, and belongs into tests/test_images.py.
"""

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

#: What one file may take: Pillow's limit of pixels, decoded, laid on white and converted.
SECONDS, MEGABYTES = 20, 1200
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


def check(name, content):
    """Read a file, and fail for anything but an image or a ValueError, or for taking too much."""
    begun, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        image = read_image(content)
    except ValueError as error:
        outcome = "refused"
        problem = None if str(error) and len(str(error)) < 500 else f"message {str(error)!r:.99}"
    else:
        outcome = "read"
        problem = None if image.mode == "RGB" else f"mode {image.mode}"
    seconds = time.monotonic() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1e3
    if seconds > SECONDS:
        problem = f"took {seconds:.1f} s"
    if grown > MEGABYTES:
        problem = f"took {grown:.0f} MB"
    assert problem is None, f"{name}: {problem}"
    return outcome


def main(n_inputs=100_000):
    """Fuzz and print how many files were read and refused, by format."""
    warnings.simplefilter("ignore")  # Pillow's, about broken metadata
    counts: dict = {name: {"read": 0, "refused": 0} for name, _ in FILES}

    @seed(0)
    @settings(
        max_examples=n_inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(broken_files())
    def fuzz(file):
        counts[file[0]][check(*file)] += 1

    begun = time.monotonic()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libtiff writes a line there for most files
    try:
        fuzz()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
    for name, outcomes in counts.items():
        print(f"{name:10}{outcomes['read']:8} read{outcomes['refused']:8} refused")
    n_checked = sum(sum(outcomes.values()) for outcomes in counts.values())
    print(f"{n_checked} files in {time.monotonic() - begun:.0f} s, and only our own errors")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
