"""Pictures of digits and letters to train glyph-clip on: pen strokes and fonts, from a seed."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from .strokes import DIGITS, GLYPHS, STROKES

#: Pixels a side of every picture: the model's input size.
SIDE = 32
_FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "STIXGeneral",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)


def draw(count, generator, letters=0.25, strokes=0.75, coarse=0.6):
    """Draw pictures of random glyphs.

    Parameters
    ----------
    count : int
        Number of pictures.
    generator : torch.Generator
        Source of all randomness.
    letters : float, default=0.25
        Share of letters; the rest are digits.
    strokes : float, default=0.75
        Share of the digits drawn as pen strokes; the rest, and all letters, are set in a font.
    coarse : float, default=0.6
        Share of the pictures that pass through 8x8 pixels of 17 grey levels.

    Returns
    -------
    images : torch.Tensor of shape (count, 32, 32)
        uint8, white on black.
    labels : torch.Tensor of shape (count,)
        Positions in `GLYPHS`.
    by_pen : torch.Tensor of shape (count,)
        True if the picture was drawn as pen strokes.
    is_coarse : torch.Tensor of shape (count,)
        True if it passed through 8x8 pixels.
    """
    is_letter = _uniform(generator, 0, 1, count) < letters
    by_pen = ~is_letter & (_uniform(generator, 0, 1, count) < strokes)
    is_coarse = _uniform(generator, 0, 1, count) < coarse
    labels = torch.where(
        is_letter,
        torch.randint(len(DIGITS), len(GLYPHS), (count,), generator=generator),
        torch.randint(0, len(DIGITS), (count,), generator=generator),
    )
    images = torch.empty(count, SIDE, SIDE, dtype=torch.uint8)
    for rows in torch.arange(count).split(1024):
        field = _fields(labels[rows], by_pen[rows], is_coarse[rows], generator)
        fine = _soft(field, generator)
        images[rows] = torch.where(is_coarse[rows, None, None], through_coarse(field < 0), fine)
    return images, labels, by_pen, is_coarse


def through_coarse(ink):
    """Count the ink in 4x4 blocks, as load_digits was made, and enlarge the 8x8 counts.

    Parameters
    ----------
    ink : torch.Tensor of shape (n, 32, 32)
        bool.

    Returns
    -------
    images : torch.Tensor of shape (n, 32, 32)
        uint8.
    """
    counts = avg_pool2d(ink[:, None].float(), 4)  # (n, 1, 8, 8), multiples of 1/16
    return enlarge((counts * 255).round().to(torch.uint8))[:, 0]


def enlarge(images):
    """Resize uint8 images (n, c, h, w) to 32x32 as PIL's bicubic filter does, to a grey level."""
    return interpolate(images, size=(SIDE, SIDE), mode="bicubic", antialias=True)


def paint(images, is_coarse, generator):
    """Give half of the pictures that are not coarse two colours, light on dark or dark on light.

    Parameters
    ----------
    images : torch.Tensor of shape (n, 32, 32)
        uint8, white on black.
    is_coarse : torch.Tensor of shape (n,)
        Pictures to leave as they are.
    generator : torch.Generator
        Source of the colours.

    Returns
    -------
    pixels : torch.Tensor of shape (n, 3, 32, 32)
        float32 in [0, 1].
    """
    n = len(images)
    ink = images[:, None].float() / 255
    paper = _uniform(generator, 0, 1, n, 3, 1, 1)
    contrast = _uniform(generator, 0.35, 1, n, 3, 1, 1)
    colour = torch.where(paper < 0.5, paper + contrast, paper - contrast).clamp(0, 1)
    plain = is_coarse | (_uniform(generator, 0, 1, n) < 0.5)
    return torch.where(plain[:, None, None, None], ink, paper + (colour - paper) * ink)


def _uniform(generator, low, high, *shape):
    return low + (high - low) * torch.rand(shape, generator=generator)


def _normal(generator, scale, *shape):
    return scale * torch.randn(shape, generator=generator)


def _grid():
    """Centres of the pixels, (1024, 2) as x, y, row by row."""
    centres = torch.arange(SIDE) + 0.5
    return torch.cartesian_prod(centres, centres).flip(1)


def _soft(field, generator):
    """Grey pictures with an edge of random softness."""
    softness = _uniform(generator, 0.25, 0.9, len(field), 1, 1)
    return (torch.sigmoid(-field / softness) * 255).round().to(torch.uint8)


