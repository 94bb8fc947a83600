"""Peak memory and time of hostile pictures: ``python tests/measure_hostile_images.py`` (minutes).

Each is read and resized for a tower of 224 pixels in a process of its own; the memory is what that
process took on top of what it had before, and the seconds are of the processor, all threads
together. Prints the table of docs/guide/photos.rst.
"""

import io
import json
import platform
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

#: Sides of the largest square within Pillow's limit of pixels.
_SIDE = 9459
#: A process that asks for more address space than this on top is stopped.
_ADDRESS_SPACE = 8 << 30


def _file(mode, size, name, n_bytes=None, **options):
    """Bytes of a picture of one colour, cut after some of them."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, name, **options)
    return file.getvalue()[:n_bytes]


def _with_chunk(name, body):
    """Return a small PNG with another chunk behind its header."""
    png = _file("RGB", (4, 4), "PNG")
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:33] + chunk + png[33:]


def _scans(n_scans):
    """Return a progressive JPEG with its last scan repeated."""
    jpeg = _file("RGB", (2000, 2000), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + (n_scans - jpeg.count(b"\xff\xda")) * last + jpeg[-2:]


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_SQUARE = (_SIDE, _SIDE)
#: Name to a function that makes the file, and copies of it that threads read at one time.
PICTURES = {
    "PNG, 20000 x 1": (lambda: _file("RGB", (20_000, 1), "PNG"), 1),
    "PNG, 1 x 60000": (lambda: _file("RGB", (1, 60_000), "PNG"), 1),
    "PNG, 1000000 x 1": (lambda: _file("RGB", (1_000_000, 1), "PNG"), 1),
    "PNG, 1 x 1000000": (lambda: _file("RGB", (1, 1_000_000), "PNG"), 1),
    "PNG, one bit, 89 megapixels": (lambda: _file("1", _SQUARE, "PNG"), 1),
    "PNG, one bit, 89 megapixels, 8 at a time": (lambda: _file("1", _SQUARE, "PNG"), 8),
    "PNG, RGBA, 89 megapixels": (lambda: _file("RGBA", _SQUARE, "PNG"), 1),
    "PNG, RGBA, 89 megapixels, turned": (lambda: _file("RGBA", _SQUARE, "PNG", exif=_exif(6)), 1),
    "PNG, 16 bit, 89 megapixels": (lambda: _file("I;16", _SQUARE, "PNG"), 1),
    "PNG, RGBA, 17 megapixels, 8 at a time": (lambda: _file("RGBA", (4096, 4096), "PNG"), 8),
    "PNG, 400 megapixels": (lambda: _file("1", (20_000, 20_000), "PNG"), 1),
    "PNG, a gigabyte of text": (
        lambda: _with_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**9), 9)),
        1,
    ),
    "GIF, 89 megapixels": (lambda: _file("P", _SQUARE, "GIF", transparency=0), 1),
    "JPEG, progressive, 89 megapixels": (
        lambda: _file("RGB", _SQUARE, "JPEG", progressive=True),
        1,
    ),
    "JPEG, 100 scans, 4 megapixels": (lambda: _scans(100), 1),
    "JPEG, 100000 scans": (lambda: _scans(100_000), 1),
    "WebP, 89 megapixels": (
        lambda: _file("RGBA", (16_383, 5_460), "WEBP", lossless=True, method=0),
        1,
    ),
    "WebP, 60 megapixels, 8 at a time": (
        lambda: _file("RGBA", (10_000, 6_000), "WEBP", lossless=True, method=0),
        8,
    ),
    "JPEG 2000, 89 megapixels": (lambda: _file("RGB", _SQUARE, "JPEG2000"), 1),
    "JPEG 2000, 49 megapixels": (lambda: _file("RGB", (7_000, 7_000), "JPEG2000"), 1),
    "AVIF, 64 megapixels": (lambda: _file("RGB", (8_000, 8_000), "AVIF", speed=10), 1),
    "TIFF, deflated, 89 megapixels": (
        lambda: _file("RGBA", _SQUARE, "TIFF", compression="tiff_adobe_deflate"),
        1,
    ),
}


def _write(path, name):
    Image.MAX_IMAGE_PIXELS = None
    Path(path).write_bytes(PICTURES[name][0]())


def _read(path, n_copies):
    """Print what reading a file took."""
    import numpy as np

    from sklearn_taskres._clip.images import open_image
    from sklearn_taskres._clip.resizing import make_resize

    resize, content = make_resize(224), Path(path).read_bytes()

    def embed(content):
        try:
            with open_image(content) as (image, _):
                return str(np.asarray(resize(image)).shape)
        except ValueError as error:
            return str(error)

    warnings.simplefilter("ignore")  # Pillow's, about many pixels
    embed(_file("RGB", (8, 8), "PNG"))  # imports
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, 2 * (space + _ADDRESS_SPACE,))
    before, begun = _peak(), time.process_time()
    with ThreadPoolExecutor(n_copies) as pool:
        outcome, *_ = pool.map(embed, n_copies * [content])
    seconds, megabytes = time.process_time() - begun, _peak() - before
    found = "read" if outcome.startswith("(") else f"refused: {outcome}"
    print(json.dumps([len(content), megabytes, seconds, found]))


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    """Measure each picture and print a table."""
    processor = next(
        (
            s.partition(": ")[2]
            for s in Path("/proc/cpuinfo").read_text().splitlines()
            if "name" in s
        ),
        platform.machine(),
    )
    print(processor, platform.python_version(), "Pillow", Image.__version__)
    print(f"{'picture':42}{'bytes':>10}{'MB':>7}{'s':>6}  outcome")
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, n_copies) in PICTURES.items():
            path = f"{folder}/picture"
            _run("write", path, name)
            n_bytes, megabytes, seconds, found = json.loads(_run("read", path, str(n_copies)))
            print(f"{name:42}{n_bytes:>10}{megabytes:>7.0f}{seconds:>6.1f}  {found}", flush=True)


def _run(*arguments):
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        _write(*sys.argv[2:])
    elif sys.argv[1:2] == ["read"]:
        _read(sys.argv[2], int(sys.argv[3]))
    else:
        main()
