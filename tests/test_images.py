"""Every kind of image to upright RGB, and every kind of broken one to a sentence."""

import contextlib
import io
import os
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from children import run_in_child
from fuzz_images import broken_files, check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from PIL import Image, ImageFile
from watching import calls_of

from sklearn_taskres._clip import images
from sklearn_taskres._clip.files import bytes_to_read
from sklearn_taskres._clip.images import (
    UnreadableImagesError,
    describe_image,
    list_images,
    read_image,
)
from sklearn_taskres._clip.memory import BUDGET, MemoryBudget

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image, file_format="PNG", **kwargs):
    """Bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format, **kwargs)
    return file.getvalue()


def pixels(image):
    read = read_image(image)
    assert read.mode == "RGB"
    return np.asarray(read)


# one picture, many kinds ----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        str,
        Path,
        Path.read_bytes,
        lambda p: bytearray(p.read_bytes()),
        lambda p: memoryview(p.read_bytes()),
    ],
    ids=["str", "Path", "bytes", "bytearray", "memoryview"],
)
def test_files_and_bytes(kind, path):
    """A file gives its pixels, by name or by content."""
    assert_array_equal(pixels(kind(path)), RGB)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RGB),
        RGB,
        RGB.transpose(2, 0, 1),
        RGB / 255,
        (RGB / 255).astype(np.float32),
        (RGB / 255).astype(np.float16),
        torch.tensor(RGB),
        torch.tensor(RGB).permute(2, 0, 1) / 255,
        (torch.tensor(RGB) / 255).requires_grad_(),
    ],
    ids=["pil", "uint8", "CHW", "float64", "float32", "float16", "tensor", "tensor CHW", "grad"],
)
def test_arrays_and_tensors(image):
    """Bytes, floats in [0, 1], channels first or last, tensors: all the same pixels."""
    assert_array_equal(pixels(image), RGB)


@pytest.mark.parametrize("image", [GREY, GREY / 255, Image.fromarray(GREY)])
def test_grey(image):
    """Grey is repeated over the channels."""
    assert_array_equal(pixels(image), np.stack([GREY] * 3, axis=-1))


def test_bfloat16_tensor():
    """A dtype that NumPy lacks is read too."""
    image = torch.tensor([[0, 1], [1, 0]], dtype=torch.bfloat16)
    assert_array_equal(pixels(image)[..., 0], [[0, 255], [255, 0]])


def test_half_precision_is_rounded_as_single_is():
    """The same value gives the same byte in both."""
    half = np.linspace(0, 1, 2049).astype(np.float16).reshape(3, -1)
    assert_array_equal(read_image(half), read_image(half.astype(np.float32)))


@settings(deadline=None)
@given(arrays(np.float64, (3, 5), elements=st.floats(0, 1)))
def test_floats_are_rounded(image):
    """A float is at most half a step of 1/255 away from its byte."""
    assert np.abs(pixels(image)[..., 0] / 255 - image).max() <= 0.5 / 255 + 1e-12


# Pillow's modes -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    """A picture is upright whatever way the camera was held."""
    upside = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # PIL.Image.Transpose that undoes it
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(RGB)
    expected = stored if orientation == 1 else stored.transpose(upside[orientation])
    assert_array_equal(pixels(encoded(stored, exif=exif)), np.asarray(expected))


def test_transparency_shows_white():
    """If an image is transparent, the white page is seen, and not the hidden colour."""
    rgba = np.dstack([RGB, np.full((6, 8), 255, np.uint8)])
    rgba[:, :4, 3] = 0
    expected = RGB.copy()
    expected[:, :4] = 255
    assert_array_equal(pixels(Image.fromarray(rgba)), expected)
    assert_array_equal(pixels(encoded(Image.fromarray(rgba))), expected)


def test_half_transparency_blends():
    """Black at half opacity on white is grey."""
    image = Image.new("LA", (2, 2), (0, 128))
    assert_array_equal(pixels(image), np.full((2, 2, 3), 127))


def test_palette():
    """A palette's colours are looked up before anything is resized."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert_array_equal(pixels(image), [[[255, 0, 0], [0, 0, 255]]])
    image.info["transparency"] = 0
    assert_array_equal(pixels(encoded(image)), [[[255, 255, 255], [0, 0, 255]]])