def _fields(labels, by_pen, is_coarse, generator):
    """Signed distances to the ink's edge in pixels, (n, 32, 32), negative inside."""
    boxes = _boxes(is_coarse, generator)
    field = torch.empty(len(labels), SIDE, SIDE)
    field[by_pen] = _pen_fields(labels[by_pen], boxes[by_pen], is_coarse[by_pen], generator)
    field[~by_pen] = _font_fields(labels[~by_pen], boxes[~by_pen], generator)
    return field


def _boxes(is_coarse, generator):
    """Frames (n, 4) to draw in: centre x and y, width, height. A coarse glyph fills the height."""
    n = len(is_coarse)
    full = is_coarse | (_uniform(generator, 0, 1, n) < 0.3)
    height = torch.where(full, SIDE, _uniform(generator, 18, SIDE, n))
    width = height * _uniform(generator, 0.48, 0.78, n)
    y = SIDE / 2 + (SIDE - height) / 2 * _uniform(generator, -1, 1, n)
    x = SIDE / 2 + (SIDE - width) / 2 * _uniform(generator, -1, 1, n) * ~full
    return torch.stack([x + _normal(generator, 0.7, n), y, width, height], dim=1)


# pen strokes ----------------------------------------------------------------------------------


def _pen_fields(labels, boxes, is_coarse, generator):
    """Distance to the nearest point of the pen's path, less the pen's radius there."""
    points = _paths(labels, generator)  # (n, P, 2)
    points = _bend(points, generator)
    inset = _uniform(generator, 1.2, 3.0, len(labels))
    points = _place(points, boxes, inset, generator)
    pressure = _waves(points[..., 1:] / SIDE, generator) * 0.35  # (n, P, 1)
    distance = torch.cdist(_grid().expand(len(points), -1, -1), points)  # (n, 1024, P)
    distance = (distance - pressure.transpose(1, 2)).amin(2)
    distance = distance + _normal(generator, 0.25, *distance.shape)
    field = distance - _radius(distance, boxes, is_coarse, generator)[:, None]
    return field.unflatten(1, (SIDE, SIDE))


def _radius(distance, boxes, is_coarse, generator):
    """Radii of the pen (n,): free, but most coarse ones get what covers the usual share.

    load_digits was made from bitmaps whose strokes had been thickened or thinned to that end.
    """
    share = (0.317 + _normal(generator, 0.038, len(distance))).clamp(0.2, 0.43)
    rank = (share * distance.shape[1]).long()[:, None]
    filling = distance.sort(1).values.gather(1, rank)[:, 0].clamp(1.1, 7.5)
    free = _uniform(generator, 0.03, 0.095, len(distance)) * boxes[:, 3]
    usual = is_coarse & (_uniform(generator, 0, 1, len(distance)) < 0.88)
    return torch.where(usual, filling, free)


def _paths(labels, generator, n_points=80):
    """Points (n, n_points, 2) along a jittered writing of each digit, in a unit square."""
    points = torch.empty(len(labels), n_points, 2)
    which = _uniform(generator, 0, 1, len(labels))
    for digit, ways in enumerate(STROKES.values()):
        choice = (which * len(ways)).long()
        for way, text in enumerate(ways):
            rows = ((labels == digit) & (choice == way)).nonzero()[:, 0]
            knots, basis = _parse(text, n_points)
            jittered = knots + _normal(generator, 0.045, len(rows), *knots.shape)
            points[rows] = basis @ jittered
    return points


@lru_cache
def _parse(writing, n_points):
    """Knots (k, 2) of a writing, and the matrix (n_points, k) that draws curves through them."""
    knots: list[list[float]] = []
    curves: list[list[int]] = []
    for stroke in writing.split("/"):
        corner: list[int] = []
        for curve in stroke.split("|"):
            first = len(knots)
            knots += [[float(v) / 10 for v in word.split(",")] for word in curve.split()]
            curves.append([*corner, *range(first, len(knots))])
            corner = [len(knots) - 1]
    cuts = np.cumsum([0] + [len(curve) - 1 for curve in curves])
    cuts = cuts * n_points // cuts[-1]
    basis = np.zeros((n_points, len(knots)), dtype=np.float32)
    for curve, start, stop in zip(curves, cuts, cuts[1:], strict=False):
        at = np.linspace(0, len(curve) - 1, stop - start)
        basis[start:stop, curve] = _spline(at, len(curve))
    return torch.tensor(knots), torch.tensor(basis)


