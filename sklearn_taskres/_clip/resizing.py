"""What the image tower sees of an image: open_clip's resize and crop, with bounded memory.

open_clip resizes the whole image and cuts the middle out of the result. For a strip that result is
huge, and nearly all of it is thrown away. Here only the part of a strip that is kept gets computed.
"""

import functools
import math

from PIL import Image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
#: Times the tower's area that a resized image may have; a strip has more.
_STRIP = 4
#: Shrinking by more than this is done in two steps: Pillow keeps 32 bytes for each pixel of a side.
_LARGEST_STEP = 10_000
#: Pixels on either side that the wider of the two filters looks at.
_SUPPORT = 2


def make_resize(size, resize_mode="shortest", interpolation="bicubic", fill_color=0, **_):
    """Return the function that makes of a PIL image one of the size that the tower takes.

    Parameters
    ----------
    size : int or pair of int
        Height and width of the result.
    resize_mode : {"shortest", "longest", "squash"}, default="shortest"
        Whether the shorter side is fitted and the longer one cut, the longer side is fitted and the
        shorter one padded, or both are fitted.
    interpolation : {"bicubic", "bilinear", "random"}, default="bicubic"
        Filter; open_clip takes "random" for "bicubic" unless it trains.
    fill_color : int, default=0
        Value of padded pixels.
    **_
        The rest of open_clip's preprocessing configuration.

    Returns
    -------
    callable
        Takes and gives a PIL image of mode RGB. The pixels are open_clip's own; of strips, more
        than four times as long as wide, to the rounding of Pillow's two passes.
    """
    height, width = size = (size, size) if isinstance(size, int) else tuple(size)
    resample = _FILTERS.get(interpolation, Image.Resampling.BICUBIC)
    if resize_mode == "squash":
        return functools.partial(_squash, width=width, height=height, resample=resample)
    if resize_mode == "longest":
        fill = (fill_color,) * 3
        return functools.partial(_pad, width=width, height=height, resample=resample, fill=fill)
    if height != width:  # open_clip ignores the filter here
        resample = Image.Resampling.BICUBIC
    return functools.partial(_crop, width=width, height=height, resample=resample)


def _squash(image, width, height, resample):
    if image.width < width and image.height > height:  # Pillow would widen it first
        image = image.resize((image.width, height), resample, reducing_gap=_LARGEST_STEP)
    return image.resize((width, height), resample, reducing_gap=_LARGEST_STEP)


def _pad(image, width, height, resample, fill):
    ratio = max(image.width / width, image.height / height)
    w, h = (max(1, round(side / ratio)) for side in image.size)
    resized = image.resize((w, h), resample, reducing_gap=_LARGEST_STEP)
    padded = Image.new("RGB", (width, height), fill)
    padded.paste(resized, ((width - w) // 2, (height - h) // 2))
    return padded


def _crop(image, width, height, resample):
    w, h = _resized(image.width, image.height, width, height)
    if w * h <= _STRIP * width * height:
        left, top = round((w - width) / 2), round((h - height) / 2)
        return image.resize((w, h), resample).crop((left, top, left + width, top + height))
    left, right, kept_x = _kept(image.width, w, width)
    top, bottom, kept_y = _kept(image.height, h, height)
    near = image.crop((left, top, right, bottom))  # small numbers, which Pillow keeps as float32
    box = (kept_x[0] - left, kept_y[0] - top, kept_x[1] - left, kept_y[1] - top)
    return near.resize((width, height), resample, box=box)


def _resized(w, h, width, height):
    """Size of a (w, h) image when its shorter side is fitted, rounded as open_clip rounds."""
    if width == height:
        return (width, int(width * h / w)) if w <= h else (int(width * w / h), width)
    ratio = min(h / height, w / width)
    return round(w / ratio), round(h / ratio)


def _kept(n, n_resized, n_kept):
    """Pixels (begin, end) that the middle is computed from, and the part of them that it shows."""
    scale = n / n_resized
    first = round((n_resized - n_kept) / 2)
    shown = first * scale, (first + n_kept) * scale
    margin = _SUPPORT * max(scale, 1) + 1
    begin, end = math.floor(shown[0] - margin), math.ceil(shown[1] + margin)
    return max(begin, 0), min(end, n), shown