def test_transparent_colour_of_rgb():
    """A PNG's single transparent colour shows white too."""
    image = Image.new("RGB", (1, 1), (9, 9, 9))
    assert_array_equal(pixels(encoded(image, transparency=(9, 9, 9))), [[[255] * 3]])


def test_cmyk_is_converted():
    """Print colours become screen colours."""
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert_array_equal(pixels(image), [[[255, 0, 0]]])


def test_one_bit():
    """A one-bit image is black and white."""
    assert_array_equal(pixels(Image.new("1", (1, 1), 1)), [[[255] * 3]])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled(file_format):
    """Sixteen bits are scaled to eight, not cut at 255, from memory and from files."""
    values = np.array([[0, 255, 257, 32768, 65535]], dtype=np.uint16)
    expected = np.repeat(np.array([[[0], [1], [1], [128], [255]]]), 3, axis=2)
    assert_array_equal(pixels(Image.fromarray(values)), expected)
    assert_array_equal(pixels(encoded(Image.fromarray(values), file_format)), expected)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_white(mode):
    """Modes whose white is a guess are refused, saying what to pass."""
    with pytest.raises(ValueError, match=r"which value is white; pass an array"):
        read_image(Image.new(mode, (2, 2)))


def test_first_frame():
    """Of an animation the first frame is taken."""
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_array_equal(pixels(animation)[0, 0], [255, 0, 0])


def test_input_is_left_alone():
    """The caller's image keeps its mode and its pixels."""
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    read_image(image)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (1, 2, 3, 4)
    same = Image.new("RGB", (2, 2))
    assert read_image(same) is not same


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files as Linux lists them")
def test_no_file_stays_open(path, tmp_path):
    """Neither a good nor a broken file is left open."""
    (tmp_path / "cut.png").write_bytes(path.read_bytes()[:-60])
    before = os.listdir("/proc/self/fd")
    read = [read_image(path)]
    for broken in (tmp_path / "cut.png", __file__):
        with pytest.raises(ValueError, match=r"\w"):
            read_image(broken)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert read[0].getpixel((0, 0)) == tuple(RGB[0, 0])