def _spline(at, n_knots):
    """Catmull-Rom weights (len(at), n_knots) of the knots at positions counted in knots."""
    left = np.minimum(at.astype(int), n_knots - 2)
    u = at - left
    before, after = -u + 2 * u**2 - u**3, u**3 - u**2
    pieces = (before, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, after)
    weights = np.zeros((len(at), n_knots + 2))
    for j, piece in enumerate(pieces):
        weights[np.arange(len(at)), left + j] = piece / 2
    # Two phantom knots continue the ends straight: 2 p[0] - p[1] before, 2 p[-1] - p[-2] after.
    for phantom, end, inner in ((0, 1, 2), (-1, -2, -3)):
        weights[:, end] += 2 * weights[:, phantom]
        weights[:, inner] -= weights[:, phantom]
    return weights[:, 1:-1]


def _waves(points, generator, n_waves=2):
    """Displace by smooth random waves of about unit size: their values at points (n, P, d)."""
    n, _, d = points.shape
    total = torch.zeros(())
    for _ in range(n_waves):
        direction = _normal(generator, 3.5, n, 1, d, d)
        phase = _uniform(generator, 0, 2 * np.pi, n, 1, d)
        total = total + torch.sin((points[..., None] * direction).sum(2) + phase)
    return total / n_waves


def _bend(points, generator):
    """Warp, turn and slant paths, and make one end of each axis larger than the other."""
    n = len(points)
    points = points + 0.05 * _waves(points, generator)
    turn, slant = _normal(generator, 0.07, n), _normal(generator, 0.14, n)
    x, y = (points - 0.5).unbind(2)
    points = torch.stack([x + (slant - turn)[:, None] * y, y + turn[:, None] * x], dim=2)
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    size = (high - low).clamp_min(1e-3)
    power = torch.exp(_normal(generator, 0.15, n, 1, 2))
    return ((points - low) / size).clamp(1e-6, 1) ** power * size  # from 0 on


def _place(points, boxes, inset, generator):
    """Fit paths into boxes, leaving room for the pen; narrow glyphs stay narrower than the box."""
    size = points.amax(1).clamp_min(1e-3)  # (n, 2)
    natural = (size[:, 0] / size[:, 1] / 0.8).clamp(0.02, 1)
    inner = boxes[:, 2:] - 2 * inset[:, None]
    narrow = natural ** _uniform(generator, 0.5, 1, len(points))
    width = inner[:, 0] * torch.where(natural < 0.2, natural, narrow)
    target = torch.stack([width, inner[:, 1]], dim=1)
    return boxes[:, None, :2] + (points / size[:, None] - 0.5) * target[:, None]


# fonts ----------------------------------------------------------------------------------------


def _font_fields(labels, boxes, generator):
    """Fields of glyphs set in random fonts, turned, slanted, stretched and warped into boxes."""
    masks, widths = _font_masks()  # (G, F, 64, 64), (G, F)
    fonts = torch.randint(0, masks.shape[1], (len(labels),), generator=generator)
    narrow = widths[labels, fonts].clamp_max(1.2) ** _uniform(generator, 0.5, 1, len(labels))
    half = torch.stack([boxes[:, 2] * narrow.clamp_max(1), boxes[:, 3]], dim=1) / 2
    x, y = ((_grid() - boxes[:, None, :2]) / half[:, None]).unbind(
        2
    )  # (n, 1024), -1 to 1 in the box
    turn, slant = _normal(generator, 0.08, len(labels), 1), _normal(generator, 0.15, len(labels), 1)
    where = torch.stack([x + (slant - turn) * y, y + turn * x], dim=2)
    where = where + 0.07 * _waves(where / 2, generator)
    chosen = masks[labels, fonts][:, None].float() / 255
    mask = grid_sample(chosen, where.unflatten(1, (SIDE, SIDE)), align_corners=False)[:, 0]
    return (_uniform(generator, 0.3, 0.62, len(labels), 1, 1) - mask) * 12


@lru_cache
def _font_masks():
    """Every glyph in the text fonts that matplotlib ships, filling 64x64; its width / height."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    paths = sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf"))
    paths = [path for path in paths if path.stem.startswith(_FONTS) and "Display" not in path.stem]
    pictures = [
        [_glyph_mask(ImageFont.truetype(path, 64), glyph) for path in paths] for glyph in GLYPHS
    ]
    masks = torch.tensor(np.array([[mask for mask, _ in row] for row in pictures]))
    return masks, torch.tensor([[width for _, width in row] for row in pictures])


def _glyph_mask(font, glyph):
    from PIL import Image, ImageDraw

    image = Image.new("L", (192, 192))
    ImageDraw.Draw(image).text((64, 48), glyph, fill=255, font=font)
    image = image.crop(image.getbbox())
    return np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)), image.width / image.height
