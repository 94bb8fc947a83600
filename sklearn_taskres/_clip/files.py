"""Image files: which formats are read, what one may take, and one error for all that goes wrong."""

import contextlib
import io
import os
import re
import stat

from PIL import Image, ImageFile, UnidentifiedImageError

#: Formats that are decoded, with the endings of their files. Others are rare; some of their
#: decoders start other programs (EPS), or are little tested. AVIF and HEIF need a Pillow, or a
#: plugin, that has them.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "MPO": (".mpo",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
}
#: Bytes that a file starts with, as far as its format shows there.
PREFIX_BYTES = 32
#: Bytes per pixel that no file needs more of: a file that is larger than so much and Pillow's limit
#: of pixels is refused unread.
_FILE_BYTES_PER_PIXEL = 4
#: Bytes per pixel that decoding may take, times Pillow's limit of pixels: a gigabyte.
_MOST_BYTES_PER_PIXEL = 11
#: Bytes per pixel that Pillow's decoders take, alone and for each band, as measured.
_DECODER_BYTES = {"WEBP": (16, 0), "JPEG": (4, 2), "MPO": (4, 2), "JPEG2000": (4, 5.2)}
_DECODER_BYTES |= {"AVIF": (12, 0), "HEIF": (12, 0)}
#: What any image takes, decoded and converted: two of four bytes, with a pointer to each row.
_BYTES_PER_PIXEL, _BYTES_PER_ROW = 8, 16
#: Passes over the pixels that a JPEG may ask for; ten are usual, and a file of a megabyte could ask
#: for a hundred thousand. And the segments that it may have.
_JPEG_SCANS, _JPEG_SEGMENTS = 100, 10_000
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
#: Markers of a JPEG that have a length, and the one of its end.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TRUST = "raise PIL.Image.MAX_IMAGE_PIXELS only if you trust the file"
#: Characters that are passed on of what others say.
_REASON_LENGTH = 300


@contextlib.contextmanager
def as_value_error(what=""):
    """Turn the many errors of files, Pillow and torch into one, a sentence that begins with `what`.

    Running out of memory is nobody's fault but the machine's, and goes on as it is; so does a
    timeout that does not come from a file.
    """
    try:
        yield
    except Exception as error:
        is_alarm = isinstance(error, TimeoutError) and error.errno is None
        if isinstance(error, MemoryError) or is_alarm:
            raise
        raise ValueError(what + _reason(error)) from error


def _reason(error):
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels, Pillow's safety limit; {_TRUST}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason.strip().partition("\n")[0][:_REASON_LENGTH]


def check_file(path):
    """Return the size of an image file, refusing what is not to be read.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    int

    Raises
    ------
    OSError
        If it can't be looked at.
    ValueError
        If it is not a regular file (a pipe would be waited for), empty as those are that a kernel
        makes up, or larger than any image that would be decoded.
    """
    state, limit = os.stat(path), Image.MAX_IMAGE_PIXELS
    if stat.S_ISDIR(state.st_mode):
        raise ValueError("a folder; load_image_folder lists the images in one")
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("not a regular file")
    if state.st_size == 0:
        raise ValueError("an empty file")
    if limit is not None and state.st_size > limit * _FILE_BYTES_PER_PIXEL:
        raise ValueError(
            f"a file of {state.st_size} bytes, larger than an image within Pillow's safety limit; "
            f"{_TRUST}"
        )
    return state.st_size


def file_content(path):
    size = check_file(path)
    with open(path, "rb") as file:
        return file.read(size + 1)


def opened(content):
    """Open a file's bytes without decoding them."""
    try:
        image = Image.open(io.BytesIO(content), formats=_formats())
    except UnidentifiedImageError as error:
        if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
            raise ValueError(
                "a HEIF image, which Pillow reads with a plugin: install pillow-heif and call "
                "pillow_heif.register_heif_opener()"
            ) from error
        raise ValueError("not an image file of a supported format") from error
    _refuse_scans(image, content)
    return image


def _formats():
    """Those of `FORMATS` that this Pillow, and the plugins registered so far, can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def looks_like_image(prefix):
    """Whether a file that starts with `prefix`, of `PREFIX_BYTES`, is of a format we decode."""
    accepts = [Image.OPEN[name][1] for name in _formats()]
    return any(accept is not None and accept(prefix) is True for accept in accepts)


def bytes_to_read(image):
    """Bytes that decoding and converting an image take at the most; refuse too many."""
    width, height = image.size
    alone, per_band = _DECODER_BYTES.get(image.format, (0, 0))
    per_pixel = max(alone + per_band * len(image.getbands()), _BYTES_PER_PIXEL)
    n_bytes = int(width * height * per_pixel) + height * _BYTES_PER_ROW
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or not isinstance(image, ImageFile.ImageFile):  # made by the user
        return n_bytes
    if width * height > limit:
        raise ValueError(
            f"{width} x {height} pixels, more than Pillow's safety limit of {limit}; {_TRUST}"
        )
    if n_bytes > limit * _MOST_BYTES_PER_PIXEL:
        raise ValueError(
            f"{width} x {height} pixels of {image.format}, which take {n_bytes >> 20} MiB to "
            f"decode, more than {limit * _MOST_BYTES_PER_PIXEL >> 20} MiB; {_TRUST}"
        )
    return n_bytes


def _refuse_scans(image, content):
    """Refuse a JPEG of too many passes, not counting what lies behind its end: motion photos."""
    if image.format not in ("JPEG", "MPO") or content.count(_START_OF_SCAN) <= _JPEG_SCANS:
        return
    n_scans, at = 0, 0
    for _ in range(_JPEG_SEGMENTS):
        marker = _JPEG_MARKER.search(content, at)
        if marker is None or marker[0] == _END_OF_IMAGE:
            return
        n_scans += marker[0] == _START_OF_SCAN
        if n_scans > _JPEG_SCANS:
            break
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    raise ValueError(f"a JPEG of more than {_JPEG_SCANS} scans, which would take very long")