# what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (RGB.astype(np.int64), "an array of int64; make it uint8, or float in"),
        (RGB.astype(np.uint16), "an array of uint16"),
        (RGB > 9, "an array of bool"),
        (np.array([[0.0, 255.0]]), "values from 0 to 255; scale it to"),
        (np.array([[-0.5, 0.5]]), "values from -0.5 to 0.5"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), np.inf), "infinite"),
        (np.zeros((2, 2, 4), np.uint8), r"shape \(2, 2, 4\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 2, 3), np.uint8), "no pixel"),
        (np.array(3.0), r"shape \(\)"),
        (b"not an image", "not an image file"),
        ("no/such/file.png", "No such file"),
        (None, "a missing value, not an image, which is a path"),
        (np.nan, "a missing value, not an image"),
        (pd.NA, "a missing value, not an image"),
        (pd.NaT, "a missing value, not an image"),
        ([[1, 2]], "not an image, which is a path"),
    ],
)
def test_refused(image, reason):
    """What is not an image, or has no clear white, is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        read_image(image)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated(file_format, part):
    """A file that ends too soon is refused, and not half read."""
    content = encoded(
        Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), file_format
    )
    with pytest.raises(ValueError, match=r"\w"):
        read_image(content[: int(part * len(content))])


def test_decompression_bomb(pixel_limit):
    """More pixels than Pillow thinks safe are refused, where Pillow itself only warns."""
    pixel_limit(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match="8 x 6 pixels, more than Pillow's safety limit of 40"):
            read_image(encoded(Image.fromarray(RGB)))


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    """A hole of a terabyte is refused by its size."""
    with (tmp_path / "huge.png").open("wb") as file:
        file.write(encoded(Image.fromarray(RGB)))
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="a file of 1099511627776 bytes, larger than an image"):
        read_image(tmp_path / "huge.png")


def test_what_is_no_regular_file(tmp_path):
    """A folder is refused, and a pipe is not waited for."""
    with pytest.raises(ValueError, match="a folder; load_image_folder lists"):
        read_image(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="not a regular file"):
            read_image(tmp_path / "pipe")


def test_formats_that_start_programs_are_not_decoded():
    """Pillow knows EPS, and would have Ghostscript run it."""
    content = encoded(Image.fromarray(RGB), "EPS")
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "EPS"
    with pytest.raises(ValueError, match="not an image file of a supported format"):
        read_image(content)


def test_a_jpeg_of_many_scans():
    """A short file can ask for thousands of passes over its pixels."""
    content = encoded(Image.fromarray(RGB), "JPEG", progressive=True)
    assert read_image(content).size == (8, 6)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="a JPEG of more than 100 scans"):
        read_image(content[:-2] + 100 * last_scan + content[-2:])


def many_tags(size=20_000, n_tags=3000, first=()):
    """Metadata whose tags each claim the whole of their block; `first` are others, with numbers."""
    tags = [struct.pack("<HHII", *tag, 1, value) for *tag, value in first]
    tags += [struct.pack("<HHII", 60_000 + i, 7, size, 8) for i in range(n_tags)]
    head = b"II*\0" + struct.pack("<I", 8 + size) + bytes(size)
    return head + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_metadata_read_over_and_over(file_format):
    """Thousands of tags that each claim the whole of a block do not multiply its memory."""
    if file_format == "TIFF":  # 8 x 6 pixels of 8 bits of grey, in the first bytes of the block
        header = [(256, 3, 8), (257, 3, 6), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
        content = many_tags(first=[*header, (273, 4, 8), (278, 3, 6), (279, 4, 48)])
        with pytest.raises(ValueError, match="not an image file"):
            read_image(many_tags())
    else:
        exif = b"Exif\0\0" + many_tags()
        content = encoded(Image.fromarray(RGB), file_format, exif=exif)
    assert read_image(content).size == (8, 6)
    image = Image.open(io.BytesIO(content))
    assert read_image(image).size == (8, 6)
    kept = [value for value in image.getexif().values() if isinstance(value, bytes)]
    assert 0 < sum(map(len, kept)) <= len(content)  # 60 MB if each tag were kept


@pytest.mark.parametrize("change", ["behind", "within"])
def test_scans_are_counted_to_the_end_of_the_image(change):
    """What a motion photo has behind its end does not count; metadata have no end of an image."""
    content = encoded(Image.fromarray(RGB), "JPEG", progressive=True)
    if change == "behind":
        assert read_image(content + 200 * b"\xff\xda").size == (8, 6)
        return
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    with pytest.raises(ValueError, match="a JPEG of more than 100 scans"):
        read_image(content[:2] + comment + content[2:-2] + 100 * last_scan + content[-2:])


def test_a_jpeg_of_segments_without_end():
    """Walking over a file that is nothing but small segments ends soon."""
    content = encoded(Image.fromarray(RGB), "JPEG")[:-2]
    scans = 200 * b"\xff\xda"
    with pytest.raises(ValueError, match="more than 100 scans"):
        read_image(content + 20_000 * b"\xff\xfe\x00\x02" + scans)


@pytest.mark.parametrize("file_format", ["WEBP", "JPEG2000", "AVIF"])
def test_costly_decoders_have_a_limit_of_their_own(file_format, pixel_limit):
    """Formats that take more memory per pixel are refused at fewer pixels, in our words."""
    if file_format not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {file_format}")
    pixel_limit(64 * 64)
    big, bigger = Image.new("RGB", (44, 44)), Image.new("RGB", (64, 64))
    read_image(encoded(big, file_format))
    with pytest.raises(ValueError, match=rf"64 x 64 pixels of {file_format}, which take .* raise"):
        read_image(encoded(bigger, file_format))
    assert read_image(encoded(bigger, "PNG")).size == (64, 64)


def test_rows_count_too():
    """Pillow keeps a pointer to each row, so that a column of pixels takes more than a row."""
    row, column = Image.new("L", (100_000, 1)), Image.new("L", (1, 100_000))
    assert bytes_to_read(column) > 2 * bytes_to_read(row)


def test_far_too_many_pixels(pixel_limit):
    """If Pillow itself refuses, the limit that is named is still the documented one."""
    pixel_limit(20)
    with pytest.raises(ValueError, match=r"^more than 20 pixels, Pillow's safety limit; raise "):
        read_image(encoded(Image.fromarray(RGB)))


def test_images_opened_lazily_have_the_same_limits(pixel_limit):
    """A bomb that the user opened is refused before it is decoded; a decoded image is read."""
    lazy = Image.open(io.BytesIO(encoded(Image.fromarray(RGB))))
    pixel_limit(40)
    with pytest.raises(ValueError, match="8 x 6 pixels, more than Pillow's safety limit of 40"):
        read_image(lazy)
    assert read_image(Image.fromarray(RGB)).size == (8, 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_bands_change_nothing(mode):
    """Converting some rows at a time gives the pixels of the whole."""
    shape = (700, 4000)  # some bands of a million pixels
    image = Image.fromarray(RNG.integers(0, 65536, shape, dtype=np.uint16))
    if mode != "I;16":
        image = Image.fromarray(RNG.integers(0, 256, (*shape, 4), dtype=np.uint8)).convert(mode)
        if mode == "P":
            image.info["transparency"] = 3
    narrow = [image.crop((left, 0, left + 1000, 700)) for left in range(0, 4000, 1000)]  # no bands
    assert_array_equal(pixels(image), np.concatenate([pixels(part) for part in narrow], axis=1))


# what Pillow and torch raise ------------------------------------------------------------------


def _closed():
    image = Image.open(io.BytesIO(encoded(Image.fromarray(RGB))))
    image.close()
    return image


class _Raises:
    def __fspath__(self):
        raise RuntimeError("boom")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image.open(io.BytesIO(encoded(Image.fromarray(RGB), "JPEG")[:-9])),
        lambda: Image.open(io.BytesIO(encoded(Image.fromarray(RGB))[:-30])),
        _closed,
        lambda: Image.new("RGB", (0, 0)),
        lambda: Image.new("RGB", (0, 5)),
        lambda: torch.zeros(3, 8, 8, device="meta"),
        lambda: torch.eye(8).to_sparse(),
        lambda: torch.zeros(8, 8, dtype=torch.complex64).conj(),
        lambda: torch.zeros(8, 8).to(torch.float8_e4m3fn).view(torch.uint8).unsqueeze(0).to("meta"),
        _Raises,
        lambda: "a\0b.jpg",
        lambda: "x" * 5000,
    ],
    ids=[
        *("cut jpeg", "cut png", "closed", "0x0", "0x5", "meta", "sparse", "conj", "meta uint8"),
        *("fspath", "null byte", "long name"),
    ],
)
def test_whatever_is_raised_is_one_error(make):
    """What can't be read is a ValueError with a reason, and has a name."""
    image = make()
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_image(image)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert describe_image(image)


