"""Resize and crop against open_clip's, and their memory where open_clip has none to spare."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from watching import calls_of

from sklearn_taskres._clip.resizing import make_resize

SIZES = st.sampled_from([32, 64, 224, (48, 80), (80, 48)])
INTERPOLATIONS = st.sampled_from(["bicubic", "bilinear"])


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def open_clip_resize(**config):
    """open_clip's transform without the last steps, to a tensor and to unit variance."""
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    return type(transform)(transform.transforms[:-2])


def pixels(image):
    return np.asarray(image, dtype=int)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 400),
    ratio=st.floats(1, 3.9),
    is_tall=st.booleans(),
    size=SIZES,
    resize_mode=st.sampled_from(["shortest", "squash", "longest"]),
    interpolation=INTERPOLATIONS,
    fill_color=st.sampled_from([0, 128]),
)
def test_pixels_are_open_clips(width, ratio, is_tall, **config):
    """Every mode, filter and size gives the very pixels of open_clip."""
    size = (width, int(width * ratio))
    image = noise(*(size if is_tall else size[::-1]))
    resize = config["resize_mode"] == "shortest" and not isinstance(config["size"], int)
    is_strip = resize and ratio > 2  # of a tower that is not square
    difference = np.abs(
        pixels(make_resize(**config)(image)) - pixels(open_clip_resize(**config)(image))
    )
    assert difference.max() == 0 or (is_strip and difference.mean() < 1)


@settings(max_examples=60, deadline=None)
@given(
    short=st.integers(1, 60),
    ratio=st.floats(4, 60),
    is_tall=st.booleans(),
    size=SIZES,
    interpolation=INTERPOLATIONS,
)
def test_strips_are_open_clips_to_rounding(short, ratio, is_tall, **config):
    """The middle of a strip is open_clip's to the rounding between Pillow's two passes."""
    size = (short, int(short * ratio))
    image = noise(*(size if is_tall else size[::-1]))
    difference = pixels(make_resize(**config)(image)) - pixels(open_clip_resize(**config)(image))
    assert np.abs(difference).mean() < 1


def test_a_strip_shows_its_middle():
    """Also of a strip so long that coordinates no longer fit into single precision."""
    image = Image.new("RGB", (2_000_001, 1))
    image.putpixel((1_000_000, 0), (255, 255, 255))
    seen = pixels(make_resize(32)(image))[16, :, 0]
    assert seen[16] > 250
    assert seen[0] == pytest.approx(seen[-1], abs=2)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize(
    "size", [(20_000, 1), (1, 20_000), (1, 60_000), (1_000_000, 1), (3, 900_000)]
)
def test_no_resized_image_is_much_larger_than_the_input(resize_mode, size):
    """Nothing is allocated that the strip itself, or the tower, is not large enough for."""
    with calls_of(Image.Image.resize) as calls:
        assert make_resize(224, resize_mode)(Image.new("RGB", size)).size == (224, 224)
    sizes = [size for _, call in calls for size in (call["self"].size, call["size"])]
    assert sizes
    assert max(w * h for w, h in sizes) <= max(4 * 224 * 224, size[0] * size[1])