@pytest.fixture
def heif_reader():
    """Register a class that reads HEIF, as a plugin of Pillow does; the former one comes back."""
    heif, before = "HEIF", Image.OPEN.get("HEIF")
    yield lambda reader: Image.register_open(heif, reader, lambda head: head[4:12] == b"ftypheic")
    if before is not None:
        Image.register_open(heif, *before)
    elif heif in Image.OPEN:
        Image.ID.remove(heif)
        del Image.OPEN[heif]


#: What a file of HEIF begins with.
HEIF = b"\0\0\0\x18ftypheic" + bytes(40)


class FakeHeif(ImageFile.ImageFile):
    """Takes the first bytes of a file for 3 x 2 pixels of grey."""

    format = "HEIF"

    def _open(self):
        self._mode, self._size, self.tile = "L", (3, 2), [("raw", (0, 0, 3, 2), 0, ("L", 0, 1))]


@pytest.mark.parametrize("error", [MemoryError("none left"), TimeoutError("an alarm")])
def test_what_is_not_the_images_fault_goes_on(error, heif_reader):
    """No memory, or an alarm that rings meanwhile, does not make an image unreadable."""

    class Failing(FakeHeif):
        def load(self):
            raise error

    heif_reader(Failing)
    with pytest.raises(type(error), match=str(error)):
        read_image(HEIF)
    with Image.open(io.BytesIO(HEIF)) as image, pytest.raises(type(error), match=str(error)):
        read_image(image)


def test_a_plugin_may_be_registered_at_any_time(heif_reader):
    """A format that comes after the first image is read; until then HEIF says what helps."""
    read_image(encoded(Image.fromarray(RGB)))
    if "HEIF" not in Image.OPEN:
        with pytest.raises(ValueError, match="install pillow-heif and call"):
            read_image(HEIF)
    heif_reader(FakeHeif)
    assert read_image(HEIF).size == (3, 2)


# memory ---------------------------------------------------------------------------------------


def test_threads_share_a_budget():
    """What is reserved at one time stays within the budget, or is one reservation alone."""
    budget, held, peaks = MemoryBudget(100), [], []
    changing = threading.Lock()

    def work(n_bytes):
        with budget.reserve(n_bytes):
            with changing:
                held.append(n_bytes)
                peaks.append(list(held))
            with changing:
                held.remove(n_bytes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, 50 * [10, 40, 60, 150]))
    assert len(peaks) == 200
    assert all(sum(peak) <= 100 or len(peak) == 1 for peak in peaks)


def test_a_reservation_left_by_an_interrupt_is_no_obstacle():
    """The next one of the same thread replaces it."""
    budget = MemoryBudget(100)
    left = budget.reserve(80)
    left.__enter__()
    with budget.reserve(90):
        pass


def test_lent_memory_is_free_for_others():
    """Inside `lend` another thread may have all of it, as an `augment` that embeds needs."""
    budget = MemoryBudget(100)

    def take():
        with budget.reserve(100):
            return True

    with budget.reserve(90), ThreadPoolExecutor(1) as pool, budget.lend():
        assert pool.submit(take).result(timeout=30)


def test_an_image_is_freed_before_its_memory_is_given_back():
    """Whoever still refers to it keeps no pixels while others decode theirs."""
    freed, told = Image.Image.close, threading.Condition.notify_all
    content = encoded(Image.fromarray(RGB))
    with contextlib.ExitStack() as after, images.open_image(content) as (upright, _):
        assert upright.tobytes() == RGB.tobytes()
        calls = after.enter_context(calls_of(freed, told))
    assert [function for function, _ in calls] == [freed, told]
    assert calls[0][1]["self"] is upright
    with pytest.raises(ValueError, match="closed"):
        upright.tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_does_not_wait_for_threads_that_it_does_not_have():
    """Fork while another thread decodes a large image, and a third waits: the child reads one."""
    content, decoding, done = encoded(Image.fromarray(RGB)), threading.Event(), threading.Event()

    def decode():
        with BUDGET.reserve(1 << 40):
            decoding.set()
            done.wait(60)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(decode)
        decoding.wait(60)
        waiting = pool.submit(read_image, content)
        try:
            assert run_in_child(lambda: read_image(content)) == 0
        finally:
            done.set()
        assert waiting.result(timeout=60).size == (8, 6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(broken_files())
def test_broken_files_are_read_or_refused(file):
    """Mutations of real files give an image or our own error; fuzz_images.py tries many more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about broken metadata
        assert check(*file) in ("read", "refused")


# collections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 6, 8, 3), (2, 3, 6, 8)])
def test_stacks(shape):
    """A stack of images is a sequence of them."""
    images = list_images(np.zeros(shape, np.uint8))
    assert len(images) == 2
    assert read_image(images[1]).size == (8, 6)


def test_series_and_object_arrays():
    """Columns of pandas and polars, object arrays, lists and tuples hold images in their order."""
    pl = pytest.importorskip("polars")
    paths = ["b.png", "a.png"]
    for X in (
        pd.Series(paths, index=[7, 3]),
        pl.Series(paths),
        np.array(paths, object),
        tuple(paths),
    ):
        assert list(list_images(X)) == paths


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("photo.png", r"Got str instead: put a single image into a list"),
        (b"content", "Got bytes"),
        (Path("photo.png"), "Path instead"),
        (Image.new("RGB", (1, 1)), "Got Image instead"),
        (iter(["a.png"]), "Got list_iterator instead"),
        (None, "Got NoneType"),
        ([], "holds no image"),
        (np.zeros((0, 4, 4)), "holds no image"),
        (RGB, r"one colour image.*Pass X\[None\]"),
        (np.zeros((5, 64)), r"shape \(5, 64\) is not a stack.*X\.reshape"),
        (torch.zeros(5, 64), r"shape \(5, 64\) is not a stack"),
        (np.array([["a.png", "b.png"]]), "select the column"),
        (np.arange(3), r"holds numbers \(int64\), not images\. Pass the column"),
        (torch.zeros(2, 8, 8, device="meta"), "X can't be read: "),
    ],
)
def test_not_a_collection_of_images(X, message):
    """What is not a sequence of images is refused, saying what would do."""
    with pytest.raises(ValueError, match=message):
        list_images(X)


def test_one_column_is_read():
    """A data frame, or an array, of one column holds its images; of more columns it is refused."""
    pl = pytest.importorskip("polars")
    paths = ["b.png", "a.png"]
    for X in (
        pd.DataFrame({"path": paths}, index=[7, 3]),
        pd.DataFrame({"path": pd.array(paths, dtype="string")}),
        pl.DataFrame({"path": paths}),
        np.array(paths)[:, None],
        np.array(paths, object)[:, None],
    ):
        assert list(list_images(X)) == paths
        assert list(list_images(X)) == paths
    arrays_ = [RGB, GREY]
    for image, same in zip(list_images(pd.DataFrame({"x": arrays_})), arrays_, strict=True):
        assert_array_equal(image, same)
    with pytest.raises(ValueError, match=r"DataFrame of shape \(1, 2\).*select the column"):
        list_images(pd.DataFrame({"path": ["a.png"], "label": ["a"]}))


@pytest.mark.parametrize("X", [{"a.png"}, frozenset(["a.png"]), {"a.png": 1}, {"a.png": 1}.keys()])
def test_what_has_no_order_is_refused(X):
    """Labels could not be matched to a set or a dict."""
    with pytest.raises(ValueError, match=r"in the order of their labels\. Got \w+ instead: pass a"):
        list_images(X)


def test_describe():
    """An image is named by its path, or else by what it is."""
    assert describe_image(Path("a") / "b.png") == os.path.join("a", "b.png")
    assert describe_image(RGB) == "ndarray of shape (6, 8, 3)"
    assert describe_image(b"") == "bytes"


def test_error_names_ten_and_counts_the_rest():
    """A long list of failures is cut in the message, not on the error."""
    error = UnreadableImagesError([(i, f"{i}.png", "gone") for i in range(25)])
    assert "9: 9.png: gone" in str(error)
    assert "10.png" not in str(error)
    assert str(error).endswith("… and 15 more (see error.failures)")
    assert len(error.failures) == 25
